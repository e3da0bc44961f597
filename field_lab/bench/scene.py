"""The country of the bench: real daemons over TLS on loopback, each with its trace.

Site A pushes; site L does so over a link that can be spoiled; the others push at once. New sites that read a store of
site A are added as they are needed; each has a store of its own, to which that store is visible.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.rpc.local_channel import execute, synchronise
from engine.rpc.trace import VARIABLE
from field_lab.bench.clock import has_left
from field_lab.bench.supplies import Supplies
from field_lab.country import Country, SiteNode

_SELDOM = ("--every", "100000")
_JOINING_AT_ONCE = 4
_LOOK_SECONDS = 0.05


@dataclass
class Scene:
    """The nodes and the stores that are active at them."""

    country: Country
    supplies: Supplies
    pushing: SiteNode
    """Site A."""
    pushed_stores: list[str]
    """One for each run."""
    linked: SiteNode
    """Site L, which reaches the central through its link."""
    linked_store: str
    many: list[SiteNode]
    many_stores: list[str]
    """The store of each of `many`."""
    readers_stores: list[str]
    """One for the reader of each run."""
    readers: list[SiteNode] = field(default_factory=list)


def trace_of(site: SiteNode) -> Path:
    """The file to which a site's daemon writes its trace."""
    return site.directory.with_name(site.directory.name + ".trace")


async def set_up(country: Country, supplies: Supplies, runs: int, sites: int) -> Scene:
    """Imports the catalogue, joins the sites and starts their daemons; they synchronise only when they are asked."""
    stores, readers_stores = supplies.stores(runs + 1 + sites), supplies.stores(runs)
    for table, file in supplies.write_catalogue(country.folder, [*stores, *readers_stores]).items():
        await country.import_file(table, file)
    pushed, linked, many = stores[:runs], stores[runs], stores[runs + 1 :]
    every = [await _expect(country, [store]) for store in (linked, *many)]
    every.insert(0, await _expect(country, pushed))
    allowed = asyncio.Semaphore(_JOINING_AT_ONCE)

    async def join(site: SiteNode, token: str) -> None:
        async with allowed:
            await _join(country, site, token, over_link=site is every[1][0])
            await site.start(*_SELDOM)

    await asyncio.gather(*(join(site, token) for site, token in every))
    nodes = [site for site, _ in every]
    for site in nodes:
        await synchronise_until_agreed(site)
    return Scene(country, supplies, nodes[0], pushed, nodes[1], linked, nodes[2:], many, readers_stores)


async def add_reader(scene: Scene, run: int) -> SiteNode:
    """Joins a new site, which has the catalogue then and a store without data."""
    site, token = await _expect(scene.country, [scene.readers_stores[run]])
    await _join(scene.country, site, token, over_link=False)
    scene.readers.append(site)
    return site


async def synchronise_until_agreed(site: SiteNode) -> None:
    """Has a daemon synchronise until both sides agree and it has said goodbye. A link that is cut meanwhile is dialled
    again by the daemon."""
    agreed = False
    while not agreed:
        agreed = (await synchronise(site.directory, lambda _phase, _remaining: None))["in_agreement"]
    while not has_left(trace_of(site)):  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(_LOOK_SECONDS)


async def _expect(country: Country, stores: Sequence[str]) -> tuple[SiteNode, str]:
    directory = country.central.directory
    site, token = await country.expect(f"Site {len(country.sites)}")
    for store in stores:
        await execute(directory, "store assign", {"store": store, "site": site.number, "central": "collector"})
    site.environment = site.environment | {VARIABLE: str(trace_of(site))}
    return site, token


async def _join(country: Country, site: SiteNode, token: str, over_link: bool) -> None:
    port = site.link.port if over_link else country.grpc_port
    done = await site.command("join", "DIR", "--central", f"127.0.0.1:{port}", "--token", token, "--json")
    if done.exit_code:
        raise RuntimeError(f"a site could not join: {done.stdout}{done.stderr}")

"""The country in which a script is played: real daemons, commands as an operator types them, and what is refused.

Daemons are processes of their own. The commands run inside the test, which spares each of them the second that Python
needs to start; like any other they reach a daemon through the door in its directory.
"""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import structlog
from click.testing import CliRunner

from central_node.cli import main as central_main
from field_lab.country import Country, Node, SiteNode
from field_lab.link import LinkConditions, SpoiledLink
from site_node.cli import main as site_main
from tests.scenarios.records import CUSTOMER, ITEM, UNIT

ROUNDS = 5
"""How often everybody synchronises at most until nothing is left to be done."""
_PROGRAMS: Mapping[str, click.Command] = {"central_node": central_main, "site_node": site_main}
_SCHEDULE_MINUTES = "10000"


class NotDone(Exception):
    """A command or an edit was refused; the text is what was said."""


class Scene(Country):
    """The country. Sites are called as the script calls them; the first one is the central node."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.nodes: dict[str, Node] = {}
        self.numbers: dict[str, int] = {}
        self._programs: dict[str, sqlite3.Connection] = {}

    async def __aenter__(self) -> "Scene":
        addresses = ("--grpc", f"127.0.0.1:{self.grpc_port}", "--web", f"127.0.0.1:{self.web_port}")
        await self.at_central("init", "DIR", *addresses)
        await self.central.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        for connection in self._programs.values():
            connection.close()
        await super().__aexit__(*exception)

    async def open(self, names: Sequence[str], stay_connected: bool) -> None:
        """Expects and joins the sites, and starts their daemons; without `stay_connected` nothing travels before the
        script says that somebody synchronises."""
        self.nodes[names[0]], self.numbers[names[0]] = self.central, 1
        program = self.program(names[0])
        program.execute("INSERT INTO unit (id, name) VALUES (?1, ?1)", (UNIT,))
        program.execute("INSERT INTO item (id, name, unit_id) VALUES (?1, ?1, ?2)", (ITEM, UNIT))
        program.execute("INSERT INTO name (id, name, is_customer) VALUES (?1, ?1, 1)", (CUSTOMER,))
        schedule = () if stay_connected else ("--every", _SCHEDULE_MINUTES)
        async with asyncio.TaskGroup() as starts:
            for name in names[1:]:
                site = await self._join(name)
                starts.create_task(site.start(*schedule))
        await self.synchronise_all()  # a daemon begins with a session of its own; nothing is left of it afterwards

    async def _join(self, name: str) -> SiteNode:
        told = await self.command(self.central, "site", "add", "DIR", name)
        link = SpoiledLink(("127.0.0.1", self.grpc_port), LinkConditions())
        await link.start()
        directory = self.folder / f"site-{told['site']}"
        site = SiteNode(int(told["site"]), directory, self.environment, link)
        self.sites.append(site)
        self.nodes[name], self.numbers[name] = site, site.number
        await self.command(site, "join", "DIR", "--central", f"127.0.0.1:{link.port}", "--token", told["token"])
        return site

    def program(self, name: str) -> sqlite3.Connection:
        """Another program at a site, which keeps the site's database open beside the daemon."""
        if name not in self._programs:
            self._programs[name] = sqlite3.connect(self.nodes[name].database, timeout=30, isolation_level=None)
        return self._programs[name]

    async def command(self, node: Node, *words: str) -> dict[str, Any]:
        """Types a command with --json; returns what it printed. Raises NotDone with what it said."""
        exit_code, told, said = await self._typed(node, *words)
        if exit_code:
            raise NotDone(said)
        return told

    async def at_central(self, *words: str) -> dict[str, Any]:
        """Types a command at the central."""
        return await self.command(self.central, *words)

    async def _typed(self, node: Node, *words: str) -> tuple[int, dict[str, Any], str]:
        arguments = [str(node.directory) if word == "DIR" else word for word in words]
        environment = {"PACKHORSE_STATE": self.environment["PACKHORSE_STATE"]}
        return await asyncio.to_thread(_run, _PROGRAMS[node.module], [*arguments, "--json"], environment)

    async def synchronise(self, name: str) -> None:
        """Types `sync` at a site, which may well say that the sides do not agree yet."""
        _, told, said = await self._typed(self.nodes[name], "sync", "DIR")
        assert told.get("error", said) is None, f"{name} could not synchronise: {told or said}"

    async def synchronise_all(self) -> None:
        """Every site synchronises, again and again until nothing is left to be done."""
        left: list[str] = []
        for _ in range(ROUNDS):
            for name in [*self.nodes][1:]:
                await self.synchronise(name)
            if not (left := await self._left_to_do()):
                return
        raise AssertionError(f"after {ROUNDS} rounds there is still something to be done: {'; '.join(left)}")

    async def _left_to_do(self) -> list[str]:
        """What keeps the country from agreement, in words; and what a site holds is what the central says it holds."""
        central = await self.at_central("status", "DIR")
        left = [] if central["in_agreement"] else [f"the central is {central['state']}: {central['sites']}"]
        for name, node in [*self.nodes.items()][1:]:
            told = await self.command(node, "status", "DIR")
            waits = ("waiting_to_push", "waiting_to_pull", "held", "fetching", "evicting", "kept_aside", "left_behind")
            left += [f"{name}: {what} {told[what]}" for what in waits if told[what]]
            if self._copies(name, name) != self._copies(next(iter(self.nodes)), name):
                left.append(f"{name} does not know which copies of stores it holds")
        return left

    def _copies(self, at: str, of: str) -> set[tuple[str, str]]:
        """(store, type) of the copies that a site holds, as one site knows it."""
        query = "SELECT store_id, type FROM store_copy WHERE site = ?"
        return set(self.program(at).execute(query, (self.numbers[of],)))


def _run(program: click.Command, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, Any, str]:
    """(exit code, the JSON that was printed, what was said to a person)."""
    before = structlog.get_config()
    try:
        result = CliRunner(env=environment).invoke(program, arguments)
    finally:
        structlog.configure(**before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout.startswith("{") else {}, result.stderr

"""What a change of the topology does: who gains and loses which scopes and records, and how many."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Container
from typing import Any, Literal

from central_node.storage.copies import automatic_changes, visible_at, write_copies
from central_node.storage.follow_up import live_records, queue_withheld
from central_node.storage.routing import Router
from engine.catalogue.model import Catalogue
from engine.errors import Refused
from engine.limits import COUNT_CAP
from engine.rules.copies import topology_faults
from engine.rules.routing import subscriptions_of
from engine.rules.topology import CopyType, Topology
from engine.storage.configuration import read_topology
from engine.storage.feeds import scopes_in_force
from engine.storage.records import Key, read_rows
from engine.storage.work import Processor, waiting_work

Change = Callable[[sqlite3.Connection], dict[str, Any]]
"""A change inside a write transaction; returns what a person is told of it."""
Moved = Counter[tuple[Literal["gains", "loses"], str]]
"""(gains or loses, scope) -> records."""


def change_topology(
    connection: sqlite3.Connection, catalogue: Catalogue, change: Change, dry_run: bool
) -> dict[str, Any]:
    """Makes a change with every copy that comes or goes because of it, checks the whole, and tells what it does.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        change: what is to be done first.
        dry_run: take everything back afterwards.

    Raises:
        Refused: by the change itself, or because the topology would break a rule; nothing is changed then.
    """
    before, waiting = read_topology(connection), _to_route(connection)
    connection.execute("SAVEPOINT change")
    told = change(connection)
    after = read_topology(connection)
    while changes := automatic_changes(after, visible_at(connection, catalogue)):
        write_copies(connection, changes)
        after = read_topology(connection)
    if faults := topology_faults(after):
        raise Refused(faults[0].code, faults[0].says)
    sites = scopes_changed(connection, before, after)
    _add_records(sites, after, records_moved(connection, catalogue, after, set(waiting)))
    told |= {"copies": copies_changed(before, after), "sites": sites}
    if dry_run:
        connection.execute("ROLLBACK TO change")
    connection.execute("RELEASE change")
    return told | {"dry_run": dry_run}


def copies_changed(before: Topology, after: Topology) -> list[dict[str, Any]]:
    """Each copy that differs: store, site, what it was and what it is."""
    return [
        {"store": store, "site": site, "before": was.value, "after": now.value}
        for store, site in sorted(before.copies.keys() | after.copies.keys())
        if (was := before.copy_type(store, site)) is not (now := after.copy_type(store, site))
    ]


def scopes_changed(connection: sqlite3.Connection, before: Topology, after: Topology) -> list[dict[str, Any]]:
    """Each site that follows other scopes than before: its number, what it gains and what it loses."""
    told = []
    for site in sorted(after.sites):
        if _same(site, before, after):
            continue
        had, has = subscriptions_of(site, before), subscriptions_of(site, after)
        gains, loses = [scope for scope in has if scope not in had], [scope for scope in had if scope not in has]
        if gains or loses:
            counted = {"gains": _counted(connection, gains), "loses": _counted(connection, loses)}
            told.append({"site": site, "name": after.sites[site].name, **counted})
    return told


def records_moved(
    connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, waiting: Container[Key]
) -> Moved:
    """What comes into scopes and leaves them because a change has documents routed again: those of which the visibility
    or the store's setting for transactions has changed, the first COUNT_CAP of them.

    Args:
        connection: inside the transaction of the change.
        catalogue: the tables.
        topology: as it is after the change.
        waiting: documents that were to be routed before it.
    """
    connection.execute("SAVEPOINT moved")
    queue_withheld(connection, catalogue, topology)
    roots = [key for key in _to_route(connection) if key not in waiting]
    connection.execute("ROLLBACK TO moved")
    connection.execute("RELEASE moved")
    router, moved = Router(connection, catalogue, topology), Moved()
    router.read(roots)
    for key in roots:
        root = catalogue[key[0]]
        row = read_rows(connection, root, [key[1]]).get(key[1])
        if row is None:
            continue
        were, are = set(scopes_in_force(connection, key)), set(router.scopes(root, row))
        records = len(live_records(connection, catalogue, root, key[1]))
        for word, scopes in (("gains", are - were), ("loses", were - are)):
            for scope in scopes:
                moved[word, scope] += records  # type: ignore[index]
    return moved


def _to_route(connection: sqlite3.Connection) -> list[Key]:
    return [work.key for work in waiting_work(connection, COUNT_CAP) if work.processor is Processor.ROUTE]


def _add_records(sites: list[dict[str, Any]], topology: Topology, moved: Moved) -> None:
    """Tells each site that follows a scope before and after what it gains and loses in it."""
    if not moved:
        return
    told = {site["site"]: site for site in sites}
    for number in sorted(topology.sites):
        site = told.get(number, {"site": number, "name": topology.sites[number].name, "gains": [], "loses": []})
        others = {scope["scope"] for word in ("gains", "loses") for scope in site[word]}
        kept = set(subscriptions_of(number, topology)) - others
        for (word, scope), records in sorted(moved.items()):
            if scope in kept:
                site[word].append({"scope": scope, "records": records})
        if number not in told and (site["gains"] or site["loses"]):
            sites.append(site)


def _same(site: int, before: Topology, after: Topology) -> bool:
    """Whether nothing differs that a site's subscriptions depend on."""
    return (
        site in before.sites
        and before.copies_at(site) == after.copies_at(site)
        and before.has_dispensary(site) == after.has_dispensary(site)
        and not before.is_primary(site)
        and not after.is_primary(site)
    )


def _counted(connection: sqlite3.Connection, scopes: list[str]) -> list[dict[str, Any]]:
    query = (
        "SELECT count(*) FROM (SELECT 1 FROM sync_membership WHERE state = 0 AND position > 0 AND scope ="
        f" (SELECT scope FROM sync_scope WHERE name = ?) LIMIT {COUNT_CAP + 1})"
    )
    return [{"scope": scope, "records": connection.execute(query, (scope,)).fetchone()[0]} for scope in scopes]


def describe_copy(copy: CopyType) -> str:
    """The word for a copy in a sentence."""
    return "no copy" if copy is CopyType.NONE else f"{'an' if copy is CopyType.ACTIVE else 'a'} {copy.value} copy"

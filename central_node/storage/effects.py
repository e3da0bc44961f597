"""What a change of the topology does: who gains and loses which scopes, and how many records are in them."""

import sqlite3
from collections.abc import Callable
from typing import Any

from central_node.storage.copies import automatic_changes, visible_at, write_copies
from engine.catalogue.model import Catalogue
from engine.errors import Refused
from engine.limits import COUNT_CAP
from engine.rules.copies import topology_faults
from engine.rules.routing import subscriptions_of
from engine.rules.topology import CopyType, Topology
from engine.storage.configuration import read_topology

Change = Callable[[sqlite3.Connection], dict[str, Any]]
"""A change inside a write transaction; returns what a person is told of it."""


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
    before = read_topology(connection)
    connection.execute("SAVEPOINT change")
    told = change(connection)
    after = read_topology(connection)
    while changes := automatic_changes(after, visible_at(connection, catalogue)):
        write_copies(connection, changes)
        after = read_topology(connection)
    if faults := topology_faults(after):
        raise Refused(faults[0].code, faults[0].says)
    told |= {"copies": copies_changed(before, after), "sites": scopes_changed(connection, before, after)}
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

"""The topology as a node's tables tell it, and the rights that follow from it."""

import sqlite3
from collections.abc import Mapping

from engine.rules.authority import Owner, Right, is_collected, rights_of
from engine.rules.topology import Copy, CopyType, Site, Topology
from engine.rules.versions import Term

CONFIGURATION_TABLES = frozenset(("site", "store_copy"))
"""The tables of kind sync that make up the topology."""


def read_topology(connection: sqlite3.Connection) -> Topology:
    """All sites and copies that this node knows. A copy type that this program does not know counts as none."""
    sites = [
        Site(int(row[0]), row[1], bool(row[2]), Term(row[3], row[4]))
        for row in connection.execute("SELECT id, name, is_primary, term, term_id FROM site")
        if row[0].isdigit()
    ]
    types = {known.value for known in CopyType}
    copies = [
        Copy(row[0], row[1], CopyType(row[2]), Term(row[3], row[4]))
        for row in connection.execute("SELECT store_id, site, type, term, term_id FROM store_copy")
        if row[2] in types
    ]
    return Topology.of(sites, copies)


def write_rights(
    connection: sqlite3.Connection, site: int, topology: Topology, more: Mapping[Owner, Term] | None = None
) -> None:
    """Makes the rights that triggers read equal to what the topology says, in the transaction that changed it.

    Pending changes keep the term under which they were made (F57, F6).
    """
    rights = rights_of(site, topology) | dict(more or {})
    wanted = {(o.right.value, o.key): (*term, int(is_collected(o, topology))) for o, term in rights.items()}
    there = {
        (row[0], row[1]): (row[2], row[3], row[4])
        for row in connection.execute("SELECT owner, key, term, term_id, pushes FROM sync_authority")
    }
    connection.executemany(
        "DELETE FROM sync_authority WHERE owner = ? AND key = ?", [key for key in there if key not in wanted]
    )
    connection.executemany(
        "INSERT OR REPLACE INTO sync_authority VALUES (?, ?, ?, ?, ?)",
        [(*key, *value) for key, value in wanted.items() if there.get(key) != value],
    )


def read_rights(connection: sqlite3.Connection) -> frozenset[Owner]:
    """The rights that this node holds now."""
    return frozenset(
        Owner(Right(row[0]), row[1]) for row in connection.execute("SELECT owner, key FROM sync_authority")
    )

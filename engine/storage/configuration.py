"""The topology as a node's tables tell it, and the rights that follow from it."""

import sqlite3
from collections.abc import Mapping

from engine.catalogue.model import Catalogue, Kind
from engine.rules.authority import Owner, Right, is_collected, rights_of
from engine.rules.topology import CENTRAL_SITE, CONFIGURATION_TABLES, Copy, CopyType, Site, Store, Topology
from engine.rules.versions import Term

TOPOLOGY_TABLES = CONFIGURATION_TABLES | {"store"}
"""Every table that the topology is read from."""


def read_topology(connection: sqlite3.Connection) -> Topology:
    """All sites, copies and stores that this node knows. A copy type that this program does not know counts as none."""
    sites = [
        Site(int(row[0]), row[1], bool(row[2]), Term(row[3], row[4]))
        for row in connection.execute("SELECT id, name, is_primary, term, term_id FROM site")
        if row[0].isdigit()
    ]
    types = {known.value for known in CopyType}
    copies = [
        Copy(row[0], row[1], CopyType(row[2]), Term(row[3], row[4]), bool(row[5]))
        for row in connection.execute(
            "SELECT store_id, site, type, term, term_id, excludes_transactions FROM store_copy"
        )
        if row[2] in types
    ]
    stores = [Store(*row) for row in connection.execute("SELECT id, name_id, mode = 'dispensary' FROM store")]
    return Topology.of(sites, copies, stores)


def write_rights(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    site: int,
    topology: Topology,
    more: Mapping[Owner, Term] | None = None,
) -> None:
    """Makes the rights that triggers read, and what is not pushed, equal to what the topology says, in the transaction
    that changed it.

    Pending changes keep the term under which they were made (F57, F6).
    """
    rights = rights_of(site, topology) | dict(more or {})
    wanted = {(owner.right.value, owner.key): tuple(term) for owner, term in rights.items()}
    there = {
        (row[0], row[1]): (row[2], row[3])
        for row in connection.execute("SELECT owner, key, term, term_id FROM sync_authority")
    }
    connection.executemany(
        "DELETE FROM sync_authority WHERE owner = ? AND key = ?", [key for key in there if key not in wanted]
    )
    connection.executemany(
        "INSERT OR REPLACE INTO sync_authority VALUES (?, ?, ?, ?)",
        [(*key, *value) for key, value in wanted.items() if there.get(key) != value],
    )
    if site != CENTRAL_SITE:  # what the central leaves out of its own stores is in no scope
        _write_withheld(connection, catalogue, [owner for owner in rights if owner.right is Right.STORE], topology)


def _write_withheld(
    connection: sqlite3.Connection, catalogue: Catalogue, stores: list[Owner], topology: Topology
) -> None:
    roots = [table for table in catalogue if table.kind is Kind.STORE and not table.parent]
    wanted = {(owner.key, root.name) for owner in stores for root in roots if not is_collected(root, owner, topology)}
    there = set(connection.execute("SELECT store_id, root_table FROM sync_withheld"))
    connection.executemany("DELETE FROM sync_withheld WHERE store_id = ? AND root_table = ?", sorted(there - wanted))
    connection.executemany("INSERT INTO sync_withheld VALUES (?, ?)", sorted(wanted - there))


def read_rights(connection: sqlite3.Connection) -> Mapping[Owner, Term]:
    """The rights that this node holds now, with their terms."""
    rows = connection.execute("SELECT owner, key, term, term_id FROM sync_authority")
    return {Owner(Right(row[0]), row[1]): Term(row[2], row[3]) for row in rows}

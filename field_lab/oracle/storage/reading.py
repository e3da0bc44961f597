"""Reads what the oracle must know of nodes: how a node stands, and which copies of stores the central has noted."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from field_lab.oracle.copies import Copies
from field_lab.oracle.editing import Standing

CENTRAL = 1


def standing_of(connection: sqlite3.Connection, number: int) -> Standing:
    """How a node stands, by its own database; of the central's database: how any node stands as things are now."""
    row = connection.execute("SELECT is_primary FROM site WHERE id = ?", (str(number),)).fetchone()
    copies = connection.execute("SELECT store_id, type FROM store_copy WHERE site = ?", (number,))
    return Standing(row is not None, number == CENTRAL, bool(row and row[0]), dict(copies.fetchall()))


def copies_at_central(connection: sqlite3.Connection) -> Copies:
    """The copies of stores, from the central's database."""

    def column(query: str) -> Iterable[Any]:
        return (row[0] for row in connection.execute(query))

    seen: dict[str, set[str]] = {}
    for store, other in connection.execute(
        "SELECT s.id, v.store_id FROM store AS s JOIN name_visibility AS v ON v.name_id = s.name_id"
        " WHERE s.name_id <> '' AND v.store_id <> s.id"
    ):
        seen.setdefault(store, set()).add(other)
    copies = connection.execute("SELECT store_id, site, type FROM store_copy")
    return Copies(
        {(row[0], row[1]): row[2] for row in copies},
        {store: frozenset(others) for store, others in seen.items()},
        frozenset(column("SELECT id FROM store")),
        frozenset(int(number) for number in column("SELECT id FROM site")),
        frozenset(int(number) for number in column(f"SELECT id FROM site WHERE is_primary OR id = '{CENTRAL}'")),
    )


def nothing_under_way(connection: sqlite3.Connection) -> bool:
    """Whether the central has routed everything that it has, and has done what follows from it."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM sync_outbox WHERE token <> framed_token)"
        " OR EXISTS (SELECT 1 FROM sync_work WHERE problem = '')"
    )
    return not connection.execute(query).fetchone()[0]

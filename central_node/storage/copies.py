"""Copies of stores that come and go by themselves, decided from the whole present state (engine/rules/copies.py)."""

import hashlib
import secrets
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from engine.catalogue.model import Catalogue
from engine.limits import ID_BYTES_MAX
from engine.rules.copies import automatic_copy, holds_every_store
from engine.rules.topology import CopyType, Topology
from engine.rules.versions import Term


class administering:  # noqa: N801 - a context manager that reads as a word
    """While it is entered, records of kind sync may be edited; the edits are captured like any other."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("UPDATE sync_flag SET administering = 1")

    def __exit__(self, *_exception: object) -> None:
        self._connection.execute("UPDATE sync_flag SET administering = 0")


class CopyChange(NamedTuple):
    """A copy that changes."""

    store_id: str
    site: int
    before: CopyType
    after: CopyType


def visible_at(connection: sqlite3.Connection, catalogue: Catalogue) -> set[tuple[str, int]]:
    """(store, site) wherever a store is visible to another store that is active at the site.

    A store is visible in another one when the name that its record links to is. In a catalogue without visibility every
    copy counts as visible.
    """
    name = catalogue["name"]
    if not name.visibility_table:
        return set(connection.execute("SELECT store_id, site FROM store_copy"))
    visibility, subject = catalogue.visibility_of(name)
    # Joined here: SQLite would go through all pairs of stores, of which a country has thousands.
    active = dict(connection.execute("SELECT store_id, site FROM store_copy WHERE type = 'active'"))
    of_name: dict[str, list[str]] = {}
    for store, its_name in connection.execute("SELECT id, name_id FROM store WHERE name_id <> ''"):
        of_name.setdefault(its_name, []).append(store)
    seen = connection.execute(f"SELECT {subject}, {visibility.store_column} FROM {visibility.name}")
    return {
        (store, active[seen_in])
        for its_name, seen_in in seen
        if seen_in in active
        for store in of_name.get(its_name, ())
        if store != seen_in
    }


def automatic_changes(topology: Topology, visible: set[tuple[str, int]]) -> list[CopyChange]:
    """Every copy that is not what it becomes by itself, in the order of stores and sites."""
    every = {site for site in topology.sites if holds_every_store(site, topology)}
    pairs = visible | set(topology.copies) | {(store, site) for store in topology.stores for site in every}
    changes = []
    for store, site in sorted(pairs):
        if store not in topology.stores or site not in topology.sites:
            continue
        before = topology.copy_type(store, site)
        after = automatic_copy(before, (store, site) in visible, site in every)
        if after is not before:
            changes.append(CopyChange(store, site, before, after))
    return changes


def write_copies(connection: sqlite3.Connection, changes: Iterable[CopyChange]) -> None:
    """Makes changes of copies that are not active before or after."""
    with administering(connection):
        for change in changes:
            put_copy(connection, change.store_id, change.site, change.after)


def put_copy(
    connection: sqlite3.Connection,
    store_id: str,
    site: int,
    kind: CopyType,
    term: Term = Term(),  # noqa: B008 - it cannot change
    excludes_transactions: bool = False,
) -> None:
    """Gives a site a copy of a store, or takes it away. The caller administers."""
    record_id = joined_id(store_id, str(site))
    if kind is CopyType.NONE:
        connection.execute("DELETE FROM store_copy WHERE id = ?", (record_id,))
        return
    connection.execute(
        "INSERT INTO store_copy (id, store_id, site, type, term, term_id, excludes_transactions)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET type = excluded.type, term = excluded.term,"
        " term_id = excluded.term_id, excludes_transactions = excluded.excludes_transactions",
        (record_id, store_id, site, kind.value, *term, int(excludes_transactions)),
    )


def joined_id(record_id: str, place: str) -> str:
    """The id of a record that there is once for a record and a place, where that may be as long as an id can be."""
    joined = f"{record_id}@{place}"
    if len(joined.encode()) <= ID_BYTES_MAX:
        return joined
    return hashlib.sha256(joined.encode()).hexdigest()


def random_term_part() -> int:
    """The random part of a new term."""
    return secrets.randbits(62) + 1

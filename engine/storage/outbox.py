"""What a node has edited and its peer has not acknowledged: read from the outbox as whole documents.

Both nodes take their changes from here: a site cuts them into frames, the central routes its own into feeds.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from engine.catalogue.codec import Unreadable, canonical_of, codec, record_hash
from engine.catalogue.model import Catalogue, Row, Table
from engine.limits import COUNT_CAP
from engine.rules.authority import Owner
from engine.rules.versions import Term, Version
from engine.storage.records import Change, Key, State, by_table, read_rows, read_states, read_unknown
from engine.storage.retention import last_forgotten
from engine.storage.triggers import not_unicode
from engine.storage.undecodable import pass_over_undecodable

Result = TypeVar("Result")
_COLLECTED = (
    "(store_id = '' OR NOT EXISTS (SELECT 1 FROM sync_withheld AS h"
    " WHERE h.store_id = sync_outbox.store_id AND h.root_table = sync_outbox.root_table))"
)
_NOT_BEHIND_THE_LANE = (
    "NOT EXISTS (SELECT 1 FROM sync_lane AS l WHERE l.peer = 1 AND l.frame = 0 AND l.root_id = sync_outbox.root_id"
    " AND l.root_table = sync_outbox.root_table) AND NOT EXISTS (SELECT 1 FROM sync_lane_waiting AS w WHERE"
    " w.root_table = sync_outbox.root_table AND w.root_id = sync_outbox.root_id)"
)
"""Later changes of a document that goes in parts wait behind it, and so does what waits for the lane (parts.py)."""
_KNOWN_THERE = "table_name NOT IN (SELECT table_name FROM sync_beyond)"
"""What the peer's program has no table for waits for its upgrade (F45)."""
_PUSHED = f"token <> framed_token AND {_COLLECTED} AND {_KNOWN_THERE} AND {_NOT_BEHIND_THE_LANE}"


class Entry(NamedTuple):
    """One row of the outbox."""

    table: str
    id: str
    token: int


EditedRecord = tuple[str, str, str, str, int, int, int, int]
"""A row of the outbox: root table, root id, table, id, token, term, random part of the term, place in the queue."""


class Edited(NamedTuple):
    """A document with changes that wait. `term` is the lowest under which one of them was made."""

    root: Table
    id: str
    term: Term
    queued_at: int
    entries: tuple[Entry, ...]


def waiting(connection: sqlite3.Connection, cap: int = COUNT_CAP) -> int:
    """Changes that wait to be pushed or acknowledged, counted up to cap + 1. Those of a store that the central does not
    collect are left out, and those that the central has and holds, or has no table for."""
    held = (
        "token = framed_token AND EXISTS (SELECT 1 FROM sync_outcome AS o WHERE o.root_table = sync_outbox.root_table"
        " AND o.root_id = sync_outbox.root_id AND o.disposition = 'held')"
    )
    pushed = f"{_COLLECTED} AND {_KNOWN_THERE} AND NOT ({held})"
    query = f"SELECT count(*) FROM (SELECT 1 FROM sync_outbox WHERE {pushed} LIMIT {cap + 1})"
    return int(connection.execute(query).fetchone()[0])


def write_beyond(connection: sqlite3.Connection, catalogue: Catalogue, tables: Collection[str]) -> None:
    """Notes which tables the peer does not know. `tables` are those that it knows; none: the same as here."""
    beyond = [table.name for table in catalogue.synchronised if tables and table.name not in tables]
    if sorted(beyond) != sorted(read_beyond(connection)):
        connection.execute("DELETE FROM sync_beyond")
        connection.executemany("INSERT INTO sync_beyond VALUES (?)", [(name,) for name in beyond])


def read_beyond(connection: sqlite3.Connection) -> frozenset[str]:
    """The tables that the peer does not know."""
    return frozenset(row[0] for row in connection.execute("SELECT table_name FROM sync_beyond"))


def waiting_for_upgrade(connection: sqlite3.Connection, cap: int = COUNT_CAP) -> int:
    """Changes that wait until the peer's program has a table for them, counted up to cap + 1."""
    query = f"SELECT count(*) FROM (SELECT 1 FROM sync_outbox WHERE NOT ({_KNOWN_THERE}) LIMIT {cap + 1})"
    return int(connection.execute(query).fetchone()[0])


def has_pushable(connection: sqlite3.Connection) -> bool:
    """Whether something waits that can go into a frame now."""
    return connection.execute(f"SELECT 1 FROM sync_outbox WHERE {_PUSHED} LIMIT 1").fetchone() is not None


def edited_records(connection: sqlite3.Connection, catalogue: Catalogue, records: int) -> list[EditedRecord]:
    """The changes made first, in that order, at most that many. Those of records whose ids no message can carry are
    passed over."""
    query = (
        "SELECT root_table, root_id, table_name, id, token, term, term_id, queued_at FROM sync_outbox"
        f" WHERE {_PUSHED} ORDER BY queued_at LIMIT ?"
    )
    return _decodable(connection, catalogue, lambda: connection.execute(query, (records,)).fetchall())


def documents_of(connection: sqlite3.Connection, catalogue: Catalogue, records: Iterable[EditedRecord]) -> list[Edited]:
    """The documents in which these changes are, in their order; each with all its changes."""
    return _decodable(connection, catalogue, lambda: _documents_of(connection, catalogue, records))


def _decodable(connection: sqlite3.Connection, catalogue: Catalogue, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except sqlite3.OperationalError:
        if not pass_over_undecodable(connection, catalogue):
            raise
        return read()


def _documents_of(
    connection: sqlite3.Connection, catalogue: Catalogue, records: Iterable[EditedRecord]
) -> list[Edited]:
    documents, gathered = list[Edited](), set[Key]()
    for record in records:
        root_table, root_id, table, record_id, token, term, term_id, queued_at = record
        root = catalogue[root_table]
        if not catalogue.members_of(root_table):
            entry = Entry(table, record_id, token)
            documents.append(Edited(root, root_id, Term(term, term_id), queued_at, (entry,)))
        elif (root_table, root_id) not in gathered:
            gathered.add((root_table, root_id))
            every = connection.execute(
                "SELECT root_table, root_id, table_name, id, token, term, term_id, queued_at FROM sync_outbox"
                f" WHERE root_table = ? AND root_id = ? AND token <> framed_token AND {_KNOWN_THERE}",
                (root_table, root_id),
            ).fetchall()
            documents.append(_edited(root, root_id, every))
    return documents


def every_change(connection: sqlite3.Connection, document: Edited) -> Edited:
    """The document with every change that is not acknowledged, those included that were framed already."""
    rows = connection.execute(
        "SELECT root_table, root_id, table_name, id, token, term, term_id, queued_at FROM sync_outbox"
        f" WHERE root_table = ? AND root_id = ? AND {_KNOWN_THERE}",
        (document.root.name, document.id),
    ).fetchall()
    return _edited(document.root, document.id, rows)


def _edited(root: Table, root_id: str, rows: list[tuple[Any, ...]]) -> Edited:
    term = Term(*min(row[5:7] for row in rows))
    return Edited(root, root_id, term, min(row[7] for row in rows), tuple(Entry(*row[2:5]) for row in rows))


class Present:
    """The rows, unknown fields and states of a batch of documents as they are now, read at once, but for states that
    were read before."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        catalogue: Catalogue,
        keys: Iterable[Key],
        states: Mapping[Key, State] | None = None,
    ) -> None:
        every = list(dict.fromkeys(keys))
        self._catalogue = catalogue
        self.states = read_states(connection, every) if states is None else states
        self.forgotten = last_forgotten(connection)
        self.rows: dict[Key, Row] = {}
        self._unknown: dict[Key, bytes] = {}
        for name, ids in by_table(every).items():
            table = catalogue[name]
            self.rows.update(((name, record_id), row) for record_id, row in read_rows(connection, table, ids).items())
            kept = read_unknown(connection, table, ids)
            self._unknown.update(((name, record_id), fields) for record_id, fields in kept.items())

    def row(self, key: Key) -> Row | None:
        """The row, or None where there is none."""
        return self.rows.get(key)

    def unknown(self, key: Key) -> bytes:
        """The unknown fields kept beside the row."""
        return self._unknown.get(key, b"")

    def change(self, key: Key, root_id: str, version: Version) -> Change:
        """The record as a change of that version. Raises Unreadable when its row does not fit the catalogue."""
        table, record_id = self._catalogue[key[0]], key[1]
        row, unknown = self.rows.get(key), self._unknown.get(key, b"")
        if row is None:
            return Change(table, record_id, root_id, version, None, unknown, record_hash(*key, *version, b""))
        known = codec(table).encode(row)
        hashed = record_hash(*key, *version, canonical_of(known, unknown))
        return Change(table, record_id, root_id, version, row, unknown, hashed, known + unknown)

    def are_unchanged(self, keys: Iterable[Key]) -> bool:
        """Whether each of these records is what both ends agreed on last, or was never there and is not now."""
        return all(self.is_unchanged(key) for key in keys)

    def is_unchanged(self, key: Key) -> bool:
        """The same of one record."""
        state, row = self.states.get(key), self.rows.get(key)
        if state is None or state.deleted or row is None:
            return row is None and (state is None or state.deleted)
        try:
            return self.change(key, state.root_id, state.version).hash == state.hash
        except Unreadable:
            return False


def forget(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Takes changes out of the outbox, each only if it was not edited again since it was read."""
    connection.executemany("DELETE FROM sync_outbox WHERE table_name = ? AND id = ? AND token = ?", entries)


def queue_again(connection: sqlite3.Connection, key: Key, root: Key, right: Owner) -> None:
    """Puts an own record into the outbox as if it had just been edited, under the right that covers it."""
    connection.execute("UPDATE sync_counter SET last = last + 1")
    connection.execute(
        "INSERT INTO sync_outbox (table_name, id, root_table, root_id, store_id, token, queued_at, term, term_id)"
        " SELECT ?, ?, ?, ?, a.key, c.last, c.last, a.term, a.term_id"
        " FROM sync_counter AS c, sync_authority AS a WHERE a.owner = ? AND a.key = ?"
        " ON CONFLICT (table_name, id) DO UPDATE SET token = excluded.token",
        (*key, *root, right.right.value, right.key),
    )


def orphans(connection: sqlite3.Connection, catalogue: Catalogue, document: Edited) -> list[Key]:
    """Lines of a document whose root row is gone: those that were known to the peer, and those that a delete trigger
    left because it took the delete for an INSERT OR REPLACE (triggers.py)."""
    found: list[Key] = []
    for member in catalogue.members_of(document.root.name):
        query = (
            f"SELECT id FROM {member.name} WHERE {member.parent_column} = ? UNION"
            " SELECT id FROM sync_record WHERE root_id = ? AND root_id <> '' AND table_name = ? AND deleted = 0"
        )
        query = f"SELECT id FROM ({query}) AS line WHERE NOT {not_unicode('line.id')}"
        rows = connection.execute(query, (document.id, document.id, member.name))
        found += [(member.name, row[0]) for row in rows]
    return found

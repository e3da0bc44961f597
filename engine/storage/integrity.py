"""Finds what triggers cannot prevent: dropped triggers, changed schemas, edits without capture (F43).

A row whose hash is neither the acknowledged one nor covered by a pending change was changed behind the engine's back.
Where this node owns it, it is queued as a change; elsewhere its content is put aside and the document is asked for
again.
"""

import sqlite3
from typing import NamedTuple

from engine.catalogue.codec import Unreadable, codec
from engine.catalogue.model import Catalogue, Row, Table
from engine.errors import Code, sentence
from engine.rules.authority import Owner, owner_of
from engine.storage.configuration import read_rights
from engine.storage.outbox import Present, queue_again
from engine.storage.records import Key, read_rows
from engine.storage.undecodable import note_undecodable, undecodable

_BATCH = 500


class Swept(NamedTuple):
    """What a sweep found."""

    checked: int
    queued: int
    wanted: int
    last: Key
    """Where to go on; ("", "") when the sweep is through."""


def sweep_rows(connection: sqlite3.Connection, catalogue: Catalogue, after: Key, now: int) -> Swept:
    """Compares one batch of acknowledged records, and rows that no acknowledgement knows, with the tables.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        after: the `last` of the batch before; ("", "") begins.
        now: seconds since 1970.
    """
    keys = connection.execute(
        "SELECT table_name, id FROM sync_record WHERE (table_name, id) > (?, ?) ORDER BY table_name, id LIMIT ?",
        (*after, _BATCH),
    ).fetchall()
    known = [(table, record_id) for table, record_id in keys if table in catalogue]
    present = Present(connection, catalogue, known)
    damaged = [key for key in known if not present.is_unchanged(catalogue[key[0]], key[1])]
    queued = wanted = 0
    for key in damaged:
        if _has_change(connection, key):
            continue
        if _mend(connection, catalogue, key, present, now):
            queued += 1
        else:
            wanted += 1
    last = keys[-1] if len(keys) == _BATCH else ("", "")
    return Swept(len(keys), queued, wanted, (last[0], last[1]))


def sweep_unknown_rows(connection: sqlite3.Connection, catalogue: Catalogue, now: int) -> int:
    """Queues own rows that were inserted without capture; returns how many. Rows of others are removed by nobody, and
    those whose ids no message can carry are only noted."""
    queued = 0
    note_undecodable(connection, catalogue, now)
    for table in catalogue.synchronised:
        rows = connection.execute(
            f"SELECT id FROM {table.name} WHERE NOT EXISTS (SELECT 1 FROM sync_record AS r WHERE"
            f" r.table_name = ? AND r.id = {table.name}.id AND r.deleted = 0) AND NOT EXISTS (SELECT 1 FROM sync_outbox"
            f" AS o WHERE o.table_name = ? AND o.id = {table.name}.id) AND NOT ({undecodable(table)}) LIMIT {_BATCH}",
            (table.name, table.name),
        ).fetchall()
        for (record_id,) in rows:
            root = _root_of(connection, catalogue, table, record_id)
            right = _right_of(connection, catalogue, root) if root else None
            if root and right:
                queue_again(connection, (table.name, record_id), root, right)
                queued += 1
    return queued


def _has_change(connection: sqlite3.Connection, key: Key) -> bool:
    for pending in ("sync_outbox", "sync_in_flight", "sync_want"):
        if connection.execute(f"SELECT 1 FROM {pending} WHERE table_name = ? AND id = ? LIMIT 1", key).fetchone():
            return True
    return False


def _mend(connection: sqlite3.Connection, catalogue: Catalogue, key: Key, present: Present, now: int) -> bool:
    """Queues an own record (True), or keeps the content of another's aside and asks for its document (False)."""
    table, state = catalogue[key[0]], present.states[key]
    root = (catalogue.root_of(table).name, state.root_id or key[1])
    right = _right_of(connection, catalogue, root)
    if right is not None:
        queue_again(connection, key, root, right)
        return True
    text = sentence(Code.UNCAPTURED, f"{key[0]} {key[1]} was changed without being captured.")
    connection.execute(
        "INSERT INTO sync_aside (table_name, id, code, sentence, put_aside_at, content) VALUES (?, ?, ?, ?, ?, ?)",
        (*key, Code.UNCAPTURED, text, now, _content(table, present.row(key))),
    )
    connection.execute("INSERT OR IGNORE INTO sync_want VALUES (?, ?)", root)
    return False


def _content(table: Table, row: Row | None) -> bytes:
    try:
        return codec(table).encode(row) if row is not None else b""
    except Unreadable:
        return repr(row).encode("utf-8", "backslashreplace")


def _root_of(connection: sqlite3.Connection, catalogue: Catalogue, table: Table, record_id: str) -> Key | None:
    if not table.parent:
        return (table.name, record_id)
    row = connection.execute(f"SELECT {table.parent_column} FROM {table.name} WHERE id = ?", (record_id,)).fetchone()
    return (catalogue.root_of(table).name, row[0]) if row else None


def _right_of(connection: sqlite3.Connection, catalogue: Catalogue, root: Key) -> Owner | None:
    table = catalogue[root[0]]
    row = read_rows(connection, table, [root[1]]).get(root[1])
    if row is None:
        return None
    owner = owner_of(table, row)
    return owner if owner in read_rights(connection) else None

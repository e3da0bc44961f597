"""Finds what triggers cannot prevent: edits without capture, made behind dropped triggers or a switched-off one (F43).

A row whose hash is not the one that both ends agreed on, and of which no change waits, was changed behind the engine's
back. The same sweep runs at both nodes:

- Where this node owns the record, it is queued as a change.
- Elsewhere its content is put aside, with a sentence for `status`. A row that should not be there at all is removed.
  Any other is asked for: a site asks the central for the document; the central asks whoever follows that feed, in its
  checkpoints, and the owner sends the document again, whole.
- An own document that is gone is only told of: absence never deletes, and nobody else may say what it was.
- A row whose id no message can carry is only told of (undecodable.py).
"""

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from engine.catalogue.codec import Unreadable, codec
from engine.catalogue.model import Catalogue, Row, Table
from engine.errors import Code, sentence
from engine.rules.authority import RIGHT_OF_KIND, Owner, Right, owner_of
from engine.storage.configuration import read_rights
from engine.storage.database import Database
from engine.storage.hidden import hidden_among
from engine.storage.outbox import Present, queue_again
from engine.storage.records import Key, applying, read_rows
from engine.storage.undecodable import note_undecodable, undecodable
from engine.storage.wants import read_wants

_BATCH = 500
_SHOWN = 20


class Swept(NamedTuple):
    """What a batch of a sweep has shown."""

    damaged: list[Key]
    """Records that are not what was agreed on; those with changes among them are no damage yet (`mend`)."""
    last: Key
    """Where to go on; ("", "") when the sweep is through."""


class Mended(NamedTuple):
    """What was done about damaged records."""

    queued: int = 0
    """Own records that will be sent as changes."""
    put_aside: int = 0
    """Others, whose content was kept aside."""
    wants: tuple[Key, ...] = ()
    """Documents to ask for, because of them."""


def sweep_rows(connection: sqlite3.Connection, catalogue: Catalogue, after: Key) -> Swept:
    """Compares one batch of records, those agreed on and those that are there, by table and id; changes nothing.

    Args:
        connection: inside a read snapshot.
        catalogue: the tables.
        after: the `last` of the batch before; ("", "") begins.
    """
    for table in sorted(catalogue.synchronised, key=lambda table: table.name):
        if table.name < after[0]:
            continue
        past = after[1] if table.name == after[0] else ""
        rows = connection.execute(
            "SELECT id FROM sync_record WHERE table_name = ? AND id > ?"
            f" UNION SELECT id FROM {table.name} WHERE id > ? AND NOT ({undecodable(table)}) ORDER BY id LIMIT ?",
            (table.name, past, past, _BATCH),
        ).fetchall()
        if rows:
            keys = [(table.name, row[0]) for row in rows]
            present = Present(connection, catalogue, keys)
            return Swept([key for key in keys if not present.are_unchanged([key])], keys[-1])
    return Swept([], ("", ""))


def mend(connection: sqlite3.Connection, catalogue: Catalogue, damaged: Iterable[Key], now: int) -> Mended:
    """Does what the module says about records that a sweep found, those that still are damaged.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        damaged: from `Swept`.
        now: seconds since 1970.
    """
    present = Present(connection, catalogue, damaged)
    asked, rights = set(read_wants(connection)), read_rights(connection)
    wants: dict[Key, None] = {}
    queued = put_aside = 0
    hidden = hidden_among(connection, damaged)  # the central tells nothing of them any more
    for key in damaged:
        table, state = catalogue[key[0]], present.states.get(key)
        root = _root_of(catalogue, table, key, present)
        if key in hidden or present.are_unchanged([key]) or _has_change(connection, key) or root in asked:
            continue
        owner = _owner_of(connection, catalogue, root)
        if owner is not None and owner in rights and (root != key or present.row(key) is not None):
            queue_again(connection, key, root, owner)
            queued += 1
            continue
        if _put_aside(connection, table, key, present.row(key), now):
            put_aside += 1
        if state is None or state.deleted:
            with applying(connection):
                connection.execute(f"DELETE FROM {key[0]} WHERE id = ?", (key[1],))
        elif owner not in rights:
            connection.execute("INSERT OR IGNORE INTO sync_want VALUES (?, ?)", root)
            wants[root] = None
    return Mended(queued, put_aside, tuple(wants))


async def sweep_batch(database: Database, catalogue: Catalogue, after: Key, now: int) -> tuple[Mended, Key]:
    """A batch of a sweep: reads, and takes the write lock only where something is to be mended."""
    swept = await database.read(lambda connection: sweep_rows(connection, catalogue, after))
    if swept.last == ("", ""):
        await database.write(lambda connection: note_undecodable(connection, catalogue, now))
    if not swept.damaged:
        return Mended(), swept.last
    return await database.write(lambda connection: mend(connection, catalogue, swept.damaged, now)), swept.last


def kept_aside(connection: sqlite3.Connection) -> dict[str, Any]:
    """What was put aside, for `status`: how much, and of the last ones table, id, code and sentence."""
    rows = connection.execute(
        "SELECT table_name, id, code, sentence FROM sync_aside ORDER BY number DESC LIMIT ?", (_SHOWN,)
    )
    names = ("table", "id", "code", "sentence")
    return {
        "kept_aside": connection.execute("SELECT count(*) FROM sync_aside").fetchone()[0],
        "kept_aside_records": [dict(zip(names, row, strict=True)) for row in rows],
    }


def _has_change(connection: sqlite3.Connection, key: Key) -> bool:
    for pending in ("sync_outbox", "sync_in_flight"):
        if connection.execute(f"SELECT 1 FROM {pending} WHERE table_name = ? AND id = ? LIMIT 1", key).fetchone():
            return True
    return False


def _put_aside(connection: sqlite3.Connection, table: Table, key: Key, row: Row | None, now: int) -> bool:
    """Keeps the content, once; returns whether it was not kept yet."""
    content = _content(table, row)
    known = "SELECT 1 FROM sync_aside WHERE table_name = ? AND id = ? AND content = ?"
    if connection.execute(known, (*key, content)).fetchone():
        return False
    what = "changed" if row is not None else "deleted"
    text = sentence(Code.UNCAPTURED, f"{key[0]} {key[1]} was {what} without being captured.")
    connection.execute(
        "INSERT INTO sync_aside (table_name, id, code, sentence, put_aside_at, content) VALUES (?, ?, ?, ?, ?, ?)",
        (*key, Code.UNCAPTURED, text, now, content),
    )
    return True


def _content(table: Table, row: Row | None) -> bytes:
    try:
        return codec(table).encode(row) if row is not None else b""
    except Unreadable:
        return repr(row).encode("utf-8", "backslashreplace")


def _root_of(catalogue: Catalogue, table: Table, key: Key, present: Present) -> Key:
    """The document of a record: as agreed on, else as its row says."""
    state, row = present.states.get(key), present.row(key)
    if not table.parent:
        return key
    stated = state.root_id if state is not None else ""
    return (catalogue.root_of(table).name, stated or (str(table.value(row, table.parent_column)) if row else ""))


def _owner_of(connection: sqlite3.Connection, catalogue: Catalogue, root: Key) -> Owner | None:
    """Who owns a document; None where only its row could tell and that is gone."""
    table = catalogue[root[0]]
    row = read_rows(connection, table, [root[1]]).get(root[1])
    if row is not None:
        return owner_of(table, row)
    right = RIGHT_OF_KIND[table.kind]
    return Owner(right) if right in (Right.CENTRAL, Right.SYNC) else None


def queue_for_central(connection: sqlite3.Connection, catalogue: Catalogue, roots: Iterable[Key], after: int) -> int:
    """A site queues the documents that the central asks for and that this site owns, to be sent whole.

    Returns how many. Those of which a change waits go anyway: the central asks for the whole where only a part comes.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        roots: of the central's checkpoint; anything.
        after: number of the last frame that was cut.
    """
    rights, queued = read_rights(connection), 0
    for root in roots:
        if root[0] not in catalogue or catalogue[root[0]].parent:
            continue
        owner = _owner_of(connection, catalogue, root)
        waits = "SELECT 1 FROM sync_outbox WHERE root_table = ? AND root_id = ? LIMIT 1"
        known = "SELECT 1 FROM sync_record WHERE table_name = ? AND id = ?"
        waiting, there = (connection.execute(query, root).fetchone() for query in (waits, known))
        if owner is not None and owner in rights and there and not waiting:
            queue_again(connection, root, root, owner)
            entry = (*root, after)
            connection.execute("INSERT OR IGNORE INTO sync_outcome VALUES (?, ?, ?, 'need_whole', '', '')", entry)
            queued += 1
    return queued

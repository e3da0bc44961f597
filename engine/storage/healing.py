"""What was refused for NO_AUTHORITY moves aside, and the central's document takes its place: law 8's one exception.

The refusal (settle.py) leaves everything as it is and asks for the document. Its answer does the rest in one
transaction with what it brings: the content of this site and that of the central are kept in `sync_aside` with code and
sentence, the changes are forgotten, and the central's records are written like any that were asked for. Where the
central has nothing for this site under that key, the rows go. No other refusal moves anything.
"""

import sqlite3
from collections.abc import Iterable

from packhorse.sync.v1 import document_pb2

from engine.catalogue.codec import Unreadable
from engine.catalogue.model import Catalogue
from engine.errors import Code
from engine.rules.versions import NEVER
from engine.storage.candidates import members_known, remove
from engine.storage.eviction import leave_scopes
from engine.storage.outbox import Present
from engine.storage.records import Key


def move_aside(
    connection: sqlite3.Connection, catalogue: Catalogue, answers: Iterable[document_pb2.Document], now: int
) -> None:
    """Moves aside what was refused and has been answered for now; the caller then applies the answers.

    What was edited again since the refusal stays: it goes out anew, whole, and is judged for itself.

    Args:
        connection: inside the write transaction that applies the answers.
        catalogue: the tables.
        answers: documents that were asked for; one without records says that there is none.
        now: seconds since 1970.
    """
    for answer in answers:
        root = (answer.table, answer.id)
        refused = connection.execute(
            "SELECT sentence, frame FROM sync_outcome"
            " WHERE root_table = ? AND root_id = ? AND disposition = 'held' AND code = ?",
            (*root, Code.NO_AUTHORITY),
        ).fetchone()
        if refused is None or answer.table not in catalogue or _was_edited(connection, root, refused[1]):
            continue
        records = [root, *(record for _, record in members_known(connection, catalogue, [root]))]
        present = Present(connection, catalogue, records)
        connection.execute(
            "INSERT INTO sync_aside (table_name, id, code, sentence, put_aside_at, content, in_its_place)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*root, Code.NO_AUTHORITY, refused[0], now, _own(catalogue, root, records, present),
             answer.SerializeToString() if answer.records else b""),
        )  # fmt: skip
        _forget_changes(connection, root)
        if answer.records:  # what was only here goes; the rest is overwritten
            agreed = {key for key, state in present.states.items() if not state.deleted}
            remove(connection, catalogue, [key for key in records if key not in agreed])
        else:
            _end_memberships(connection, records)
            remove(connection, catalogue, records)


def _was_edited(connection: sqlite3.Connection, root: Key, refused_frame: int) -> bool:
    """Whether there is a newer edit than the one that was refused, waiting or in a later frame."""
    waits = "SELECT 1 FROM sync_outbox WHERE root_table = ? AND root_id = ? AND token <> framed_token LIMIT 1"
    flies = "SELECT 1 FROM sync_in_flight WHERE table_name = ? AND id = ? AND frame > ? LIMIT 1"
    found = connection.execute(waits, root).fetchone() or connection.execute(flies, (*root, refused_frame)).fetchone()
    return found is not None


def _own(catalogue: Catalogue, root: Key, records: Iterable[Key], present: Present) -> bytes:
    """The document as it is here. A record that no message can carry is told in words."""
    document = document_pb2.Document(table=root[0], id=root[1], whole=True)
    for key in dict.fromkeys(records):
        record = document.records.add(table=key[0], id=key[1])
        if present.row(key) is None:
            record.deleted = True
            continue
        try:
            record.content = present.change(key, "", NEVER).content
        except Unreadable:
            record.content = repr(present.row(key)).encode("utf-8", "backslashreplace")
    return document.SerializeToString()


def _forget_changes(connection: sqlite3.Connection, root: Key) -> None:
    for place in ("sync_outbox", "sync_in_flight", "sync_outcome", "sync_lane_waiting"):
        connection.execute(f"DELETE FROM {place} WHERE root_table = ? AND root_id = ?", root)


def _end_memberships(connection: sqlite3.Connection, records: Iterable[Key]) -> None:
    query = "SELECT scope FROM sync_membership WHERE table_name = ? AND id = ?"
    leave_scopes(connection, [(key, row[0]) for key in records for row in connection.execute(query, key).fetchall()])

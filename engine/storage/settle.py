"""The sender's side of frames: takes note of what the peer says became of them.

A change leaves the outbox only when the token that was framed is acknowledged and still the newest. What was held stays
here as in flight until it is sent again or the feed shows that it was applied.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from packhorse.sync.v1 import session_pb2

from engine.errors import Code, PeerProblem
from engine.rules.topology import CENTRAL_SITE
from engine.rules.versions import Version
from engine.storage.chain import free_lane
from engine.storage.digests import DigestLedger
from engine.storage.parts import body_for
from engine.storage.push import is_whole_under_way
from engine.storage.records import Key, write_meta


class Settled(NamedTuple):
    """What an acknowledgement brought."""

    records: int
    """Records that the peer has applied."""
    frees: bool
    """Changes can be framed that could not before."""
    wants: tuple[Key, ...] = ()
    """Documents to ask for: those that were refused for NO_AUTHORITY (healing.py)."""


def settle(connection: sqlite3.Connection, told: session_pb2.Acknowledgement, site: int, epoch: str) -> Settled:
    """Takes note of what became of a frame. Repeats are harmless.

    Raises:
        PeerProblem: CHAIN_BROKEN when the peer speaks of other bytes than were sent.
    """
    row = connection.execute("SELECT hash FROM sync_frame WHERE number = ?", (told.number,)).fetchone()
    if row is None:
        return Settled(0, False)
    if row[0] != told.hash:
        raise PeerProblem(Code.CHAIN_BROKEN, f"The central acknowledged other bytes as frame {told.number}.")
    apart = {outcome.index: outcome for outcome in told.outcomes}
    documents = connection.execute(
        "SELECT DISTINCT document, root_table, root_id FROM sync_in_flight WHERE frame = ?", (told.number,)
    ).fetchall()
    applied = [(root_table, root_id) for index, root_table, root_id in documents if index not in apart]
    for index, root_table, root_id in documents:
        if index in apart:
            _set_apart(connection, told.number, (root_table, root_id), apart[index])
    records = _settle_applied(connection, told.number, applied, site, epoch)
    connection.execute("DELETE FROM sync_frame WHERE number = ?", (told.number,))
    write_meta(connection, acknowledged=str(told.number))
    lane = body_for(connection, CENTRAL_SITE)
    closes_lane = lane is not None and lane.frame == told.number
    if closes_lane:
        free_lane(connection)
    again = any(outcome.disposition == session_pb2.DISPOSITION_NEED_WHOLE for outcome in told.outcomes)
    refused = [(row[1], row[2]) for row in documents if row[0] in apart and _is_refused(apart[row[0]])]
    connection.executemany("INSERT OR IGNORE INTO sync_want VALUES (?, ?)", refused)
    return Settled(records, closes_lane or again, tuple(refused))


def _is_refused(outcome: session_pb2.Outcome) -> bool:
    return outcome.disposition == session_pb2.DISPOSITION_HELD and outcome.code == Code.NO_AUTHORITY


def _settle_applied(connection: sqlite3.Connection, frame: int, documents: list[Key], site: int, epoch: str) -> int:
    """The peer has these documents of the frame: their states become the agreed ones, their changes are forgotten.

    It then has what earlier frames carried of them too: a version is applied only on top of the one that it continues,
    and a document that was held comes again whole.
    """
    carried = _carried(connection, frame, set(documents))
    rows = _newest(carried)
    ledger = DigestLedger()
    for row in rows:
        for (scope,) in connection.execute(
            "SELECT scope FROM sync_membership WHERE table_name = ? AND id = ?", (row[0], row[1])
        ):
            if row[11] is not None and not row[12]:
                ledger.remove(scope, row[0], row[11])
            if not row[10]:
                ledger.add(scope, row[0], row[9])
    ledger.write(connection)
    connection.executemany(
        "INSERT INTO sync_record (table_name, id, root_id, term, term_id, counter, hash, deleted, acked_frame, token,"
        " writer_site, writer_epoch, deleted_on) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
        " iif(?, (SELECT number FROM sync_day), 0)) ON CONFLICT (table_name, id) DO UPDATE SET term = excluded.term,"
        " term_id = excluded.term_id, counter = excluded.counter, hash = excluded.hash, deleted = excluded.deleted,"
        " acked_frame = excluded.acked_frame, token = excluded.token, writer_site = excluded.writer_site,"
        " writer_epoch = excluded.writer_epoch, deleted_on = excluded.deleted_on",
        [(r[0], r[1], r[4], r[6], r[7], r[8], r[9], r[10], frame, r[5], site, epoch, r[10]) for r in rows],
    )
    connection.executemany(
        # Of every frame: a later one may carry the record again only because its document had another change.
        "DELETE FROM sync_outbox WHERE table_name = ? AND id = ? AND token = ?",
        [(r[0], r[1], r[5]) for r in carried],
    )
    connection.executemany(
        "DELETE FROM sync_in_flight WHERE table_name = ? AND id = ? AND frame <= ?",
        [(r[0], r[1], frame) for r in rows],
    )
    connection.executemany(
        "DELETE FROM sync_outcome WHERE root_table = ? AND root_id = ? AND frame <= ?",
        [(*document, frame) for document in documents],
    )
    return len(rows)


def _carried(connection: sqlite3.Connection, frame: int, documents: set[Key]) -> list[tuple[Any, ...]]:
    """What this frame and those before it carry of these documents, with the state of each record."""
    return [
        row
        for row in connection.execute(
            "SELECT f.table_name, f.id, f.root_table, f.root_id, f.member_of, f.token, f.term, f.term_id, f.counter,"
            " f.hash, f.deleted, r.hash, r.deleted FROM sync_in_flight AS f LEFT JOIN sync_record AS r"
            " ON r.table_name = f.table_name AND r.id = f.id WHERE f.frame <= ? ORDER BY f.frame",
            (frame,),
        )
        if (row[2], row[3]) in documents
    ]


def _newest(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The last row of each record."""
    return list({(row[0], row[1]): row for row in rows}.values())


def _set_apart(connection: sqlite3.Connection, frame: int, document: Key, outcome: session_pb2.Outcome) -> None:
    """The peer did not apply this document of the frame."""
    if outcome.disposition == session_pb2.DISPOSITION_NEED_WHOLE and is_whole_under_way(connection, document, frame):
        _forget_flight(connection, frame, document)
        return
    disposition = session_pb2.Disposition.Name(outcome.disposition).removeprefix("DISPOSITION_").lower()
    connection.execute(
        "INSERT OR REPLACE INTO sync_outcome VALUES (?, ?, ?, ?, ?, ?)",
        (*document, frame, disposition, outcome.code, outcome.sentence),
    )
    if outcome.disposition == session_pb2.DISPOSITION_HELD:
        return
    if outcome.disposition == session_pb2.DISPOSITION_NEED_WHOLE:
        connection.execute("UPDATE sync_outbox SET framed_token = 0 WHERE root_table = ? AND root_id = ?", document)
    _forget_flight(connection, frame, document)


def _forget_flight(connection: sqlite3.Connection, frame: int, document: Key) -> None:
    connection.execute(
        "DELETE FROM sync_in_flight WHERE frame = ? AND root_table = ? AND root_id = ?", (frame, *document)
    )


def settle_echo(connection: sqlite3.Connection, document: Key, version: Version, site: int, epoch: str) -> bool:
    """The feed shows that the peer has this version of a document of ours: what was held there is applied now. That may
    be seen before the answer to the frame that carried it; the answer then finds nothing of the document any more.

    Returns whether a change was waiting for it.
    """
    row = connection.execute(
        "SELECT frame FROM sync_in_flight WHERE root_table = ? AND root_id = ? AND term = ? AND term_id = ?"
        " AND counter = ? ORDER BY frame DESC",
        (*document, *version),
    ).fetchone()
    if row is None:
        return False
    _settle_applied(connection, row[0], [document], site, epoch)
    return True


def retry_deferred(connection: sqlite3.Connection) -> None:
    """Lets documents that the peer had no room for be framed again. Called once a session."""
    connection.execute(
        "UPDATE sync_outbox SET framed_token = 0 WHERE EXISTS (SELECT 1 FROM sync_outcome AS o WHERE"
        " o.root_table = sync_outbox.root_table AND o.root_id = sync_outbox.root_id AND o.disposition = 'deferred')"
    )


def held_at_peer(connection: sqlite3.Connection) -> int:
    """How many documents of this node are held at its peer."""
    return int(connection.execute("SELECT count(*) FROM sync_outcome WHERE disposition = 'held'").fetchone()[0])

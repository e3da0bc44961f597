"""The sender's side of frames: takes note of what the peer says became of them.

A change leaves the outbox only when the token that was framed is acknowledged and still the newest. What was held stays
here as in flight until it is sent again or the feed shows that it was applied.
"""

import sqlite3
from typing import NamedTuple

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
    row = connection.execute("SELECT hash, documents FROM sync_frame WHERE number = ?", (told.number,)).fetchone()
    if row is None:
        return Settled(0, False)
    if row[0] != told.hash:
        raise PeerProblem(Code.CHAIN_BROKEN, f"The central acknowledged other bytes as frame {told.number}.")
    apart = {outcome.index: outcome for outcome in told.outcomes if outcome.index < row[1]}
    places = ", ".join(str(place) for place in sorted(apart))
    query = (
        f"SELECT DISTINCT document, root_table, root_id FROM sync_in_flight WHERE frame = ? AND document IN ({places})"
    )
    documents = connection.execute(query, (told.number,)).fetchall() if apart else []
    for index, root_table, root_id in documents:
        _set_apart(connection, told.number, (root_table, root_id), apart[index])
    records = _settle_applied(connection, told.number, f"NOT IN ({places})", site, epoch)
    connection.execute("DELETE FROM sync_frame WHERE number = ?", (told.number,))
    write_meta(connection, acknowledged=str(told.number))
    lane = body_for(connection, CENTRAL_SITE)
    closes_lane = lane is not None and lane.frame == told.number
    if closes_lane:
        free_lane(connection)
    again = any(outcome.disposition == session_pb2.DISPOSITION_NEED_WHOLE for outcome in told.outcomes)
    refused = [(row[1], row[2]) for row in documents if _is_refused(apart[row[0]])]
    connection.executemany("INSERT OR IGNORE INTO sync_want VALUES (?, ?)", refused)
    return Settled(records, closes_lane or again, tuple(refused))


def _is_refused(outcome: session_pb2.Outcome) -> bool:
    return outcome.disposition == session_pb2.DISPOSITION_HELD and outcome.code == Code.NO_AUTHORITY


_CARRIED = "sync_in_flight AS f NOT INDEXED WHERE"
"""By frame, not by record: SQLite would read everything that is under way for a part of it."""


def _carried_by(connection: sqlite3.Connection, frame: int, which: str) -> str:
    """A condition on what a frame (?1) and those before it carry of some documents of that frame, each of which has its
    root in it. Frames before it are there seldom: only as long as something of them is held.

    Args:
        connection: to the node's database.
        frame: the number of the frame.
        which: a condition on the place of a document in the frame.
    """
    earlier = "SELECT 1 FROM sync_in_flight WHERE frame < ? LIMIT 1"
    if connection.execute(earlier, (frame,)).fetchone() is None:
        return f"f.frame = ?1 AND f.document {which}"
    return (
        "f.frame <= ?1 AND EXISTS (SELECT 1 FROM sync_in_flight AS g"
        f" WHERE g.frame = ?1 AND g.table_name = f.root_table AND g.id = f.root_id AND g.document {which})"
    )


def _settle_applied(connection: sqlite3.Connection, frame: int, which: str, site: int, epoch: str) -> int:
    """The peer has those documents of the frame: their states become the agreed ones, their changes are forgotten;
    returns how many records. `which`: as for `_carried_by`.

    It then has what earlier frames carried of them too: a version is applied only on top of the one that it continues,
    and a document that was held comes again whole.
    """
    carried = _carried_by(connection, frame, which)
    _settle_digests(connection, frame, carried)
    query = f"SELECT count(*) FROM (SELECT DISTINCT f.table_name, f.id FROM {_CARRIED} {carried})"
    (records,) = connection.execute(query, (frame,)).fetchone()
    connection.execute(
        "INSERT INTO sync_record (table_name, id, root_id, term, term_id, counter, hash, deleted, acked_frame, token,"
        " writer_site, writer_epoch, deleted_on) SELECT f.table_name, f.id, f.member_of, f.term, f.term_id, f.counter,"
        " f.hash, f.deleted, ?1, f.token, ?2, ?3, iif(f.deleted, (SELECT number FROM sync_day), 0)"
        f" FROM {_CARRIED} {carried} ORDER BY f.frame"
        " ON CONFLICT (table_name, id) DO UPDATE SET term = excluded.term,"
        " term_id = excluded.term_id, counter = excluded.counter, hash = excluded.hash, deleted = excluded.deleted,"
        " acked_frame = excluded.acked_frame, token = excluded.token, writer_site = excluded.writer_site,"
        " writer_epoch = excluded.writer_epoch, deleted_on = excluded.deleted_on",
        (frame, site, epoch),
    )
    connection.execute(
        # Of every frame: a later one may carry the record again only because its document had another change.
        "DELETE FROM sync_outbox WHERE (table_name, id, token) IN"
        f" (SELECT f.table_name, f.id, f.token FROM {_CARRIED} {carried})",
        (frame,),
    )
    if connection.execute("SELECT 1 FROM sync_outcome LIMIT 1").fetchone() is not None:
        connection.execute(
            "DELETE FROM sync_outcome WHERE frame <= ?1 AND (root_table, root_id) IN"
            f" (SELECT root_table, root_id FROM sync_in_flight WHERE frame = ?1 AND document {which})",
            (frame,),
        )
    # What of earlier frames is carried is told by the frame's own entries: they go last.
    connection.execute(f"DELETE FROM {_CARRIED} {carried} AND f.frame < ?1", (frame,))
    connection.execute(f"DELETE FROM sync_in_flight WHERE frame = ?1 AND document {which}", (frame,))
    return int(records)


def _settle_digests(connection: sqlite3.Connection, frame: int, carried: str) -> None:
    """Takes what was agreed on before out of the digests of the scopes that a record is in, and puts the newest in."""
    newest = {
        row[:3]: row[3:]
        for row in connection.execute(
            "SELECT m.scope, f.table_name, f.id, f.hash, f.deleted, r.hash, r.deleted FROM sync_in_flight AS f"
            " CROSS JOIN sync_membership AS m ON m.table_name = f.table_name AND m.id = f.id"
            " LEFT JOIN sync_record AS r ON r.table_name = f.table_name AND r.id = f.id"
            f" WHERE {carried} ORDER BY f.frame",
            (frame,),
        )
    }
    ledger = DigestLedger()
    for (scope, table, _), (now, is_deleted, before, was_deleted) in newest.items():
        if before is not None and not was_deleted:
            ledger.remove(scope, table, before)
        if not is_deleted:
            ledger.add(scope, table, now)
    ledger.write(connection)


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
        "SELECT frame, document FROM sync_in_flight WHERE root_table = ? AND root_id = ? AND term = ? AND term_id = ?"
        " AND counter = ? ORDER BY frame DESC",
        (*document, *version),
    ).fetchone()
    if row is None:
        return False
    _settle_applied(connection, row[0], f"= {row[1]}", site, epoch)
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

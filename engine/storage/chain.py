"""The sender's chain of frames: the last one, those that are not settled, and taking them back (F1, F27).

The lane is here too: what goes in parts (parts.py) gets its place in the chain when the peer has all of it.
"""

import sqlite3

from packhorse.sync.v1 import document_pb2

from engine.rules.topology import CENTRAL_SITE
from engine.session.frames import Link
from engine.storage.parts import LANE_FRAME, Body, body_for, drop_body
from engine.storage.records import read_meta, write_meta


def last_link(connection: sqlite3.Connection) -> Link:
    """The frame that the next one continues."""
    meta = read_meta(connection)
    return Link(int(meta.get("link_number", "0")), bytes.fromhex(meta.get("link_hash", "")))


def last_number(connection: sqlite3.Connection) -> int:
    """The highest frame number that was ever given in this epoch."""
    return int(read_meta(connection).get("frame_number", "0"))


def append(connection: sqlite3.Connection, frame: document_pb2.Frame, documents: int) -> None:
    """Stores a frame as the last one of the chain."""
    connection.execute(
        "INSERT INTO sync_frame VALUES (?, ?, ?, ?, ?, ?, ?)",
        (frame.number, frame.hash, frame.previous_number, frame.previous_hash, documents, frame.body,
         frame.parts_bytes),
    )  # fmt: skip
    write_meta(connection, frame_number=str(frame.number), link_number=str(frame.number), link_hash=frame.hash.hex())


def stored_frames(connection: sqlite3.Connection, after: int, limit: int) -> list[document_pb2.Frame]:
    """Frames that were cut and are not settled, in order, with the bytes they were cut with."""
    rows = connection.execute(
        "SELECT number, hash, previous_number, previous_hash, body, parts_bytes FROM sync_frame WHERE number > ?"
        " ORDER BY number LIMIT ?",
        (after, limit),
    )
    return [
        document_pb2.Frame(
            number=row[0], hash=row[1], previous_number=row[2], previous_hash=row[3], body=row[4], parts_bytes=row[5]
        )
        for row in rows
    ]


def void_frames(connection: sqlite3.Connection, applied: Link) -> int:
    """Takes frames back that the peer has not applied, so that they can be cut anew, smaller, under new numbers (F27).

    Only after the peer has said which frame it applied last: sessions before that one can deliver nothing any more.
    Each change goes back with the lowest term under which it was made. What goes in parts goes on as it is, unless it
    continues a version that is taken back. Returns how many frames were taken back.
    """
    lane = body_for(connection, CENTRAL_SITE)
    if lane is not None and lane.frame > applied.number:
        connection.execute("UPDATE sync_in_flight SET frame = ? WHERE frame = ?", (LANE_FRAME, lane.frame))
        connection.execute("UPDATE sync_lane SET frame = 0 WHERE peer = ?", (CENTRAL_SITE,))
    if lane is not None and _is_under_way(connection, lane, applied.number):
        _give_back(connection, "f.frame > ?", applied.number)
        free_lane(connection)
    else:
        _give_back(connection, f"f.frame > ? AND f.frame < {LANE_FRAME}", applied.number)
    voided = connection.execute("DELETE FROM sync_frame WHERE number > ?", (applied.number,)).rowcount
    write_meta(connection, link_number=str(applied.number), link_hash=applied.hash.hex())
    return voided


def _is_under_way(connection: sqlite3.Connection, lane: Body, after: int) -> bool:
    """Whether an earlier version of the document in the lane is in a frame after that one."""
    query = "SELECT 1 FROM sync_in_flight WHERE root_table = ? AND root_id = ? AND frame > ? AND frame < ? LIMIT 1"
    return connection.execute(query, (lane.root_table, lane.root_id, after, LANE_FRAME)).fetchone() is not None


def _give_back(connection: sqlite3.Connection, which: str, frame: int) -> None:
    """Puts the changes of some frames back into the outbox, each with the lowest term under which it was made."""
    its = "f.table_name = sync_outbox.table_name AND f.id = sync_outbox.id"
    connection.execute(
        "UPDATE sync_outbox SET framed_token = 0, (term, term_id) = (SELECT iif(f.term < sync_outbox.term, f.term,"
        " sync_outbox.term), iif(f.term < sync_outbox.term, f.term_id, sync_outbox.term_id) FROM sync_in_flight AS f"
        f" WHERE {which} AND {its} ORDER BY f.frame)"
        f" WHERE EXISTS (SELECT 1 FROM sync_in_flight AS f WHERE {which} AND {its})",
        (frame, frame),
    )
    connection.execute(f"DELETE FROM sync_in_flight AS f WHERE {which}", (frame,))


def frames_exceed(connection: sqlite3.Connection, records: int, size_bytes: int) -> bool:
    """Whether a stored frame is much too large for the link: more than twice as many records as it takes now, in more
    than one document, or a body beyond what goes in one piece."""
    query = (
        "SELECT 1 FROM sync_frame AS f WHERE length(body) > ? OR documents > 1"
        " AND ? < (SELECT count(*) FROM sync_in_flight WHERE frame = f.number)"
    )
    return connection.execute(query, (2 * size_bytes, 2 * records)).fetchone() is not None


def lane_lost_its_parts(connection: sqlite3.Connection, staged: document_pb2.PartStored, applied: int) -> bool:
    """Whether a frame waits whose parts the peer does not have, although it had said so."""
    body = body_for(connection, CENTRAL_SITE)
    if body is None or body.frame <= applied:
        return False
    return (staged.hash, staged.size_bytes) != (body.hash, body.total_bytes)


# --- the lane ---------------------------------------------------------------------------------------------------------


def close_lane(connection: sqlite3.Connection) -> None:
    """The peer has staged the whole body that goes in parts: gives it its place in the chain."""
    body = body_for(connection, CENTRAL_SITE)
    if body is None or body.frame:
        return
    previous, number = last_link(connection), last_number(connection) + 1
    frame = document_pb2.Frame(
        number=number, hash=body.hash, previous_number=previous.number, previous_hash=previous.hash,
        parts_bytes=body.total_bytes,
    )  # fmt: skip
    connection.execute("UPDATE sync_in_flight SET frame = ? WHERE frame = ?", (number, LANE_FRAME))
    connection.execute("UPDATE sync_lane SET frame = ? WHERE peer = ?", (number, CENTRAL_SITE))
    append(connection, frame, 1)


def leave_overtaken_lane(connection: sqlite3.Connection) -> None:
    """Takes a document out of the lane that was deleted meanwhile: a delete does not wait behind what it ends."""
    body = body_for(connection, CENTRAL_SITE)
    if body is not None and lane_is_overtaken(connection):
        _give_back(connection, "f.frame = ?", LANE_FRAME)
        free_lane(connection)


def lane_is_overtaken(connection: sqlite3.Connection) -> bool:
    """Whether the document in the open lane exists no more."""
    body = body_for(connection, CENTRAL_SITE)
    if body is None or body.frame:
        return False
    return connection.execute(f"SELECT 1 FROM {body.root_table} WHERE id = ?", (body.root_id,)).fetchone() is None


def free_lane(connection: sqlite3.Connection) -> None:
    """The lane is for the next document: what is in it was settled, or given back to the outbox."""
    drop_body(connection, CENTRAL_SITE)
    connection.execute("DELETE FROM sync_lane_waiting")

"""Documents in parts (F42): the sender keeps the exact body of a frame that is too large for the link, the receiver
stages what came of it, durably, until the frame that closes it.

At a site the body is that of a frame without a number: what is in it stands in `sync_in_flight` under LANE_FRAME until
the frame is closed, i.e. gets its place in the chain. Later changes of the document wait behind it; its deletion does
not. At the central it is a pull frame for one site: a section of one feed, or a document that was wanted.
"""

import hashlib
import sqlite3
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.errors import Code, PeerProblem
from engine.limits import FRAME_BYTES_MAX
from engine.session.lane import LaneState, PartWanted

LANE_FRAME = 1 << 62
"""Stands for the number of a frame that is not closed yet: beyond every number that is given."""


class Body(NamedTuple):
    """A body that goes to a peer in parts."""

    peer: int
    hash: bytes
    total_bytes: int
    frame: int = 0
    """At a site: the number of the frame that closed it. Zero: not closed."""
    root_table: str = ""
    root_id: str = ""
    scope: str = ""
    """At the central: the feed whose section this is. Empty: a document that was wanted."""
    generation: int = 0
    from_position: int = 0
    to_position: int = 0


_COLUMNS = "peer, hash, length(body), frame, root_table, root_id, scope, generation, from_position, to_position"


def open_body(connection: sqlite3.Connection, body: Body, content: bytes) -> None:
    """Keeps a body to be sent in parts. The peer must have none yet."""
    connection.execute(
        "INSERT INTO sync_lane (peer, hash, frame, root_table, root_id, scope, generation, from_position, to_position,"
        " body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (body.peer, body.hash, *body[3:], content),
    )


def body_for(connection: sqlite3.Connection, peer: int) -> Body | None:
    """The body that goes to a peer in parts, or None."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM sync_lane WHERE peer = ?", (peer,)).fetchone()
    return Body(*row) if row else None


def is_body(connection: sqlite3.Connection, peer: int, body_hash: bytes) -> bool:
    """Whether this is the hash of the body that goes to a peer in parts."""
    body = body_for(connection, peer)
    return body is not None and body.hash == body_hash


def drop_body(connection: sqlite3.Connection, peer: int) -> None:
    """Forgets the body that goes to a peer: it arrived, or was overtaken."""
    connection.execute("DELETE FROM sync_lane WHERE peer = ?", (peer,))


def read_part(connection: sqlite3.Connection, peer: int, wanted: PartWanted) -> document_pb2.Part | None:
    """A slice of the body that goes to a peer; None where it is another one by now."""
    body = body_for(connection, peer)
    if body is None or body.hash != wanted.hash:
        return None
    with connection.blobopen("sync_lane", "body", peer, readonly=True) as blob:
        blob.seek(wanted.offset)
        content = blob.read(wanted.size_bytes)
    return document_pb2.Part(
        hash=body.hash,
        total_bytes=body.total_bytes,
        offset=wanted.offset,
        content=content,
        content_hash=hashlib.sha256(content).digest(),
    )


def lane_state(body: Body | None, staged: document_pb2.PartStored) -> LaneState | None:
    """Where a body stands, given what the peer said that it has staged."""
    if body is None:
        return None
    stored = min(staged.size_bytes, body.total_bytes) if staged.hash == body.hash else 0
    return LaneState(body.hash, body.total_bytes, stored)


# --- the receiver -----------------------------------------------------------------------------------------------------


def staged_for(connection: sqlite3.Connection, peer: int) -> document_pb2.PartStored | None:
    """What is staged of a peer's body, or None."""
    row = connection.execute(
        "SELECT hash, sum(length(content)) FROM sync_staged WHERE peer = ? GROUP BY hash", (peer,)
    ).fetchone()
    return document_pb2.PartStored(hash=row[0], size_bytes=row[1]) if row else None


def stage(connection: sqlite3.Connection, peer: int, part: document_pb2.Part) -> document_pb2.PartStored:
    """Stages a slice, inside the caller's write transaction. Another body than before takes the place of that one.

    Returns:
        How much is staged; 0 where the whole body came and does not fit its hash, so that it has to come again.

    Raises:
        PeerProblem: FRAME_DAMAGED for a slice that does not fit its hash; PROTOCOL_BROKEN for one that leaves a gap or
            passes the end of the body. Nothing is changed then.
    """
    if not part.hash:
        unstage(connection, peer)
        return document_pb2.PartStored()
    end = part.offset + len(part.content)
    if not part.content or end > part.total_bytes or part.total_bytes > FRAME_BYTES_MAX or len(part.hash) != 32:
        raise PeerProblem(Code.PROTOCOL_BROKEN, "A part came that does not fit into its frame.")
    if hashlib.sha256(part.content).digest() != part.content_hash:
        raise PeerProblem(Code.FRAME_DAMAGED, "A part of a frame arrived with a checksum that does not fit its bytes.")
    there = staged_for(connection, peer)
    size = there.size_bytes if there is not None and there.hash == part.hash else 0
    if part.offset > size:
        raise PeerProblem(Code.PROTOCOL_BROKEN, f"A part came at byte {part.offset}; {size} bytes are here.")
    if size == 0:
        unstage(connection, peer)
    if end > size:
        content = part.content[size - part.offset :]
        connection.execute("INSERT INTO sync_staged VALUES (?, ?, ?, ?)", (peer, size, part.hash, content))
        size = end
    if size == part.total_bytes and hashlib.sha256(_staged_bytes(connection, peer)).digest() != part.hash:
        unstage(connection, peer)
        size = 0
    return document_pb2.PartStored(hash=part.hash, size_bytes=size)


def body_of(connection: sqlite3.Connection, peer: int, frame: document_pb2.Frame | document_pb2.PullFrame) -> bytes:
    """The body of a frame, from the frame itself or from the parts that came before, which are taken out of staging.

    Raises:
        PeerProblem: FRAME_DAMAGED where not all of its parts are there.
    """
    if not frame.parts_bytes:
        return frame.body
    there = staged_for(connection, peer)
    if there is None or (there.hash, there.size_bytes) != (frame.hash, frame.parts_bytes):
        raise PeerProblem(Code.FRAME_DAMAGED, "A frame came before all of its parts.")
    body = _staged_bytes(connection, peer)
    unstage(connection, peer)
    return body


def unstage(connection: sqlite3.Connection, peer: int) -> None:
    """Forgets what is staged: nothing will close it."""
    connection.execute("DELETE FROM sync_staged WHERE peer = ?", (peer,))


def _staged_bytes(connection: sqlite3.Connection, peer: int) -> bytes:
    rows = connection.execute("SELECT content FROM sync_staged WHERE peer = ? ORDER BY at", (peer,))
    return b"".join(row[0] for row in rows)

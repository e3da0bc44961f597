"""Frames that are being taken, noted before they are: one that ends the process each time is set aside whole (F39).

A note is written in a transaction of its own before its frame is taken, and forgotten in the one that takes it. So a
note of an earlier run is an attempt that ended the process, and its frame is taken alone from then on: what was taken
together with it is innocent. A note need not survive a power cut, only the end of the process.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.eras import current_era
from engine.errors import Code
from engine.limits import FRAME_RECORDS, INGEST_ATTEMPTS
from engine.rules.versions import NEVER
from engine.storage.held import Reason, hold
from engine.storage.records import Writer

SET_ASIDE = "sync_frame"
"""Stands for the table of what is held: the id is the number of a frame, the document has its body as it came."""


class Submitted(NamedTuple):
    """A frame that waits to be taken."""

    writer: Writer
    session: str
    frame: document_pb2.Frame
    confirms: bool = True
    """Whether the site has spoken after the Welcome of its session."""


def note_attempts(connection: sqlite3.Connection, frames: Sequence[Submitted]) -> int:
    """Notes the frames that are to be taken next, inside the caller's write transaction.

    Returns:
        How many of them, from the first on: all, those before one that an earlier run did not survive, or that alone.
    """
    era = current_era(connection)
    together = 0
    for submitted in frames:
        if _failures(connection, submitted, era):
            together = together or 1
            break
        together += 1
    connection.executemany(
        "INSERT INTO central_attempt (site, number, hash, era) VALUES (?, ?, ?, ?) ON CONFLICT (site, number) DO UPDATE"
        " SET failures = iif(hash = excluded.hash, failures + (era <> excluded.era), 0), hash = excluded.hash,"
        " era = excluded.era",
        [(s.writer.site, s.frame.number, s.frame.hash, era) for s in frames[:together] if s.frame.number < 1 << 63],
    )
    return together


def _failures(connection: sqlite3.Connection, submitted: Submitted, era: int | None) -> int:
    row = connection.execute(
        "SELECT failures + (era <> ?) FROM central_attempt WHERE site = ? AND number = ? AND hash = ?",
        (era, submitted.writer.site, min(submitted.frame.number, (1 << 63) - 1), submitted.frame.hash),
    ).fetchone()
    return int(row[0]) if row else 0


def note_failure(connection: sqlite3.Connection, submitted: Submitted) -> None:
    """An attempt that the process survived has failed all the same."""
    connection.execute(
        "UPDATE central_attempt SET failures = failures + 1 WHERE site = ? AND number = ? AND hash = ?",
        (submitted.writer.site, submitted.frame.number, submitted.frame.hash),
    )


def forget_attempts(connection: sqlite3.Connection, frames: Iterable[Submitted]) -> None:
    """These frames have ended no process."""
    connection.executemany(
        "DELETE FROM central_attempt WHERE site = ? AND number = ? AND failures = 0",
        [(s.writer.site, s.frame.number) for s in frames if s.frame.number < 1 << 63],
    )


def forget_frame(connection: sqlite3.Connection, site: int, number: int) -> None:
    """The frame was taken, or set aside."""
    connection.execute("DELETE FROM central_attempt WHERE site = ? AND number <= ?", (site, number))


def is_hopeless(connection: sqlite3.Connection, submitted: Submitted) -> bool:
    """Whether the frame was tried so often that it is not tried again."""
    return _failures(connection, submitted, current_era(connection)) >= INGEST_ATTEMPTS


def set_frame_aside(
    connection: sqlite3.Connection, submitted: Submitted, body: bytes, now: int
) -> list[session_pb2.Outcome]:
    """Keeps a frame as it came, unread; returns the outcome of each document that it can have."""
    number = submitted.frame.number
    says = f"Frame {number} could not be taken in {INGEST_ATTEMPTS} attempts. It is kept as it came."
    why = Reason(Code.UNREADABLE, says)
    raw = document_pb2.Document(table=SET_ASIDE, id=str(number), records=[document_pb2.Record(content=body)])
    hold(connection, raw, NEVER, submitted.writer.site, why, now, keeps_to_quota=False)
    return [
        session_pb2.Outcome(index=index, disposition=session_pb2.DISPOSITION_HELD, code=why.code, sentence=says)
        for index in range(FRAME_RECORDS)
    ]

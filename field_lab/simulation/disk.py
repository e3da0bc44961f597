"""The disk of a node: what a power cut leaves of the database's log, and what happens when the disk is full.

The log is written in order, and a commit with `synchronous=FULL` waits until it is on the disk up to there. So of the
log everything up to the last such commit survives a power cut; what was written after it may be there, be missing from
any byte on, or be garbled. The database file is written by checkpoints alone, which wait for the disk before and after;
only the node makes them.
"""

import random
import struct
from pathlib import Path
from typing import NamedTuple

from field_lab.simulation.counters import Counters

PAGE_BYTES = 4096
_FRAME_BYTES = PAGE_BYTES + 24
_HEADER_BYTES = 32
_INDEX = struct.Struct("=IIIBBHII8s8s8s")
"""The header of SQLite's index of the log (WalIndexHdr): the seventh field is the number of frames, the last but one
names the run of the log."""
FULL = 2
"""`PRAGMA synchronous` of a commit that waits for the disk."""


class LogMark(NamedTuple):
    """A place in the log."""

    run: bytes
    """Changes when the log begins again."""
    frames: int


class SimulatedDisk:
    """The files of one database."""

    def __init__(self, path: Path, chance: random.Random, counters: Counters) -> None:
        self.path, self._chance, self._counters = path, chance, counters
        self._log = path.with_name(path.name + "-wal")
        self._index = path.with_name(path.name + "-shm")
        self._durable = LogMark(b"", 0)
        self.is_full = False
        self._images: tuple[bytes, bytes] | None = None

    def now_durable(self) -> None:
        """A commit has waited for the disk: the log is safe up to here."""
        self._durable = self._mark()

    def _mark(self) -> LogMark:
        if not self._index.exists():
            return LogMark(b"", 0)
        with self._index.open("rb") as index:
            found = _INDEX.unpack(index.read(_INDEX.size))
        return LogMark(found[9], found[6])

    def frames(self) -> int:
        """Frames of the log that hold committed transactions."""
        return self._mark().frames

    def _written(self) -> int:
        frames = self._mark().frames
        return _HEADER_BYTES + frames * _FRAME_BYTES if frames else 0

    def _kept(self) -> int:
        mark = self._mark()
        frames = self._durable.frames if mark.run == self._durable.run else 0
        return _HEADER_BYTES + frames * _FRAME_BYTES if frames else 0

    def fail(self) -> None:
        """The power is gone: the files are from now on what has reached the disk, whatever is still written to them."""
        log = self._log.read_bytes()[: self._written()] if self._log.exists() else b""
        self._images = self.path.read_bytes(), self._torn(log, self._kept())

    def _torn(self, log: bytes, kept: int) -> bytes:
        if len(log) == kept:
            return log
        fate = self._chance.choice(("durable", "within", "garbled", "whole"))
        if fate == "durable":
            self._counters.count("log cut where it was durable")
            return log[:kept]
        if fate == "within":
            self._counters.count("log cut within what was not durable")
            return log[: self._chance.randrange(kept, len(log))]
        if fate == "garbled":
            self._counters.count("log garbled within what was not durable")
            at = self._chance.randrange(kept, len(log))
            size = min(self._chance.choice((1, 512, PAGE_BYTES)), len(log) - at)
            return log[:at] + self._chance.randbytes(size) + log[at + size :]
        self._counters.count("log kept whole although it was not durable")
        return log

    def come_back(self) -> None:
        """Puts the files there as the power cut left them. Every connection must be closed."""
        assert self._images is not None
        database, log = self._images
        self._images = None
        self._index.unlink(missing_ok=True)
        self.path.write_bytes(database)
        self._log.write_bytes(log)
        self._durable = LogMark(b"", 0)

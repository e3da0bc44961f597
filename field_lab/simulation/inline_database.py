"""A node's database without a thread: work runs where it is called, and each commit is a place where a life may end.

A process that ends before COMMIT loses the transaction, one that ends after it loses only the answer. A power cut at
the commit comes while the disk is waited for: whether the transaction is there afterwards nobody knows, but it is there
whole or not at all. Transactions that were answered survive: that is what `synchronous=FULL` promises, and whether it
is in force is looked up after each commit.
"""

import asyncio
import random
import sqlite3
from enum import Enum
from pathlib import Path
from typing import Protocol

from engine.catalogue.model import Catalogue
from engine.limits import WATCH_SECONDS_BUSY, WATCH_SECONDS_IDLE
from engine.storage.database import DataVersion, Result, Work, catalogue_error, snapshot
from engine.storage.schema import prepare
from engine.storage.sqlite_file import checkpoint_if_due, open_reader, open_writer
from field_lab.simulation.counters import Counters
from field_lab.simulation.disk import FULL, SimulatedDisk


class Fate(Enum):
    """What becomes of a process at a commit."""

    LIVES = "lives"
    ENDS_BEFORE = "ended before"
    ENDS_AFTER = "ended after"
    LOSES_POWER = "lost power"


class Surroundings(Protocol):
    """What a database lives in."""

    disk: SimulatedDisk

    def fate(self) -> Fate:
        """Decides at each commit."""

    def fell(self, fate: Fate) -> None:
        """The process has just ended so."""

    def committed(self, durable: bool) -> None:
        """A transaction was committed."""

    def refused(self) -> None:
        """A transaction found no room on the disk."""

    def copied_log(self) -> None:
        """The log was copied into the database."""


class Calm:
    """Surroundings in which nothing goes wrong."""

    def __init__(self, path: Path) -> None:
        self.disk = SimulatedDisk(path, random.Random(0), Counters())

    def fate(self) -> Fate:
        """Every process lives."""
        return Fate.LIVES

    def fell(self, fate: Fate) -> None:
        """Never."""
        raise AssertionError(fate)

    def committed(self, durable: bool) -> None:
        """Nobody wants to know."""

    def refused(self) -> None:
        """Nobody wants to know."""

    def copied_log(self) -> None:
        """Nobody wants to know."""


class InlineDatabase:
    """See the module. One object is one life of a node."""

    def __init__(self, catalogue: Catalogue, more: tuple[str, ...], surroundings: Surroundings) -> None:
        self._around, self._disk = surroundings, surroundings.disk
        path = self._disk.path
        self._writer = open_writer(path)
        prepare(self._writer, catalogue, more)
        self._reader, self._watcher = open_reader(path), open_reader(path)
        self._seen, self._own_writes = -1, 0
        self._changed = asyncio.Event()
        self._is_limited = self.is_dead = False
        self.ends_with_this = False
        """Set during work: the process does not survive it."""

    async def write(self, work: Work[Result], before: Work[object] | None = None) -> Result:
        """See `Database.write`."""
        await self._alive()
        if before is not None:
            self._hint(before)
            await self._alive()
        self._own_writes += 1
        result = self._transact(work)
        if not self.is_dead and checkpoint_if_due(self._writer, self._disk.path):
            self._disk.now_durable()
            self._around.committed(durable=True)
            self._around.copied_log()
        await self._alive()
        return result

    def _hint(self, work: Work[object]) -> None:
        self._writer.execute("PRAGMA synchronous = NORMAL")
        try:
            self._transact(work)
        finally:
            self._writer.execute("PRAGMA synchronous = FULL")

    def _transact(self, work: Work[Result]) -> Result:
        if self._is_limited != self._disk.is_full:
            self._is_limited = self._disk.is_full
            limit_pages(self._writer, self._is_limited)
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            result = work(self._writer)
            self._commit()
        except sqlite3.Error as error:
            if is_full(error):
                self._around.refused()
            raise catalogue_error(error) from error
        finally:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        return result

    def _commit(self) -> None:
        fate = Fate.ENDS_BEFORE if self.ends_with_this else self._around.fate()
        if fate is Fate.ENDS_BEFORE:
            self._writer.execute("ROLLBACK")
            self._end(fate)
            return
        self._writer.execute("COMMIT")
        if fate is Fate.LOSES_POWER:
            self._end(fate)
            return
        durable = self._writer.execute("PRAGMA synchronous").fetchone()[0] >= FULL
        if durable:
            self._disk.now_durable()
        self._around.committed(durable)
        self._changed.set()
        if fate is Fate.ENDS_AFTER:
            self._end(fate)

    async def read(self, work: Work[Result]) -> Result:
        """See `Database.read`."""
        await self._alive()
        return snapshot(self._reader, work)

    async def data_version(self) -> DataVersion:
        """See `Database.data_version`. Where nothing was committed since it was asked last, the answer comes when
        something was, as late as whoever looks now and then would see it: a run has hours in which nothing happens."""
        await self._alive()
        self._changed.clear()
        version = self._version()
        if version == self._seen:
            await self._changed.wait()
            await asyncio.sleep(random.random() * random.choice((WATCH_SECONDS_BUSY, WATCH_SECONDS_IDLE)))
            await self._alive()
            version = self._version()
        self._seen = version
        return DataVersion(version, self._own_writes)

    def _version(self) -> int:
        return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def somebody_committed(self) -> None:
        """Whoever waits for a change looks again."""
        self._changed.set()

    async def close(self) -> None:
        """See `Database.close`."""
        self.close_now()

    def close_now(self) -> None:
        """Ends this life: what is not committed is lost, and nobody gets an answer any more."""
        self.is_dead = True
        for connection in (self._watcher, self._reader, self._writer):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.close()

    def _end(self, fate: Fate) -> None:
        self.is_dead = True
        self._around.fell(fate)

    async def _alive(self) -> None:
        await asyncio.sleep(0)
        if self.is_dead:
            raise asyncio.CancelledError  # the process is gone: nothing goes on here


def limit_pages(connection: sqlite3.Connection, full: bool) -> None:
    """Lets the database grow no more, or as it likes."""
    if full:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    else:
        connection.execute("PRAGMA max_page_count = 4294967294")


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room on the disk."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"

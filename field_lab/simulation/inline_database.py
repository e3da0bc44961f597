"""A node's database without a thread: work runs where it is called, and power can fail around every commit.

A power cut before COMMIT loses the transaction, one after it loses only the answer. Committed transactions survive:
that is what `synchronous=FULL` promises and what production relies on.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

from engine.catalogue.model import Catalogue
from engine.storage.database import Result, Work, as_catalogue_errors, snapshot
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_reader, open_writer

PowerCut = Callable[[str], bool]
"""Asked at `before` and `after` each commit whether the power fails there."""


class InlineDatabase:
    """See the module."""

    def __init__(
        self, path: Path, catalogue: Catalogue, more: tuple[str, ...], power_cut: PowerCut, on_cut: Callable[[], None]
    ) -> None:
        self._writer = open_writer(path)
        self._writer.execute("PRAGMA synchronous = OFF")  # the power cuts here are our own; the disk need not hear
        prepare(self._writer, catalogue, more)
        self._reader, self._watcher = open_reader(path), open_reader(path)
        self._power_cut, self._on_cut = power_cut, on_cut
        self.is_dead = False

    async def write(self, work: Work[Result]) -> Result:
        """See `Database.write`."""
        await self._alive()
        with as_catalogue_errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._writer)
                if self._power_cut("before"):
                    self._die()
                else:
                    self._writer.execute("COMMIT")
                    if self._power_cut("after"):
                        self._die()
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
        await self._alive()
        return result

    async def hint(self, work: Work[Result]) -> Result:
        """See `Database.hint`."""
        return await self.write(work)

    async def read(self, work: Work[Result]) -> Result:
        """See `Database.read`."""
        await self._alive()
        return snapshot(self._reader, work)

    async def data_version(self) -> int:
        """See `Database.data_version`."""
        await self._alive()
        return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    async def close(self) -> None:
        """See `Database.close`."""
        self.cut_power()

    def cut_power(self) -> None:
        """Ends this incarnation at once: what is not committed is lost, and nobody gets an answer any more."""
        self.is_dead = True
        for connection in (self._watcher, self._reader, self._writer):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.close()

    def _die(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self.is_dead = True
        self._on_cut()

    async def _alive(self) -> None:
        await asyncio.sleep(0)
        if self.is_dead:
            raise asyncio.CancelledError  # the process is gone: nothing goes on here


def rows_of(connection: sqlite3.Connection, query: str, *values: object) -> list[tuple[object, ...]]:
    """The rows of a query, for checks."""
    return connection.execute(query, values).fetchall()

"""The database on aiosqlite: one connection that writes and one that reads, a thread each, and one that watches.

One awaited call into aiosqlite costs some 80 microseconds, and two tasks that share a connection share its transaction.
So work crosses into the thread once per transaction, as a whole function: nothing can come between its statements.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite

from engine.catalogue.model import Catalogue
from engine.errors import Code, Refused
from engine.storage.database import DataVersion, Result, Work, as_catalogue_errors, snapshot, transact
from engine.storage.schema import APPLICATION_ID, prepare
from engine.storage.sqlite_file import checkpoint_if_due, open_reader, open_writer


class _WorkConnection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function on its thread.

    `_execute` is how every method of aiosqlite reaches the thread; the library has no public name for it.
    """

    async def run(self, work: Work[Result]) -> Result:
        execute: Any = self._execute  # untyped there
        result: Result = await execute(work, self._conn)
        return result

    @classmethod
    async def open(cls, connect: Callable[[], sqlite3.Connection]) -> "_WorkConnection":
        """Starts the thread and opens the connection on it."""
        connection = cls(connect, iter_chunk_size=64)
        try:
            await connection
        except BaseException:
            # aiosqlite has told its thread to end. That is over before the loop is closed, or the thread complains.
            await asyncio.to_thread(connection._thread.join)
            raise
        return connection


class AiosqliteDatabase:
    """A node's database file. Open it with `open_database`."""

    def __init__(
        self, path: Path, writer: _WorkConnection, reader: _WorkConnection, watcher: sqlite3.Connection
    ) -> None:
        self._path, self._writer, self._reader, self._watcher = path, writer, reader, watcher
        self._own_writes = 0

    async def write(self, work: Work[Result], before: Work[object] | None = None) -> Result:
        """See `Database.write`."""

        def transaction(connection: sqlite3.Connection) -> Result:
            if before is not None:
                _hint(connection, before)
            result = transact(connection, work)
            checkpoint_if_due(connection, self._path)
            return result

        self._own_writes += 1
        try:
            return await self._writer.run(transaction)
        finally:
            self._own_writes += 1

    async def read(self, work: Work[Result]) -> Result:
        """See `Database.read`."""
        return await self._reader.run(partial(snapshot, work=work))

    async def data_version(self) -> DataVersion:
        """See `Database.data_version`. Done here: it takes 5 microseconds, the way to a thread and back 80."""
        with as_catalogue_errors():
            number = int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        return DataVersion(number, self._own_writes)

    async def close(self) -> None:
        """See `Database.close`. The log is copied into the file when nobody else uses it."""
        self._watcher.close()
        for connection in (self._reader, self._writer):
            await connection.close()


def _hint(connection: sqlite3.Connection, work: Work[object]) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        transact(connection, work)
    finally:
        connection.execute("PRAGMA synchronous = FULL")


async def open_database(
    path: Path, catalogue: Catalogue, more: tuple[str, ...] = (), make: bool = False
) -> AiosqliteDatabase:
    """Opens and where needed upgrades a node's database; `make`: it may be a new one.

    Other arguments and errors as `schema.prepare`; DATABASE_DAMAGED too where there is nothing to open.
    """

    def writer() -> sqlite3.Connection:
        if not make:
            _require_ours(path)
        connection = open_writer(path)
        try:
            prepare(connection, catalogue, more)
        except BaseException:
            connection.close()
            raise
        return connection

    opened: list[_WorkConnection] = []
    try:
        for connect in (writer, partial(open_reader, path)):
            opened.append(await _WorkConnection.open(connect))
        watcher = open_reader(path)
    except BaseException:
        for connection in opened:
            await connection.close()
        raise
    watcher.execute("PRAGMA busy_timeout = 0")  # the event loop does not wait
    return AiosqliteDatabase(path, opened[0], opened[1], watcher)


def _require_ours(path: Path) -> None:
    """Raises Refused with DATABASE_DAMAGED where there is no database of a node. Nothing of the file is changed."""
    if not path.is_file():
        raise Refused(Code.DATABASE_DAMAGED, f"There is no file {path.name} in {path.parent}.")
    reader = open_reader(path)
    try:
        with as_catalogue_errors():
            application = reader.execute("PRAGMA application_id").fetchone()[0]
    finally:
        reader.close()
    if application != APPLICATION_ID:
        raise Refused(Code.DATABASE_DAMAGED, f"The file {path} is empty or no Packhorse database.")

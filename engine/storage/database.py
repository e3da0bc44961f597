"""The port to a node's database: work is a function of a connection, run in one transaction.

Whatever driver carries it, a database offers this: `write` runs work in a transaction of its own that is durable when
the call returns; `read` runs it in one read snapshot; nobody else's statements come between. Work is synchronous and
bounded. The errors of SQLite become errors of the catalogue at this one door.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

from engine.errors import Code, PackhorseError, Refused, Unavailable

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


class DataVersion(NamedTuple):
    """What a database looks like from outside."""

    number: int = -1
    """Differs after any change was committed."""
    own_writes: int = -1
    """Differs after a transaction of this node's own began or ended."""

    def shows_others(self, before: "DataVersion") -> bool:
        """Whether another program has committed something since. It may have done so too where this is false."""
        return self.number != before.number and self.own_writes == before.own_writes


class Database(Protocol):
    """A node's database."""

    async def write(self, work: Work[Result], before: Work[object] | None = None) -> Result:
        """Runs work in one transaction and returns its result after a durable commit.

        Args:
            work: what is done.
            before: work that is committed in a transaction of its own before. That need only survive the end of the
                process, not a power cut: there is no wait for the disk.

        Raises:
            Unavailable: BUSY when another program holds the write lock, DISK_FULL. Nothing was changed, unless by
                `before`.
            Refused: DIRECTORY_READ_ONLY, DATABASE_DAMAGED. Nothing was changed, unless by `before`.
        """
        ...

    async def read(self, work: Work[Result]) -> Result:
        """Runs work in one read snapshot. Raises as `write` does."""
        ...

    async def data_version(self) -> DataVersion:
        """Differs after something was committed: by whom can be told where it was not this node."""
        ...

    async def close(self) -> None:
        """Ends the work under way and closes the file."""
        ...


def transact(connection: sqlite3.Connection, work: Work[Result]) -> Result:
    """Runs work on this connection in one immediate transaction."""
    with as_catalogue_errors():
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result


def snapshot(connection: sqlite3.Connection, work: Work[Result]) -> Result:
    """Runs work on this connection in one read transaction."""
    with as_catalogue_errors():
        connection.execute("BEGIN")
        try:
            return work(connection)
        finally:
            connection.execute("ROLLBACK")


@contextmanager
def as_catalogue_errors() -> Iterator[None]:
    """Turns the errors of SQLite into those of the catalogue."""
    try:
        yield
    except sqlite3.Error as error:
        raise catalogue_error(error) from error


def catalogue_error(error: sqlite3.Error) -> PackhorseError:
    """The catalogue's error for one of SQLite."""
    text = str(error)
    name = getattr(error, "sqlite_errorname", "") or ""
    if text.startswith("Packhorse: "):
        return Refused(Code.EDIT_REFUSED, text.removeprefix("Packhorse: "))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable(Code.BUSY, "Another program holds the write lock of node.db.", 1.0)
    if name.startswith("SQLITE_FULL"):
        return Unavailable(Code.DISK_FULL, "The disk that holds node.db is full.", 30.0)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return Refused(Code.DIRECTORY_READ_ONLY, "The directory of node.db cannot be written.")
    if name.startswith("SQLITE_IOERR"):
        return Unavailable(Code.DISK_FULL, "The disk that holds node.db does not take what is written.", 30.0)
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Refused(Code.DATABASE_DAMAGED, "The file node.db is damaged or no database.")
    return Refused(Code.INTERNAL, f"The database refused a statement ({name or 'unknown'}).")

"""How connections to node.db are opened, and how its write-ahead log is kept short.

Durability. Writers run with `synchronous=FULL`: when COMMIT returns, the log is on the disk. Other programs may commit
with NORMAL; a later FULL commit of ours makes theirs durable too, because the log is written in order (F56). Everything
is in this one file: attached files would not commit together.

Checkpointing (F20). SQLite before 3.51.3 (3.50.7, 3.44.6) can lose committed pages when a checkpoint runs while another
connection commits and so resets the log. So: `wal_autocheckpoint=0`, and a checkpoint runs only while a second
connection of ours holds the write lock and writes nothing, so that nobody can commit meanwhile. It runs whenever the
log has passed CHECKPOINT_PAGES, which keeps other programs' own auto-checkpoint (1000 pages) from being reached. The
file is never mapped into memory.
"""

import sqlite3
from pathlib import Path

from engine.errors import Code, Refused
from engine.limits import CHECKPOINT_PAGES, WRITE_LOCK_SECONDS
from engine.storage.database import as_catalogue_errors

DATABASE_NAME = "node.db"
_WRITER_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 0",
    # A log that begins again is cut, so that its size tells whether a checkpoint is due.
    "journal_size_limit = 0",
    "mmap_size = 0",
    "cache_size = -16384",
    # What a savepoint would undo is kept in memory: each row of a frame would write pages into a temporary file.
    "temp_store = MEMORY",
)


def open_writer(path: Path) -> sqlite3.Connection:
    """Opens the one writing connection; makes the file when it is missing.

    Raises:
        Refused: DIRECTORY_READ_ONLY, DATABASE_DAMAGED.
        Unavailable: BUSY, DISK_FULL.
    """
    with as_catalogue_errors():
        connection = sqlite3.connect(path, timeout=WRITE_LOCK_SECONDS, isolation_level=None, cached_statements=512)
        for pragma in _WRITER_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        # BEGIN IMMEDIATE proves the right to write now instead of at the first edit.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Opens a connection that can neither write nor checkpoint. Raises as `open_writer`, and DIRECTORY_WRONG."""
    if not path.exists():
        raise Refused(Code.DIRECTORY_WRONG, f"There is no {DATABASE_NAME} in {path.parent}.")
    with as_catalogue_errors():
        connection = sqlite3.connect(
            f"file:{_quoted(path)}?mode=ro", uri=True, timeout=WRITE_LOCK_SECONDS, isolation_level=None
        )
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA mmap_size = 0")
    return connection


def checkpoint_if_due(writer: sqlite3.Connection, path: Path, pages: int = CHECKPOINT_PAGES) -> bool:
    """Copies the log into the database when it has passed `pages`; returns whether it tried.

    Does nothing while another program holds the write lock: the next commit tries again.
    """
    log = path.with_name(path.name + "-wal")
    if not log.exists() or log.stat().st_size < pages * 4096:
        return False
    try:
        guard = sqlite3.connect(path, timeout=0, isolation_level=None)
    except sqlite3.OperationalError:
        return False
    try:
        guard.execute("PRAGMA wal_autocheckpoint = 0")
        guard.execute("BEGIN IMMEDIATE")
        _, pages_there, pages_copied = writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        guard.execute("ROLLBACK")
        if pages_there == pages_copied:
            _begin_log_again(writer)
    except sqlite3.OperationalError:
        return False
    finally:
        guard.close()
    return True


def _begin_log_again(writer: sqlite3.Connection) -> None:
    """Commits a page that stays as it is. The first commit after a whole copy begins the log at its start and, where it
    is ours, cuts the file: otherwise its size would call for a checkpoint after each commit from then on."""
    version = writer.execute("PRAGMA user_version").fetchone()[0]
    writer.execute(f"PRAGMA user_version = {version}")


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")

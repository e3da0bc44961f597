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
from engine.limits import CHECKPOINT_PAGES, LOG_BYTES_KEPT, WRITE_LOCK_SECONDS
from engine.storage.database import as_catalogue_errors

DATABASE_NAME = "node.db"
_HEADER_BYTES, _FRAME_HEADER_BYTES, _PAGE_BYTES = 32, 24, 4096
"""Of the log, of each of its frames, and of a page, which no program of ours makes another size."""
_WRITER_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 0",
    # A log that begins again overwrites itself: a commit that need not make the file longer waits half as long.
    f"journal_size_limit = {LOG_BYTES_KEPT}",
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
    if not _has_frame(path.with_name(path.name + "-wal"), pages):
        return False
    try:
        guard = sqlite3.connect(path, timeout=0, isolation_level=None)
    except sqlite3.OperationalError:
        return False
    try:
        guard.execute("PRAGMA wal_autocheckpoint = 0")
        guard.execute("BEGIN IMMEDIATE")
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")  # where all is copied, the next commit begins the log again
        guard.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        guard.close()
    return True


def _has_frame(log: Path, number: int) -> bool:
    """Whether the log has that many frames. The size of the file does not tell it: behind the last frame are those of
    the log before, whose salts are not those in the header (https://www.sqlite.org/fileformat2.html#walformat)."""
    try:
        with log.open("rb", buffering=0) as file:
            salts = file.read(_HEADER_BYTES)[16:24]
            file.seek(_HEADER_BYTES + (number - 1) * (_FRAME_HEADER_BYTES + _PAGE_BYTES) + 8)
            return len(salts) == 8 and file.read(8) == salts
    except FileNotFoundError:
        return False


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")

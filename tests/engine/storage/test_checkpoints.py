"""The write-ahead log is copied only while nobody can commit, and stays short (F20)."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.limits import CHECKPOINT_PAGES, LOG_BYTES_KEPT
from engine.storage.database import transact
from engine.storage.sqlite_file import checkpoint_if_due, open_reader, open_writer

OTHERS_CHECKPOINT_PAGES = 1_000
"""Where the log of a program with SQLite's own settings is copied by that program."""
_PAGE_BYTES = 4_096


def log_pages(path: Path) -> int:
    """The frames of the log, up to the first one that belongs to the log before."""
    log = path.with_name(path.name + "-wal")
    content = log.read_bytes() if log.exists() else b""
    salts, frames = content[16:24], 0
    while content[(at := 32 + frames * (24 + _PAGE_BYTES)) + 8 : at + 16] == salts != b"":
        frames += 1
    return frames


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one table."""
    made = tmp_path / "node.db"
    connection = open_writer(made)
    connection.execute("CREATE TABLE note (writer TEXT, number INTEGER, text BLOB)")
    connection.close()
    return made


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """The daemon's writing connection. It does not wait for the disk: no power is cut here."""
    connection = open_writer(path)
    connection.execute("PRAGMA synchronous = OFF")
    yield connection
    connection.close()


@pytest.fixture
def program(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program, with SQLite's own settings; it does not wait for locks."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    yield connection
    connection.close()


def write(connection: sqlite3.Connection, who: str, number: int) -> None:
    """One transaction with some three pages."""
    transact(connection, lambda c: c.execute("INSERT INTO note VALUES (?, ?, randomblob(8000))", (who, number)))


def fill(connection: sqlite3.Connection, path: Path, pages: int) -> None:
    """Commits until the log has so many pages, without a checkpoint."""
    number = 0
    while log_pages(path) < pages:
        number += 1
        write(connection, "filler", number)


def test_f20_the_daemon_never_checkpoints_by_itself(path: Path, writer: sqlite3.Connection) -> None:
    reader = open_reader(path)
    for connection, pragmas in ((writer, ("wal_autocheckpoint", "mmap_size")), (reader, ("mmap_size",))):
        for pragma in pragmas:
            assert connection.execute(f"PRAGMA {pragma}").fetchone() == (0,), pragma
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    write(writer, "daemon", 1)
    for statement in ("PRAGMA wal_checkpoint(PASSIVE)", "INSERT INTO note VALUES ('reader', 1, x'')"):
        with pytest.raises(sqlite3.OperationalError):
            reader.execute(statement).fetchall()
    reader.close()


def test_f20_nobody_commits_while_the_log_is_copied(
    path: Path, writer: sqlite3.Connection, program: sqlite3.Connection
) -> None:
    """Another program tries just when the checkpoint begins."""
    fill(writer, path, CHECKPOINT_PAGES)
    seen: list[str] = []

    def watch(statement: str) -> None:
        if "wal_checkpoint" in statement:
            try:
                program.execute("BEGIN IMMEDIATE")
                program.execute("ROLLBACK")
                seen.append("another program could commit")
            except sqlite3.OperationalError as error:
                seen.append(str(error))

    writer.set_trace_callback(watch)
    assert checkpoint_if_due(writer, path)
    writer.set_trace_callback(None)
    assert seen == ["database is locked"]
    write(program, "program", 1)
    write(writer, "daemon", 1)
    assert log_pages(path) < CHECKPOINT_PAGES // 10, "the log was copied whole and begins again"


@pytest.mark.parametrize("holds", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_f20_a_checkpoint_waits_for_another_programs_transaction(
    path: Path, writer: sqlite3.Connection, program: sqlite3.Connection, holds: str
) -> None:
    fill(writer, path, CHECKPOINT_PAGES)
    program.execute(holds)
    program.execute("INSERT INTO note VALUES ('program', 1, x'')")
    before = log_pages(path)
    assert not checkpoint_if_due(writer, path)
    assert log_pages(path) == before
    program.execute("COMMIT")
    assert checkpoint_if_due(writer, path)
    assert program.execute("SELECT count(*) FROM note WHERE writer = 'program'").fetchone() == (1,)


def test_f20_no_checkpoint_below_the_bound(path: Path, writer: sqlite3.Connection) -> None:
    fill(writer, path, CHECKPOINT_PAGES // 2)
    assert not checkpoint_if_due(writer, path)


@pytest.mark.parametrize("turns", ["daemon only", "by turns", "mostly the program"])
def test_f20_the_log_stays_shorter_than_where_other_programs_checkpoint(
    path: Path, writer: sqlite3.Connection, program: sqlite3.Connection, turns: str
) -> None:
    """And a checkpoint is made when the log has grown, not with every commit from then on."""
    commits = checkpoints = 0
    for number in range(600):
        if turns == "daemon only" or number % (2 if turns == "by turns" else 5) == 0:
            write(writer, "daemon", number)
            checkpoints += checkpoint_if_due(writer, path)
        else:
            write(program, "program", number)
        commits += 1
        assert log_pages(path) < OTHERS_CHECKPOINT_PAGES
    assert 1 <= checkpoints < commits // 50
    assert writer.execute("SELECT count(*) FROM note").fetchone() == (commits,)


def test_f20_what_a_large_transaction_leaves_is_cut(path: Path, writer: sqlite3.Connection) -> None:
    log = path.with_name(path.name + "-wal")
    transact(writer, lambda c: c.execute("INSERT INTO note VALUES ('large', 0, zeroblob(?))", (2 * LOG_BYTES_KEPT,)))
    assert log.stat().st_size > 2 * LOG_BYTES_KEPT
    assert checkpoint_if_due(writer, path)
    write(writer, "daemon", 1)
    assert log.stat().st_size <= LOG_BYTES_KEPT
    for number in range(20):
        write(writer, "daemon", number)
        assert not checkpoint_if_due(writer, path), "the log is short, whatever the size of its file"


def test_f20_a_long_reader_delays_the_copy_and_loses_nothing(path: Path, writer: sqlite3.Connection) -> None:
    reader = open_reader(path)
    write(writer, "daemon", 0)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM note").fetchone() == (1,)
    for number in range(1, 300):
        write(writer, "daemon", number)
        checkpoint_if_due(writer, path)
    assert reader.execute("SELECT count(*) FROM note").fetchone() == (1,), "its snapshot stays"
    reader.execute("ROLLBACK")
    checkpoint_if_due(writer, path)
    write(writer, "daemon", 300)
    assert log_pages(path) < CHECKPOINT_PAGES
    assert reader.execute("SELECT count(*) FROM note").fetchone() == (301,)
    reader.close()


def test_f20_nothing_is_lost_while_other_programs_write_beside_the_daemon(path: Path) -> None:
    """Three programs with SQLite's own settings, as fast as they can."""
    begun = threading.Barrier(4)

    def work(name: str) -> None:
        is_daemon = name == "daemon"
        connection = open_writer(path) if is_daemon else sqlite3.connect(path, timeout=60, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA busy_timeout = 60000")
        begun.wait()
        for number in range(250):
            write(connection, name, number)
            if is_daemon:
                checkpoint_if_due(connection, path)
        connection.close()

    names = ("daemon", "one", "two", "three")
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = sqlite3.connect(path)
    found = dict(reader.execute("SELECT writer, count(DISTINCT number) FROM note GROUP BY writer"))
    assert found == dict.fromkeys(names, 250)
    assert reader.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    reader.close()

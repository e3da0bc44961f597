"""What a power cut may take: everything behind the last durable commit, and nothing before it (F56)."""

import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.storage.aiosqlite_database import AiosqliteDatabase, open_database
from engine.storage.push import cut_frame
from field_lab.core_catalogue import core_catalogue
from tests.partners import NOW, Central, Site, connect, pull

FULL, NORMAL = 2, 1
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


@pytest.fixture(name="site")
def site_with_configuration(tmp_path: Path) -> Site:
    central = Central(tmp_path / "node-1.db")
    site = central.add(tmp_path, 2)
    connect(central, site)
    pull(central, site)
    site.connection.close()
    return site


@pytest.fixture(name="database")
async def database_of_the_site(site: Site) -> AsyncIterator[AiosqliteDatabase]:
    database = await open_database(site.path, core_catalogue())
    yield database
    await database.close()


def synchronous_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA synchronous").fetchone()[0])


def edit_outside(site: Site, name: str) -> None:
    """Another program edits and does not wait for the disk."""
    program = sqlite3.connect(site.path)
    program.execute("PRAGMA synchronous = NORMAL")
    program.execute("INSERT INTO stock_line (id, store_id) VALUES (?, ?)", (name, site.store))
    program.commit()
    assert synchronous_of(program) == NORMAL
    program.close()


async def cut(database: AiosqliteDatabase, site: Site) -> int:
    """Stores a frame as a session does; returns how durable that commit was."""

    def work(connection: sqlite3.Connection) -> int:
        assert cut_frame(connection, core_catalogue(), site.number, NOW) is not None
        return synchronous_of(connection)

    return await database.write(work)


def image(site: Site, folder: Path, log_bytes: int) -> sqlite3.Connection:
    """The files as a power cut leaves them when so much of the log had reached the disk."""
    folder.mkdir()
    shutil.copyfile(site.path, folder / "node.db")
    log = site.path.with_name(site.path.name + "-wal").read_bytes()
    (folder / "node.db-wal").write_bytes(log[:log_bytes])
    return sqlite3.connect(folder / "node.db")


async def test_f56_a_frame_on_the_disk_has_the_edits_of_others_before_it(
    site: Site, database: AiosqliteDatabase, tmp_path: Path
) -> None:
    """However much of the log a power cut leaves: where the note of a frame is left, so are the edits that are in it,
    although the program that made them did not wait for the disk."""
    log, ends = site.path.with_name(site.path.name + "-wal"), []
    for number in (1, 2):
        edit_outside(site, f"outside-{number}")
        assert await cut(database, site) == FULL
        ends.append(log.stat().st_size)
    page_bytes = sqlite3.connect(site.path).execute("PRAGMA page_size").fetchone()[0]
    step = _FRAME_HEADER_BYTES + int(page_bytes)
    seen = set()
    for size in range(_LOG_HEADER_BYTES, ends[-1] + 1, step):
        left = image(site, tmp_path / str(size), size)
        frames = {row[0] for row in left.execute("SELECT number FROM sync_frame")}
        edits = {row[0] for row in left.execute("SELECT id FROM stock_line")}
        assert {f"outside-{number}" for number in frames} <= edits
        assert len(frames) >= sum(end <= size for end in ends), "a durable commit is not there"
        seen.add((len(frames), len(edits)))
        left.close()
    assert {(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)} == seen, "an edit may be lost before a frame is cut, not after"


async def test_f56_after_a_hint_commits_are_durable_again(database: AiosqliteDatabase) -> None:
    """Notes without which nothing is lost do not wait for the disk; whatever follows does."""
    seen: list[int] = []
    assert await database.write(synchronous_of, before=lambda c: seen.append(synchronous_of(c))) == FULL
    assert seen == [NORMAL]
    with pytest.raises(ZeroDivisionError):
        await database.write(synchronous_of, before=lambda _: 1 / 0)
    assert await database.write(synchronous_of) == FULL


async def test_f56_everything_is_in_one_file(database: AiosqliteDatabase) -> None:
    """Attached files do not commit together."""
    for run in (database.write, database.read):
        names = await run(lambda c: [row[1] for row in c.execute("PRAGMA database_list")])
        assert [name for name in names if name != "temp"] == ["main"]

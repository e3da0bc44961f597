"""How a site notices edits of other programs: whose commit it was, and how often it looks."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from engine.storage.aiosqlite_database import AiosqliteDatabase, open_database
from engine.storage.database import DataVersion
from field_lab.core_catalogue import core_catalogue
from site_node.node import SiteNode
from tests.partners import Site, central_and_two_sites


@pytest.fixture(name="site")
def a_site(tmp_path: Path) -> Site:
    _, site, _ = central_and_two_sites(tmp_path)
    return site


class Session:
    """Stands in the place of a session: it has read the outbox, and writes down that it is told of edits."""

    def __init__(self, stays: bool) -> None:
        self.stays, self.edits = stays, 0

    async def until_all_is_sent(self) -> None:
        """At once."""

    def edited(self) -> None:
        """Something waits."""
        self.edits += 1


def note(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO sync_status VALUES ('anything', hex(randomblob(4)))")


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("others", [False, True])
async def test_a_commit_is_known_to_be_of_others_where_nothing_was_written_here(
    site: Site, own: bool, others: bool
) -> None:
    database = await open_database(site.path, core_catalogue())
    before = await database.data_version()
    assert await database.data_version() == before
    if others:
        site.put_stock("a")
    if own:
        await database.write(note)
    now = await database.data_version()
    await database.close()
    assert (now.number != before.number) == (own or others)
    assert now.shows_others(before) == (others and not own)


def test_the_first_look_tells_nothing_of_whose_commit_it_was() -> None:
    assert not DataVersion(7, 0).shows_others(DataVersion())


class CountingDatabase(AiosqliteDatabase):
    """Counts how often it is looked at."""

    looks = 0

    async def data_version(self) -> DataVersion:
        """See `Database.data_version`."""
        self.looks += 1
        return await super().data_version()


async def looks(site: Site, stays: bool, seconds: float) -> tuple[int, int]:
    """(how often a site looks in the time after an edit, how often its session is told)."""
    opened = await open_database(site.path, core_catalogue())
    opened.__class__ = CountingDatabase
    database: Any = opened
    node = SiteNode(database, core_catalogue(), lambda _site, _installation: None)  # type: ignore[arg-type, return-value]
    session: Any = Session(stays)
    node._session = session
    node._begun.set()
    looking = asyncio.create_task(node._look())
    await asyncio.sleep(0.3)
    site.put_stock("a")
    while not session.edits:
        await asyncio.sleep(0.001)
    database.looks = 0
    await asyncio.sleep(seconds)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await database.close()
    return database.looks, session.edits


async def test_only_who_stays_connected_looks_often(site: Site) -> None:
    """A session that ends when everything is exchanged has no next edit to wait for; looking costs what others need."""
    assert await looks(site, stays=True, seconds=0.5) > (20, 0)
    often, told = await looks(site, stays=False, seconds=0.5)
    assert often < 10 and told


async def test_own_commits_are_no_edits(site: Site) -> None:
    """What the node itself writes, with nothing to be pushed, is told to no session."""
    database = await open_database(site.path, core_catalogue())
    node = SiteNode(database, core_catalogue(), lambda _site, _installation: None)  # type: ignore[arg-type, return-value]
    session: Any = Session(stays=True)
    node._session = session
    node._begun.set()
    looking = asyncio.create_task(node._look())
    for _ in range(5):
        await database.write(note)
        await asyncio.sleep(0.05)
    assert not session.edits
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await database.close()

"""Whose turn it is at the central: what is written before what is read, and what somebody waits for before the rest."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from central_node.node import CentralNode
from central_node.storage.tables import CENTRAL_TABLES
from engine.rpc.trace import Trace
from engine.session.machine import Event
from engine.storage.aiosqlite_database import open_database
from field_lab.core_catalogue import core_catalogue
from tests.partners import Central, Site, central_and_two_sites, connect

_SOON = 30.0


class Listener:
    """A session that writes down what it hears, and when others of its list do."""

    def __init__(self, site: int, heard: list[tuple[int, str]]) -> None:
        self.site, self.heard = site, heard
        self.trace: Trace = lambda _word, _value: None

    def post(self, event: Event) -> None:
        """What the loop says."""
        self.heard.append((self.site, event.name))

    def follows(self, scopes: set[str]) -> bool:
        """Every feed is followed."""
        return True


@pytest.fixture(name="nodes")
def central_and_sites(tmp_path: Path) -> tuple[Central, Site]:
    central, site, _ = central_and_two_sites(tmp_path)
    connect(central, site)
    return central, site


@pytest.fixture(name="running")
async def running_central(nodes: tuple[Central, Site]) -> AsyncIterator[CentralNode]:
    database = await open_database(nodes[0].path, core_catalogue(), CENTRAL_TABLES)
    node = CentralNode(database, core_catalogue())
    await node.start()
    yield node
    await node.stop()
    await database.close()


def push(node: CentralNode, nodes: tuple[Central, Site], frames: int) -> list[tuple[int, str]]:
    """Site 2 pushes frames while site 3 listens; returns what both hear."""
    central, site = nodes
    heard: list[tuple[int, str]] = []
    sessions = Listener(2, heard), Listener(3, heard)
    for session in sessions:
        node.register(session)
    for number in range(frames):
        site.put_stock(f"s{number}")
        site.cut()
    for frame in site.frames():
        node.submit(sessions[0], central.submitted(site, frame))
    return heard


async def until_heard(heard: list[tuple[int, str]], count: int) -> None:
    async with asyncio.timeout(_SOON):
        while len(heard) < count:
            await asyncio.sleep(0)


async def test_a_change_is_on_its_way_before_its_own_site_hears_of_it(
    nodes: tuple[Central, Site], running: CentralNode
) -> None:
    heard = push(running, nodes, 1)
    await until_heard(heard, 1)
    assert heard == [(3, "feed_moved")]
    await running.until_all_is_taken()  # the page of site 3 does not wait for anything
    assert heard == [(3, "feed_moved")]
    await until_heard(heard, 3)
    assert heard == [(3, "feed_moved"), (2, "frame_ingested"), (2, "feed_moved")]


async def test_pages_wait_while_frames_wait(nodes: tuple[Central, Site], running: CentralNode) -> None:
    await asyncio.wait_for(running.until_all_is_taken(), _SOON)
    heard = push(running, nodes, 20)
    assert running._frames
    await running.until_all_is_taken()
    assert not running._frames
    await until_heard(heard, 20)


async def test_pages_do_not_wait_for_ever(
    nodes: tuple[Central, Site], running: CentralNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that cannot be taken keeps nobody from reading."""
    monkeypatch.setattr("central_node.node.PAGE_WAIT_SECONDS", 0.05)
    go_on = threading.Event()

    def wait(_: sqlite3.Connection) -> None:
        go_on.wait(_SOON)

    under_way = asyncio.create_task(running.database.write(wait))
    await asyncio.sleep(0)
    heard = push(running, nodes, 1)
    await running.until_all_is_taken()
    assert running._frames and not heard
    go_on.set()
    await under_way
    await until_heard(heard, 3)

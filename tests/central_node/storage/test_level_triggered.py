"""What has to be done is decided from what is there, not from what happened: nobody has to say it twice (law 11).

And Busy is a state with a sentence, which passes by itself (F43).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from central_node.node import CentralNode
from central_node.storage.follow_up import do_follow_up
from central_node.storage.status import read_status
from central_node.storage.steps import route_own
from central_node.storage.tables import CENTRAL_TABLES
from engine.errors import Code
from engine.storage.aiosqlite_database import open_database
from engine.storage.work import EVERYTHING, Processor, finish_work, queue_work, waiting_work
from field_lab.core_catalogue import core_catalogue
from tests.partners import NOW, Central, Site, connect, pull, push, synchronise

ITEM = "INSERT INTO item (id, name, unit_id) VALUES (?, 'n', 'each')"


@pytest.fixture(name="nodes")
def nodes_with_a_held_document(tmp_path: Path) -> tuple[Central, Site]:
    central = Central(tmp_path / "node-1.db")
    site = central.add(tmp_path, 2)
    synchronise(central, site)
    connect(central, site)
    site.put_stock("s", "b", "item-9")
    push(central, site)
    pull(central, site)
    assert central.count("sync_held", "ready = 0") == 1
    return central, site


@asynccontextmanager
async def running(central: Central) -> AsyncIterator[CentralNode]:
    database = await open_database(central.path, core_catalogue(), CENTRAL_TABLES)
    node = CentralNode(database, core_catalogue())
    await node.start()
    try:
        yield node
    finally:
        await node.stop()
        await database.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_law11_what_was_queued_before_a_start_is_done(nodes: tuple[Central, Site]) -> None:
    """The run that had woken a document ended before it judged it again; after the start nothing else happens."""
    central, _ = nodes
    central.execute(ITEM, "item-9")
    central.write(lambda c: route_own(c, core_catalogue(), central.topology, NOW))
    assert central.count("sync_held", "ready = 1") == 1 and not central.count("sync_outbox")
    async with running(central):
        await until(lambda: not central.count("sync_held"))
    assert central.count("stock_line") == 1


async def test_law11_a_step_that_failed_is_done_without_another_trigger(nodes: tuple[Central, Site]) -> None:
    """Another program edits, holds the write lock for longer than the loop waits for it, and then goes away."""
    central, _ = nodes
    async with running(central) as node:
        await node.settle()
        await node.database.write(lambda c: c.execute("PRAGMA busy_timeout = 50"))
        program = sqlite3.connect(central.path, isolation_level=None)
        program.execute(ITEM, ("item-9",))
        program.execute("BEGIN IMMEDIATE")
        while not program.execute("SELECT 1 FROM sync_outbox").fetchone():  # it was routed in between
            program.execute("ROLLBACK")
            program.execute("UPDATE item SET name = name || 'n' WHERE id = 'item-9'")
            program.execute("BEGIN IMMEDIATE")
        await until(lambda: node.trouble is not None)
        assert node.trouble is not None and node.trouble.code is Code.BUSY
        status = await node.database.read(lambda c: read_status(c, "central", set(), True, node.trouble))
        assert status["trouble"] == "BUSY" and "holds the write lock" in status["last_error"]
        await asyncio.sleep(
            2.5
        )  # what was noticed meanwhile is tried in vain too: nothing is left that could trigger it
        program.execute("ROLLBACK")
        program.close()
        await until(lambda: not central.count("sync_outbox") and not central.count("sync_held"))
        await until(lambda: node.trouble is None)


def test_law11_work_that_became_necessary_again_is_not_finished(nodes: tuple[Central, Site]) -> None:
    central, _ = nodes
    central.execute("DELETE FROM sync_work")
    central.write(lambda c: queue_work(c, Processor.COPIES, [EVERYTHING]))
    read = central.read(lambda c: waiting_work(c, 10))
    central.write(lambda c: queue_work(c, Processor.COPIES, [EVERYTHING]))
    central.write(lambda c: finish_work(c, read))
    again = central.read(lambda c: waiting_work(c, 10))
    assert len(again) == 1
    central.write(lambda c: finish_work(c, again))
    assert not central.read(lambda c: waiting_work(c, 10))


async def test_law11_work_that_fails_is_told_delays_nothing_else_and_is_tried_at_the_next_start(
    nodes: tuple[Central, Site],
) -> None:
    """A record of a table that this program does not know cannot be routed; the copies are given all the same."""
    central, _ = nodes
    central.write(lambda c: queue_work(c, Processor.ROUTE, [("no_such_table", "x")]))
    central.write(lambda c: queue_work(c, Processor.COPIES, [EVERYTHING]))
    central.write(lambda c: do_follow_up(c, central.catalogue, central.topology))
    told = central.read(lambda c: read_status(c, "central", set(), True, None))
    failed = [{"processor": "route", "table": "no_such_table", "id": "x", "problem": "KeyError"}]
    assert (told["follow_up_failed"], told["in_agreement"]) == (failed, False)
    assert not central.read(lambda c: waiting_work(c, 10))
    async with running(central):
        await until(lambda: central.count("sync_work", "generation = 1 AND problem = 'KeyError'") == 1)
    central.execute("UPDATE sync_work SET table_name = 'stock_line' WHERE table_name = 'no_such_table'")
    async with running(central):
        await until(lambda: central.count("sync_work") == 0)

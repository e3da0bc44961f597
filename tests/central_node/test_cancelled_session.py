"""A site may drop the call as soon as it has read why its session ended: the central remembers the reason."""

import asyncio
from pathlib import Path

import pytest
from packhorse.sync.v1 import session_pb2

from central_node.node import CentralNode
from central_node.session import CentralSession
from central_node.storage.tables import CENTRAL_TABLES
from engine.errors import Code
from engine.session.machine import Message
from engine.storage.aiosqlite_database import open_database
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import serving_central
from tests.central_node.test_any_session import SITE, hello


@pytest.mark.parametrize("token, expected", [(b"x" * 32, Code.LINEAGE_BROKEN), (b"t" * 32, "")], ids=["refused", "cut"])
async def test_a_reason_that_was_told_is_remembered(tmp_path: Path, token: bytes, expected: str) -> None:
    serving_central(tmp_path / "node.db").close()
    database = await open_database(tmp_path / "node.db", core_catalogue(), CENTRAL_TABLES)
    node = CentralNode(database, core_catalogue())
    await node.start()
    told = asyncio.Event()
    waiting: list[Message] = [session_pb2.SiteMessage(hello=hello(token))]

    async def send(_: Message) -> None:
        told.set()
        await asyncio.sleep(60)  # the site has read it, and the transport has not said so yet

    async def receive() -> Message | None:
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop()

    running = asyncio.create_task(CentralSession(node, SITE, send, receive, lambda _word, _value: None).run())
    await asyncio.wait_for(told.wait(), 30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await node.stop()
    query = "SELECT last_error_code FROM central_site WHERE site = ?"
    found = await database.read(lambda connection: connection.execute(query, (SITE,)).fetchone())
    await database.close()
    assert found == (expected,)

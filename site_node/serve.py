"""`site-node serve`: everything that runs in the daemon, from the lock on the directory to the graceful end."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from packhorse.local.v1 import local_pb2

from engine.catalogue.descriptors import catalogue
from engine.directory import DirectoryLock
from engine.rpc.local_channel import LocalServer
from engine.storage.aiosqlite_database import open_database
from engine.storage.sqlite_file import DATABASE_NAME
from site_node.commands import daemon_commands, sync_result
from site_node.configuration import SiteConfiguration
from site_node.connection import dial
from site_node.node import SiteNode

_log = structlog.get_logger("site")


async def serve(directory: Path, configuration: SiteConfiguration, every_minutes: float | None) -> None:
    """Runs the daemon until SIGTERM or SIGINT.

    Raises:
        Refused: DIRECTORY_IN_USE, DIRECTORY_READ_ONLY, DATABASE_NEWER, ... before anything is done.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        stack.enter_context(DirectoryLock(directory))
        database = await open_database(directory / DATABASE_NAME, catalogue())
        stack.push_async_callback(database.close)
        node = SiteNode(database, catalogue(), dial(directory, configuration))

        async def synchronise() -> AsyncIterator[local_pb2.SyncResponse]:
            async for told in _synchronise(node):
                yield told

        commands = daemon_commands(node)
        await stack.enter_async_context(LocalServer(directory, commands, synchronise))
        loop = asyncio.create_task(node.run_forever(every_minutes), name="site loop")
        stack.push_async_callback(_end, loop)
        _log.info("serving", central=configuration.central, directory=str(directory), every_minutes=every_minutes)
        await stop.wait()
        _log.info("stopping")


async def _end(loop: asyncio.Task[None]) -> None:
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def _synchronise(node: SiteNode) -> AsyncIterator[local_pb2.SyncResponse]:
    told: asyncio.Queue[tuple[str, int | None]] = asyncio.Queue()
    node.told = lambda phase, remaining: told.put_nowait((phase, remaining))
    work = asyncio.create_task(node.synchronise_now())
    try:
        while not work.done() or not told.empty():
            heard = asyncio.create_task(told.get())
            await asyncio.wait({work, heard}, return_when=asyncio.FIRST_COMPLETED)
            if not heard.done():
                heard.cancel()
                continue
            phase, remaining = heard.result()
            yield local_pb2.SyncResponse(phase=phase, records_remaining=-1 if remaining is None else remaining)
        result = await sync_result(node.database, work.result())
        yield local_pb2.SyncResponse(result_json=json.dumps(result))
    finally:
        node.told = lambda _phase, _remaining: None
        work.cancel()

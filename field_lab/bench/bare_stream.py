"""What grpc.aio alone does on this machine: frames of the same size, each acknowledged, nothing else. Both ends in one
process, so the figure is a low one."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from engine.limits import WINDOW_FRAMES

_METHOD = "/bench.Bare/Stream"


async def bare_stream_seconds(frames: int, frame_bytes: int) -> float:
    """Seconds until so many frames were sent over loopback and acknowledged, with the window of a session."""
    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(_acknowledge)
    server.add_generic_rpc_handlers((_Handlers(handler),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    body = os.urandom(frame_bytes)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        begun = time.perf_counter()
        call: Any = channel.stream_stream(_METHOD)()
        for sent in range(frames):
            await call.write(body)
            if sent >= WINDOW_FRAMES:
                await call.read()
        for _ in range(min(frames, WINDOW_FRAMES)):
            await call.read()
        seconds = time.perf_counter() - begun
        call.cancel()
    await server.stop(None)
    await asyncio.sleep(0)
    return seconds


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler if handler_call_details.method == _METHOD else None


async def _acknowledge(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield b"acknowledged"

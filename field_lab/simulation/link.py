"""A stream between a site and the central that delays, is cut, and may leave an end waiting for ever.

Messages travel as bytes and are parsed again. Within a stream order is kept, and a cut loses a suffix in each
direction; after a half-open cut an end hears nothing until its keepalive finds out.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from packhorse.sync.v1 import session_pb2

from engine.errors import Code, Unavailable
from engine.session.machine import Message

KEEPALIVE_SECONDS = 30.0
"""After this gRPC's keepalive tells an end of a link that went dead."""


@dataclass
class Weather:
    """What a link is like. Rates are per message, times in virtual seconds."""

    delay_seconds_max: float = 0.05
    cut_rate: float = 0.0
    half_open_rate: float = 0.0
    refuse_rate: float = 0.0


@dataclass
class Counters:
    """How often each fault happened."""

    faults: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        """One more."""
        self.faults[name] = self.faults.get(name, 0) + 1


class _Direction:
    """One way of a stream: delivers in order, each message after a delay."""

    def __init__(self, parse: Callable[[bytes], Message]) -> None:
        self._parse = parse
        self._queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._last = 0.0
        self.is_cut = self.is_silent = False

    def put(self, at: float, content: bytes) -> None:
        """Sends bytes that arrive at a time, but not before those sent earlier."""
        self._last = max(self._last, at)
        self._queue.put_nowait((self._last, content))

    def finish(self) -> None:
        """Ends after what was sent has arrived, as a call does that its server has ended."""
        self._queue.put_nowait(None)

    def cut(self, silent: bool) -> None:
        """Loses what has not arrived; the receiver is told of the end unless it is silent."""
        self.is_cut, self.is_silent = True, silent
        self._queue.put_nowait(None)

    async def get(self) -> Message | None:
        """The next message; None at the end of the stream."""
        while True:
            found = await self._queue.get()
            if found is not None and not self.is_cut:
                await asyncio.sleep(max(0.0, found[0] - asyncio.get_running_loop().time()))
            if self.is_cut:
                if self.is_silent:
                    await asyncio.sleep(KEEPALIVE_SECONDS)
                return None
            if found is None:
                return None
            return self._parse(found[1])


class SimulatedStream:
    """Both ways of one session's stream."""

    def __init__(self, weather: Weather, chance: random.Random, counters: Counters) -> None:
        self._weather, self._chance, self._counters = weather, chance, counters
        self.to_central = _Direction(session_pb2.SiteMessage.FromString)
        self.to_site = _Direction(session_pb2.CentralMessage.FromString)
        self.ended = asyncio.Event()
        self._parts = {"site": 0, "central": 0}

    async def _send(self, direction: _Direction, message: Any) -> None:
        name = str(message.WhichOneof("message"))
        if name == "part":
            way = "site" if direction is self.to_central else "central"
            self._counters.count(f"sometimes: a part from the {way}")
            if message.part.offset and self._parts[way] == 0:
                self._counters.count(f"sometimes: parts from the {way} are resumed")
            self._parts[way] += 1
        if direction.is_cut:
            raise Unavailable(Code.LINK_CUT, "The link was cut.")
        if self._chance.random() < self._weather.cut_rate:
            half_open = self._chance.random() < self._weather.half_open_rate
            self._counters.count("half-open cut" if half_open else "cut")
            self.cut(self.to_site if half_open and self._chance.random() < 0.5 else None)
        now = asyncio.get_running_loop().time()
        direction.put(now + self._chance.random() * self._weather.delay_seconds_max, message.SerializeToString())

    def cut(self, silent: _Direction | None = None) -> None:
        """Cuts both ways; the receiver of the silent one is not told."""
        for direction in (self.to_central, self.to_site):
            if not direction.is_cut:
                direction.cut(direction is silent)
        self.ended.set()

    async def send(self, message: Message) -> None:
        """The site's end."""
        await self._send(self.to_central, message)

    async def receive(self) -> Message | None:
        """The site's end."""
        return await self.to_site.get()

    async def central_send(self, message: Message) -> None:
        """The central's end."""
        await self._send(self.to_site, message)

    async def central_receive(self) -> Message | None:
        """The central's end."""
        return await self.to_central.get()

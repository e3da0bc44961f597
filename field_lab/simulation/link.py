"""A stream between a site and the central that delays, garbles, is cut, and may leave an end waiting for ever.

Messages travel as bytes and are parsed again. Within a stream order is kept, and a cut loses a suffix in each
direction; after a half-open cut an end hears nothing until its keepalive finds out; after a late one the central still
gets what was on its way, when the site has long opened another stream.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from packhorse.sync.v1 import session_pb2

from engine.errors import Code, Unavailable
from engine.session.machine import Message
from field_lab.simulation.counters import Counters
from field_lab.simulation.observer import Observer
from field_lab.simulation.weather import Weather

KEEPALIVE_SECONDS = 30.0
"""After this gRPC's keepalive tells an end of a link that went dead."""
HUNG_SECONDS = 600.0
"""So long a program between the nodes answers keepalives, and nothing else."""
LATE_SECONDS = 20.0
"""How much later than sent a message may arrive after its stream was cut."""


class _Direction:
    """One way of a stream: delivers in order, each message after a delay."""

    def __init__(self, parse: Callable[[bytes], Message]) -> None:
        self._parse = parse
        self._queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._last = 0.0
        self.is_cut = self._loses = False
        self._silent_seconds = 0.0
        self._told = asyncio.Event()

    def put(self, at: float, content: bytes) -> None:
        """Sends bytes that arrive at a time, but not before those sent earlier."""
        self._last = max(self._last, at)
        self._queue.put_nowait((self._last, content))

    def finish(self) -> None:
        """Ends after what was sent has arrived, as a call does that its server has ended."""
        self._queue.put_nowait(None)

    def cut(self, silent_seconds: float = 0.0, late_seconds: float = 0.0) -> None:
        """Loses what has not arrived, or lets it arrive later; then, or after a silence, the receiver is told."""
        self.is_cut, self._loses, self._silent_seconds = True, not late_seconds, silent_seconds
        if late_seconds:
            waiting = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
            for found in waiting:
                if found is not None:
                    self.put(found[0] + late_seconds, found[1])
        self._queue.put_nowait(None)

    def tell(self) -> None:
        """The receiver of a silent way is told now."""
        self._told.set()

    async def get(self) -> Message | None:
        """The next message; None at the end of the stream."""
        found = await self._queue.get()
        if found is not None and not self._loses:
            await asyncio.sleep(max(0.0, found[0] - asyncio.get_running_loop().time()))
        if found is None or self._loses:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._silent_seconds)
            return None
        return self._parse(found[1])


class SimulatedStream:
    """Both ways of one session's stream."""

    def __init__(
        self, site: int, weather: Callable[[], Weather], chance: random.Random, observer: Observer, counters: Counters
    ) -> None:
        self.site, self._weather, self._chance = site, weather, chance
        self._observer, self._counters = observer, counters
        self.on_hello: Callable[[session_pb2.SiteMessage], None] = lambda _hello: None
        self.heard: deque[session_pb2.SiteMessage] = deque(maxlen=1)
        """Takes what the site says, for whoever listens."""
        self.to_central = _Direction(session_pb2.SiteMessage.FromString)
        self.to_site = _Direction(session_pb2.CentralMessage.FromString)

    async def _send(self, direction: _Direction, message: Any) -> None:
        if direction.is_cut:
            raise Unavailable(Code.LINK_CUT, "The link was cut.")
        self._observer.sent(self.site, message)
        weather, now = self._weather(), asyncio.get_running_loop().time()
        content = garbled(message, weather, self._chance, self._counters).SerializeToString()
        direction.put(now + self._chance.random() * weather.delay_seconds_max, content)
        if self._chance.random() < weather.cut_rate:
            self._break(weather)

    def _break(self, weather: Weather) -> None:
        if self._chance.random() < weather.half_open_rate:
            self._counters.count("half-open cut")
            seconds = self._chance.choice((KEEPALIVE_SECONDS, HUNG_SECONDS))
            silent, other = self._chance.sample((self.to_site, self.to_central), 2)
            silent.cut(silent_seconds=seconds)
            other.cut()
        elif self._chance.random() < weather.late_rate:
            self._counters.count("cut with messages that arrive late at the central")
            self.to_site.cut()
            self.to_central.cut(late_seconds=self._chance.random() * LATE_SECONDS)
        else:
            self._counters.count("cut")
            self.cut()

    def cut(self) -> None:
        """Cuts both ways, where they are not cut yet."""
        for direction in (self.to_central, self.to_site):
            if not direction.is_cut:
                direction.cut()

    def tell(self) -> None:
        """Whoever waits for a way that is silent is told now that it is dead."""
        for direction in (self.to_central, self.to_site):
            direction.tell()

    async def send(self, message: Message) -> None:
        """The site's end."""
        assert isinstance(message, session_pb2.SiteMessage)
        self.heard.append(message)
        match message.WhichOneof("message"):
            case "hello":
                self.on_hello(message)
            case "push_checkpoint":
                self._observer.begun(self.site)
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


def garbled(message: Any, weather: Weather, chance: random.Random, counters: Counters) -> Any:
    """The message, or now and then a copy of it in which one bit of a frame's bytes is another."""
    name = message.WhichOneof("message")
    field = {"frame": "body", "pull_frame": "body", "part": "content"}.get(name)
    if field is None or chance.random() >= weather.flip_rate or not getattr(getattr(message, name), field):
        return message
    copy = type(message).FromString(message.SerializeToString())
    frame = getattr(copy, name)
    body = bytearray(getattr(frame, field))
    body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    setattr(frame, field, bytes(body))
    counters.count(f"bit flip in a frame of {'a site' if isinstance(copy, session_pb2.SiteMessage) else 'the central'}")
    return copy

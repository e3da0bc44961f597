"""A TCP proxy that spoils the link between two programs, as bad links do in the field.

What the link promises, whatever the conditions:

* Bytes arrive unchanged and in order, or the connection ends. Latency and jitter never reorder a connection.
* An end of stream and a reset travel behind the bytes that were sent before them; half-closed connections work.
* A cut closes every connection that is open at that moment, on both sides; the bytes under way in the link are lost.
* A black hole passes nothing, not even an end of stream, and cuts nothing by itself. When it is lifted, the connections
  that are still open go on where they stopped, as TCP does.
* Memory is bounded: when a direction of a connection holds `QUEUED_BYTES_MAX`, its sender has to wait.
* Everything drawn at random comes from the seed: the moments of the cuts from one generator, the jitter from one for
  each connection and direction, so that traffic on one connection does not change the fate of another.

How it works: each direction of a connection has a receiver, a deliverer and a queue between them. The receiver reads a
piece, waits until the shared rate has let it through and stamps it with the time at which it is due; the deliverer
waits for that time and writes it. So the link acknowledges to the sender what the other side has not got yet, as
satellite and mobile proxies do; and a cut cannot take back the few bytes that the kernel has accepted already.

Warning: a socket is closed only after the tasks that wait for it have ended, because the event loop would otherwise
mistake a new socket with the same number for it. So that happens when a connection's task is done, and nowhere else.
"""

import asyncio
import math
import random
import socket
import struct
from dataclasses import dataclass
from typing import Self

Address = tuple[str, int]  # host and port

QUEUED_BYTES_MAX = 1024 * 1024  # under way in one direction of one connection
PIECE_BYTES_MAX = 8 * 1024  # read and passed on at once
KERNEL_BUFFER_BYTES = 32 * 1024  # of each socket; on loopback, smaller ones make TCP wait for its timers
BURST_SECONDS = 0.02  # time in which unused rate may be made up for; covers the coarseness of timers
OPEN_CONNECTIONS_MAX = 4096  # more are refused
DIAL_SECONDS = 10.0  # how long the target may take to accept a connection
ACCEPT_PAUSE_SECONDS = 0.1  # after the system failed to accept, for example for want of file descriptors
CUT_SECONDS_MIN = 0.01  # shortest time between two cuts
UPPER_BOUNDS = {"latency_ms": 600_000, "jitter_ms": 600_000, "rate_bytes_per_second": 10**9, "cut_after_bytes": 10**15}


@dataclass(frozen=True)
class LinkConditions:
    """How bad the link is. The default is a clean link.

    Raises ValueError with a plain sentence when a value is out of bounds or two values contradict each other.
    """

    latency_ms: float = 0.0
    """Delay of every byte in each direction, in milliseconds."""
    jitter_ms: float = 0.0
    """Further delay, drawn evenly from 0 to this for each piece, in milliseconds. Order is kept."""
    rate_bytes_per_second: int = 0
    """Rate of each direction, shared by all connections. Zero: unlimited."""
    cut_every_seconds: float = 0.0
    """Time from one cut to the next. Zero: no such cuts."""
    cut_every_seconds_max: float = 0.0
    """Where not zero, each such time is drawn evenly from `cut_every_seconds` to this."""
    cut_after_bytes: int = 0
    """The link is cut when one connection has passed so many bytes, both directions together. Zero: never."""
    black_hole: bool = False  # connections are accepted and stay open, but nothing passes
    reset: bool = False  # cuts and refusals are resets (RST) instead of orderly ends (FIN)
    refuse: bool = False  # new connections are closed at once; open ones stay
    seed: int = 0  # start of everything drawn at random

    def __post_init__(self) -> None:
        for name, most in UPPER_BOUNDS.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be from 0 to {most}, not {value}")
        shortest, longest = self.cut_every_seconds, self.cut_every_seconds_max
        for value in (shortest, longest):
            if not math.isfinite(value) or (value != 0 and value < CUT_SECONDS_MIN):
                raise ValueError(f"the time between cuts must be 0 or at least {CUT_SECONDS_MIN} seconds, not {value}")
        if longest and not 0 < shortest <= longest:
            raise ValueError(f"the shortest time between cuts ({shortest} s) must be from above 0 to {longest} s")
        if self.black_hole and self.refuse:
            raise ValueError("a link cannot be a black hole and refuse connections at the same time")


CLEAN_LINK = LinkConditions()


@dataclass
class LinkCounters:
    """What happened on a link since it was made. Every count only grows."""

    connections: int = 0  # accepted, refused ones included
    refused: int = 0  # connections closed at once, by `refuse` or because too many were open
    unreachable: int = 0  # connections reset because the target did not accept
    cuts: int = 0  # cuts that closed at least one connection
    bytes_to_target: int = 0  # handed over to the target
    bytes_to_client: int = 0  # handed over to the clients


class SpoiledLink:
    """Listens on one address and passes every connection on to a target, under conditions that can be changed.

    An async context manager that starts and stops the link. Belongs to one event loop; not thread-safe.
    """

    def __init__(
        self, target: Address, conditions: LinkConditions = CLEAN_LINK, listen: Address = ("127.0.0.1", 0)
    ) -> None:
        """Say where to pass connections on to and where to listen; port 0 takes a free one."""
        self.target = target
        self.counters = LinkCounters()
        self._conditions = conditions  # `change` replaces them
        self._listen = listen
        self._listener: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._passing = asyncio.Event()  # cleared while the link is a black hole
        self._pacers = {True: _Pacer(), False: _Pacer()}  # to the target, to the clients
        self._cut_random = random.Random(f"{conditions.seed}/cuts")
        self._cut_timer: asyncio.TimerHandle | None = None
        self._accept_timer: asyncio.TimerHandle | None = None
        self.change(conditions)

    @property
    def conditions(self) -> LinkConditions:
        """The conditions in force; `change` replaces them."""
        return self._conditions

    @property
    def port(self) -> int:
        """The port that clients connect to; 0 before the first start with port 0. It stays the same after `stop`."""
        return self._listen[1]

    async def start(self) -> None:
        """Begin to accept connections.

        Raises OSError when the address cannot be listened on, RuntimeError when the link is already running.
        """
        if self._listener is not None:
            raise RuntimeError("the link is already running")
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(*self._listen, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server((str(address[0]), self.port), family=family)
        listener.setblocking(False)
        self._listener = listener
        self._listen = self._listen[0], listener.getsockname()[1]
        self._accept_again()
        self._set_cut_timer()

    async def stop(self) -> None:
        """Stop accepting, close every connection, and wait until every task and socket of the link is gone."""
        for timer in (self._cut_timer, self._accept_timer):
            if timer is not None:
                timer.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.end(self._conditions.reset)
        await asyncio.gather(*(connection.task for connection in self._connections), return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def change(self, conditions: LinkConditions) -> None:
        """Replace the conditions at once, for open connections too.

        What is already under way keeps the delay that it was given; the time to the next cut starts anew; another seed
        starts the moments of the cuts anew.
        """
        if conditions.seed != self._conditions.seed:
            self._cut_random = random.Random(f"{conditions.seed}/cuts")
        self._conditions = conditions
        if conditions.black_hole:
            self._passing.clear()
        else:
            self._passing.set()
        self._forget_pace()
        if self._listener is not None:
            self._set_cut_timer()

    def cut_all(self) -> int:
        """Cut the link now: close every open connection and lose what is under way.

        Returns how many connections it closes.
        """
        closing = [connection for connection in self._connections if not connection.ending]
        for connection in closing:
            connection.end(self._conditions.reset)
        if closing:
            self.counters.cuts += 1
            self._forget_pace()
        return len(closing)

    def _forget_pace(self) -> None:
        """Drop reservations for what will not be sent, or not at the former rate."""
        for pacer in self._pacers.values():
            pacer.free_at = 0.0

    def _set_cut_timer(self) -> None:
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        shortest = self._conditions.cut_every_seconds
        if shortest:
            seconds = self._cut_random.uniform(shortest, self._conditions.cut_every_seconds_max or shortest)
            self._cut_timer = asyncio.get_running_loop().call_later(seconds, self._cut_by_timer)

    def _cut_by_timer(self) -> None:
        if not self._conditions.black_hole:
            self.cut_all()
        self._set_cut_timer()

    def _accept_again(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection; the event loop calls this while one is waiting."""
        try:
            client, _ = listener.accept()
        except OSError:
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._accept_timer = loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_again)
            return
        self.counters.connections += 1
        _prepare(client)
        if self._conditions.refuse or len(self._connections) >= OPEN_CONNECTIONS_MAX:
            self.counters.refused += 1
            _close(client, self._conditions.reset)
        else:
            self._connections.add(_Connection(self, self.counters.connections, client))


# Pieces under way: when they are due, and their bytes. b"" is the end of the stream, None its end by an error.
_Line = asyncio.Queue[tuple[float, bytes | None]]


class _Connection:
    """One client's connection and its continuation to the target."""

    def __init__(self, link: SpoiledLink, number: int, client: socket.socket) -> None:
        self.link = link
        self.number = number
        self.sides = [client]  # and the target, once dialled
        self.ending = False  # nothing is passed on any more
        self.reset = False  # close with a reset
        self.passed_bytes = 0  # in both directions, with the pieces that are being written
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(self._close)

    def end(self, reset: bool) -> None:
        """Close both sides as soon as the tasks that use them have ended; what is under way is lost."""
        if not self.ending:
            self.ending = True
            self.reset = self.reset or reset
            self.task.cancel()

    def _close(self, _: asyncio.Task[None]) -> None:
        self.ending = True
        for side in self.sides:
            _close(side, self.reset)
        self.link._connections.discard(self)

    async def _run(self) -> None:
        await self.link._passing.wait()
        try:
            target = await self._dial()
        except (OSError, UnicodeError):  # the latter for a host name that cannot be one
            self.link.counters.unreachable += 1
            self.reset = True
            return
        client = self.sides[0]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(client, target, to_target=True))
            group.create_task(self._carry(target, client, to_target=False))

    async def _dial(self) -> socket.socket:
        """Connect to the first address of the target that accepts. Raises OSError when none does."""
        loop = asyncio.get_running_loop()
        failure = OSError("the target has no address")
        for family, _, _, _, address in await loop.getaddrinfo(*self.link.target, type=socket.SOCK_STREAM):
            target = socket.socket(family, socket.SOCK_STREAM)
            self.sides.append(target)
            _prepare(target)
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    await loop.sock_connect(target, address)
                return target
            except OSError as error:
                failure = error
        raise failure

    async def _carry(self, source: socket.socket, destination: socket.socket, to_target: bool) -> None:
        """Pass one direction on until its source has ended or its destination takes no more."""
        line = _Line(QUEUED_BYTES_MAX // PIECE_BYTES_MAX)
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(self._receive(source, line, to_target))
            await self._deliver(line, destination, to_target)
            receiving.cancel()

    async def _receive(self, source: socket.socket, line: _Line, to_target: bool) -> None:
        link, loop = self.link, asyncio.get_running_loop()
        jitter = random.Random(f"{link.conditions.seed}/{self.number}/{to_target}")
        due = 0.0
        while True:
            await link._passing.wait()
            data: bytes | None = None
            try:
                data = await loop.sock_recv(source, _piece_bytes(link.conditions.rate_bytes_per_second))
            except OSError:
                pass  # passed on as an end by an error
            conditions = link.conditions
            if data and conditions.rate_bytes_per_second:
                await link._pacers[to_target].wait(len(data), conditions.rate_bytes_per_second)
            delay_ms = conditions.latency_ms + jitter.uniform(0.0, conditions.jitter_ms)
            due = max(due, loop.time() + delay_ms / 1000)
            await line.put((due, data))
            if not data:
                return

    async def _deliver(self, line: _Line, destination: socket.socket, to_target: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await line.get()
            await asyncio.sleep(due - loop.time())
            await self.link._passing.wait()
            if self.ending:
                return
            if data is None:
                self.end(reset=True)
                return
            try:
                if not data:
                    destination.shutdown(socket.SHUT_WR)
                    return
                await self._hand_over(data, destination, to_target)
            except OSError:
                # The destination is gone. What it sent before is still on its way back, so only this direction stops.
                self.reset = True
                return

    async def _hand_over(self, data: bytes, destination: socket.socket, to_target: bool) -> None:
        """Write a piece, or the part of it that may pass before a cut, and cut when that is reached."""
        limit = self.link.conditions.cut_after_bytes
        data = data[: max(0, limit - self.passed_bytes)] if limit else data
        self.passed_bytes += len(data)
        await asyncio.get_running_loop().sock_sendall(destination, data)
        if to_target:
            self.link.counters.bytes_to_target += len(data)
        else:
            self.link.counters.bytes_to_client += len(data)
        if limit and self.passed_bytes >= limit:
            self.link.cut_all()


class _Pacer:
    """Shares the rate of one direction among the connections of a link, in the order in which they ask."""

    def __init__(self) -> None:
        self.free_at = 0.0  # by the event loop's clock: when everything let through so far has been sent

    async def wait(self, size_bytes: int, rate_bytes_per_second: int) -> None:
        """Wait until so many bytes have been sent; at most a second for what was read at a former, higher rate."""
        now = asyncio.get_running_loop().time()
        self.free_at = max(self.free_at, now - BURST_SECONDS) + min(1.0, size_bytes / rate_bytes_per_second)
        await asyncio.sleep(self.free_at - now)


def _piece_bytes(rate_bytes_per_second: int) -> int:
    """Bytes of a piece: at most a twentieth of a second's worth, so that connections share the rate evenly."""
    return min(PIECE_BYTES_MAX, max(1, rate_bytes_per_second // 20)) if rate_bytes_per_second else PIECE_BYTES_MAX


def _prepare(side: socket.socket) -> None:
    """Set up a socket: non-blocking, small packets sent at once, kernel buffers kept small."""
    side.setblocking(False)
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        side.setsockopt(socket.SOL_SOCKET, buffer, KERNEL_BUFFER_BYTES)


def _close(side: socket.socket, reset: bool) -> None:
    """Close a socket, with RST (`SO_LINGER` 0) or with FIN."""
    try:
        if reset:
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            side.shutdown(socket.SHUT_WR)
            # Bytes that nobody has read would turn the orderly end into a reset.
            for _ in range(QUEUED_BYTES_MAX // PIECE_BYTES_MAX):
                if not side.recv(PIECE_BYTES_MAX):
                    break
    except OSError:
        pass  # nothing more to read, or the other end is gone
    side.close()

"""Every condition of a spoiled link, with real sockets on the loopback interface."""

import asyncio
import json
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from field_lab.cli import main
from field_lab.link import CLEAN_LINK, PIECE_BYTES_MAX, QUEUED_BYTES_MAX, LinkConditions, SpoiledLink

HOST = "127.0.0.1"
PATIENCE_SECONDS = 5.0
DATA = random.Random(1).randbytes(3 * QUEUED_BYTES_MAX)
BLACK_HOLE = LinkConditions(black_hole=True)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Target:
    """A server behind the link. It notes what arrives and how connections end, and sends back what it got."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.connections = 0
        self.answers = True
        self.resets = False
        self.ends: list[str] = []
        self.read_gate = asyncio.Event()
        self.read_gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        end = "end of stream"
        try:
            while not self.resets and await self.read_gate.wait() and (data := await reader.read(65536)):
                self.received += data
                if self.answers:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            end = "reset"
        self.ends.append(end)
        if self.resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()


@asynccontextmanager
async def linked(conditions: LinkConditions = CLEAN_LINK) -> AsyncIterator[tuple[SpoiledLink, Target]]:
    """A target and a link to it; fails when either leaves a task behind."""
    before = asyncio.all_tasks()
    target = Target()
    server = await asyncio.start_server(target.serve, HOST, 0)
    try:
        async with SpoiledLink((HOST, server.sockets[0].getsockname()[1]), conditions) as link:
            yield link, target
    finally:
        server.close()
        target.read_gate.set()
        await until(lambda: asyncio.all_tasks() == before)


@asynccontextmanager
async def connected(link: SpoiledLink) -> AsyncIterator[Streams]:
    """A client of the link."""
    reader, writer = await asyncio.open_connection(HOST, link.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true; fail when that takes too long."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


async def soon(awaitable: Awaitable[bytes]) -> bytes:
    """The result, which has to come before our patience is over."""
    return await asyncio.wait_for(awaitable, PATIENCE_SECONDS)


async def echoed(streams: Streams, data: bytes) -> None:
    """Send data and expect the same back."""
    reader, writer = streams
    writer.write(data)
    assert await soon(reader.readexactly(len(data))) == data


async def test_clean_link_passes_bytes_and_the_end_of_the_stream() -> None:
    async with linked() as (link, target), connected(link) as (reader, writer):
        writer.write(DATA)
        writer.write_eof()
        assert await soon(reader.read(-1)) == DATA
        assert bytes(target.received) == DATA
        assert target.ends == ["end of stream"]
        assert (link.counters.bytes_to_target, link.counters.bytes_to_client) == (len(DATA), len(DATA))
        assert (link.counters.connections, link.counters.cuts) == (1, 0)


async def test_jitter_keeps_the_order_of_bytes() -> None:
    async with linked(LinkConditions(jitter_ms=9)) as (link, target), connected(link) as (reader, writer):
        writer.write(DATA)
        writer.write_eof()
        assert await soon(reader.read(-1)) == DATA
        assert bytes(target.received) == DATA


async def test_latency_delays_each_direction() -> None:
    loop = asyncio.get_running_loop()
    async with linked(LinkConditions(latency_ms=60)) as (link, _), connected(link) as streams:
        started = loop.time()
        await echoed(streams, b"there and back")
        assert loop.time() - started >= 0.119


async def test_target_that_resets_is_seen_as_a_reset_behind_its_bytes() -> None:
    async with linked(LinkConditions(latency_ms=30)) as (link, target), connected(link) as streams:
        await echoed(streams, b"hello")
        target.resets = True
        await echoed(streams, b"last words")
        with pytest.raises(ConnectionResetError):
            await soon(streams[0].read())


async def test_unreachable_target_is_seen_as_a_reset() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    async with SpoiledLink((HOST, port)) as link, connected(link) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        assert (link.counters.connections, link.counters.unreachable) == (1, 1)


async def test_sender_waits_when_the_queue_is_full() -> None:
    async with linked() as (link, target), connected(link) as (_, writer):
        target.read_gate.clear()
        writer.transport.set_write_buffer_limits(high=0)
        handed_over = 0
        with pytest.raises(TimeoutError):
            while handed_over < 64 * QUEUED_BYTES_MAX:
                writer.write(bytes(256 * 1024))
                handed_over += 256 * 1024
                await asyncio.wait_for(writer.drain(), 0.2)
        # What is not in the queue is in the kernel's buffers of four sockets and in the target's reader.
        assert handed_over < 16 * QUEUED_BYTES_MAX


async def test_rate_bounds_what_passes_and_is_shared() -> None:
    loop, rate = asyncio.get_running_loop(), 40_000
    async with linked(LinkConditions(rate_bytes_per_second=rate)) as (link, _):
        async with connected(link) as first, connected(link) as second:
            started = loop.time()
            first[1].write(bytes(rate))
            second[1].write(bytes(rate))
            await asyncio.sleep(0.5)
            passed, elapsed = link.counters.bytes_to_target, loop.time() - started
        assert 0 < passed <= rate * (elapsed + 0.1)


async def test_rate_changed_at_run_time_holds_at_once() -> None:
    async with linked() as (link, _), connected(link) as streams:
        await echoed(streams, b"before")
        link.change(LinkConditions(rate_bytes_per_second=100))
        echo = asyncio.create_task(echoed(streams, DATA[:200_000]))
        await until(lambda: link.counters.bytes_to_target > 6)  # a large piece that was read before waits a second
        assert link.counters.bytes_to_target < 6 + PIECE_BYTES_MAX + 100
        link.change(CLEAN_LINK)
        await echo


async def test_cut_ends_every_connection_on_both_sides() -> None:
    async with linked() as (link, target), connected(link) as first, connected(link) as second:
        await echoed(first, b"one")
        await echoed(second, b"two")
        assert (link.cut_all(), link.cut_all()) == (2, 0)
        assert [await soon(reader.read()) for reader, _ in (first, second)] == [b"", b""]
        await until(lambda: target.ends == ["end of stream", "end of stream"])
        assert (link.counters.cuts, link.counters.connections) == (1, 2)
        async with connected(link) as third:
            await echoed(third, b"the link works again")


async def test_cut_loses_what_is_under_way() -> None:
    async with linked(LinkConditions(latency_ms=200)) as (link, target), connected(link) as (reader, writer):
        writer.write(b"never arrives")
        await until(lambda: target.connections == 1)
        await asyncio.sleep(0.02)
        link.cut_all()
        assert await soon(reader.read()) == b""
        await until(lambda: target.ends == ["end of stream"])
        assert bytes(target.received) == b""
        assert link.counters.bytes_to_target == 0


async def test_reset_cut_is_seen_as_a_reset_on_both_sides() -> None:
    async with linked(LinkConditions(reset=True)) as (link, target), connected(link) as streams:
        await echoed(streams, b"hello")
        link.cut_all()
        with pytest.raises(ConnectionResetError):
            await soon(streams[0].read())
        await until(lambda: target.ends == ["reset"])


async def test_cut_after_bytes_passes_exactly_so_many_and_cuts_the_whole_link() -> None:
    async with linked(LinkConditions(cut_after_bytes=10_001)) as (link, target):
        async with connected(link) as streams, connected(link) as (idle_reader, _):
            await echoed(streams, bytes(3000))
            await until(lambda: target.connections == 2)
            target.answers = False
            streams[1].write(DATA[:50_000])
            assert await soon(streams[0].read()) == b""
            assert await soon(idle_reader.read()) == b""
        await until(lambda: len(target.ends) == 2)
        assert bytes(target.received) == bytes(3000) + DATA[:4001]
        assert (link.counters.bytes_to_target, link.counters.bytes_to_client, link.counters.cuts) == (7001, 3000, 1)


async def test_cut_every_few_moments() -> None:
    conditions = LinkConditions(cut_every_seconds=0.02, cut_every_seconds_max=0.04, seed=3)
    async with linked(conditions) as (link, _):
        for _ in range(3):
            async with connected(link) as (reader, _):
                assert await soon(reader.read()) == b""
        assert link.counters.cuts == 3
        await asyncio.sleep(0.06)
        assert link.counters.cuts == 3  # nobody was there to be cut
        link.change(CLEAN_LINK)
        async with connected(link) as streams:
            await asyncio.sleep(0.1)
            await echoed(streams, b"no more cuts")


async def test_black_hole_accepts_and_passes_nothing_until_it_is_cut() -> None:
    conditions = LinkConditions(black_hole=True, cut_every_seconds=0.02)
    async with linked(conditions) as (link, target), connected(link) as (reader, writer):
        writer.write(bytes(20_000))
        reading = asyncio.create_task(reader.read())
        done, _ = await asyncio.wait([reading], timeout=0.15)
        assert not done
        assert (target.connections, link.counters.bytes_to_target, link.counters.cuts) == (0, 0, 0)
        link.cut_all()
        assert await soon(reading) == b""  # an orderly end, although the link has not read what we sent


async def test_connection_survives_a_black_hole_at_run_time() -> None:
    async with linked() as (link, target), connected(link) as streams:
        await echoed(streams, b"before")
        link.change(BLACK_HOLE)
        streams[1].write(b"during")
        streams[1].write_eof()
        await asyncio.sleep(0.1)
        assert bytes(target.received) == b"before"
        assert target.ends == []
        link.change(CLEAN_LINK)
        assert await soon(streams[0].read(-1)) == b"during"
        assert target.ends == ["end of stream"]


async def test_refusal_closes_new_connections_and_keeps_open_ones() -> None:
    async with linked() as (link, target), connected(link) as open_before:
        await echoed(open_before, b"open")
        link.change(LinkConditions(refuse=True))
        async with connected(link) as (reader, _):
            assert await soon(reader.read()) == b""
        link.change(LinkConditions(refuse=True, reset=True))
        with pytest.raises(ConnectionResetError):  # by connecting or by reading
            async with connected(link) as (reader, _):
                await soon(reader.read())
        await echoed(open_before, b"still open")
        assert (link.counters.connections, link.counters.refused, target.connections) == (3, 2, 1)


async def test_moments_of_the_cuts_depend_on_the_seed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers = Mock(wraps=loop.call_later)
    monkeypatch.setattr(loop, "call_later", timers)

    async def moments(seed: int) -> list[float]:
        conditions = LinkConditions(cut_every_seconds=10, cut_every_seconds_max=20, seed=seed)
        timers.reset_mock()
        async with SpoiledLink((HOST, 1), conditions) as link:
            for _ in range(4):
                link.change(conditions)
        return [call.args[0] for call in timers.call_args_list]

    first, second, other = await moments(1), await moments(1), await moments(2)
    assert first == second != other
    assert len(set(first)) == 5
    assert all(10 <= seconds <= 20 for seconds in first + other)


async def test_stop_closes_everything_and_start_takes_the_same_port() -> None:
    async with linked(LinkConditions(cut_every_seconds=60, latency_ms=20)) as (link, _):  # which counts the tasks
        with pytest.raises(RuntimeError):
            await link.start()
        async with connected(link) as streams, connected(link):
            await echoed(streams, b"hello")
            streams[1].write(bytes(500_000))
            await asyncio.sleep(0)
            await link.stop()
            assert await soon(streams[0].read()) == b""
        port = link.port
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        await link.start()
        assert link.port == port
        async with connected(link) as streams:
            await echoed(streams, b"again")
        link.change(BLACK_HOLE)
        async with connected(link):
            await until(lambda: link.counters.connections == 4)
            await link.stop()


def test_impossible_conditions_are_refused() -> None:
    impossible: list[tuple[str, dict[str, Any]]] = [
        ("latency_ms must be from 0 to 600000, not -1", {"latency_ms": -1}),
        ("jitter_ms must be", {"jitter_ms": float("nan")}),
        ("rate_bytes_per_second must be", {"rate_bytes_per_second": -1}),
        ("cut_after_bytes must be", {"cut_after_bytes": -1}),
        ("the time between cuts must be 0 or at least", {"cut_every_seconds": float("inf")}),
        ("the shortest time between cuts", {"cut_every_seconds_max": 3.0}),
        ("the shortest time between cuts", {"cut_every_seconds": 4.0, "cut_every_seconds_max": 3.0}),
        ("cannot be a black hole and refuse", {"black_hole": True, "refuse": True}),
    ]
    for sentence, conditions in impossible:
        with pytest.raises(ValueError, match=sentence):
            LinkConditions(**conditions)


ADDRESSES = f"--listen {HOST}:0 --to {HOST}:7"
WRONG_USAGE = {
    f"--listen 7000 --to {HOST}:7": "'7000' is not HOST:PORT",
    f"--listen {HOST}:0 --to {HOST}:70000": "the port must be from 1 to 65535, not 70000",
    f"--listen {HOST}:0 --to {'a' * 64}:7": "cannot be the name of a host",
    f"--listen {HOST}:7 --to {HOST}:7": "lead back into itself",
    f"--to {HOST}:7": "Missing option '--listen'",
    f"{ADDRESSES} --latency-ms -5": "latency_ms must be from 0 to 600000, not -5",
    f"{ADDRESSES} --latency-ms slow": "'slow' is not a valid float",
    f"{ADDRESSES} --rate 1.5": "'1.5' is not a valid integer",
    f"{ADDRESSES} --cut-every often": "'often' is not SECONDS or SECONDS-SECONDS",
    f"{ADDRESSES} --cut-every 3-1": "the shortest time between cuts",
    f"{ADDRESSES} --black-hole --refuse": "cannot be a black hole and refuse",
    f"{ADDRESSES} --seconds 0": "the time must be above 0",
    f"{ADDRESSES} --seconds nan": "the time must be above 0",
    f"{ADDRESSES} --fast": "No such option",
}


def run_link(arguments: str) -> Result:
    return CliRunner().invoke(main, ["link", *arguments.split()])


@pytest.mark.parametrize("arguments", WRONG_USAGE)
def test_wrong_usage_gets_a_sentence_and_exit_code_2(arguments: str) -> None:
    result = run_link(arguments)
    assert (result.exit_code, WRONG_USAGE[arguments] in result.stderr) == (2, True), result.stderr


def test_port_in_use_gets_a_sentence_and_exit_code_1() -> None:
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
        result = run_link(f"--listen {address} --to {HOST}:7")
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot listen on {address}: Address already in use.\n"


def test_link_command_tells_where_it_listens_and_what_happened() -> None:
    result = run_link(f"{ADDRESSES} --seconds 0.05 --seed 5 --cut-every 1-2")
    first, last = result.stdout.splitlines()
    assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+, spoils the way to 127\.0\.0\.1:7, seed 5", first)
    assert last == "0 connections, 0 refused, 0 unreachable, 0 cuts, 0 bytes to target, 0 bytes to client"
    assert result.exit_code == 0


def test_link_command_prints_json_alone_to_standard_output() -> None:
    result = run_link(f"{ADDRESSES} --seconds 0.05 --json")
    summary = json.loads(result.stdout)
    assert f"listening on {summary['listen']}, spoils the way to {HOST}:7, seed {summary['seed']}\n" == result.stderr
    assert (result.exit_code, summary["connections"]) == (0, 0)


def test_version_and_help() -> None:
    version = CliRunner().invoke(main, ["--version"])
    assert (version.exit_code, version.stdout.startswith("field-lab, packhorse ")) == (0, True)
    assert "Pass TCP connections on" in run_link("--help").stdout

"""Push comes before pull, and the site dials: what both ends recorded of the order of messages on the wire.

At first connect, at every reconnect and in scheduled mode the central sends no data frame before the site's push
checkpoint has come; and the central never dials.
"""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from field_lab.country import Country, Node
from field_lab.link import CLEAN_LINK, LinkConditions
from tests.processes.crashes import Pair, expect_pair, found_store_of_the_central
from tests.processes.paperwork import Paperwork
from tests.processes.supplies import one
from tests.processes.traces import HELLO, Line, sessions

pytestmark = pytest.mark.processes
RECONNECTS, CYCLES, PERIOD_SECONDS = 4, 3, 1.5
LISTENING = "0A"
"""The state of a socket in /proc/net/tcp that listens."""


class Socket(NamedTuple):
    """A TCP socket of a process."""

    port: int
    """Its own: of chance where it was dialled from here."""
    state: str


def sockets(node: Node) -> list[Socket]:
    """The TCP sockets of a daemon."""
    process = Path(f"/proc/{node.process_id}")
    own = set()
    for link in (process / "fd").iterdir():
        try:
            own.add(str(link.readlink()))
        except FileNotFoundError:
            pass  # closed meanwhile
    found = []
    for table in ("tcp", "tcp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            words = line.split()
            if f"socket:[{words[9]}]" in own:
                found.append(Socket(int(words[1].rpartition(":")[2], 16), words[3]))
    return found


async def watch_sockets(node: Node, seen: Counter[tuple[int, str]]) -> None:
    """Notes, again and again, at which own port each socket of a daemon is; a dialled one has a port of chance."""
    while True:
        seen.update((port, "listening" if state == LISTENING else "connected") for port, state in sockets(node))
        await asyncio.sleep(0.02)


def order(session: list[Line]) -> list[str]:
    """The words of a session as they went over the wire, repeats left out: "frame_sent push", "sent_hello", ..."""
    told = [f"{line.word} {line.direction}".strip() for line in session if not line.word.startswith("apply_")]
    return [word for place, word in enumerate(told) if not place or told[place - 1] != word]


def assert_push_first(pair: Pair) -> None:
    """In each session, as both ends told it: the push checkpoint comes before any data of a pull."""
    at_site, at_central = sessions(pair.lines(0), HELLO["push"]), sessions(pair.lines(1), HELLO["pull"])
    for here in map(order, at_site):
        assert here[0] == "sent_hello"
        assert not set(before("sent_push_checkpoint", here)) & {"frame_received pull", "received_pull_checkpoint"}
    for there in map(order, at_central):
        assert there[0] == "received_hello"
        assert not set(before("received_push_checkpoint", there)) & {"frame_sent pull", "sent_pull_checkpoint"}


def before(word: str, words: list[str]) -> list[str]:
    """What was told before a word, or everything where it was not told."""
    return words[: words.index(word)] if word in words else words


def both_ways(pair: Pair) -> int:
    """How many sessions carried frames both ways, so that there was something to be in the wrong order."""
    return sum(
        {("frame_sent", "push"), ("frame_received", "pull")} <= {(line.word, line.direction) for line in session}
        for session in sessions(pair.lines(0), HELLO["push"])
    )


def goodbyes(pair: Pair) -> list[Line]:
    """The goodbyes of scheduled sessions, in the present daemon's log."""
    return [line for line in pair.lines(0) if line.word == "received_goodbye"][1:]


def edit_at_both_ends(pair: Pair, of_the_central: Paperwork) -> None:
    """Something waits at either end for the next session."""
    for paperwork in (pair.paperwork, of_the_central):
        paperwork.burst(invoices=5, lines=3, stock=20)


async def arrived(pair: Pair, of_the_central: Paperwork) -> None:
    """Waits until what was edited at either end is at the other, and agreed."""
    deadline = time.monotonic() + 60
    for paperwork, receiver in ((pair.paperwork, pair.country.central), (of_the_central, pair.site)):
        query = (
            "SELECT (SELECT count(*) FROM invoice WHERE store_id = ?1) + count(*) FROM stock_line WHERE store_id = ?1"
        )
        while one(receiver.database, query, paperwork.store) != paperwork.done["documents inserted"]:
            assert time.monotonic() < deadline, pair.site.log.read_text()[-1500:]
            await asyncio.sleep(0.02)
    while one(pair.site.database, "SELECT count(*) FROM sync_outbox"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_push_comes_before_pull_and_the_central_never_dials(country: Country) -> None:
    of_the_central = await found_store_of_the_central(country, seed=5)
    pair, token = await expect_pair(country, 1, seed=6)
    of_the_central.burst(invoices=5, lines=3, stock=20)
    seen = Counter[tuple[int, str]]()
    watch = asyncio.create_task(watch_sockets(country.central, seen))
    assert (await country.join(pair.site, token)).exit_code == 0, "the first connect"
    assert_push_first(pair)
    await pair.site.start()
    for _ in range(RECONNECTS):
        pair.site.link.change(LinkConditions(refuse=True))
        pair.site.link.cut_all()
        edit_at_both_ends(pair, of_the_central)
        pair.site.link.change(CLEAN_LINK)
        await arrived(pair, of_the_central)
    assert_push_first(pair)
    assert both_ways(pair) >= RECONNECTS
    assert not [socket for socket in sockets(pair.site) if socket.state == LISTENING], "a site cannot be dialled"
    await pair.site.stop()
    before = both_ways(pair)
    edit_at_both_ends(pair, of_the_central)
    await pair.site.start("--every", str(PERIOD_SECONDS / 60))
    for cycle in range(CYCLES):
        await arrived(pair, of_the_central)
        while len(goodbyes(pair)) <= cycle:
            await asyncio.sleep(0.02)
        edit_at_both_ends(pair, of_the_central)
    assert_push_first(pair)
    assert both_ways(pair) >= before + CYCLES
    watch.cancel()
    print(f"{len(list(sessions(pair.lines(0), HELLO['push'])))} sessions, {both_ways(pair)} with frames both ways")
    print(f"sockets of the central by own port: {dict(seen)}")
    assert {port for port, _ in seen} == {country.grpc_port, country.web_port}, "a dialled socket has another port"
    assert seen[country.grpc_port, "connected"]

"""Power cuts: daemons are killed with SIGKILL while frames are in flight, over a link that is cut all the time.

Each run kills one node once, under edits at both ends, and ends with equal rows and equal digests; over all of them no
frame is applied twice and none that was committed is sent again. `make crashes` makes five rounds of it.
"""

import asyncio
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from field_lab.comparison import differences, rows
from field_lab.country import Country, Node, SiteNode
from field_lab.link import CLEAN_LINK, LinkConditions
from tests.processes.crashes import Hit, Pair, expect_pair, found_store_of_the_central, kill_at
from tests.processes.paperwork import TORN, Paperwork
from tests.processes.supplies import one, opened
from tests.processes.traces import Line, Moment

pytestmark = pytest.mark.processes
ROUNDS = int(os.environ.get("PACKHORSE_CRASH_ROUNDS", "1"))
SEED = int(os.environ.get("PACKHORSE_SEED", "1"))
MOMENTS = {True: (Moment.IN_APPLY, Moment.IN_GAP), False: (Moment.IN_GAP, Moment.IN_FLIGHT)}
"""Whether the receiver is killed -> when, in turns."""
EXPECTED_ENDS = {"LINK_CUT", "UNREACHABLE", "SUPERSEDED", "DRAINING", ""}


def bad_link(seed: int) -> LinkConditions:
    """Slow, late, and cut every half to three seconds."""
    return LinkConditions(
        latency_ms=60, jitter_ms=20, rate_bytes_per_second=80_000,
        cut_every_seconds=0.5, cut_every_seconds_max=3.0, seed=seed,
    )  # fmt: skip


async def agree(pair: Pair, central_paperwork: Paperwork) -> None:
    """Ends the edits and mends the link: both ends have equal rows and equal digests, and all that was entered."""
    central_paperwork.stop()
    pair.paperwork.stop()
    pair.site.link.change(CLEAN_LINK)
    for _ in range(10):
        done = await pair.site.sync()
        if done.exit_code == 0 and done.json["in_agreement"]:
            break
    assert done.json["in_agreement"], done.stdout
    there, here = pair.country.central.database, pair.site.database
    found = differences(there, here, ("unit", "item", "name"))
    for paperwork in (central_paperwork, pair.paperwork):
        where = f"store_id = '{paperwork.store}'"
        found |= differences(there, here, ("invoice", "stock_line"), where)
        found |= differences(there, here, ("invoice_line",), f"invoice_id IN (SELECT id FROM invoice WHERE {where})")
        entered = paperwork.done["documents inserted"] - paperwork.done["documents deleted"]
        assert len(rows(here, "invoice", where)) + len(rows(here, "stock_line", where)) == entered
    assert not found
    assert digests(there) & digests(here) == digests(here), "the digests are equal in every scope of the site"
    for database in (there, here):
        assert one(database, TORN) == 0
        assert one(database, "SELECT count(*) FROM sync_held") == 0
    assert one(here, "SELECT count(*) FROM sync_outbox") == 0


def digests(database: Path) -> set[tuple[str, str, int, bytes]]:
    """(scope, table, count, sum) of what is live at a node."""
    with opened(database) as connection:
        query = "SELECT name, table_name, count, sum FROM sync_digest JOIN sync_scope USING (scope) WHERE count > 0"
        return set(connection.execute(query))


def ends(pair: Pair) -> Counter[str]:
    """The codes with which sessions ended, from both logs."""
    text = pair.site.log.read_text() + pair.country.central.log.read_text()
    told = [json.loads(line) for line in text.splitlines() if '"event": "session ended"' in line]
    assert not re.search(r"Traceback|a step failed|session failed", text), "nothing unexpected happened"
    return Counter(line["code"] for line in told)


@pytest.mark.parametrize("phase", ["initialise", "push", "pull"])
async def test_a_kill_with_frames_in_flight_loses_doubles_and_repeats_nothing(country: Country, phase: str) -> None:
    central_paperwork = await found_store_of_the_central(country, SEED)
    pairs: list[Pair] = []
    direction = "push" if phase == "push" else "pull"
    hits: list[Hit] = []
    for number in range(2 * ROUNDS):
        seed = SEED * 1000 + number
        chance = random.Random(f"{phase}/{seed}")
        if phase == "initialise" or not pairs:
            pairs.append(await joining_pair(country, number, seed, is_whole=phase != "initialise"))
        pair = pairs[-1]
        victim: Node = (pair.site, country.central)[number % 2]
        receiver: Node = country.central if direction == "push" else pair.site
        pair.site.link.change(bad_link(seed))
        central_paperwork.burst(invoices=60, lines=5, stock=1200)
        central_paperwork.start()
        if phase == "initialise":
            await pair.site.start()
        else:
            pair.paperwork.burst(invoices=60, lines=5, stock=1200)
            pair.paperwork.start()
        moment = MOMENTS[victim is receiver][number // 2 % 2]
        # Where a transaction has begun, what may be half there depends on where in it: so three times.
        for strike in range(3 if moment is Moment.IN_APPLY and phase != "initialise" else 1):
            if strike:
                (pair.paperwork if direction == "push" else central_paperwork).burst(invoices=60, lines=5, stock=1200)
            hit = await kill_at(pair, direction, victim, moment, chance)
            hits.append(hit)
            print(f"{phase} seed {seed}: {name_of(victim)} killed {hit.moment}: {hit.in_flight} frames in flight,"
                  f" {hit.in_gap} of them in the gap, {hit.misses} missed before")  # fmt: skip
        assert phase != "initialise" or not any(line.word == "sent_checkpoint_report" for line in before_kill(pair))
        cuts = await one_more_cut(pair)
        await agree(pair, central_paperwork)
        print(f"{phase} seed {seed}: link cut {cuts} times, equal rows and digests")
        assert ends(pair).keys() <= EXPECTED_ENDS
        if phase == "initialise":
            await pair.site.stop()
    for pair in pairs:
        for way, audit in pair.audits().items():
            print(f"site {pair.site.number} {way}: {audit}")
            audit.hold()
            assert way != direction or (audit.sent and audit.committed)
    done = sum((pair.paperwork.done for pair in pairs), central_paperwork.done)
    in_gap = sum(1 for hit in hits if hit.in_gap)
    print(f"{phase}: {len(hits)} hits, {in_gap} of them in the gap; edits {dict(done)}")
    assert in_gap >= ROUNDS


def name_of(node: Node) -> str:
    """For people."""
    return "site" if isinstance(node, SiteNode) else "central"


def before_kill(pair: Pair) -> list[Line]:
    """The site's trace up to the last kill."""
    return [line for line in pair.lines(0) if line.at <= pair.noted[-1].at]


async def one_more_cut(pair: Pair) -> int:
    """Waits until the link was cut once more; returns how often it was cut so far."""
    before, deadline = pair.site.link.counters.cuts, time.monotonic() + 20
    while pair.site.link.counters.cuts == before:
        assert time.monotonic() < deadline, "the site does not connect again"
        await asyncio.sleep(0.05)
    return before + 1


async def joining_pair(country: Country, number: int, seed: int, is_whole: bool) -> Pair:
    """A site with its daemon running and everything pulled, or one that has enrolled and no more."""
    pair, token = await expect_pair(country, number, seed)
    if is_whole:
        done = await country.join(pair.site, token)
        assert done.exit_code == 0, done.stderr
        await pair.site.start()
    else:
        pair.site.link.change(LinkConditions(latency_ms=60, rate_bytes_per_second=80_000))
        await country.join_and_kill(pair.site, token)
    return pair

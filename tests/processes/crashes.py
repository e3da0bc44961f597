"""Kills a daemon while frames are in flight, as the traces of both ends tell, and counts what became of every frame."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from field_lab.country import Country, Node, SiteNode
from tests.processes.paperwork import Paperwork
from tests.processes.supplies import one, opened
from tests.processes.traces import HELLO, Audit, Flight, Line, Moment, Span, TraceFile, audit_pull, audit_push

HQ = "store-of-the-central"
"""A store that is active at the central; each site holds a collector's copy of it."""


LATER_SECONDS = {Moment.IN_FLIGHT: 0.1, Moment.IN_APPLY: 0.03, Moment.IN_GAP: 0.0}
"""A kill comes up to so long after the moment has begun; hit is only what lasts until then."""


@dataclass
class Pair:
    """A site and the central, with their traces."""

    country: Country
    site: SiteNode
    traces: tuple[TraceFile, TraceFile]
    """The site's and the central's."""
    paperwork: Paperwork
    """What is edited at the site."""
    noted: list[Line] = field(default_factory=list)
    """What the databases showed as committed after a kill: the last line of a killed process may be missing."""

    def lines(self, which: int) -> list[Line]:
        """One trace's lines about this site."""
        self.traces[which].read()
        return [line for line in self.traces[which].lines if line.site == self.site.number]

    def note(self, victim: Node) -> None:
        """Looks up what a killed node had committed: after everything that it can have told of it."""
        number, at = self.site.number, time.monotonic_ns()
        if victim is self.site:
            with opened(self.site.database) as connection:
                found = connection.execute("SELECT name || ':' || generation, 0, position FROM sync_scope").fetchall()
            self.noted.append(Line(at, "noted_commit", 0, number, "pull", tuple(Span(*row) for row in found)))
        else:
            frame = one(self.country.central.database, "SELECT frame_number FROM central_site WHERE site = ?", number)
            self.noted.append(Line(at, "noted_commit", frame, number, "push"))

    def audits(self) -> dict[str, Audit]:
        """Direction -> what became of all its frames so far."""
        site, central = self.lines(0), self.lines(1)
        return {"push": audit_push(site, central, self.noted), "pull": audit_pull(site, central, self.noted)}


class Watch:
    """Follows the frames of one direction in the session that is open."""

    def __init__(self, pair: Pair, direction: str) -> None:
        self.flight = Flight(direction)
        self._pair, self._read, self._cuts = pair, [0, 0], -1

    def look(self, until: int) -> None:
        """Takes what the traces have told up to a moment."""
        new: list[Line] = []
        for which in (0, 1):
            lines = self._pair.lines(which)
            new += lines[self._read[which] :]
            self._read[which] = len(lines)
        for line in sorted(line for line in new if line.at <= until):
            if line.word == HELLO[self.flight.direction]:
                self._cuts = self._pair.site.link.counters.cuts
            self.flight.tell(line)

    @property
    def is_whole(self) -> bool:
        """Whether the link was not cut since the session began."""
        return self._cuts == self._pair.site.link.counters.cuts


class Hit(NamedTuple):
    """A kill with frames in flight."""

    moment: Moment
    """What it was aimed at, and hit."""
    in_flight: int
    in_gap: int
    """Of these, how many the receiver had committed while the sender did not know."""
    misses: int


async def kill_at(pair: Pair, direction: str, victim: Node, moment: Moment, chance: random.Random) -> Hit:
    """Kills a daemon while frames of a direction are at a moment of their way, on a connection that is whole, and
    starts it again."""
    misses, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        watch = Watch(pair, direction)
        while not (watch.is_whole and watch.flight.at(moment)):
            assert time.monotonic() < deadline, f"no frame was {moment}: {pair.site.log.read_text()[-2000:]}"
            await asyncio.sleep(0.001)
            watch.look(time.monotonic_ns())
        await asyncio.sleep(chance.uniform(0.0, LATER_SECONDS[moment]))
        at, whole = time.monotonic_ns(), watch.is_whole
        await victim.kill()
        pair.note(victim)
        watch.look(at)
        await victim.start()
        if whole and watch.flight.at(moment):
            return Hit(moment, len(watch.flight.at(Moment.IN_FLIGHT)), len(watch.flight.at(Moment.IN_GAP)), misses)
        misses += 1
    raise AssertionError(f"no kill hit a frame {moment}")


async def found_store_of_the_central(country: Country, seed: int) -> Paperwork:
    """A store that is active at the central, with documents, and a larger catalogue; traces on."""
    await country.central.stop()
    country.central.environment = country.environment | {"PACKHORSE_TRACE": str(country.folder / "central.trace")}
    await country.central.start()
    with opened(country.central.database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO name (id, name, type) VALUES (?, 'of the central', 'store')", (HQ,))
        connection.execute("INSERT INTO store (id, name, name_id) VALUES (?, 'of the central', ?)", (HQ, HQ))
        items = [(f"item-more-{number:05}", f"Item {number}") for number in range(2000)]
        connection.executemany("INSERT INTO item (id, name) VALUES (?, ?)", items)
        connection.execute("COMMIT")
    await country.assign(HQ, 1)
    return Paperwork(country.central.database, HQ, seed)


async def expect_pair(country: Country, number: int, seed: int) -> tuple[Pair, str]:
    """A site that may join, with a store of its own and a collector's copy of the central's store; and its token."""
    store = f"store-{number}"
    with opened(country.central.database) as connection:
        connection.execute("INSERT INTO store (id, name) VALUES (?, ?)", (store, store))
    site, token = await country.expect(f"site of {store}")
    await country.assign(store, site.number)
    await country.collect(HQ, store, site.number)
    trace = site.directory.with_name(f"{site.directory.name}.trace")
    site.environment = site.environment | {"PACKHORSE_TRACE": str(trace)}
    central = TraceFile(Path(country.central.environment["PACKHORSE_TRACE"]))
    return Pair(country, site, (TraceFile(trace), central), Paperwork(site.database, store, seed)), token

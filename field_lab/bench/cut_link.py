"""What cuts cost: the same number of rows over a link of 500 kB/s, uncut and cut every 2 s.

Both carry TIMES as many rows as the other transfers: 100,000 rows would be through after five cuts, and at least eight
are to lie in what is measured.

Time, bytes and cuts are those of one span: from the first byte that the site sent until the last frame was settled.
Bytes are what the link carried in both directions, TLS and HTTP/2 included. The counters of the link are noted every
LOOK_SECONDS: as many bytes as it carries in that time may be counted too much at either end.
"""

import asyncio
from typing import NamedTuple

from field_lab.bench.clock import Span, now, push_span
from field_lab.bench.scene import Scene, synchronise_until_agreed, trace_of
from field_lab.bench.storage.site_program import enter
from field_lab.link import LinkConditions, SpoiledLink

RATE_BYTES_PER_SECOND = 500_000
CUT_SECONDS = 2.0
LOOK_SECONDS = 0.005
TIMES = 2
_UNCUT = LinkConditions(rate_bytes_per_second=RATE_BYTES_PER_SECOND)
_CUT = LinkConditions(rate_bytes_per_second=RATE_BYTES_PER_SECOND, cut_every_seconds=CUT_SECONDS)


class Carried(NamedTuple):
    """What one transfer over the link took."""

    seconds: float
    bytes: int
    cuts: int
    rows: int

    @property
    def bytes_per_record(self) -> float:
        """Bytes on the wire for each row."""
        return self.bytes / self.rows


async def measure_uncut(scene: Scene, rows: int) -> Carried:
    """Pushes TIMES as many rows over the link as it is when nothing breaks."""
    return await _carry(scene, TIMES * rows, _UNCUT)


async def measure_cut(scene: Scene, rows: int) -> Carried:
    """Pushes TIMES as many rows over the link while it is cut again and again."""
    return await _carry(scene, TIMES * rows, _CUT)


class _Look(NamedTuple):
    """The counters of the link at one moment of the monotonic clock, in nanoseconds."""

    at: int
    bytes: int
    cuts: int


async def _carry(scene: Scene, rows: int, conditions: LinkConditions) -> Carried:
    site, link = scene.linked, scene.linked.link
    lines = scene.supplies.stock_lines(scene.linked_store, rows)
    await asyncio.to_thread(enter, site.database, lines)
    looks = [_look(link)]
    watching = asyncio.create_task(_watch(link, looks))
    link.change(conditions)
    await synchronise_until_agreed(site)
    watching.cancel()
    link.change(LinkConditions())
    return _within(push_span([trace_of(site)], looks[0].at), [*looks, _look(link)], rows)


async def _watch(link: SpoiledLink, looks: list[_Look]) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        looks.append(_look(link))


def _look(link: SpoiledLink) -> _Look:
    counters = link.counters
    return _Look(now(), counters.bytes_to_target + counters.bytes_to_client, counters.cuts)


def _within(span: Span, looks: list[_Look], rows: int) -> Carried:
    """What the link carried from the last look before a span to the first one after it."""
    before = max((look for look in looks if look.at <= span.begin), key=lambda look: look.at)
    after = min((look for look in looks if look.at >= span.end), key=lambda look: look.at)
    return Carried(span.seconds, after.bytes - before.bytes, after.cuts - before.cuts, rows)

"""What cuts cost: the same number of rows over a link of 500 kB/s, uncut and cut every 2 s.

Bytes are what the link carried in both directions, TLS and HTTP/2 included.
"""

import asyncio
from typing import NamedTuple

from field_lab.bench.clock import now, push_span
from field_lab.bench.scene import Scene, synchronise_until_agreed, trace_of
from field_lab.bench.storage.site_program import enter
from field_lab.link import LinkConditions

RATE_BYTES_PER_SECOND = 500_000
CUT_SECONDS = 2.0
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
    """Pushes rows over the link as it is when nothing breaks."""
    return await _carry(scene, rows, _UNCUT)


async def measure_cut(scene: Scene, rows: int) -> Carried:
    """Pushes rows over the link while it is cut again and again."""
    return await _carry(scene, rows, _CUT)


async def _carry(scene: Scene, rows: int, conditions: LinkConditions) -> Carried:
    site, link = scene.linked, scene.linked.link
    lines = scene.supplies.stock_lines(scene.linked_store, rows)
    await asyncio.to_thread(enter, site.database, lines)
    before, mark = (link.counters.bytes_to_target, link.counters.bytes_to_client, link.counters.cuts), now()
    link.change(conditions)
    await synchronise_until_agreed(site)
    after = (link.counters.bytes_to_target, link.counters.bytes_to_client, link.counters.cuts)
    to_target, to_client, cuts = (later - earlier for later, earlier in zip(after, before, strict=True))
    link.change(LinkConditions())
    return Carried(push_span([trace_of(site)], mark).seconds, to_target + to_client, cuts, rows)

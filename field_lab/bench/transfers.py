"""How fast rows travel: from one site, to a new site, from many sites at once."""

import asyncio
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from engine.limits import FRAME_RECORDS
from field_lab.bench.clock import now, pull_span, push_span
from field_lab.bench.scene import Scene, add_reader, synchronise_until_agreed, trace_of
from field_lab.bench.storage.raw import raw_seconds, raw_two_rows_seconds
from field_lab.bench.storage.site_program import count_stock_lines, enter
from field_lab.bench.supplies import Row


class Rate(NamedTuple):
    """Records per second through Packhorse and through SQLite alone."""

    records: float
    raw: float
    raw_two_rows: float


async def measure_push(scene: Scene, run: int, rows: int) -> tuple[Rate, list[Row]]:
    """Site A pushes rows of the store of this run; returns the rows too."""
    lines = scene.supplies.stock_lines(scene.pushed_stores[run], rows)
    rate = await _push(scene, [lines])
    return rate, lines


async def measure_many(scene: Scene, rows: int) -> Rate:
    """Every site of the many pushes its part of the rows at the same time."""
    each = max(1, rows // len(scene.many))
    return await _push(scene, [scene.supplies.stock_lines(store, each) for store in scene.many_stores])


async def _push(scene: Scene, lines: Sequence[list[Row]]) -> Rate:
    sites = [scene.pushing] if len(lines) == 1 else scene.many
    before = count_stock_lines(scene.country.central.database)
    for site, its in zip(sites, lines, strict=True):
        await asyncio.to_thread(enter, site.database, its)
    mark = now()
    await asyncio.gather(*(synchronise_until_agreed(site) for site in sites))
    span = push_span([trace_of(site) for site in sites], mark)
    arrived = count_stock_lines(scene.country.central.database) - before
    total = sum(len(its) for its in lines)
    if arrived != total:
        raise RuntimeError(f"{total} rows were pushed and {arrived} arrived")
    return await _beside_raw(scene, total / span.seconds, _interleaved(lines), publishes=True)


async def measure_pull(scene: Scene, run: int, lines: list[Row]) -> Rate:
    """A new site fetches the store of that run, from its first entry on."""
    site = await add_reader(scene, run)
    await scene.country.collect(scene.pushed_stores[run], scene.readers_stores[run], site.number)
    mark = now()
    done = await site.sync()
    span = pull_span([trace_of(site)], mark)
    arrived = count_stock_lines(site.database)
    if done.exit_code or arrived != len(lines):
        raise RuntimeError(f"{len(lines)} rows were to be pulled and {arrived} arrived: {done.stderr}")
    return await _beside_raw(scene, len(lines) / span.seconds, lines, publishes=False)


async def _beside_raw(scene: Scene, records: float, lines: list[Row], publishes: bool) -> Rate:
    folder = scene.country.folder
    raw = await asyncio.to_thread(raw_seconds, folder, lines, publishes)
    raw_two_rows = await asyncio.to_thread(raw_two_rows_seconds, folder, lines)
    return Rate(records, len(lines) / raw, len(lines) / raw_two_rows)


def _interleaved(lines: Sequence[list[Row]]) -> list[Row]:
    """The rows of several sites in the order in which the central takes them: frame by frame in turn."""
    framed = ([its[start : start + FRAME_RECORDS] for start in range(0, len(its), FRAME_RECORDS)] for its in lines)
    return [row for turn in zip_longest(*framed, fillvalue=[]) for row in chain.from_iterable(turn)]

"""One run of the bench, from an empty folder to the figures."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.limits import FRAME_RECORDS
from field_lab.bench.bare_stream import bare_stream_seconds
from field_lab.bench.cut_link import Carried, measure_cut, measure_uncut
from field_lab.bench.figures import Figures
from field_lab.bench.latency import measure_latency
from field_lab.bench.scene import Scene, set_up
from field_lab.bench.supplies import Row, Supplies
from field_lab.bench.transfers import Rate, measure_many, measure_pull, measure_push
from field_lab.country import Country

Say = Callable[[str], None]


async def run_bench(rows: int, sites: int, runs: int, edits: int, seed: int, say: Say) -> Figures:
    """Measures everything.

    Args:
        rows: stock lines of each transfer.
        sites: how many push at once.
        runs: how often each transfer is measured.
        edits: how many edits the latency is taken from.
        seed: start of everything drawn at random.
        say: told of each step in a few words.
    """
    with tempfile.TemporaryDirectory(prefix="packhorse-bench-") as folder:
        async with Country(Path(folder)) as country:
            say(f"a central node and {sites + 2} sites are set up")
            scene = await set_up(country, Supplies(seed), runs, sites)
            push, pull, many, lines = await _transfers(scene, rows, runs, say)
            say("edits travel from site to site")
            latency = await measure_latency(scene, lines, edits)
            uncut, cut = await _cuts(scene, rows, runs, say)
    say("a bare stream carries the same bytes")
    bytes_of_frame = round(uncut[0].bytes_per_record * FRAME_RECORDS)
    frames = max(1, rows // FRAME_RECORDS)
    bare = frames * FRAME_RECORDS / await bare_stream_seconds(frames, bytes_of_frame)
    return Figures(seed, rows, sites, runs, push, pull, many, latency, uncut, cut, bare)


async def _transfers(
    scene: Scene, rows: int, runs: int, say: Say
) -> tuple[list[Rate], list[Rate], list[Rate], list[Row]]:
    push, pull, many, lines = [], [], [], list[Row]()
    for run in range(runs):
        say(f"run {run + 1} of {runs}: one site pushes")
        rate, lines = await measure_push(scene, run, rows)
        push.append(rate)
        say(f"run {run + 1} of {runs}: a new site pulls")
        pull.append(await measure_pull(scene, run, lines))
        say(f"run {run + 1} of {runs}: {len(scene.many)} sites push")
        many.append(await measure_many(scene, rows))
    for site in scene.many:
        await site.stop()
    return push, pull, many, lines


async def _cuts(scene: Scene, rows: int, runs: int, say: Say) -> tuple[list[Carried], list[Carried]]:
    uncut, cut = [], []
    for run in range(runs):
        say(f"run {run + 1} of {runs}: a link of 500 kB/s")
        uncut.append(await measure_uncut(scene, rows))
        say(f"run {run + 1} of {runs}: the same link, cut every 2 s")
        cut.append(await measure_cut(scene, rows))
    return uncut, cut

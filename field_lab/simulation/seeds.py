"""Runs many seeds in two processes, says how far it is, which failed and how to see it again, and what happened."""

import gc
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from field_lab.simulation.counters import added, never_seen

PROCESSES = 2
_TOLD_EVERY_SECONDS = 10.0


class Outcome(NamedTuple):
    """What a seed has shown."""

    seed: int
    counts: dict[str, int]
    """How often each fault, edit and rare path happened."""
    failure: str = ""
    """What did not hold. Empty: everything did."""


class Suite(NamedTuple):
    """Seeds of one kind."""

    command: str
    """What makes them, of `make` and of `field-lab`."""
    run: Callable[[int], Outcome]
    """Runs one. Whatever goes wrong is the outcome's failure."""
    everything: tuple[str, ...]
    """All that can happen, by the names of the counters."""
    seeds_for_everything: int
    """A run of so many seeds has to show everything."""


def run_seeds(suite: Suite, seeds: Iterable[int], say: Callable[[str], None]) -> bool:
    """Runs seeds; says which fail and why, and how often each thing happened. Returns whether all held, and whether
    everything was seen where there were seeds enough."""
    counts: dict[str, int] = {}
    failed: list[int] = []
    every = list(seeds)
    began = told = time.monotonic()
    say(f"{len(every)} seeds from {every[0]} to {every[-1]} at {commit()}")
    for done, outcome in enumerate(_outcomes(suite, every), 1):
        counts = added(counts, outcome.counts)
        if outcome.failure:
            failed.append(outcome.seed)
            say(f"seed {outcome.seed} at {commit()}: {outcome.failure}")
            say(f"    again: make {suite.command} SEEDS=1 FIRST_SEED={outcome.seed}")
        if time.monotonic() - told > _TOLD_EVERY_SECONDS:
            told = time.monotonic()
            say(f"{done} of {len(every)} seeds after {told - began:.0f} s, {len(failed)} failed")
    for name, count in sorted(counts.items()):
        say(f"{count:8} {name}")
    unseen = never_seen(counts, suite.everything)
    if unseen:
        say(f"never happened: {', '.join(unseen)}")
    say(f"seeds that failed: {sorted(failed) or 'none'} of {len(every)}, {time.monotonic() - began:.0f} s")
    return not failed and not (unseen and len(every) >= suite.seeds_for_everything)


def _outcomes(suite: Suite, seeds: list[int]) -> Iterator[Outcome]:
    """The outcome of each seed, as they come."""
    with _fixed_order_of_sets():
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(PROCESSES, len(seeds)), mp_context=fresh, initializer=_begin_process) as pool:
            for future in as_completed([pool.submit(suite.run, seed) for seed in seeds]):
                yield future.result()


def _begin_process() -> None:
    """What a seed leaves is small: looking for circles in it less often saves a tenth of the time."""
    gc.set_threshold(50_000, 20, 100)


@contextmanager
def _fixed_order_of_sets() -> Iterator[None]:
    """Processes that are started meanwhile go through sets in the same order each time: a seed repeats that too."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def commit() -> str:
    """The commit of the sources, as far as it is known."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return f"commit {found.stdout.strip()}"

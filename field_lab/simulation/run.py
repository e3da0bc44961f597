"""Runs one seed: edits and faults for a while, then the faults stop and everything must converge."""

import asyncio
import logging
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from engine.storage.held import held_count
from field_lab.simulation.checks import Broken, check_healed, check_node
from field_lab.simulation.link import Weather
from field_lab.simulation.virtual_loop import NothingWillHappen, VirtualTimeLoop
from field_lab.simulation.workload import Workload
from field_lab.simulation.world import World

STEPS = 120
HEAL_SECONDS = 400.0


def simulate(seed: int) -> dict[str, int]:
    """Runs a seed; returns how often each fault and each edit happened.

    Raises:
        Broken: an invariant does not hold; the text says which.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    state = random.getstate()
    random.seed(seed)
    loop = VirtualTimeLoop()
    try:
        with tempfile.TemporaryDirectory(prefix="packhorse-simulation-") as folder:
            return loop.run_until_complete(_run(Path(folder), random.Random(seed)))
    finally:
        random.setstate(state)
        loop.close()


def simulate_seeds(seeds: Iterable[int], say: Callable[[str], None]) -> bool:
    """Runs seeds one by one; says which fail and why, and how often each fault happened. Returns whether all held."""
    counts: dict[str, int] = {}
    failed: list[int] = []
    for seed in seeds:
        try:
            for name, count in simulate(seed).items():
                counts[name] = counts.get(name, 0) + count
        except (Broken, NothingWillHappen) as error:
            failed.append(seed)
            say(f"seed {seed}: {error}")
    for name, count in sorted(counts.items()):
        say(f"{count:8} {name}")
    say(f"seeds that failed: {failed or 'none'}")
    return not failed


async def _run(folder: Path, chance: random.Random) -> dict[str, int]:
    world = World(folder, chance.randrange(1, 4), chance)
    await world.found()
    try:
        await _work(world, chance)
        await _heal(world)
    finally:
        await world.end()
    return world.counters.faults


async def _work(world: World, chance: random.Random) -> None:
    workload = Workload(chance, world.counters)
    for _ in range(STEPS):
        if chance.random() < 0.05:
            world.weather = _weather(chance)
            world.power_cut_rate = chance.choice((0.0, 0.0, 0.01, 0.05))
        await asyncio.sleep(chance.random() * chance.choice((0.01, 0.5, 3.0)))
        try:
            if chance.random() < 0.2:
                workload.edit_central(world.path(1))
            else:
                number = chance.choice(world.numbers)
                workload.edit_site(world.path(number), world.stores[number])
        except sqlite3.IntegrityError as error:
            if "STORE_DATA_WHERE_ACTIVE" not in str(error):  # the site has not got its configuration yet
                raise
            world.counters.count("edit refused")
        if chance.random() < 0.1:
            for number in (1, *world.numbers):
                check_node(world.path(number))


def _weather(chance: random.Random) -> Weather:
    return Weather(
        delay_seconds_max=chance.choice((0.0, 0.05, 2.0)),
        cut_rate=chance.choice((0.0, 0.01, 0.1)),
        half_open_rate=chance.choice((0.0, 0.5)),
        refuse_rate=chance.choice((0.0, 0.3)),
    )


async def _heal(world: World) -> None:
    """The faults stop; what waits for missing items gets them; all must agree."""
    world.power_cut_rate, world.weather = 0.0, Weather()
    connection = sqlite3.connect(world.path(1), isolation_level=None)
    for number in range(60):
        connection.execute(
            "INSERT INTO item (id, name, unit_id) VALUES (?, 'late', 'each') ON CONFLICT DO NOTHING",
            (f"item-{number}",),
        )
    connection.close()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HEAL_SECONDS
    while not _agrees(world):
        if loop.time() > deadline:
            raise Broken(f"I10, no agreement after {HEAL_SECONDS:.0f} s: {_why(world)}")
        await asyncio.sleep(1.0)
    for number in world.numbers:
        check_node(world.path(number))
        check_healed(world.path(1), world.path(number), world.stores[number])
    check_node(world.path(1))
    connection = sqlite3.connect(world.path(1))
    if held_count(connection):
        raise Broken(f"documents stay held: {_why(world)}")
    connection.close()


def _agrees(world: World) -> bool:
    connection = sqlite3.connect(world.path(1))
    try:
        waiting = (
            "SELECT 1 FROM sync_outbox UNION ALL SELECT 1 FROM sync_held"
            " UNION ALL SELECT 1 FROM central_site WHERE agreed IS NOT 1"
        )
        if connection.execute(waiting).fetchone():
            return False
    finally:
        connection.close()
    for number in world.numbers:
        site = sqlite3.connect(world.path(number))
        try:
            noted = dict(site.execute("SELECT key, value FROM sync_status"))
            if noted.get("agreed") != "1" or site.execute("SELECT 1 FROM sync_outbox").fetchone():
                return False
        finally:
            site.close()
    return True


def _why(world: World) -> str:
    told = []
    for number in (1, *world.numbers):
        connection = sqlite3.connect(world.path(number))
        outbox = connection.execute("SELECT count(*) FROM sync_outbox").fetchone()[0]
        held = connection.execute("SELECT code, sentence FROM sync_held LIMIT 2").fetchall()
        noted = dict(connection.execute("SELECT key, value FROM sync_status"))
        outcome = connection.execute("SELECT * FROM sync_outcome LIMIT 2").fetchall()
        wants = connection.execute("SELECT * FROM sync_want LIMIT 2").fetchall()
        told.append(f"node {number}: outbox {outbox}, held {held}, outcomes {outcome}, wants {wants}, {noted}")
        connection.close()
    return "; ".join(told)

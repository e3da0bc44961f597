"""Runs one seed: edits and faults for a while, then the faults stop and everything must converge."""

import asyncio
import logging
import random
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog

from field_lab.simulation.counters import FAULTS, SOMETIMES
from field_lab.simulation.faulty_world import FaultyWorld
from field_lab.simulation.founding import fast_folder, found
from field_lab.simulation.healing import heal
from field_lab.simulation.machine import CENTRAL
from field_lab.simulation.seeds import Outcome, Suite
from field_lab.simulation.truth import Broken
from field_lab.simulation.virtual_loop import VirtualTimeLoop, virtual_world
from field_lab.simulation.weather import draw_weather
from field_lab.simulation.workload import OPERATIONS, draw_operation
from field_lab.simulation.world import World

STEPS = 75
SITES_MAX = 3
PAUSES_SECONDS, PAUSE_WEIGHTS = (0.01, 0.5, 3.0, 250.0), (33, 33, 33, 1)
"""How long nobody does anything between two steps, at most; long enough now and then for patience to end."""


def simulate(seed: int) -> Outcome:
    """Runs a seed. Whatever goes wrong is the outcome's failure."""
    chance = random.Random(seed)
    sites = chance.randrange(1, SITES_MAX + 1)
    found(sites + 1)  # outside of the seed's time
    return live(
        seed,
        lambda folder: FaultyWorld(folder, sites, chance),
        lambda world, folder, errors: _run(world, folder, chance, errors),
    )


SIMULATION = Suite(
    "simulate", simulate, (*FAULTS, *SOMETIMES, *(f"edit: {operation.name}" for operation in OPERATIONS)), 200
)
"""Faults of every sort, at two or three sites that have one store each."""

AnyWorld = TypeVar("AnyWorld", bound=World)


def live(
    seed: int,
    make: Callable[[Path], AnyWorld],
    run: Callable[[AnyWorld, Path, list[str]], Coroutine[Any, Any, None]],
) -> Outcome:
    """Has a world live in virtual time, and ends it; what goes wrong is the outcome's failure.

    Args:
        seed: of whatever the engine draws at random.
        make: the world, in a folder for its files.
        run: what happens in it, with what the engine's log has told of so far that it did not expect.
    """
    loop = VirtualTimeLoop()
    errors: list[str] = []
    _listen(errors)
    try:
        with fast_folder() as folder, virtual_world(loop, seed):
            world = make(folder)
            try:
                loop.run_until_complete(run(world, folder, errors))
            except Exception as error:
                text = str(error) if isinstance(error, Broken) else traceback.format_exc()
                return Outcome(seed, world.counters.counts, text)
            finally:
                loop.run_until_complete(world.end())
        return Outcome(seed, world.counters.counts)
    finally:
        structlog.reset_defaults()
        loop.close()


def _listen(errors: list[str]) -> None:
    """Has the engine's log kept where it tells of something that it did not expect."""

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        if event.get("exc_info"):
            errors.append(f"{event.get('event')}\n{traceback.format_exc()}")
        raise structlog.DropEvent

    level = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=level, processors=[keep], cache_logger_on_first_use=False)


async def _run(world: FaultyWorld, folder: Path, chance: random.Random, errors: list[str]) -> None:
    for number in world.machines:
        world.start(number)
    poison = chance.random() < 0.2
    for _ in range(STEPS):
        await _step(world, folder, chance, poison)
        world.check()
        raise_told(errors)
    await heal(world)
    raise_told(errors)


def raise_told(errors: list[str]) -> None:
    """Raises Broken where the engine's log has told of something that it did not expect."""
    if errors:
        raise Broken(f"something that the engine did not expect: {errors[0]}")


async def _step(world: FaultyWorld, folder: Path, chance: random.Random, poison: bool) -> None:
    if chance.random() < 0.05:
        world.weather = draw_weather(chance, poison)
    await asyncio.sleep(chance.random() * chance.choices(PAUSES_SECONDS, PAUSE_WEIGHTS)[0])
    machine = world.machines[CENTRAL if chance.random() < 0.2 else chance.choice(world.numbers)]
    drawn = chance.random()
    if drawn < 0.01:
        world.lose_power(machine.number)
    elif drawn < 0.02:
        machine.jump_clock()
    elif drawn < 0.04:
        machine.fill_disk(not machine.disk.is_full)
    elif drawn < 0.06:
        world.attack()
    elif drawn < 0.12:
        await machine.import_rows(folder)
    elif machine.is_on:
        machine.edit(draw_operation(chance, machine.number == CENTRAL))

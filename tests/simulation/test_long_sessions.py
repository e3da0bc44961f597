"""What a session that lasts for days still does, in virtual time."""

import asyncio
import random
from pathlib import Path

from engine.storage.records import applying
from field_lab.simulation.faulty_world import FaultyWorld
from field_lab.simulation.run import live

SEED, SITE = 1, 2
HOUR_SECONDS = 3_600.0


def hide_a_record_that_nothing_refers_to(world: FaultyWorld) -> None:
    """As the last document that referred to it leaves it."""
    program = world.machines[SITE].program
    program.execute("BEGIN IMMEDIATE")
    with applying(program):
        program.execute("INSERT INTO unit (id, name) VALUES ('hidden', 'hidden')")
    program.execute(
        "INSERT INTO sync_record (table_name, id, term, term_id, counter, hash) VALUES ('unit', 'hidden', 1, 1, 1, x'')"
    )
    program.execute("INSERT INTO sync_hidden VALUES ('unit', 'hidden', '', 'not_visible', 0)")
    program.execute("COMMIT")


def test_f36_what_is_hidden_is_looked_at_again_every_day() -> None:
    """Not at every checkpoint: that would read every record that refers to another one."""
    seen: dict[str, int] = {}

    async def run(world: FaultyWorld, _folder: Path, _errors: list[str]) -> None:
        world.modes[SITE] = "live"
        for number in world.machines:
            world.start(number)
        await asyncio.sleep(HOUR_SECONDS)
        hide_a_record_that_nothing_refers_to(world)
        began = world.counters.counts.get("session live", 0)
        for when, hours in (("the same day", 12), ("the next day", 14)):
            await asyncio.sleep(hours * HOUR_SECONDS)
            seen[when] = len(world.machines[SITE].ask("SELECT 1 FROM unit WHERE id = 'hidden'"))
        assert world.counters.counts.get("session live", 0) == began, "it is the same session"

    outcome = live(SEED, lambda folder: FaultyWorld(folder, 1, random.Random(SEED)), run)
    assert outcome.failure == ""
    assert seen == {"the same day": 1, "the next day": 0}

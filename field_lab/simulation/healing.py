"""The faults stop, people mend what only people can, and everything must agree within a few rounds of push and pull."""

import asyncio

from central_node.storage.attempts import SET_ASIDE
from field_lab.simulation.faulty_world import FaultyWorld
from field_lab.simulation.machine import CENTRAL
from field_lab.simulation.truth import Broken
from field_lab.simulation.workload import ITEMS, Edit, Operation, touch_again

ROUNDS_MAX = 5
"""Rounds of push and pull of each site until everything agrees."""
_SECONDS_MAX = 400.0
_SETTLING_SECONDS = 60.0
"""Longer than messages that are late and keepalives last: what the faults have left behind is over."""


async def heal(world: FaultyWorld) -> None:
    """See the module. Raises Broken."""
    world.heal()
    await world.settle_restarts()
    await asyncio.sleep(_SETTLING_SECONDS)
    world.check()
    _save_again_what_was_set_aside(world)
    world.machines[CENTRAL].edit(Operation("the late items", 0, _add_items))
    begun, needed = dict(world.observer.rounds), dict[int, int]()
    end = asyncio.get_running_loop().time() + _SECONDS_MAX
    while len(needed) < len(world.numbers):
        if asyncio.get_running_loop().time() > end:
            raise Broken(f"I10, no agreement after {_SECONDS_MAX:.0f} s: {_why(world)}")
        await asyncio.sleep(0.5)
        world.check()
        for number in world.numbers:
            if not _agrees(world, number):
                needed.pop(number, None)
            elif number not in needed:
                needed[number] = world.observer.rounds.get(number, 0) - begun.get(number, 0)
    if max(needed.values()) > ROUNDS_MAX:
        raise Broken(f"I10, so many rounds were needed by each site until it agreed: {needed}")
    world.check()
    world.checks.healed(world.stores)


def _add_items(edit: Edit) -> None:
    for number in range(ITEMS):
        edit.connection.execute(
            "INSERT INTO item (id, name, unit_id) VALUES (?, 'late', 'each') ON CONFLICT DO NOTHING",
            (f"item-{number}",),
        )
        edit.touch("item", f"item-{number}")


def _save_again_what_was_set_aside(world: FaultyWorld) -> None:
    for number in world.numbers:
        query = "SELECT root_table, root_id FROM sync_outcome WHERE disposition = 'held' AND sentence LIKE '%attempts%'"
        for key in world.machines[number].ask(query):
            again = Operation("save again", 0, lambda edit, key=key: touch_again(edit, key))  # type: ignore[misc]
            world.machines[number].edit(again)
            world.counters.count("document edited again after its frame was set aside")


def _agrees(world: FaultyWorld, number: int) -> bool:
    """Whether a site and the central say so of each other, and speak of how things are now.

    A frame that was set aside stays held until a person has looked at it: its site then says that all is equal and
    nothing waits, but does not call that agreement.
    """
    central, machine = world.machines[CENTRAL], world.machines[number]
    held = central.ask(f"SELECT table_name FROM sync_held WHERE site = {number}")
    agreed = "agreed = 1" if not held else "differing = '' AND waiting_to_push = 0 AND held_there = 0"
    said = central.ask(f"SELECT 1 FROM central_site WHERE site = {number} AND {agreed}")
    if not said or any(table != SET_ASIDE for (table,) in held):
        return False
    heads = central.ask(
        "SELECT u.scope, u.generation, ifnull(s.position, 0) FROM central_subscription AS u"
        f" LEFT JOIN sync_scope AS s ON s.name = u.scope WHERE u.site = {number} ORDER BY u.scope"
    )
    if machine.ask("SELECT name, generation, position FROM sync_scope WHERE generation > 0 ORDER BY name") != heads:
        return False
    if central.ask("SELECT 1 FROM sync_outbox LIMIT 1") or machine.ask("SELECT 1 FROM sync_outbox LIMIT 1"):
        return False
    if machine.ask("SELECT 1 FROM sync_meta WHERE key = 'left_due'"):  # records that left are still being removed
        return False
    return machine.ask("SELECT value FROM sync_status WHERE key = 'agreed'") == [("0" if held else "1",)]


def _why(world: FaultyWorld) -> str:
    told = []
    for number, machine in world.machines.items():
        outbox = machine.ask("SELECT count(*) FROM sync_outbox")[0][0]
        held = machine.ask("SELECT code, sentence FROM sync_held LIMIT 2")
        outcomes = machine.ask("SELECT * FROM sync_outcome LIMIT 2")
        wants = machine.ask("SELECT * FROM sync_want LIMIT 2")
        noted = dict(machine.ask("SELECT key, value FROM sync_status"))
        told.append(f"node {number}: outbox {outbox}, held {held}, outcomes {outcomes}, wants {wants}, {noted}")
    return "; ".join(told)

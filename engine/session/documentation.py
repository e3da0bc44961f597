"""The transition tables of both machines as they stand in the documentation, generated so that they cannot drift."""

from engine.session.central_machine import CentralMachine
from engine.session.machine import CLOSED, Machine
from engine.session.site_machine import SiteMachine

_MACHINES: tuple[tuple[str, type[Machine]], ...] = (("site", SiteMachine), ("central", CentralMachine))


def transition_tables() -> str:
    """Markdown: for each machine, which state may follow which event in which state."""
    return "\n\n".join(f"The {end}'s end:\n\n{_table(machine)}" for end, machine in _MACHINES)


def _table(machine: type[Machine]) -> str:
    rows = ["| state | event | may lead to |", "|---|---|---|"]
    for state, events in machine.TRANSITIONS.items():
        # A message with a value that breaks the protocol ends the session, whatever the row says.
        rows += [f"| {state} | {event} | {', '.join(after)} |" for event, after in events.items() if after]
    return "\n".join([*rows, f"| {CLOSED} | any | {CLOSED} |"])

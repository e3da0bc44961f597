"""The transition tables of both machines as they stand in ARCHITECTURE.md."""

from engine.session.central_machine import CentralMachine
from engine.session.machine import Machine
from engine.session.site_machine import SiteMachine


def transition_tables() -> str:
    """Markdown: a table per machine, a row per state and event; what has no row ends the session."""
    return "\n\n".join(_table(name, machine) for name, machine in (("Site", SiteMachine), ("Central", CentralMachine)))


def _table(name: str, machine: type[Machine]) -> str:
    lines = [f"**{name}.** Any other message ends the session with PROTOCOL_BROKEN.", ""]
    lines += ["| state | event | leads to |", "|---|---|---|"]
    for state, row in machine.TRANSITIONS.items():
        by_target: dict[tuple[str, ...], list[str]] = {}
        for event, targets in row.items():
            by_target.setdefault(targets, []).append(event)
        for targets, events in by_target.items():
            lines.append(f"| {state} | {', '.join(events)} | {' or '.join(targets)} |")
    return "\n".join(lines)

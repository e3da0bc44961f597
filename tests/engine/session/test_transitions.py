"""Every state and every event of both machines: the table allows it, or the session ends with a named error."""

import pytest
from packhorse.sync.v1 import session_pb2

from engine.errors import Code, PackhorseError
from engine.session.central_machine import CentralMachine
from engine.session.documentation import transition_tables
from engine.session.machine import CLOSED, Event, Finish, Machine, Message, Send, Step
from engine.session.site_machine import SiteMachine
from tests.engine.session.machines import (
    CENTRAL_EVENTS,
    CENTRAL_MESSAGES,
    SITE_EVENTS,
    SITE_MESSAGES,
    assert_refused,
    central_in,
    finished,
    give,
    site_in,
)

MACHINES: tuple[type[Machine], ...] = (SiteMachine, CentralMachine)
CASES = [(kind, state, name) for kind in MACHINES for state in kind.TRANSITIONS for name in sorted(kind.names())]
STATES = [(kind, state) for kind in MACHINES for state in kind.TRANSITIONS]


def machine_in(kind: type[Machine], state: str) -> Machine:
    return site_in(state) if kind is SiteMachine else central_in(state)


def message_of(kind: type[Machine], data: bytes = b"") -> Message:
    """A message as its peer would send it."""
    return (
        session_pb2.CentralMessage.FromString(data) if kind is SiteMachine else session_pb2.SiteMessage.FromString(data)
    )


def assert_in_order(steps: list[Step], machine: Machine) -> None:
    """Finish is the last step, and only where the machine is closed."""
    ends = [step for step in steps if isinstance(step, Finish)]
    assert bool(ends) == (machine.state == CLOSED)
    assert not ends or (len(ends) == 1 and steps[-1] is ends[0])


@pytest.mark.parametrize(("kind", "state", "name"), CASES)
def test_the_table_allows_it_or_the_session_ends(kind: type[Machine], state: str, name: str) -> None:
    machine = machine_in(kind, state)
    steps = give(machine, name)
    assert_in_order(steps, machine)
    allowed = kind.TRANSITIONS[state].get(name)
    if allowed is None:
        assert_refused(machine, steps)
    else:
        assert machine.state in (*allowed, CLOSED)


@pytest.mark.parametrize(("kind", "state", "name"), CASES)
def test_an_end_that_was_asked_for_is_heard_in_every_state(kind: type[Machine], state: str, name: str) -> None:
    if name not in ("cut", "silence", "failed", "drain", "problem"):
        return
    machine = machine_in(kind, state)
    steps = give(machine, name)
    expected = {"cut": Code.LINK_CUT, "silence": Code.PEER_SILENT, "failed": Code.DISK_FULL, "problem": Code.INTERNAL}
    error = finished(steps).error
    assert (error.code if error is not None else None) == expected.get(name)
    told = [step for step in steps if isinstance(step, Send)]
    assert bool(told) == (name in ("failed", "drain")), "the peer is told where it does not know"


@pytest.mark.parametrize("kind", MACHINES)
def test_nothing_follows_the_end(kind: type[Machine]) -> None:
    machine = machine_in(kind, CLOSED)
    for name in kind.names():
        assert give(machine, name) == []
    assert machine.receive(message_of(kind)) == []
    assert machine.step(Event("nonsense")) == []
    assert not machine.waits


@pytest.mark.parametrize(("kind", "state"), STATES)
def test_an_event_that_no_machine_knows_is_a_mistake_in_the_program(kind: type[Machine], state: str) -> None:
    machine = machine_in(kind, state)
    with pytest.raises(AssertionError, match="nonsense"):
        machine.step(Event("nonsense"))
    assert machine.state == state


@pytest.mark.parametrize(("kind", "state"), STATES)
@pytest.mark.parametrize("data", [b"", bytes.fromhex("9a0600"), bytes.fromhex("9a060548656c6c6f")])
def test_a_message_with_nothing_known_in_it_ends_the_session(kind: type[Machine], state: str, data: bytes) -> None:
    """Empty, or from a newer program: field 99."""
    machine = machine_in(kind, state)
    assert_refused(machine, machine.receive(message_of(kind, data)))


@pytest.mark.parametrize(("kind", "messages"), [(SiteMachine, CENTRAL_MESSAGES), (CentralMachine, SITE_MESSAGES)])
def test_every_message_of_the_contract_is_an_event(kind: type[Machine], messages: frozenset[str]) -> None:
    assert messages <= kind.names()


@pytest.mark.parametrize(("kind", "samples"), [(SiteMachine, SITE_EVENTS), (CentralMachine, CENTRAL_EVENTS)])
def test_every_event_is_tried_and_handled(kind: type[Machine], samples: dict[str, object]) -> None:
    assert samples.keys() == kind.names()
    assert all(callable(getattr(kind, f"_on_{name}")) for name in kind.names())


@pytest.mark.parametrize("kind", MACHINES)
def test_the_table_is_closed(kind: type[Machine]) -> None:
    """Every state can be reached, and the states that the table names exist."""
    targets = {after for row in kind.TRANSITIONS.values() for states in row.values() for after in states}
    assert targets - {CLOSED} <= kind.TRANSITIONS.keys()
    reached, found = {next(iter(kind.TRANSITIONS))}, set[str]()
    while reached != found:
        found = set(reached)
        reached |= {a for state in found - {CLOSED} for states in kind.TRANSITIONS[state].values() for a in states}
    assert found == {*kind.TRANSITIONS, CLOSED}


@pytest.mark.parametrize(("kind", "state"), STATES)
def test_what_a_peer_may_say_in_another_state_is_told_with_its_name(kind: type[Machine], state: str) -> None:
    for name in CENTRAL_MESSAGES if kind is SiteMachine else SITE_MESSAGES:
        if name in kind.TRANSITIONS[state]:
            continue
        error: PackhorseError | None = finished(give(machine_in(kind, state), name)).error
        assert error is not None and name.replace("_", " ") in error.what and state in error.what


def test_the_documentation_has_every_state_and_event() -> None:
    tables = transition_tables()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.splitlines() if line[:1] == "|"]
    told = {(row[0], event, state) for row in rows for event in row[1].split(", ") for state in row[2].split(" or ")}
    for kind in MACHINES:
        for state, events in kind.TRANSITIONS.items():
            assert {(state, event, after) for event in events for after in events[event]} <= told
    assert transition_tables() == tables

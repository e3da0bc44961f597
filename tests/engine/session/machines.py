"""Machines that an honest history has brought into a state, and a plausible value for every event."""

from collections.abc import Callable
from typing import Any, Final

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, Unavailable
from engine.limits import WINDOW_FRAMES
from engine.session.central_machine import CentralMachine, PageLoaded
from engine.session.frames import Link
from engine.session.lane import LaneState
from engine.session.machine import CLOSED, Action, Event, Finish, Machine, Message, Send, Step
from engine.session.pace import Pace
from engine.session.site_machine import Loaded, PullStored, SiteMachine, Stored

WINDOW: Final = 3
LIMITS: Final = session_pb2.Limits(window_frames=WINDOW, frame_bytes=1 << 20, frame_records=10, patience_seconds=120)
WELCOME: Final = session_pb2.Welcome(lineage_token=b"t" * 32, limits=LIMITS, protocol_version=1)
SITE_MESSAGES: Final = frozenset(
    field.name for field in session_pb2.SiteMessage.DESCRIPTOR.oneofs_by_name["message"].fields
)
CENTRAL_MESSAGES: Final = frozenset(
    field.name for field in session_pb2.CentralMessage.DESCRIPTOR.oneofs_by_name["message"].fields
)


def hash_of(number: int) -> bytes:
    """The hash of a frame; the start of the chain has none."""
    return number.to_bytes(32, "big") if number else b""


def frame(number: int, previous: int | None = None) -> document_pb2.Frame:
    """A frame that follows another one, usually the one before."""
    before = number - 1 if previous is None else previous
    return document_pb2.Frame(
        number=number, hash=hash_of(number), previous_number=before, previous_hash=hash_of(before), body=b"body"
    )


def part(offset: int = 0) -> document_pb2.Part:
    """A slice of a body of 20 bytes."""
    return document_pb2.Part(hash=hash_of(9), total_bytes=20, offset=offset, content=b"0123456789")


def acknowledgement(number: int) -> session_pb2.Acknowledgement:
    """A frame is durable at the central."""
    return session_pb2.Acknowledgement(number=number, hash=hash_of(number))


def busy(number: int) -> tuple[session_pb2.Busy, Link]:
    """What the central's driver reports where it could not take a frame."""
    return session_pb2.Busy(number=number), Link(number - 1, hash_of(number - 1))


def keys(count: int) -> list[document_pb2.RecordKey]:
    """Names of documents."""
    return [document_pb2.RecordKey(table="item", id=str(number)) for number in range(count)]


def to_site(**message: Any) -> session_pb2.CentralMessage:
    """A message of the central."""
    return session_pb2.CentralMessage(**message)


def to_central(**message: Any) -> session_pb2.SiteMessage:
    """A message of the site."""
    return session_pb2.SiteMessage(**message)


# --- what steps say ---------------------------------------------------------------------------------------------------


def sent(steps: list[Step], name: str) -> list[Any]:
    """The messages of that name, without their wrapping."""
    messages = [step.message for step in steps if isinstance(step, Send)]
    return [getattr(message, name) for message in messages if message.WhichOneof("message") == name]


def actions(steps: list[Step], name: str) -> list[Any]:
    """The values of the actions of that name."""
    return [step.value for step in steps if isinstance(step, Action) and step.name == name]


def finished(steps: list[Step]) -> Finish:
    """How the session ended: once, as the last step."""
    assert steps and isinstance(steps[-1], Finish), f"the session goes on: {steps}"
    assert sum(isinstance(step, Finish) for step in steps) == 1
    return steps[-1]


def assert_refused(machine: Machine, steps: list[Step], code: Code = Code.PROTOCOL_BROKEN) -> None:
    """The machine ended the session with this code, and told its peer."""
    error = finished(steps).error
    assert error is not None and error.code is code, error
    assert machine.state == CLOSED
    told: list[Message] = [step.message for step in steps if isinstance(step, Send)]
    assert len(told) == len(steps) - 1 == 1
    assert getattr(told[0], str(told[0].WhichOneof("message"))).code == code


# --- a site in every state --------------------------------------------------------------------------------------------


def site_in(state: str, stay: bool = True) -> SiteMachine:
    """In `pushing` and later frames 1 and 2 were sent, and the acknowledgement of 1 is being stored; in `exchanging`
    frames are being loaded, a pull frame is being stored and a checkpoint compared; in `leaving` the last two."""
    if state == "leaving":
        return _leaving()
    pace = Pace()
    machine = SiteMachine(stay, pace)
    pace.window = WINDOW_FRAMES  # as if much had been acknowledged
    if state == "greeting":
        return machine
    machine.receive(to_site(welcome=WELCOME))
    if state == "settling":
        return machine
    if state == CLOSED:
        machine.step(Event("cut"))
        return machine
    machine.step(Event("welcome_stored", Stored(LIMITS, [])))
    machine.step(Event("frames_loaded", Loaded([frame(1), frame(2)], exhausted=False)))
    machine.receive(to_site(acknowledgement=acknowledgement(1)))
    if state == "exchanging":
        machine.step(Event("frames_loaded", Loaded([], exhausted=True)))
        machine.step(Event("changed"))
        machine.receive(to_site(pull_frame=document_pb2.PullFrame(sequence=1)))
        machine.receive(to_site(pull_checkpoint=session_pb2.PullCheckpoint(round=1)))
    assert machine.state == state
    return machine


def _leaving() -> SiteMachine:
    machine = idle_site(stay=False)
    machine.receive(to_site(pull_checkpoint=session_pb2.PullCheckpoint(round=1)))
    machine.receive(to_site(pull_frame=document_pb2.PullFrame(sequence=1)))
    machine.receive(to_site(pull_checkpoint=session_pb2.PullCheckpoint(round=1)))
    steps = machine.step(Event("compared", session_pb2.CheckpointReport(round=1)))
    assert machine.state == "leaving" and sent(steps, "goodbye")
    return machine


def idle_site(stay: bool = True) -> SiteMachine:
    """A site that had nothing to send and waits for the answer to its first push checkpoint."""
    machine = site_in("settling", stay)
    machine.step(Event("welcome_stored", Stored(LIMITS, [])))
    steps = machine.step(Event("frames_loaded", Loaded([], exhausted=True)))
    assert sent(steps, "push_checkpoint") == [session_pb2.PushCheckpoint(round=1)]
    return machine


SITE_EVENTS: Final[dict[str, Callable[[], Any]]] = {
    "welcome": lambda: WELCOME,
    "acknowledgement": lambda: acknowledgement(2),
    "busy": lambda: session_pb2.Busy(number=2, retry_after_milliseconds=5_000),
    "pull_frame": lambda: document_pb2.PullFrame(sequence=2),
    "pull_checkpoint": lambda: session_pb2.PullCheckpoint(round=1),
    "problem": lambda: session_pb2.Problem(code="INTERNAL", sentence="Something happened."),
    "goodbye": lambda: session_pb2.Goodbye(code="DRAINING"),
    "welcome_stored": lambda: Stored(LIMITS, []),
    "frames_loaded": lambda: Loaded([frame(3)], exhausted=False),
    "acknowledgement_stored": lambda: False,
    "lane_moved": lambda: LaneState(hash_of(9), 20),
    "part_loaded": part,
    "part_stored": lambda: document_pb2.PartStored(hash=hash_of(9), size_bytes=10),
    "part": part,
    "part_staged": lambda: document_pb2.PartStored(hash=hash_of(9), size_bytes=10),
    "pull_stored": lambda: PullStored(1, 1, keys(1), requeued=0),
    "compared": lambda: session_pb2.CheckpointReport(round=1),
    "wanted": lambda: keys(1),
    "failed": lambda: Unavailable(Code.DISK_FULL, "The disk is full."),
    **dict.fromkeys(("lane_closed", "waited", "changed", "leave", "round_wanted", "cut", "silence"), lambda: None),
}


# --- a central in every state -----------------------------------------------------------------------------------------


def central_in(state: str, welcome: session_pb2.Welcome = WELCOME) -> CentralMachine:
    """In `receiving` frames 1 and 2 are being ingested; in `serving` frame 2 is, a pull frame is under way, and a page
    and a checkpoint are being loaded."""
    machine = CentralMachine()
    if state == CLOSED:
        machine.step(Event("cut"))
    if state in ("judging", "receiving", "serving"):
        machine.receive(to_central(hello=session_pb2.Hello(site=2)))
    if state in ("receiving", "serving"):
        machine.step(Event("hello_judged", welcome))
    if state == "receiving":
        machine.receive(to_central(frame=frame(1)))
        machine.receive(to_central(frame=frame(2)))
    if state == "serving":
        machine.receive(to_central(frame=frame(1)))
        machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
        machine.step(Event("frame_ingested", acknowledgement(1)))
        machine.step(Event("page_loaded", PageLoaded(document_pb2.PullFrame(), exhausted=False)))
        machine.receive(to_central(frame=frame(2)))
    assert machine.state == state
    return machine


def idle_central() -> CentralMachine:
    """A central in `serving` that has nothing to do."""
    machine = central_in("judging")
    machine.step(Event("hello_judged", WELCOME))
    machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
    machine.step(Event("page_loaded", PageLoaded(None, exhausted=True)))
    steps = machine.step(Event("checkpoint_loaded", session_pb2.PullCheckpoint(round=1)))
    assert len(sent(steps, "pull_checkpoint")) == 1 and not machine.waits
    return machine


CENTRAL_EVENTS: Final[dict[str, Callable[[], Any]]] = {
    "hello": lambda: session_pb2.Hello(site=2),
    "positions": lambda: session_pb2.Positions(last=True),
    "frame": lambda: frame(3),
    "push_checkpoint": lambda: session_pb2.PushCheckpoint(round=2, last_frame=2),
    "pull_acknowledgement": lambda: session_pb2.PullAcknowledgement(sequence=1),
    "checkpoint_report": lambda: session_pb2.CheckpointReport(round=1),
    "want": lambda: session_pb2.Want(documents=keys(1)),
    "goodbye": session_pb2.Goodbye,
    "hello_judged": lambda: WELCOME,
    "frame_ingested": lambda: acknowledgement(2),
    "ingest_busy": lambda: busy(2),
    "page_loaded": lambda: PageLoaded(document_pb2.PullFrame(), exhausted=True),
    "wanted_loaded": document_pb2.PullFrame,
    "lane_closed": document_pb2.PullFrame,
    "lane_moved": lambda: LaneState(hash_of(9), 20),
    "part_loaded": part,
    "part_stored": lambda: document_pb2.PartStored(hash=hash_of(9), size_bytes=10),
    "part": part,
    "part_staged": lambda: document_pb2.PartStored(hash=hash_of(9), size_bytes=10),
    "checkpoint_loaded": lambda: session_pb2.PullCheckpoint(round=1),
    "failed": lambda: Unavailable(Code.DISK_FULL, "The disk is full."),
    **dict.fromkeys(("feed_moved", "drain", "round_over", "cut", "silence"), lambda: None),
}


def give(machine: Machine, name: str) -> list[Step]:
    """Gives an event, or a message as it arrives, with its plausible value."""
    if isinstance(machine, SiteMachine):
        value = SITE_EVENTS[name]()
        return (
            machine.receive(to_site(**{name: value})) if name in CENTRAL_MESSAGES else machine.step(Event(name, value))
        )
    value = CENTRAL_EVENTS[name]()
    return machine.receive(to_central(**{name: value})) if name in SITE_MESSAGES else machine.step(Event(name, value))

"""The driver over queues in memory: what it writes first, what it says of an error, how it ends."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2
from structlog.testing import capture_logs

from engine.errors import Code, PackhorseError, PeerProblem, Refused, Unavailable
from engine.rpc import driver as driver_module
from engine.rpc.driver import Driver
from engine.session.central_machine import CentralMachine, PageLoaded
from engine.session.machine import Action, Event, Machine, Message
from engine.session.site_machine import Loaded, PullStored, SiteMachine, Stored
from tests.engine.session.machines import LIMITS, WELCOME, acknowledgement, frame, to_central, to_site

Answers = Mapping[str, Callable[[Action], Event | None]]
PATIENCE = 5.0
END = None

SITE_ANSWERS: Answers = {
    "store_welcome": lambda _: Event("welcome_stored", Stored(LIMITS, [])),
    "load_frames": lambda _: Event("frames_loaded", Loaded([], exhausted=True)),
    "store_pull": lambda action: Event("pull_stored", PullStored(action.value.sequence, 1, [], requeued=0)),
    "compare": lambda action: Event("compared", session_pb2.CheckpointReport(round=action.value.round)),
}
CENTRAL_ANSWERS: Answers = {
    "judge_hello": lambda _: Event("hello_judged", WELCOME),
    "ingest": lambda action: Event("frame_ingested", acknowledgement(action.value.number)),
    "load_page": lambda _: Event("page_loaded", PageLoaded(None, exhausted=True)),
    "load_checkpoint": lambda action: Event("checkpoint_loaded", session_pb2.PullCheckpoint(round=action.value)),
    "note_report": lambda _: None,
    "note_positions": lambda _: None,
}


class Line:
    """One end's stream: what it wrote, and what it is given to read. The gate holds its writes back."""

    def __init__(self) -> None:
        self.written: list[Message] = []
        self.incoming: asyncio.Queue[Message | Exception | None] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.attempted = asyncio.Event()
        self.refusal: Exception | None = None
        self.forward: Callable[[Message], None] = self.written.append

    async def send(self, message: Message) -> None:
        self.attempted.set()
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        self.forward(message)

    async def receive(self) -> Message | None:
        message = await self.incoming.get()
        if isinstance(message, Exception):
            raise message
        return message

    @property
    def names(self) -> list[str]:
        return [str(message.WhichOneof("message")) for message in self.written]


def performer(answers: Answers, done: list[str] | None = None) -> Callable[[Action], Awaitable[Event | None]]:
    async def perform(action: Action) -> Event | None:
        await asyncio.sleep(0)
        event = answers[action.name](action)
        if done is not None:
            done.append(action.name)
        return event

    return perform


def make(machine: Machine, line: Line, answers: Answers, done: list[str] | None = None) -> Driver:
    return Driver(machine, performer(answers, done), line.send, line.receive)


@asynccontextmanager
async def running(driver: Driver) -> AsyncIterator[asyncio.Task[PackhorseError | None]]:
    task = asyncio.create_task(driver.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def two_pages() -> Callable[[Action], Event]:
    """A feed of two pages."""
    pages = iter([PageLoaded(document_pb2.PullFrame(), exhausted=False)] * 2)
    return lambda _: Event("page_loaded", next(pages, PageLoaded(None, exhausted=True)))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


async def ended(task: asyncio.Task[PackhorseError | None]) -> PackhorseError | None:
    return await asyncio.wait_for(task, PATIENCE)


# --- order ------------------------------------------------------------------------------------------------------------


async def test_f41_urgent_messages_overtake_data() -> None:
    """F41: the link takes nothing for a while; the acknowledgement goes before the pull frames that were there first.

    And reading does not wait for writing: the frame is read and applied meanwhile.
    """
    line, done = Line(), list[str]()
    driver = make(CentralMachine(), line, {**CENTRAL_ANSWERS, "load_page": two_pages()}, done)
    async with running(driver):
        line.incoming.put_nowait(to_central(hello=session_pb2.Hello(site=2)))
        await until(lambda: line.names == ["welcome"])
        line.gate.clear()
        line.attempted.clear()
        line.incoming.put_nowait(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
        await until(lambda: line.attempted.is_set() and "load_checkpoint" in done)
        line.incoming.put_nowait(to_central(frame=frame(1)))
        await until(lambda: "ingest" in done)
        await asyncio.sleep(0.01)
        line.gate.set()
        await until(lambda: len(line.written) == 5)
    assert line.names == ["welcome", "pull_frame", "acknowledgement", "pull_frame", "pull_checkpoint"]


async def test_actions_are_performed_one_after_the_other() -> None:
    """A slow action holds up those behind it, not the reading."""
    line, done, gate = Line(), list[str](), asyncio.Event()

    async def perform(action: Action) -> Event | None:
        if action.name == "store_pull" and action.value.sequence == 1:
            await gate.wait()
        done.append(action.name)
        return SITE_ANSWERS[action.name](action)

    driver = Driver(SiteMachine(stay=True), perform, line.send, line.receive)
    async with running(driver):
        line.incoming.put_nowait(to_site(welcome=WELCOME))
        await until(lambda: "push_checkpoint" in line.names)
        for sequence in (1, 2):
            line.incoming.put_nowait(to_site(pull_frame=document_pb2.PullFrame(sequence=sequence)))
        line.incoming.put_nowait(to_site(pull_checkpoint=session_pb2.PullCheckpoint(round=1)))
        await until(line.incoming.empty)
        assert done == ["store_welcome", "load_frames"]
        gate.set()
        await until(lambda: "checkpoint_report" in line.names)
    assert done[2:] == ["store_pull", "store_pull", "compare"]


async def test_two_drivers_agree() -> None:
    """A whole session, from Hello to both goodbyes."""
    one, other, done = Line(), Line(), list[str]()
    one.forward, other.forward = other.incoming.put_nowait, one.incoming.put_nowait
    pushed = iter([Loaded([frame(1), frame(2)], exhausted=False)])
    site_answers: Answers = {
        **SITE_ANSWERS,
        "load_frames": lambda _: Event("frames_loaded", next(pushed, Loaded([], exhausted=True))),
        "store_acknowledgement": lambda _: Event("acknowledgement_stored", False),
    }
    site, central = (
        make(SiteMachine(stay=False), one, site_answers),
        make(CentralMachine(), other, CENTRAL_ANSWERS, done),
    )
    site.send_first(to_central(hello=session_pb2.Hello(site=2)))
    results = await asyncio.wait_for(asyncio.gather(site.run(), central.run()), PATIENCE)
    assert all(error is None for error in results)
    assert done.count("ingest") == 2


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _fail(_: Action) -> Event | None:
    raise ValueError("secret: the patient's name")


@pytest.mark.parametrize("role", ["site", "central"])
async def test_an_exception_becomes_an_incident_without_its_text(role: str) -> None:
    line = Line()
    if role == "central":
        driver = make(CentralMachine(), line, {"judge_hello": _fail})
        line.incoming.put_nowait(to_central(hello=session_pb2.Hello(site=2)))
    else:
        driver = make(SiteMachine(stay=True), line, {"store_welcome": _fail})
        line.incoming.put_nowait(to_site(welcome=WELCOME))
    with capture_logs() as logs:
        async with running(driver) as task:
            error = await ended(task)
    assert error is not None and error.code is Code.INTERNAL
    (incident,) = re.findall(r"\b[0-9a-f]{8}\b", error.what)
    assert [entry["incident"] for entry in logs if entry["log_level"] == "error"] == [incident]
    assert "secret" not in error.what + error.sentence
    (told,) = line.written
    inner = getattr(told, str(told.WhichOneof("message")))
    assert inner.code == "INTERNAL" and b"secret" not in told.SerializeToString()
    assert role == "site" or incident in inner.sentence


async def test_an_error_of_the_catalogue_keeps_its_code() -> None:
    def refuse(_: Action) -> Event | None:
        raise Refused(Code.LINEAGE_BROKEN, "Another database has been here.")

    line = Line()
    line.incoming.put_nowait(to_central(hello=session_pb2.Hello(site=2)))
    async with running(make(CentralMachine(), line, {"judge_hello": refuse})) as task:
        error = await ended(task)
    assert isinstance(error, Refused)
    (told,) = line.written
    assert isinstance(told, session_pb2.CentralMessage) and told.problem.code == "LINEAGE_BROKEN"
    assert told.problem.sentence == "Another database has been here."


async def test_what_the_stream_refuses_is_why_the_session_ended() -> None:
    line = Line()
    line.incoming.put_nowait(Refused(Code.CREDENTIAL_UNKNOWN, "Nobody knows this site."))
    async with running(make(SiteMachine(stay=True), line, SITE_ANSWERS)) as task:
        error = await ended(task)
    assert error is not None and error.code is Code.CREDENTIAL_UNKNOWN


@pytest.mark.parametrize("machine", [SiteMachine(stay=False), CentralMachine()])
async def test_the_end_of_the_stream_is_a_cut(machine: Machine) -> None:
    """Never a goodbye, and nothing is said into a stream that is not there."""
    line = Line()
    line.incoming.put_nowait(END)
    async with running(make(machine, line, {})) as task:
        error = await ended(task)
    assert error is not None and error.code is Code.LINK_CUT and not line.written


async def test_a_link_that_takes_nothing_any_more_is_a_cut() -> None:
    line = Line()
    line.refusal = Unavailable(Code.LINK_CUT, "The link was cut.")
    driver = make(SiteMachine(stay=True), line, SITE_ANSWERS)
    driver.send_first(to_central(hello=session_pb2.Hello(site=2)))
    async with running(driver) as task:
        await until(line.attempted.is_set)
        line.incoming.put_nowait(END)
        error = await ended(task)
    assert error is not None and error.code is Code.LINK_CUT


async def test_what_the_peer_said_last_is_heard_although_writing_fails_first() -> None:
    """The central says why it ends, and hangs up; a write of the site may fail before it has read that."""
    line = Line()
    driver = make(SiteMachine(stay=True), line, SITE_ANSWERS)
    async with running(driver) as task:
        line.incoming.put_nowait(to_site(welcome=WELCOME))
        await until(lambda: "push_checkpoint" in line.names)
        line.refusal = Unavailable(Code.LINK_CUT, "The call is over.")
        line.attempted.clear()
        driver.machine.step(Event("changed"))
        driver.post(Event("frames_loaded", Loaded([frame(1)], exhausted=True)))
        await until(line.attempted.is_set)
        for _ in range(5):
            await asyncio.sleep(0)
        line.incoming.put_nowait(
            to_site(problem=session_pb2.Problem(code="SUPERSEDED", sentence="A newer one is here."))
        )
        line.incoming.put_nowait(END)
        error = await ended(task)
    assert isinstance(error, PeerProblem) and error.code is Code.SUPERSEDED, error


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_cancelling_leaves_no_tasks() -> None:
    line, started = Line(), asyncio.Event()

    async def perform(_: Action) -> Event | None:
        started.set()
        await asyncio.Event().wait()
        return None

    before = asyncio.all_tasks()
    line.gate.clear()
    driver = Driver(SiteMachine(stay=True), perform, line.send, line.receive)
    driver.send_first(to_central(hello=session_pb2.Hello(site=2)))
    line.incoming.put_nowait(to_site(welcome=WELCOME))
    task = asyncio.create_task(driver.run())
    await asyncio.wait_for(started.wait(), PATIENCE)
    assert len(asyncio.all_tasks() - before) > 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


async def test_the_end_leaves_no_tasks() -> None:
    before, line = asyncio.all_tasks(), Line()
    line.incoming.put_nowait(END)
    await asyncio.wait_for(make(SiteMachine(stay=True), line, SITE_ANSWERS).run(), PATIENCE)
    assert asyncio.all_tasks() == before


async def test_what_was_queued_is_written_before_the_end() -> None:
    line, done = Line(), list[str]()
    driver = make(CentralMachine(), line, {**CENTRAL_ANSWERS, "load_page": two_pages()}, done)
    async with running(driver) as task:
        line.incoming.put_nowait(to_central(hello=session_pb2.Hello(site=2)))
        await until(lambda: line.names == ["welcome"])
        line.gate.clear()
        line.incoming.put_nowait(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
        await until(lambda: "load_checkpoint" in done)
        await asyncio.sleep(0.01)
        driver.post(Event("drain"))
        await asyncio.sleep(0.01)
        assert not task.done()
        line.gate.set()
        assert await ended(task) is None
    assert line.names == ["welcome", "pull_frame", "pull_frame", "pull_checkpoint", "goodbye"]


async def test_a_problem_is_written_before_the_end() -> None:
    line = Line()
    line.incoming.put_nowait(to_central(goodbye=session_pb2.Goodbye(), hello=session_pb2.Hello(site=2)))
    line.incoming.put_nowait(to_central(frame=frame(1)))
    async with running(make(CentralMachine(), line, CENTRAL_ANSWERS)) as task:
        error = await ended(task)
    assert error is not None and error.code is Code.PROTOCOL_BROKEN
    assert line.names == ["problem"]


async def test_what_was_said_before_the_goodbye_is_done() -> None:
    """A scheduled site sends its last report and its goodbye in one go: the report is noted, or `status` is wrong."""
    line, done = Line(), list[str]()

    async def perform(action: Action) -> Event | None:
        await asyncio.sleep(0.01)  # a commit takes its time
        done.append(action.name)
        return CENTRAL_ANSWERS[action.name](action)

    driver = Driver(CentralMachine(), perform, line.send, line.receive)
    async with running(driver) as task:
        line.incoming.put_nowait(to_central(hello=session_pb2.Hello(site=2)))
        await until(lambda: line.names == ["welcome"])
        line.incoming.put_nowait(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
        await until(lambda: "pull_checkpoint" in line.names)
        line.incoming.put_nowait(to_central(checkpoint_report=session_pb2.CheckpointReport(round=1, in_agreement=True)))
        line.incoming.put_nowait(to_central(goodbye=session_pb2.Goodbye()))
        assert await ended(task) is None
    assert "note_report" in done


async def test_a_peer_that_does_not_read_cannot_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "_FLUSH_SECONDS", 0.01)
    line = Line()
    driver = make(CentralMachine(), line, CENTRAL_ANSWERS)
    line.gate.clear()
    async with running(driver) as task:
        driver.post(Event("drain"))
        assert await ended(task) is None
    assert not line.written


async def test_a_silent_peer_is_given_up_only_when_it_owes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "PATIENCE_SECONDS", 0.05)
    line, machine = Line(), SiteMachine(stay=True)
    async with running(make(machine, line, SITE_ANSWERS)) as task:
        line.incoming.put_nowait(to_site(welcome=WELCOME))
        await until(lambda: "push_checkpoint" in line.names)
        line.incoming.put_nowait(to_site(pull_checkpoint=session_pb2.PullCheckpoint(round=1)))
        await until(lambda: not machine.waits)
        await asyncio.sleep(0.2)
        assert not task.done(), "nothing was owed"
        machine.step(Event("changed"))
        machine.step(Event("frames_loaded", Loaded([frame(1)], exhausted=True)))
        error: Any = await ended(task)
    assert error.code is Code.PEER_SILENT

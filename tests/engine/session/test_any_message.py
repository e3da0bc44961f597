"""Any messages in any order, between honest reports: a machine never raises, never works without bound, always ends.

The rules of a driver are kept (actions are performed one after the other; a frame that is refused as busy takes those
behind it along); what the peer says is arbitrary.
"""

from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, Unavailable
from engine.session.central_machine import CentralMachine, PageLoaded
from engine.session.frames import Link
from engine.session.lane import LaneState
from engine.session.machine import CLOSED, Action, Event, Finish, Machine, Send, Step
from engine.session.site_machine import Loaded, PullStored, SiteMachine, Stored, Wanted
from tests.engine.session.machines import LIMITS, WELCOME, WINDOW, acknowledgement, frame, hash_of, keys, part

FUZZ = settings(deadline=None, database=None, max_examples=300)
SMALL = st.integers(0, 4)
NUMBERS = st.one_of(SMALL, st.just((1 << 64) - 1))
UINT32 = st.one_of(SMALL, st.just((1 << 32) - 1))
CODES = st.sampled_from(("", "DRAINING", "INTERNAL", "NO_SUCH_CODE"))
HONEST_ENDS = {Code.LINK_CUT, Code.PEER_SILENT, Code.DISK_FULL, Code.DRAINING, Code.INTERNAL}
BROKEN_ENDS = {Code.PROTOCOL_BROKEN, Code.CHAIN_BROKEN}
HASHES = st.sampled_from((b"", hash_of(9), hash_of(8)))

parts = st.builds(
    document_pb2.Part, hash=HASHES, total_bytes=NUMBERS, offset=NUMBERS, content=st.sampled_from((b"", b"0123456789"))
)
parts_stored = st.builds(document_pb2.PartStored, hash=HASHES, size_bytes=st.one_of(NUMBERS, st.sampled_from((10, 20))))
central_messages = st.one_of(
    st.builds(session_pb2.CentralMessage),
    st.builds(session_pb2.CentralMessage, welcome=st.just(WELCOME)),
    st.builds(session_pb2.CentralMessage, acknowledgement=st.builds(session_pb2.Acknowledgement, number=NUMBERS)),
    st.builds(
        session_pb2.CentralMessage,
        busy=st.builds(session_pb2.Busy, number=NUMBERS, retry_after_milliseconds=UINT32),
    ),
    st.builds(session_pb2.CentralMessage, pull_frame=st.builds(document_pb2.PullFrame, sequence=NUMBERS)),
    st.builds(session_pb2.CentralMessage, pull_checkpoint=st.builds(session_pb2.PullCheckpoint, round=UINT32)),
    st.builds(session_pb2.CentralMessage, problem=st.builds(session_pb2.Problem, code=CODES, sentence=st.text())),
    st.builds(session_pb2.CentralMessage, goodbye=st.builds(session_pb2.Goodbye, code=CODES)),
    st.builds(session_pb2.CentralMessage, part=parts),
    st.builds(session_pb2.CentralMessage, part_stored=parts_stored),
)
frames = st.one_of(
    SMALL.map(lambda number: frame(number + 1)),
    st.builds(frame, SMALL, SMALL),
    st.builds(document_pb2.Frame, number=NUMBERS, hash=SMALL.map(hash_of), previous_number=NUMBERS),
)
site_messages = st.one_of(
    st.builds(session_pb2.SiteMessage),
    st.builds(session_pb2.SiteMessage, hello=st.builds(session_pb2.Hello, site=UINT32)),
    st.builds(session_pb2.SiteMessage, positions=st.builds(session_pb2.Positions, last=st.booleans())),
    st.builds(session_pb2.SiteMessage, frame=frames),
    st.builds(session_pb2.SiteMessage, push_checkpoint=st.builds(session_pb2.PushCheckpoint, round=UINT32)),
    st.builds(
        session_pb2.SiteMessage, pull_acknowledgement=st.builds(session_pb2.PullAcknowledgement, sequence=NUMBERS)
    ),
    st.builds(session_pb2.SiteMessage, checkpoint_report=st.builds(session_pb2.CheckpointReport, round=UINT32)),
    st.builds(
        session_pb2.SiteMessage,
        want=st.builds(session_pb2.Want, documents=st.sampled_from((0, 1, 500, 501)).map(keys)),
    ),
    st.builds(session_pb2.SiteMessage, goodbye=st.builds(session_pb2.Goodbye, code=CODES)),
    st.builds(session_pb2.SiteMessage, part=parts),
    st.builds(session_pb2.SiteMessage, part_stored=parts_stored),
)
site_events = st.sampled_from(("changed", "leave", "round_wanted", "wanted", "lane_moved", "cut", "silence", "failed"))
central_events = st.sampled_from(("feed_moved", "lane_moved", "drain", "round_over", "cut", "silence", "failed"))


class Honest:
    """Performs what a machine asks for, as a correct driver would, and checks each answer of the machine."""

    def __init__(self, machine: Machine, data: st.DataObject) -> None:
        self.machine, self._data = machine, data
        self.work: deque[Action] = deque()
        self.ingesting: deque[document_pb2.Frame] = deque()
        self.timers = 0
        self.is_over = False

    def take(self, steps: list[Step]) -> None:
        """Checks what a machine answers, and keeps what it wants."""
        assert not (self.is_over and steps), "a machine speaks after its end"
        for place, step in enumerate(steps):
            match step:
                case Action():
                    self.work.append(step)
                case Send(message):
                    assert message.WhichOneof("message") and message.SerializeToString()
                case Finish(error):
                    assert place == len(steps) - 1 and self.machine.state == CLOSED
                    assert error is None or error.code in HONEST_ENDS | BROKEN_ENDS
                    self.is_over = True
        assert self.is_over == (self.machine.state == CLOSED)
        staged = sum(action.name == "stage_part" for action in self.work)
        assert staged <= WINDOW, "more parts wait to be stored than the window allows"
        stores = sum(action.name in ("store_pull", "ingest") for action in self.work)
        assert stores + len(self.ingesting) <= WINDOW, "more waits to be stored than the window allows"

    def give(self, name: str) -> None:
        """Something happens at this end."""
        values: dict[str, Any] = {
            "failed": Unavailable(Code.DISK_FULL, "The disk is full."),
            "wanted": keys(2),
            "lane_moved": self._data.draw(st.sampled_from((None, LaneState(hash_of(9), 20)))),
        }
        self.take(self.machine.step(Event(name, values.get(name))))

    def perform(self) -> None:
        """The next thing that was asked for is done."""
        choices = ["act"] * bool(self.work) + ["turn"] * bool(self.ingesting) + ["ring"] * bool(self.timers)
        if not choices or self.is_over:
            return
        match self._data.draw(st.sampled_from(choices)):
            case "ring":
                self.timers -= 1
                self.take(self.machine.step(Event("waited")))
            case "turn":
                self._turn(self.ingesting.popleft())
            case _:
                event = self._act(self.work.popleft())
                if event is not None:
                    self.take(self.machine.step(event))

    def _turn(self, taken: document_pb2.Frame) -> None:
        if self._data.draw(st.booleans()):
            self.take(self.machine.step(Event("frame_ingested", acknowledgement(taken.number))))
            return
        self.ingesting.clear()
        self.work = deque(action for action in self.work if action.name != "ingest")
        before = Link(taken.previous_number, taken.previous_hash)
        self.take(self.machine.step(Event("ingest_busy", (session_pb2.Busy(number=taken.number), before))))

    def _act(self, action: Action) -> Event | None:
        draw, value = self._data.draw, action.value
        results: dict[str, Any] = {
            "store_welcome": lambda: Event("welcome_stored", Stored(LIMITS, [], keys(draw(SMALL)))),
            "load_frames": lambda: Event("frames_loaded", self._load(value)),
            "store_acknowledgement": lambda: Event("acknowledgement_stored", draw(st.booleans())),
            "store_pull": lambda: Event("pull_stored", PullStored(value.sequence, 1, keys(draw(SMALL)), draw(SMALL))),
            "compare": lambda: Event("compared", session_pb2.CheckpointReport(round=value.round)),
            "judge_hello": lambda: Event(
                "hello_judged", session_pb2.Welcome(limits=LIMITS, send_positions=draw(st.booleans()))
            ),
            "load_page": lambda: Event("page_loaded", self._page()),
            "load_wanted": lambda: Event("wanted_loaded", document_pb2.PullFrame()),
            "load_part": lambda: Event("part_loaded", draw(st.sampled_from((None, part(), part(10))))),
            "stage_part": lambda: Event("part_staged", document_pb2.PartStored(hash=value.hash, size_bytes=10)),
            "close_lane": lambda: Event(
                "lane_closed", document_pb2.PullFrame() if isinstance(self.machine, CentralMachine) else None
            ),
            "load_checkpoint": lambda: Event(
                "checkpoint_loaded", session_pb2.PullCheckpoint(round=value) if draw(st.booleans()) else None
            ),
        }
        if action.name in results:
            result: Event = results[action.name]()
            return result
        self.timers += action.name == "wait"
        if action.name == "ingest":
            self.ingesting.append(value)
        return None

    def _load(self, wanted: Wanted) -> Loaded:
        assert 0 < wanted.frames <= WINDOW
        count = self._data.draw(st.integers(0, wanted.frames))
        return Loaded([frame(wanted.after + place) for place in range(1, count + 1)], exhausted=not count)

    def _page(self) -> PageLoaded:
        if self._data.draw(st.booleans()):
            return PageLoaded(None, exhausted=True)
        return PageLoaded(document_pb2.PullFrame(), self._data.draw(st.booleans()))


@FUZZ
@given(st.booleans(), st.lists(st.one_of(st.none(), st.none(), site_events, central_messages), max_size=40), st.data())
def test_a_site_survives_any_messages(stay: bool, history: list[Any], data: st.DataObject) -> None:
    machine = SiteMachine(stay)
    honest = Honest(machine, data)
    honest.take(machine.receive(session_pb2.CentralMessage(welcome=WELCOME)))
    _play(honest, history)


@FUZZ
@given(st.booleans(), st.lists(st.one_of(st.none(), st.none(), central_events, site_messages), max_size=40), st.data())
def test_a_central_survives_any_messages(one_round: bool, history: list[Any], data: st.DataObject) -> None:
    machine = CentralMachine(one_round=one_round)
    honest = Honest(machine, data)
    honest.take(machine.receive(session_pb2.SiteMessage(hello=session_pb2.Hello(site=2))))
    _play(honest, history)


def _play(honest: Honest, history: list[Any]) -> None:
    """None stands for the next thing being done."""
    for happens in history:
        if happens is None:
            honest.perform()
        elif isinstance(happens, str):
            if happens in honest.machine.TRANSITIONS.get(honest.machine.state, {happens: ()}):
                honest.give(happens)
        else:
            honest.take(honest.machine.receive(happens))

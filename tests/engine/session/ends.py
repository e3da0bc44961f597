"""The two ends of a fake connection: each a real machine, performing its actions on a store, one small move at a time.

A move is what a driver does between two awaits: write a message, read one, commit what an action stores, report it. An
end behaves as `engine.rpc.driver` has to: actions one after the other, urgent messages before data, and what was queued
is still written after the session is over. Between any two moves anything else may happen.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import PackhorseError
from engine.session.central_machine import CentralMachine
from engine.session.frames import Link
from engine.session.machine import CLOSED, Action, Event, Finish, Machine, Message, Send, Step
from engine.session.pace import Pace
from engine.session.site_machine import SiteMachine
from tests.engine.session.stores import CentralStore, SiteStore, items_of, paced


class Move(NamedTuple):
    """Something that can happen next."""

    who: str
    kind: str
    make: Callable[[], None]
    weight: float = 1.0


class Pipe:
    """One direction of a connection: serialised messages in order, until an end hangs up or the link is cut."""

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()
        self.closed = self.is_cut = False

    def cut(self, kept: int) -> None:
        """Loses everything behind the first messages."""
        while len(self.items) > kept:
            self.items.pop()
        self.closed = self.is_cut = True


class End:
    """One end of a session."""

    def __init__(self, name: str, machine: Machine, reads: Pipe, writes: Pipe) -> None:
        self.name, self.machine, self.reads, self.writes = name, machine, reads, writes
        self.urgent: deque[Message] = deque()
        self.data: deque[Message] = deque()
        self.work: deque[Action] = deque()
        self.report: Event | None = None
        self.timers = 0
        self.finish: Finish | None = None
        self.told_of_cut = False
        self.gone = False

    def post(self, event: Event) -> None:
        """Something happened."""
        self.take(self.machine.step(event))

    def take(self, steps: list[Step]) -> None:
        """Starts what the machine wants."""
        for step in steps:
            assert self.finish is None, f"{step} after the session was over"
            match step:
                case Send(message, urgent):
                    self.watch_sent(message)
                    (self.urgent if urgent else self.data).append(message)
                case Action():
                    self.work.append(step)
                case Finish():
                    assert self.machine.state == CLOSED
                    self.finish = step

    def moves(self) -> list[Move]:
        """What this end can do next."""
        found: list[Move] = []
        if self.gone:
            return found
        if self.urgent or self.data:
            found.append(Move(self.name, "writes", self._write))
        elif self.finish is not None and (self.finish.error is not None or not self.is_at_work):
            found.append(Move(self.name, "hangs up", self.hang_up))
        if self.reads.items or (self.reads.closed and not self.told_of_cut):
            found.append(Move(self.name, "reads", self._read))
        if self.report is not None:
            found.append(Move(self.name, f"reports {self.report.name}", self._tell))
        elif self.work:
            found.append(Move(self.name, f"performs {self.work[0].name}", self._act))
        if self.timers:
            found.append(Move(self.name, "has waited", self.ring))
        return found

    @property
    def is_at_work(self) -> bool:
        """What was told before a goodbye is still done."""
        return bool(self.work) or self.report is not None

    def hang_up(self) -> None:
        """The stream ends; the peer can still read what was written."""
        self.gone = self.writes.closed = self.reads.closed = True

    def ring(self) -> None:
        """A wait is over."""
        self.timers -= 1
        self.post(Event("waited"))

    def _write(self) -> None:
        message = (self.urgent or self.data).popleft()
        if self.writes.is_cut:
            self.post(Event("cut"))
        elif not self.writes.closed:  # a peer that hung up has said why: that is still to be read
            self.writes.items.append(message.SerializeToString())

    def _read(self) -> None:
        if not self.reads.items:
            self.told_of_cut = True
            self.post(Event("cut"))
            return
        message = self.parse(self.reads.items.popleft())
        self.watch_received(message)
        self.take(self.machine.receive(message))

    def _act(self) -> None:
        action = self.work.popleft()
        perform: Callable[[Action], Event | None] = getattr(self, f"do_{action.name}")
        try:
            self.report = perform(action)
        except PackhorseError as error:
            self.report = Event("failed", error)

    def _tell(self) -> None:
        event, self.report = self.report, None
        assert event is not None
        self.watch_reported(event)
        self.post(event)

    def parse(self, data: bytes) -> Message:
        """A message of the peer."""
        raise NotImplementedError

    def watch_sent(self, message: Message) -> None:
        """Checks what this end may send."""

    def watch_received(self, message: Message) -> None:
        """Notes what this end was told."""

    def watch_reported(self, event: Event) -> None:
        """Notes what this end has done."""


class SiteEnd(End):
    """A site's end.

    Args:
        pace: of the direction to the central.
        sent_before: the highest change that an earlier session may have sent.
    """

    machine: SiteMachine

    def __init__(self, store: SiteStore, stay: bool, pace: Pace, sent_before: int, reads: Pipe, writes: Pipe) -> None:
        super().__init__("site", SiteMachine(stay, pace), reads, writes)
        self.store, self.pace, self.sent_before = store, pace, sent_before
        self.highest = sent_before
        """The last change that was sent."""
        self.last_frame = 0
        self.applied = -1
        self.window = 0
        self.again: set[int] = set()
        self.round_owed = False
        """Somebody asked for a round, and no report has been made since."""
        self.take([Send(session_pb2.SiteMessage(hello=store.hello()))])

    def parse(self, data: bytes) -> Message:
        """See End."""
        return session_pb2.CentralMessage.FromString(data)

    def watch_sent(self, message: Message) -> None:
        """Nothing that was committed goes again, and what does is at most a window (F47)."""
        if message.WhichOneof("message") == "frame":
            assert isinstance(message, session_pb2.SiteMessage)
            number, changes = message.frame.number, [item.number for item in items_of(message.frame)]
            assert number > self.applied >= 0, f"frame {number} goes again although {self.applied} was applied"
            self.again |= {change for change in changes if change <= self.sent_before}
            most = self.window * self.store.records_per_frame
            assert len(self.again) <= most, f"{len(self.again)} changes go again; a window has {most}"
            self.highest, self.last_frame = max([self.highest, *changes]), max(self.last_frame, number)
            under_way = [there for there in self.store.frames if there <= self.last_frame]
            window = min(self.window, self.pace.window)
            assert len(under_way) <= window, f"{under_way} are under way; the window is {window}"

    def watch_reported(self, event: Event) -> None:
        """See End."""
        if event.name == "compared":
            self.round_owed = False

    def do_store_welcome(self, action: Action) -> Event:
        """See site_machine."""
        welcome: session_pb2.Welcome = action.value
        stored = self.store.take_welcome(welcome, paced(self.store.records_per_frame, self.pace.records))
        self.applied, self.window = welcome.last_applied, welcome.limits.window_frames
        return Event("welcome_stored", stored)

    def do_load_frames(self, action: Action) -> Event:
        """See site_machine."""
        lane = self.store.lane
        loaded = self.store.load(action.value)
        if self.store.lane is not lane and self.store.lane is not None:
            self.post(Event("lane_moved", self.store.lane.state(document_pb2.PartStored())))
        return Event("frames_loaded", loaded)

    def do_load_part(self, action: Action) -> Event:
        """See site_machine."""
        return Event("part_loaded", self.store.lane.part(action.value) if self.store.lane else None)

    def do_close_lane(self, _action: Action) -> Event:
        """See site_machine."""
        self.store.close_lane()
        return Event("lane_closed")

    def do_stage_part(self, action: Action) -> Event:
        """See site_machine."""
        return Event("part_staged", self.store.lane_in.stage(action.value))

    def do_store_acknowledgement(self, action: Action) -> Event:
        """See site_machine."""
        return Event("acknowledgement_stored", self.store.settle(action.value))

    def do_store_pull(self, action: Action) -> Event:
        """See site_machine."""
        return Event("pull_stored", self.store.take(action.value))

    def do_compare(self, action: Action) -> Event:
        """See site_machine."""
        return Event("compared", self.store.compare(action.value))

    def do_wait(self, _action: Action) -> None:
        """See site_machine."""
        self.timers += 1


class CentralEnd(End):
    """The central's end.

    Args:
        judged: called when the site's Hello made this the current session.
        submit: takes a frame; `frame_ingested` or `ingest_busy` is posted for it later.
    """

    machine: CentralMachine

    def __init__(
        self,
        store: CentralStore,
        session: int,
        pace: Pace,
        judged: Callable[["CentralEnd"], None],
        submit: Callable[["CentralEnd", document_pb2.Frame], None],
        reads: Pipe,
        writes: Pipe,
    ) -> None:
        super().__init__(f"central {session}", CentralMachine(pace), reads, writes)
        self.store, self.session, self._judged, self._submit = store, session, judged, submit
        self.submitted = Link()
        """The last frame that was handed on: what does not follow it was void when it was reached."""
        self.cursors: dict[str, int] = {}
        self.under_way: deque[dict[str, int]] = deque()
        self.checkpoints = self.unacknowledged = 0
        self.knows_lane, self.staged = False, document_pb2.PartStored()

    def parse(self, data: bytes) -> Message:
        """See End."""
        return session_pb2.SiteMessage.FromString(data)

    def watch_sent(self, message: Message) -> None:
        """Push comes before pull, and a window is a window in each direction."""
        if message.WhichOneof("message") == "pull_frame":
            assert self.checkpoints, "a pull frame before the first push checkpoint"
            self.unacknowledged += 1
            assert self.unacknowledged <= self.store.window, f"{self.unacknowledged} pull frames are under way"
        if message.WhichOneof("message") == "pull_checkpoint":
            assert self.checkpoints, "a pull checkpoint before the first push checkpoint"

    def watch_received(self, message: Message) -> None:
        """See End."""
        self.checkpoints += message.WhichOneof("message") == "push_checkpoint"
        self.unacknowledged -= message.WhichOneof("message") == "pull_acknowledgement"

    def do_judge_hello(self, action: Action) -> Event:
        """See central_machine."""
        welcome = self.store.judge(action.value, self.session)
        self.staged = action.value.staged
        self.submitted, self.cursors = Link(welcome.last_applied, welcome.last_applied_hash), dict(self.store.noted)
        self._judged(self)
        return Event("hello_judged", welcome)

    def do_store_positions(self, action: Action) -> None:
        """See central_machine."""
        self.store.check_current(self.session)
        shown = {position.scope: position.position for position in action.value.positions}
        assert all(position <= len(self.store.feeds[feed]) for feed, position in shown.items())
        self.cursors |= shown
        self.store.noted |= shown

    def do_ingest(self, action: Action) -> None:
        """See central_machine."""
        frame: document_pb2.Frame = action.value
        if (frame.previous_number, frame.previous_hash) == self.submitted:
            self.submitted = Link(frame.number, frame.hash)
            self._submit(self, frame)

    def do_load_page(self, action: Action) -> Event:
        """See central_machine."""
        pace: Pace = action.value
        if not self.knows_lane:
            self.knows_lane = True
            if self.store.lane is not None and self.cursors[self.store.lane_feed] != self.store.lane_from:
                self.store.lane = None  # it had arrived
            lane = self.store.lane.state(self.staged) if self.store.lane is not None else None
            self.post(Event("lane_moved", lane))
        lane_before = self.store.lane
        page, moved = self.store.page(self.cursors, paced(self.store.records_per_frame, pace.records))
        if self.store.lane is not None and self.store.lane is not lane_before:
            self.post(Event("lane_moved", self.store.lane.state(self.staged)))
        if page.frame is not None:
            self.cursors |= moved
            self.under_way.append(moved)
        return Event("page_loaded", page)

    def do_load_part(self, action: Action) -> Event:
        """See central_machine."""
        return Event("part_loaded", self.store.lane.part(action.value) if self.store.lane else None)

    def do_stage_part(self, action: Action) -> Event:
        """See central_machine."""
        self.store.check_current(self.session)
        return Event("part_staged", self.store.lane_in.stage(action.value))

    def do_close_lane(self, _action: Action) -> Event:
        """See central_machine."""
        lane, self.store.lane = self.store.lane, None
        if lane is None or self.cursors[self.store.lane_feed] != self.store.lane_from:
            return Event("lane_closed")
        moved = {self.store.lane_feed: self.store.lane_from + 1}
        self.cursors |= moved
        self.under_way.append(moved)
        return Event("lane_closed", document_pb2.PullFrame(hash=lane.body_hash, parts_bytes=len(lane.body)))

    def do_load_wanted(self, action: Action) -> Event:
        """See central_machine."""
        self.under_way.append({})
        return Event("wanted_loaded", self.store.wanted(action.value))

    def do_load_checkpoint(self, action: Action) -> Event:
        """See central_machine."""
        return Event("checkpoint_loaded", self.store.checkpoint(self.cursors, action.value))

    def do_note_positions(self, action: Action) -> None:
        """See central_machine."""
        moved = self.under_way.popleft()
        if self.store.session == self.session:
            self.store.noted |= moved

    def do_note_report(self, action: Action) -> None:
        """See central_machine."""
        if self.store.session == self.session:
            self.store.report = action.value

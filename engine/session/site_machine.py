"""The site's end of a session. Read machine.py first.

    greeting    Hello was sent
    settling    Welcome is being stored (lineage token, configuration, missed acknowledgements)
    pushing     frames go out until everything is sent; then the first push checkpoint
    exchanging  pull frames come in, frames go out as changes happen, each burst closed by a checkpoint
    leaving     Goodbye was sent

Actions and the events they report:

    store_welcome(Welcome)          -> welcome_stored(Stored)
    load_frames(Wanted)             -> frames_loaded(Loaded)      stored frames first, then newly cut ones
    store_acknowledgement(ack)      -> acknowledgement_stored
    store_pull(PullFrame)           -> pull_stored(PullStored)
    load_part(PartWanted)           -> part_loaded(Part | None)
    stage_part(Part)                -> part_staged(PartStored)
    close_lane                      -> lane_closed                what went in parts has its place in the chain
    compare(PullCheckpoint)         -> compared(CheckpointReport)
    wait(seconds that were asked for) -> waited
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PackhorseError, PeerProblem, Unavailable
from engine.limits import POSITIONS_PER_PAGE, ROUNDS, WANT_DOCUMENTS
from engine.session.lane import Lane, LaneState
from engine.session.machine import Action, Machine, Send, Step, error_problem
from engine.session.pace import Pace

_ENDS = {"problem": ("closed",), "goodbye": ("closed",), "cut": ("closed",), "silence": ("closed",),
         "failed": ("closed",)}  # fmt: skip
# What the central may have sent before it read our goodbye, and what of it is still being stored.
_LATE = ("pull_frame", "pull_stored", "pull_checkpoint", "compared", "waited", "part", "part_staged")
_ASKED = ("changed", "leave", "round_wanted", "wanted")
_PUSHES = ("acknowledgement", "acknowledgement_stored", "busy", "waited", *_ASKED, "lane_moved", "part_loaded",
           "part_stored", "lane_closed")  # fmt: skip
_PULLS = ("pull_frame", "pull_stored", "pull_checkpoint", "frames_loaded", "part", "part_staged")


@dataclass(frozen=True, slots=True)
class Stored:
    """What the site knows after Welcome was stored."""

    limits: session_pb2.Limits
    positions: list[session_pb2.FeedPosition]
    """The position table, where the central asked for it; else empty."""
    wants: list[document_pb2.RecordKey] = field(default_factory=list)
    last_applied: int = 0
    lane: LaneState | None = None
    """What goes in parts and is not closed."""
    drops_parts: bool = False
    """The central has staged parts of a document that will not be closed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames to load: those after a number, at most so many, new ones cut to the pace of the link."""

    after: int
    frames: int
    records: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Frames to send, and whether there were no more."""

    frames: list[document_pb2.Frame]
    exhausted: bool
    ended_here: bool = False
    """Changes that waited turned out to be none, or cannot be sent: what waits is less than the last report said."""


@dataclass(frozen=True, slots=True)
class PullStored:
    """A pull frame is durable."""

    sequence: int
    records: int
    wants: list[document_pb2.RecordKey]
    requeued: int


class SiteMachine(Machine):
    """See the module.

    Args:
        stay: True to stay connected and send as changes happen; False to leave after a round that moved nothing.
        pace: how much the link takes; kept by the caller from session to session.
    """

    TRANSITIONS: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
        "greeting": {"welcome": ("settling",), **dict.fromkeys(_ASKED, ("greeting",)), **_ENDS},
        "settling": {"welcome_stored": ("pushing", "exchanging"), **dict.fromkeys(_ASKED, ("settling",)),
                     **_ENDS},
        "pushing": {"frames_loaded": ("pushing", "exchanging"), **dict.fromkeys(_PUSHES, ("pushing",)), **_ENDS},
        "exchanging": {**dict.fromkeys((*_PUSHES, *_PULLS), ("exchanging",)), "compared": ("exchanging", "leaving"),
                       **_ENDS},
        "leaving": {**dict.fromkeys((*_ASKED, *_LATE), ("leaving",)), **_ENDS},
    }  # fmt: skip

    def __init__(self, stay: bool, pace: Pace | None = None) -> None:
        super().__init__("greeting")
        self.stay = stay
        self._pace = pace or Pace()
        self._pace.begin()
        self._lane = Lane(self._pace)
        self._progressed = False
        self.round = 0
        self.rounds_run = 0
        self._limits = session_pb2.Limits(window_frames=1)
        self._unacknowledged: deque[int] = deque()
        self._last_sent = 0
        self._loading = self._exhausted = self._waiting = False
        self._sent_since_checkpoint = self._moved = False
        self._answered = self._storing = self._storing_pulls = self._staging = 0
        self._changed = self._load_is_void = self._closing = False
        self._wants: list[document_pb2.RecordKey] = []

    @property
    def waits(self) -> bool:
        """See Machine."""
        if self.state in ("greeting", "leaving"):
            return True
        if self._waiting:  # the central has asked for silence
            return False
        return bool(self._unacknowledged or self._lane.under_way) or (
            self.state == "exchanging" and self._answered < self.round
        )

    @property
    def reads_outbox(self) -> bool:
        """Whether the outbox will be read again before everything counts as sent."""
        return self.state in ("pushing", "exchanging") and not self._exhausted

    @property
    def window(self) -> int:
        """Frames under way."""
        return len(self._unacknowledged)

    def _problem(self, error: PackhorseError) -> session_pb2.SiteMessage:
        # A site has no Problem to send: it says goodbye with the code.
        return session_pb2.SiteMessage(goodbye=session_pb2.Goodbye(code=error_problem(error).code))

    # --- opening ------------------------------------------------------------------------------------------------------

    def _on_welcome(self, welcome: session_pb2.Welcome) -> list[Step]:
        limits = welcome.limits
        if not (limits.window_frames and limits.frame_bytes and limits.frame_records and limits.patience_seconds):
            return self._broken("The central sent limits of zero.")
        self.state = "settling"
        return [Action("store_welcome", welcome)]

    def _on_welcome_stored(self, stored: Stored) -> list[Step]:
        self.state = "pushing"
        self._limits, self._last_sent, self._wants = stored.limits, stored.last_applied, stored.wants
        self._lane.follow(stored.lane)
        dropped: list[Step] = [Send(session_pb2.SiteMessage(part=document_pb2.Part()))] if stored.drops_parts else []
        return [*_position_pages(stored.positions), *dropped, *self._load(), *self._load_part()]

    # --- pushing ------------------------------------------------------------------------------------------------------

    def _load(self) -> list[Step]:
        room = min(self._limits.window_frames, self._pace.window) - len(self._unacknowledged)
        if self._loading or self._exhausted or self._waiting or room <= 0:
            return []
        # Cleared before the outbox is read: what is edited from now on is seen by the next load.
        self._loading, self._changed = True, False
        return [Action("load_frames", Wanted(self._last_sent, room, self._pace.records, self._pace.size_bytes))]

    def _on_frames_loaded(self, loaded: Loaded) -> list[Step]:
        self._loading = False
        if self._load_is_void:  # the central became busy meanwhile: these follow frames that have to go first
            self._load_is_void = False
            return self._load()
        steps: list[Step] = []
        for frame in loaded.frames:
            self._unacknowledged.append(frame.number)
            self._last_sent = frame.number
            self._sent_since_checkpoint = self._moved = True
            steps.append(Send(session_pb2.SiteMessage(frame=frame)))
        self._exhausted = loaded.exhausted and not self._changed
        self._sent_since_checkpoint |= loaded.ended_here
        return [*steps, *(self._checkpoint() if self._exhausted else self._load())]

    def _checkpoint(self) -> list[Step]:
        first = self.state == "pushing"
        self.state = "exchanging"
        if not (first or self._sent_since_checkpoint):
            return []
        return self._next_round() + (self._ask() if first else [])

    def _next_round(self) -> list[Step]:
        self.round += 1
        self._sent_since_checkpoint = False
        checkpoint = session_pb2.PushCheckpoint(round=self.round, last_frame=self._last_sent)
        return [Send(session_pb2.SiteMessage(push_checkpoint=checkpoint))]

    def _on_acknowledgement(self, told: session_pb2.Acknowledgement) -> list[Step]:
        # Acknowledgements that are still being stored stand at the head of the window.
        expected = list(self._unacknowledged)[self._storing : self._storing + 1]
        if expected != [told.number]:
            return self._broken(f"Frame {told.number} was acknowledged out of order.")
        self._storing += 1
        return [Action("store_acknowledgement", told)]

    def _on_acknowledgement_stored(self, needs_more: bool) -> list[Step]:
        self._storing -= 1
        self._progressed = True
        self._pace.acknowledged()
        self._unacknowledged.popleft()
        if needs_more:
            self._exhausted = False
        return self._load()

    def _on_busy(self, busy: session_pb2.Busy) -> list[Step]:
        if busy.number not in list(self._unacknowledged)[self._storing :]:
            return self._broken(f"Busy was said of frame {busy.number}, which is not under way.")
        while self._unacknowledged and self._unacknowledged[-1] >= busy.number:
            self._unacknowledged.pop()
        self._last_sent = busy.number - 1
        self._exhausted, self._waiting, self._load_is_void = False, True, self._loading
        return [Action("wait", busy.retry_after_milliseconds / 1000)]

    def _on_waited(self, _: None) -> list[Step]:
        self._waiting = False
        return self._load() if self.state != "leaving" else []

    def _on_changed(self, _: None) -> list[Step]:
        """Something was edited here."""
        self._exhausted, self._changed = False, True
        return self._load() if self.state in ("pushing", "exchanging") else []

    def _on_wanted(self, documents: list[document_pb2.RecordKey]) -> list[Step]:
        """Documents were found that have to be asked for. Before Welcome is stored: it is read then what is wanted."""
        if self.state not in ("pushing", "exchanging"):
            return []
        self._wants += documents
        return self._ask() if self.state == "exchanging" else []

    def _on_cut(self, _: None) -> list[Step]:
        self._lose()
        return super()._on_cut(_)

    def _on_silence(self, _: None) -> list[Step]:
        self._lose()
        return super()._on_silence(_)

    def _lose(self) -> None:
        if self._unacknowledged or self._lane.under_way:
            self._pace.lost(self._progressed)

    # --- what goes in parts -------------------------------------------------------------------------------------------

    def _load_part(self) -> list[Step]:
        if self._lane.is_through:  # it may have been when the session began
            self._closing, closed = True, self._closing
            return [] if closed else [Action("close_lane")]
        wanted = self._lane.next_part(self._limits.window_frames)
        return [Action("load_part", wanted)] if wanted is not None else []

    def _on_lane_moved(self, lane: LaneState | None) -> list[Step]:
        """A document went into the lane, or was taken out of it."""
        self._lane.follow(lane)
        return self._load_part()

    def _on_part_loaded(self, part: document_pb2.Part | None) -> list[Step]:
        if not self._lane.loaded(part):
            return self._load_part()
        self._moved = True
        return [Send(session_pb2.SiteMessage(part=part)), *self._load_part()]

    def _on_part_stored(self, told: document_pb2.PartStored) -> list[Step]:
        if not self._lane.stored(told):
            return []
        self._progressed = True
        return self._load_part()

    def _on_lane_closed(self, _: None) -> list[Step]:
        self._closing = False
        self._lane.follow(None)
        self._exhausted, self._changed = False, True
        return self._load()

    def _on_part(self, part: document_pb2.Part) -> list[Step]:
        if self.state == "leaving":
            return []
        if self._staging >= self._limits.window_frames:
            return self._broken("More parts came than the window allows.")
        self._staging += 1
        return [Action("stage_part", part)]

    def _on_part_staged(self, told: document_pb2.PartStored) -> list[Step]:
        if self.state == "leaving":
            return []
        self._staging -= 1
        self._moved = True
        return [Send(session_pb2.SiteMessage(part_stored=told), urgent=True)]

    # --- pulling ------------------------------------------------------------------------------------------------------

    def _on_pull_frame(self, frame: document_pb2.PullFrame) -> list[Step]:
        if self.state == "leaving":
            return []
        if self._storing_pulls >= self._limits.window_frames:
            return self._broken("More pull frames came than the window allows.")
        self._storing_pulls += 1
        return [Action("store_pull", frame)]

    def _on_pull_stored(self, stored: PullStored) -> list[Step]:
        if self.state == "leaving":  # it is durable; the next session shows the position
            return []
        self._storing_pulls -= 1
        self._moved = True
        self._wants += stored.wants
        told = session_pb2.PullAcknowledgement(sequence=stored.sequence)
        steps: list[Step] = [Send(session_pb2.SiteMessage(pull_acknowledgement=told), urgent=True), *self._ask()]
        if stored.requeued:
            self._exhausted = False
            steps += self._load()
        return steps

    def _ask(self) -> list[Step]:
        steps: list[Step] = []
        while self._wants:
            part, self._wants = self._wants[:WANT_DOCUMENTS], self._wants[WANT_DOCUMENTS:]
            steps.append(Send(session_pb2.SiteMessage(want=session_pb2.Want(documents=part))))
            self._moved = True
        return steps

    def _on_pull_checkpoint(self, checkpoint: session_pb2.PullCheckpoint) -> list[Step]:
        if self.state == "leaving":
            return []
        if checkpoint.round > self.round:
            return self._broken(f"A checkpoint answers round {checkpoint.round}; there were {self.round}.")
        self._answered = checkpoint.round
        return [Action("compare", checkpoint)]

    def _on_compared(self, report: session_pb2.CheckpointReport) -> list[Step]:
        if self.state == "leaving":
            return []
        steps: list[Step] = [Send(session_pb2.SiteMessage(checkpoint_report=report), urgent=True)]
        if self.stay or report.round < self.round or self._unacknowledged or self._waiting or self._lane.is_open:
            return steps
        if self._loading:  # what is being loaded may be nothing: the round that decides is still owed
            self._sent_since_checkpoint = True
            return steps
        self.rounds_run += 1
        if self.rounds_run >= ROUNDS or not (self._moved or report.waiting_to_push):
            return [*steps, *self._leave()]
        self._moved = False
        self._exhausted, self._sent_since_checkpoint = False, True
        return [*steps, *self._load()]

    # --- leaving ------------------------------------------------------------------------------------------------------

    def _on_leave(self, _: None) -> list[Step]:
        """Somebody asked for the session to end once a round moved nothing."""
        self.stay = False
        return self._on_round_wanted(None)

    def _on_round_wanted(self, _: None) -> list[Step]:
        """Somebody asked for another round of push and pull, even if nothing moves."""
        if self.state != "exchanging":
            return []
        self._exhausted, self._sent_since_checkpoint = False, True
        return self._load()

    def _leave(self) -> list[Step]:
        self.state = "leaving"
        return [Send(session_pb2.SiteMessage(goodbye=session_pb2.Goodbye()))]

    def _on_goodbye(self, goodbye: session_pb2.Goodbye) -> list[Step]:
        if self.state == "leaving":
            return self._end(None)
        if goodbye.code == Code.DRAINING:
            return self._end(Unavailable(Code.DRAINING, "The central node is going down."))
        return self._broken("The central said goodbye first.")

    def _broken(self, what: str) -> list[Step]:
        return self._end(PeerProblem(Code.PROTOCOL_BROKEN, what), tell=True)


def _position_pages(positions: list[session_pb2.FeedPosition]) -> list[Step]:
    pages = [positions[at : at + POSITIONS_PER_PAGE] for at in range(0, len(positions), POSITIONS_PER_PAGE)]
    return [
        Send(session_pb2.SiteMessage(positions=session_pb2.Positions(positions=page, last=page is pages[-1])))
        for page in pages
    ]

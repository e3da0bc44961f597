"""The central's end of a session. Read machine.py first.

    awaiting    nothing was said yet
    judging     Hello is being checked against lineage, chain and era
    receiving   frames come in; no data goes out before the site's first push checkpoint
    serving     feeds go out, frames come in, each burst closed by a checkpoint

Actions and the events they report:

    judge_hello(Hello)              -> hello_judged(Welcome)
    store_positions(Positions)      -> none
    ingest(Frame)                   -> frame_ingested(Ingested) | ingest_busy(Busy)
    load_page(Pace)                 -> page_loaded(PageLoaded)
    load_wanted(Want)               -> wanted_loaded(PullFrame | None)
    load_part(PartWanted)           -> part_loaded(Part | None)
    stage_part(Part)                -> part_staged(PartStored)
    close_lane                      -> lane_closed(PullFrame | None)
    load_checkpoint(round)          -> checkpoint_loaded(PullCheckpoint | None: more has come meanwhile)
    note_positions(sequence)        -> none
    note_report(CheckpointReport)   -> none
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PackhorseError, PeerProblem
from engine.limits import WANT_DOCUMENTS
from engine.session.frames import Link
from engine.session.lane import Lane, LaneState
from engine.session.machine import Action, Machine, Send, Step, error_problem
from engine.session.pace import Pace

_ENDS = {"goodbye": ("closed",), "cut": ("closed",), "silence": ("closed",), "failed": ("closed",),
         "drain": ("closed",), "round_over": ("closed",)}  # fmt: skip
_WANTS_WAITING = 1_000
_INGEST = ("frame", "frame_ingested", "ingest_busy", "positions", "want", "part", "part_staged")
_SERVE = ("pull_acknowledgement", "checkpoint_report", "page_loaded", "wanted_loaded", "checkpoint_loaded",
          "lane_moved", "part_loaded", "part_stored", "lane_closed")  # fmt: skip


@dataclass(frozen=True, slots=True)
class PageLoaded:
    """A pull frame without its sequence, or None where there was nothing; and whether that was all."""

    frame: document_pb2.PullFrame | None
    exhausted: bool


class CentralMachine(Machine):
    """See the module.

    Args:
        pace: how much the link takes; kept by the caller from session to session.
        one_round: True where all messages of the site come in one call and all answers go back in its response. The
            site could not know what Welcome says when it sent the rest: frames that are applied already, and positions
            that were not asked for, are passed over.
    """

    TRANSITIONS: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
        "awaiting": {"hello": ("judging",), **_ENDS},
        "judging": {"hello_judged": ("receiving",), "feed_moved": ("judging",), **_ENDS},
        "receiving": {**dict.fromkeys((*_INGEST, "feed_moved"), ("receiving", "serving")),
                      "push_checkpoint": ("receiving", "serving"), **_ENDS},
        "serving": {**dict.fromkeys((*_INGEST, *_SERVE, "feed_moved", "push_checkpoint"), ("serving",)), **_ENDS},
    }  # fmt: skip

    def __init__(self, pace: Pace | None = None, one_round: bool = False) -> None:
        super().__init__("awaiting")
        self._one_round, self._applied_before = one_round, 0
        self._pace = pace or Pace()
        self._limits = session_pb2.Limits(window_frames=1)
        self._lane = Lane(self._pace)
        self._link = Link()
        self._ingesting = self._staging = 0
        self._voided = False
        self._checkpoint_waiting: session_pb2.PushCheckpoint | None = None
        self._positions_awaited = False
        self._announced = self._round = 0
        self._wants: deque[session_pb2.Want] = deque()
        self._loading = False
        self._dirty = False
        self._owed = False
        self._sequence = 0
        self._acknowledged = 0

    @property
    def waits(self) -> bool:
        """See Machine."""
        if self._voided:  # the site was asked for silence
            return False
        if self.state in ("awaiting", "receiving"):
            return not self._ingesting
        return self.state == "serving" and (self._acknowledged < self._sequence or self._lane.under_way > 0)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is being made for which the site need not say anything more."""
        working = self._ingesting > 0 or self._staging > 0 or self._loading or self._lane.is_loading
        return self.state == "judging" or (self.state in ("receiving", "serving") and working)

    @property
    def has_room(self) -> bool:
        """Whether the window lets the site send another frame or part."""
        return max(self._ingesting, self._staging) < self._limits.window_frames and self.state != "judging"

    def _problem(self, error: PackhorseError) -> session_pb2.CentralMessage:
        return session_pb2.CentralMessage(problem=error_problem(error))

    # --- opening ------------------------------------------------------------------------------------------------------

    def _on_hello(self, hello: session_pb2.Hello) -> list[Step]:
        self.state = "judging"
        return [Action("judge_hello", hello)]

    def _on_hello_judged(self, welcome: session_pb2.Welcome) -> list[Step]:
        self.state = "receiving"
        self._limits = welcome.limits
        self._link = Link(welcome.last_applied, welcome.last_applied_hash)
        self._applied_before = welcome.last_applied
        self._positions_awaited = welcome.send_positions
        return [Send(session_pb2.CentralMessage(welcome=welcome))]

    def _on_positions(self, positions: session_pb2.Positions) -> list[Step]:
        if not self._positions_awaited:
            if self._one_round:
                return []
            return self._broken("Positions came that nobody had asked for.")
        self._positions_awaited = not positions.last
        return [Action("store_positions", positions)]

    # --- ingesting ----------------------------------------------------------------------------------------------------

    def _on_frame(self, frame: document_pb2.Frame) -> list[Step]:
        if self._one_round and frame.number <= self._applied_before:
            return []
        if (frame.previous_number, frame.previous_hash) != self._link or frame.number <= self._link.number:
            if self._voided:  # sent before the site read Busy: the site sends it again (F41)
                return []
            what = f"Frame {frame.number} does not follow frame {self._link.number}, the last one that was taken."
            return self._end(PeerProblem(Code.CHAIN_BROKEN, what), tell=True)
        if self._ingesting >= self._limits.window_frames:
            return self._broken("More frames came than the window allows.")
        self._voided = False
        self._link = Link(frame.number, frame.hash)
        self._ingesting += 1
        return [Action("ingest", frame)]

    def _on_frame_ingested(self, told: session_pb2.Acknowledgement) -> list[Step]:
        self._ingesting -= 1
        steps: list[Step] = [Send(session_pb2.CentralMessage(acknowledgement=told), urgent=True)]
        return [*steps, *self._take_checkpoint()]

    def _on_ingest_busy(self, busy: tuple[session_pb2.Busy, Link]) -> list[Step]:
        """Nothing from this frame on was applied; frames behind it report nothing any more."""
        if self._voided:  # a later part of the same window: the site has been told from where on
            return []
        said, self._link = busy
        self._ingesting, self._voided, self._checkpoint_waiting = 0, True, None
        return [Send(session_pb2.CentralMessage(busy=said), urgent=True)]

    def _on_push_checkpoint(self, checkpoint: session_pb2.PushCheckpoint) -> list[Step]:
        if self._one_round and self._positions_awaited:  # the site calls again, with its positions
            return []
        if checkpoint.round != self._announced + 1 or self._positions_awaited:
            return self._broken(f"Push checkpoint {checkpoint.round} came after {self._announced}.")
        self._announced = checkpoint.round
        if self._voided:  # the site answers Busy by sending the frames and another checkpoint
            return []
        self._checkpoint_waiting = checkpoint
        return self._take_checkpoint()

    def _take_checkpoint(self) -> list[Step]:
        if self._checkpoint_waiting is None or self._ingesting:
            return []
        # Only now: a round is answered after its frames.
        self._round, self._checkpoint_waiting = self._checkpoint_waiting.round, None
        self.state = "serving"
        self._owed = self._dirty = True
        return self._serve()

    # --- serving ------------------------------------------------------------------------------------------------------

    def _serve(self) -> list[Step]:
        if self._loading or self.state != "serving":
            return []
        if self._dirty or self._wants or self._lane.is_through:
            if self._sequence - self._acknowledged >= min(self._limits.window_frames, self._pace.window):
                return []
            if self._lane.is_through:
                self._loading = True
                return [Action("close_lane")]
            if self._wants:
                self._loading = True
                return [Action("load_wanted", self._wants.popleft())]
            # Cleared before the page is read: what moves from now on is seen by the next one.
            self._loading, self._dirty = True, False
            return [Action("load_page", self._pace)]
        if self._owed and not self._lane.is_open:
            self._loading = True
            return [Action("load_checkpoint", self._round)]
        return []

    def _on_feed_moved(self, _: None) -> list[Step]:
        """Something is to be told: entries of a feed, subscriptions, or documents that are asked for."""
        self._dirty = self._owed = True
        return self._serve()

    def _on_page_loaded(self, page: PageLoaded) -> list[Step]:
        self._loading = False
        self._dirty = self._dirty or not page.exhausted
        return [*(self._send_frame(page.frame) if page.frame is not None else []), *self._serve()]

    def _on_wanted_loaded(self, frame: document_pb2.PullFrame | None) -> list[Step]:
        self._loading = False
        return [*(self._send_frame(frame) if frame is not None else []), *self._serve()]

    def _send_frame(self, frame: document_pb2.PullFrame) -> list[Step]:
        self._sequence += 1
        frame.sequence = self._sequence
        self._owed = True
        return [Send(session_pb2.CentralMessage(pull_frame=frame))]

    def _on_checkpoint_loaded(self, checkpoint: session_pb2.PullCheckpoint | None) -> list[Step]:
        self._loading = False
        if checkpoint is None:
            self._dirty = True
            return self._serve()
        self._owed = checkpoint.round < self._round
        return [Send(session_pb2.CentralMessage(pull_checkpoint=checkpoint)), *self._serve()]

    def _on_pull_acknowledgement(self, told: session_pb2.PullAcknowledgement) -> list[Step]:
        if told.sequence != self._acknowledged + 1 or told.sequence > self._sequence:
            return self._broken(f"Pull frame {told.sequence} was acknowledged out of order.")
        self._acknowledged = told.sequence
        self._pace.acknowledged()
        return [Action("note_positions", told.sequence), *self._serve()]

    def _on_checkpoint_report(self, report: session_pb2.CheckpointReport) -> list[Step]:
        return [Action("note_report", report)]

    def _on_want(self, want: session_pb2.Want) -> list[Step]:
        if len(want.documents) > WANT_DOCUMENTS:
            return self._broken(f"More than {WANT_DOCUMENTS} documents were asked for at once.")
        if len(self._wants) >= _WANTS_WAITING:
            return self._broken("More was asked for than is kept in mind.")
        self._wants.append(want)
        return self._serve()

    # --- what goes in parts -------------------------------------------------------------------------------------------

    def _load_part(self) -> list[Step]:
        wanted = self._lane.next_part(self._limits.window_frames)
        return [Action("load_part", wanted)] if wanted is not None else []

    def _on_lane_moved(self, lane: LaneState | None) -> list[Step]:
        """A document went into the lane, or was taken out of it."""
        self._lane.follow(lane)
        return [*self._load_part(), *self._serve()]

    def _on_part_loaded(self, part: document_pb2.Part | None) -> list[Step]:
        if not self._lane.loaded(part):
            return self._load_part()
        self._owed = True
        return [Send(session_pb2.CentralMessage(part=part)), *self._load_part()]

    def _on_part_stored(self, told: document_pb2.PartStored) -> list[Step]:
        if not self._lane.stored(told):
            return []
        return self._serve() if self._lane.is_through else self._load_part()

    def _on_lane_closed(self, frame: document_pb2.PullFrame | None) -> list[Step]:
        self._loading = False
        self._lane.follow(None)
        self._dirty = True
        return [*(self._send_frame(frame) if frame is not None else []), *self._serve()]

    def _on_part(self, part: document_pb2.Part) -> list[Step]:
        if self._staging >= self._limits.window_frames:
            return self._broken("More parts came than the window allows.")
        self._staging += 1
        return [Action("stage_part", part)]

    def _on_part_staged(self, told: document_pb2.PartStored) -> list[Step]:
        self._staging -= 1
        return [Send(session_pb2.CentralMessage(part_stored=told), urgent=True)]

    # --- losing the link ----------------------------------------------------------------------------------------------

    def _on_cut(self, _: None) -> list[Step]:
        self._lose()
        return super()._on_cut(_)

    def _on_silence(self, _: None) -> list[Step]:
        self._lose()
        return super()._on_silence(_)

    def _on_failed(self, error: PackhorseError) -> list[Step]:
        if error.code is Code.SUPERSEDED:  # the site is back before the cut was noticed here
            self._lose()
        return super()._on_failed(error)

    def _lose(self) -> None:
        if self._acknowledged < self._sequence or self._lane.under_way:
            self._pace.lost(self._acknowledged > 0 or self._lane.progressed)

    # --- ending -------------------------------------------------------------------------------------------------------

    def _on_goodbye(self, goodbye: session_pb2.Goodbye) -> list[Step]:
        if goodbye.code:
            code = Code(goodbye.code) if goodbye.code in Code.__members__ else Code.INTERNAL
            return self._end(PeerProblem(code, "The site ended the session."))
        self.state = "closed"
        farewell = Send(session_pb2.CentralMessage(goodbye=session_pb2.Goodbye()))
        return [farewell, *self._end(None)]

    def _on_round_over(self, _: None) -> list[Step]:
        """Everything that came in one call is answered."""
        return self._end(None)

    def _on_drain(self, _: None) -> list[Step]:
        farewell = Send(session_pb2.CentralMessage(goodbye=session_pb2.Goodbye(code=Code.DRAINING)))
        return [farewell, *self._end(None)]

    def _broken(self, what: str) -> list[Step]:
        return self._end(PeerProblem(Code.PROTOCOL_BROKEN, what), tell=True)

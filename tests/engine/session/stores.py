"""What a site and a central keep for a session, in memory: as little as the protocol needs, durable across restarts.

A change is an `Item`, edited at the site and pushed; an entry is an `Item` of a feed, pulled. Each store checks at
every commit what it can see alone: a frame continues the chain, a section continues the position. `depth` makes
follow-up work at the other end: an item of depth 2 causes one of depth 1 there, which causes one of depth 0 here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PeerProblem
from engine.limits import FRAME_RECORDS
from engine.session.central_machine import PageLoaded
from engine.session.frames import Link, pack, unpack
from engine.session.site_machine import Loaded, PullStored, Stored, Wanted
from tests.engine.session.lanes import LARGE, NEED_WHOLE, REQUEUE, WANT, Item, LaneIn, LaneOut

FEEDS = ("alpha", "beta")
ECHO_FEED = "alpha"
PROTOCOL_VERSION = 1


def items_of(frame: document_pb2.Frame) -> list[Item]:
    """The changes in a frame; none where its body went in parts."""
    if frame.parts_bytes:
        return []
    return [Item.of(document) for document in unpack(document_pb2.FrameBody, frame.body, frame.hash).documents]


def paced(records_per_frame: int, records: int) -> int:
    """Records in a frame at a pace: the most where the pace is full, in proportion below."""
    return max(1, records_per_frame * records // FRAME_RECORDS)


def positions_hash(positions: Mapping[str, int]) -> bytes:
    """What both ends compare at Hello."""
    return hashlib.sha256(repr(sorted(positions.items())).encode()).digest()


@dataclass
class SiteStore:
    """A site's database."""

    records_per_frame: int = 2
    changes: list[Item] = field(default_factory=list)
    """Everything that was ever edited here, in order."""
    queue: list[Item] = field(default_factory=list)
    """Those that are in no frame."""
    lane: LaneOut | None = None
    lane_in: LaneIn = field(default_factory=LaneIn)
    frames: dict[int, document_pb2.Frame] = field(default_factory=dict)
    """Cut and not acknowledged, in order."""
    last: Link = Link()
    """The frame that the next one continues."""
    highest: int = 0
    """The last number that was given."""
    acknowledged: int = 0
    entries: dict[str, list[Item]] = field(default_factory=lambda: {feed: [] for feed in FEEDS})
    """What was taken of each feed; the position is its length."""
    wants: dict[str, None] = field(default_factory=dict)
    token: bytes = b""
    unnoticed: int = 0
    """Edits of which nobody has told the session yet."""

    @property
    def waiting(self) -> int:
        """Changes that are not acknowledged."""
        in_frames = sum(len(items_of(frame)) for frame in self.frames.values())
        return len(self.queue) + in_frames + (self.lane is not None)

    def positions(self) -> dict[str, int]:
        """The position in every feed."""
        return {feed: len(taken) for feed, taken in self.entries.items()}

    def edit(self, depth: int = 0, trait: str = "", noticed: bool = False) -> None:
        """A change is committed, by a local program unless it is noticed already."""
        self.changes.append(Item(len(self.changes) + 1, depth, trait))
        self.queue.append(self.changes[-1])
        self.unnoticed += not noticed

    def hello(self) -> session_pb2.Hello:
        """How the next session begins."""
        return session_pb2.Hello(
            site=2,
            lineage_token=self.token,
            protocol_version=PROTOCOL_VERSION,
            position_count=len(FEEDS),
            positions_hash=positions_hash(self.positions()),
            last_acknowledged=self.acknowledged,
            staged=self.lane_in.staged(),
        )

    def take_welcome(self, welcome: session_pb2.Welcome, size: int) -> Stored:
        """Stores everything that Welcome brings; frames that are much too large for the link are cut anew (F27)."""
        for told in welcome.missed:
            self.settle(told)
        if welcome.last_applied != self.acknowledged:
            raise PeerProblem(Code.CHAIN_BROKEN, f"Frame {welcome.last_applied} was applied; {self.acknowledged} here.")
        self.token = welcome.lineage_token
        if any(len(items_of(frame)) > 2 * size for frame in self.frames.values()):
            self.queue = [*(item for frame in self.frames.values() for item in items_of(frame)), *self.queue]
            if self.lane is not None:
                self.lane.frame = 0
            self.frames.clear()
            self.last = Link(welcome.last_applied, welcome.last_applied_hash)
        positions = [session_pb2.FeedPosition(scope=s, generation=1, position=p) for s, p in self.positions().items()]
        wants = [document_pb2.RecordKey(table="item", id=number) for number in self.wants]
        lane = self.lane.state(welcome.staged) if self.lane is not None else None
        drops = bool(welcome.staged.hash) and (self.lane is None or self.lane.body_hash != welcome.staged.hash)
        shown = positions if welcome.send_positions else []
        return Stored(welcome.limits, shown, wants, welcome.last_applied, lane, drops)

    def load(self, wanted: Wanted) -> Loaded:
        """Stored frames first, then a newly cut one."""
        frames = [frame for number, frame in self.frames.items() if number > wanted.after][: wanted.frames]
        if not frames and (cut := self._cut(paced(self.records_per_frame, wanted.records))):
            frames = [cut]
        return Loaded(frames, not frames)

    def _cut(self, size: int) -> document_pb2.Frame | None:
        large = [item for item in self.queue if item.trait == LARGE]
        if large and self.lane is None:
            self.queue.remove(large[0])
            self.lane = LaneOut(*pack(document_pb2.FrameBody(documents=[large[0].document()])), large[0])
        part = [item for item in self.queue if item.trait != LARGE][:size]
        if not part:
            return None
        self.queue = [item for item in self.queue if item not in part]
        body, body_hash = pack(document_pb2.FrameBody(documents=[item.document() for item in part]))
        return self._append(document_pb2.Frame(hash=body_hash, body=body))

    def _append(self, frame: document_pb2.Frame) -> document_pb2.Frame:
        self.highest += 2 if len(self.changes) % 5 == 4 else 1  # gaps are legal
        frame.number, frame.previous_number, frame.previous_hash = self.highest, *self.last
        self.frames[frame.number], self.last = frame, Link(frame.number, frame.hash)
        return frame

    def close_lane(self) -> None:
        """What goes in parts has arrived: it gets its place in the chain."""
        if self.lane is not None and not self.lane.frame:
            frame = document_pb2.Frame(hash=self.lane.body_hash, parts_bytes=len(self.lane.body))
            self.lane.frame = self._append(frame).number

    def settle(self, told: session_pb2.Acknowledgement) -> bool:
        """Takes note of what became of a frame; returns whether something of it has to be sent again."""
        frame = self.frames.pop(told.number)
        if frame.hash != told.hash:
            raise PeerProblem(Code.CHAIN_BROKEN, f"Other bytes were acknowledged as frame {told.number}.")
        assert all(number > told.number for number in self.frames), "acknowledged out of order"
        self.acknowledged = told.number
        if frame.parts_bytes:
            self.lane = None
            return True
        for outcome in told.outcomes:
            self.edit(items_of(frame)[outcome.index].depth, noticed=True)
        return bool(told.outcomes)

    def take(self, frame: document_pb2.PullFrame) -> PullStored:
        """Applies a pull frame whole, if every section continues its position."""
        content = self.lane_in.close(frame) if frame.parts_bytes else frame.body
        body = unpack(document_pb2.PullBody, content, frame.hash)
        arrived: list[Item] = []
        for section in body.sections:
            taken = self.entries[section.scope]
            if section.from_position != len(taken) or section.to_position != len(taken) + len(section.documents):
                raise PeerProblem(Code.PROTOCOL_BROKEN, f"A section of {section.scope} does not fit {len(taken)}.")
            new = [Item.of(document) for document in section.documents]
            taken += new
            arrived += new
        for document in body.wanted:
            self.wants.pop(document.id, None)
        wants = [str(item.number) for item in arrived if item.trait == WANT]
        self.wants |= dict.fromkeys(wants)
        requeued = sum(item.trait == REQUEUE for item in arrived)
        for _ in range(requeued):
            self.edit(noticed=True)
        for item in arrived:
            if item.depth:
                self.edit(item.depth - 1)
        keys = [document_pb2.RecordKey(table="item", id=number) for number in wants]
        return PullStored(frame.sequence, len(arrived), keys, requeued)

    def compare(self, checkpoint: session_pb2.PullCheckpoint) -> session_pb2.CheckpointReport:
        """What a checkpoint shows."""
        positions = self.positions()
        equal = all(positions[feed.scope] == feed.position for feed in checkpoint.feeds)
        agrees = equal and checkpoint.last_frame == self.acknowledged and not self.waiting and not self.wants
        return session_pb2.CheckpointReport(
            round=checkpoint.round, in_agreement=agrees, waiting_to_push=min(self.waiting, 10_001)
        )


@dataclass
class CentralStore:
    """The central's database, as far as one site is concerned."""

    window: int = 2
    records_per_frame: int = 2
    changes: list[Item] = field(default_factory=list)
    """What was applied, in order."""
    head: Link = Link()
    notes: dict[int, session_pb2.Acknowledgement] = field(default_factory=dict)
    feeds: dict[str, list[Item]] = field(default_factory=lambda: {feed: [] for feed in FEEDS})
    noted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FEEDS, 0))
    """How far the site is, as far as it has acknowledged."""
    session: int = 0
    """The current session of the site."""
    lineage: bytes = b""
    """The newest token that the site is known to have stored."""
    unconfirmed: dict[int, bytes] = field(default_factory=dict)
    """By session, the tokens given since: the site may have stored any of them, in whatever order Hellos arrive."""
    report: session_pb2.CheckpointReport | None = None
    lane: LaneOut | None = None
    lane_feed: str = ""
    lane_from: int = 0
    lane_in: LaneIn = field(default_factory=LaneIn)
    unmoved: int = 0
    """New entries of which no session was told yet."""

    def publish(self, feed: str, depth: int = 0, trait: str = "") -> None:
        """Something new is in a feed."""
        number = sum(map(len, self.feeds.values())) + 1
        self.feeds[feed].append(Item(number, depth, trait))
        self.unmoved += 1

    def judge(self, hello: session_pb2.Hello, session: int) -> session_pb2.Welcome:
        """Checks the lineage and makes this the current session (F13)."""
        if hello.lineage_token in self.unconfirmed.values():
            self.lineage = hello.lineage_token
            given = next(there for there, token in self.unconfirmed.items() if token == self.lineage)
            self.unconfirmed = {there: token for there, token in self.unconfirmed.items() if there > given}
        if hello.lineage_token != self.lineage:
            raise PeerProblem(Code.LINEAGE_BROKEN, "Another database of this site has been here since.")
        assert hello.last_acknowledged <= self.head.number, "an acknowledgement of a frame that was never applied"
        self.session, self.unconfirmed[session] = session, session.to_bytes(32, "big")
        self.notes = {number: note for number, note in self.notes.items() if number > hello.last_acknowledged}
        limits = session_pb2.Limits(
            window_frames=self.window, frame_records=self.records_per_frame, frame_bytes=1 << 20, patience_seconds=120
        )
        return session_pb2.Welcome(
            lineage_token=self.unconfirmed[session],
            last_applied=self.head.number,
            last_applied_hash=self.head.hash,
            missed=self.notes.values(),
            send_positions=hello.positions_hash != positions_hash(self.noted),
            limits=limits,
            protocol_version=PROTOCOL_VERSION,
            staged=self.lane_in.staged(),
        )

    def check_current(self, session: int) -> None:
        """Refuses what comes from a session that was superseded."""
        if self.session != session:
            raise PeerProblem(Code.SUPERSEDED, "A newer session took over.")
        if session in self.unconfirmed:
            self.lineage = self.unconfirmed[session]
            self.unconfirmed.clear()

    def take(self, frame: document_pb2.Frame, session: int) -> session_pb2.Acknowledgement | None:
        """Applies a frame that continues the chain; None where a frame before it was not taken."""
        self.check_current(session)
        if (frame.previous_number, frame.previous_hash) != self.head:
            return None
        if frame.parts_bytes:
            items = items_of(document_pb2.Frame(hash=frame.hash, body=self.lane_in.close(frame)))
        else:
            items = items_of(frame)
        outcomes = [
            session_pb2.Outcome(index=index, disposition=session_pb2.DISPOSITION_NEED_WHOLE)
            for index, item in enumerate(items)
            if item.trait == NEED_WHOLE
        ]
        self.changes += items
        for item in items:
            if item.depth and item.trait != NEED_WHOLE:
                self.publish(ECHO_FEED, item.depth - 1)
        told = session_pb2.Acknowledgement(number=frame.number, hash=frame.hash, outcomes=outcomes)
        self.head, self.notes[frame.number] = Link(frame.number, frame.hash), told
        return told

    def page(self, cursors: Mapping[str, int], limit: int) -> tuple[PageLoaded, dict[str, int]]:
        """The next entries beyond the cursors, and the cursors that this moves; a feed waits for what goes in parts."""
        sections, moved = [], {}
        waits = set()
        for feed, position in cursors.items():
            if self.lane is not None and feed == self.lane_feed:
                waits.add(feed)
                continue
            part = self.feeds[feed][position : position + limit]
            large = [item.trait for item in part].index(LARGE) if LARGE in (item.trait for item in part) else len(part)
            part = part[:large]
            if large == 0 and self.feeds[feed][position:] and limit:
                waits.add(feed)
                if self.lane is None:
                    self._open_lane(feed, position)
            if part:
                limit -= len(part)
                moved[feed] = position + len(part)
                sections.append(_section(feed, position, part))
        after = {**cursors, **moved}
        exhausted = all(after[feed] == len(entries) or feed in waits for feed, entries in self.feeds.items())
        if not sections:
            return PageLoaded(None, exhausted), {}
        return PageLoaded(_pull_frame(document_pb2.PullBody(sections=sections)), exhausted), moved

    def _open_lane(self, feed: str, position: int) -> None:
        item = self.feeds[feed][position]
        body = document_pb2.PullBody(sections=[_section(feed, position, [item])])
        self.lane, self.lane_feed, self.lane_from = LaneOut(*pack(body), item), feed, position

    def wanted(self, want: session_pb2.Want) -> document_pb2.PullFrame:
        """Whole documents by key."""
        documents = [document_pb2.Document(table=key.table, id=key.id, whole=True) for key in want.documents]
        return _pull_frame(document_pb2.PullBody(wanted=documents))

    def checkpoint(self, cursors: Mapping[str, int], round_: int) -> session_pb2.PullCheckpoint | None:
        """Where the feeds stand, or None when something has come that was not sent yet."""
        if any(len(entries) > cursors[feed] for feed, entries in self.feeds.items()):
            return None
        feeds = [session_pb2.FeedCheckpoint(scope=f, generation=1, position=p) for f, p in cursors.items()]
        return session_pb2.PullCheckpoint(
            round=round_, last_frame=self.head.number, feeds=feeds, subscriptions=len(feeds)
        )


def _pull_frame(body: document_pb2.PullBody) -> document_pb2.PullFrame:
    packed, packed_hash = pack(body)
    return document_pb2.PullFrame(hash=packed_hash, body=packed)


def _section(feed: str, position: int, items: list[Item]) -> document_pb2.FeedSection:
    return document_pb2.FeedSection(
        scope=feed,
        generation=1,
        from_position=position,
        to_position=position + len(items),
        documents=[item.document() for item in items],
    )

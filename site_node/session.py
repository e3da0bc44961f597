"""A site's session: performs what the state machine asks for, on the site's database."""

import asyncio
import random
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.catalogue.model import Catalogue
from engine.errors import Code, PackhorseError, PeerProblem, Refused
from engine.limits import APPLY_SECONDS
from engine.rpc.driver import Driver
from engine.rpc.local_channel import Progress
from engine.rpc.trace import Trace
from engine.rules.routing import site_scope
from engine.rules.topology import CENTRAL_SITE
from engine.session.frames import Link, unpack
from engine.session.lane import LaneState
from engine.session.machine import Action, Event, Message
from engine.session.pace import Pace, spread_retry
from engine.session.site_machine import Loaded, PullStored, SiteMachine, Stored, Wanted
from engine.storage.chain import (
    close_lane,
    frames_exceed,
    lane_is_overtaken,
    lane_lost_its_parts,
    last_number,
    stored_frames,
    void_frames,
)
from engine.storage.database import Database
from engine.storage.eviction import reach_checkpoint
from engine.storage.integrity import queue_for_central
from engine.storage.outbox import has_pushable, waiting, write_beyond
from engine.storage.parts import body_for, body_of, is_body, lane_state, read_part, stage, staged_for, unstage
from engine.storage.positions import compare, drop_unseen, note_filled, positions_hash, read_positions
from engine.storage.push import cut_frame
from engine.storage.receive import Received, apply_pull
from engine.storage.records import Writer, read_meta, write_meta
from engine.storage.settle import Settled, retry_deferred, settle
from engine.storage.wants import read_wants
from site_node.storage.notes import count, note, report_on

PROTOCOL_VERSION = 1
SOFTWARE_VERSION = metadata.version("packhorse")
_TOGETHER = frozenset({"store_acknowledgement", "store_pull"})
"""Actions that share a transaction where several of them wait."""


@dataclass
class Tally:
    """What a session has done so far."""

    pushed: int = 0
    """Records that the central has applied."""
    pulled: int = 0
    """Records that came with content or as tombstones."""
    rounds: int = 0
    resumed_frames: int = 0
    """Frames sent again, with the bytes they were cut with, because an earlier session ended before they were
    acknowledged."""
    bytes_sent: int = 0
    bytes_received: int = 0
    progressed: bool = False
    """A frame was acknowledged or applied: the link works."""
    report: session_pb2.CheckpointReport | None = None
    remaining: int | None = None
    notes: list[str] = field(default_factory=list)


class SiteSession:
    """See the module.

    Args:
        database: the site's.
        catalogue: its tables.
        me: site number and epoch.
        stay: whether to stay connected.
        pace: how much the link takes, from session to session.
        told: called whenever the tally has changed, with a phase in a few words.
    """

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        me: Writer,
        stay: bool,
        pace: Pace,
        told: Progress,
        trace: Trace,
    ) -> None:
        self.tally, self.stays = Tally(), stay
        self.machine = SiteMachine(stay, pace)
        self._pace = pace
        self._database, self._catalogue, self._me, self._told, self._trace = database, catalogue, me, told, trace
        self._resumed_below = self._era = 0
        self._driver: Driver | None = None
        self._timers: set[asyncio.Task[None]] = set()
        self._looked_at_hidden = self._has_edits = False
        self.on_report: Callable[[session_pb2.CheckpointReport], None] = lambda _report: None
        self.on_left: Callable[[], None] = lambda: None
        """Called when records that left a scope may go (engine/storage/eviction.py)."""

    async def run(
        self, send: Callable[[Message], Awaitable[None]], receive: Callable[[], Awaitable[Message | None]]
    ) -> PackhorseError | None:
        """Runs the session to its end; returns why it ended, None after a goodbye."""

        async def counted_send(message: Message) -> None:
            self.tally.bytes_sent += message.ByteSize()
            await send(message)

        async def counted_receive() -> Message | None:
            message = await receive()
            if message is not None:
                self.tally.bytes_received += message.ByteSize()
            return message

        self._driver = Driver(
            self.machine, self._perform, counted_send, counted_receive, self._trace, together=_TOGETHER
        )
        hello = await self._database.read(self._hello)
        self._driver.send_first(session_pb2.SiteMessage(hello=hello))
        try:
            return await self._driver.run()
        finally:
            for timer in self._timers:
                timer.cancel()

    def post(self, event: Event) -> None:
        """Tells the session's machine of something."""
        if self._driver is not None:
            self._driver.post(event)

    def edited(self) -> None:
        """Tells the session that something waits in the outbox."""
        self._has_edits = True
        self.post(Event("changed"))

    async def until_all_is_sent(self) -> None:
        """Returns when the outbox is not going to be read again unless something is edited."""
        if self._driver is not None:
            await self._driver.until(lambda: not self.machine.reads_outbox)

    def _hello(self, connection: sqlite3.Connection) -> session_pb2.Hello:
        meta, positions = read_meta(connection), read_positions(connection)
        mine = site_scope(self._me.site)
        return session_pb2.Hello(
            site=self._me.site,
            epoch=bytes.fromhex(self._me.epoch),
            lineage_token=bytes.fromhex(meta.get("lineage_token", "")),
            protocol_version=PROTOCOL_VERSION,
            catalogue_hash=self._catalogue.hash,
            tables=[table.name for table in self._catalogue.synchronised],
            era=int(meta.get("era", "0")),
            position_count=len(positions),
            positions_hash=positions_hash((p.scope, p.generation, p.position) for p in positions),
            configuration=next((p for p in positions if p.scope == mine), None),
            last_acknowledged=int(meta["acknowledged"]),
            clock_milliseconds=int(time.time() * 1000),
            waiting_to_push=waiting(connection),
            software_version=SOFTWARE_VERSION,
            staged=staged_for(connection, CENTRAL_SITE),
        )

    # --- actions ------------------------------------------------------------------------------------------------------

    async def _perform(self, action: Action) -> Event | None:
        perform: Callable[[Action], Awaitable[Event | None]] = getattr(self, f"_do_{action.name}")
        return await perform(action)

    async def _do_store_welcome(self, action: Action) -> Event:
        welcome: session_pb2.Welcome = action.value
        if welcome.protocol_version > PROTOCOL_VERSION:
            raise Refused(Code.PROTOCOL_TOO_OLD, f"The central speaks version {welcome.protocol_version}.")
        difference = round(time.time() - welcome.clock_milliseconds / 1000)
        stored = await self._database.write(partial(self._store_welcome, welcome=welcome, difference=difference))
        return Event("welcome_stored", stored)

    def _store_welcome(self, connection: sqlite3.Connection, welcome: session_pb2.Welcome, difference: int) -> Stored:
        """Everything that Welcome brings, in one transaction, before anything else is sent (F13, F57)."""
        for told in welcome.missed:
            self.tally.pushed += self._settle(connection, told).records
        acknowledged = int(read_meta(connection)["acknowledged"])
        if welcome.last_applied != acknowledged:
            raise PeerProblem(
                Code.CHAIN_BROKEN,
                f"The central has applied frame {welcome.last_applied}; this site knows of {acknowledged}.",
            )
        write_meta(connection, lineage_token=welcome.lineage_token.hex())
        self._era = welcome.era
        if not welcome.send_positions:
            write_meta(connection, era=str(welcome.era))
        write_beyond(connection, self._catalogue, welcome.tables)
        retry_deferred(connection)
        if frames_exceed(connection, self._pace.records, self._pace.size_bytes) or lane_lost_its_parts(
            connection, welcome.staged, welcome.last_applied
        ):
            void_frames(connection, Link(welcome.last_applied, welcome.last_applied_hash))
        if welcome.HasField("configuration"):
            self._apply(connection, welcome.configuration)
        note(connection, clock_difference_seconds=str(difference))
        self._resumed_below = last_number(connection)
        return Stored(
            welcome.limits,
            read_positions(connection) if welcome.send_positions else [],
            [document_pb2.RecordKey(table=table, id=record_id) for table, record_id in read_wants(connection)],
            welcome.last_applied,
            self._lane(connection, welcome.staged),
            drops_parts=bool(welcome.staged.hash) and not is_body(connection, CENTRAL_SITE, welcome.staged.hash),
        )

    def _lane(self, connection: sqlite3.Connection, staged: document_pb2.PartStored) -> LaneState | None:
        """What goes in parts and is not closed yet."""
        body = body_for(connection, CENTRAL_SITE)
        return lane_state(body, staged) if body is not None and not body.frame else None

    async def _do_load_frames(self, action: Action) -> Event:
        wanted: Wanted = action.value
        frames, pending = list[document_pb2.Frame](), self._has_edits

        def load(connection: sqlite3.Connection) -> tuple[list[document_pb2.Frame], bool]:
            stored = stored_frames(connection, wanted.after, wanted.frames)
            return stored, not stored and (has_pushable(connection) or lane_is_overtaken(connection))

        if not self._has_edits:
            frames, pending = await self._database.read(load)
        self._has_edits = False
        if pending:
            return await self._cut(wanted)
        return self._loaded(frames, not frames)

    async def _cut(self, wanted: Wanted) -> Event:
        """Frames cut in one transaction: as many as are wanted, or as fit into the time that others may wait for it.
        Where there are stored ones after all, those."""
        clock = asyncio.get_running_loop().time

        def cut(connection: sqlite3.Connection) -> tuple[list[document_pb2.Frame], bool, bool, LaneState | None]:
            frames, exhausted = stored_frames(connection, wanted.after, wanted.frames), False
            waited = has_pushable(connection) or lane_is_overtaken(connection)
            end, size = clock() + APPLY_SECONDS, (wanted.records, wanted.size_bytes)
            while len(frames) < wanted.frames and not exhausted and clock() < end:
                frame = cut_frame(connection, self._catalogue, self._me.site, int(time.time()), size)
                if frame is None:
                    exhausted = True
                else:
                    frames.append(frame)
            return frames, exhausted, waited, self._lane(connection, document_pb2.PartStored())

        frames, exhausted, waited, lane = await self._database.write(cut)
        self.post(Event("lane_moved", lane))
        return self._loaded(frames, exhausted, waited and not frames)

    def _loaded(self, frames: list[document_pb2.Frame], exhausted: bool, ended_here: bool = False) -> Event:
        self.tally.resumed_frames += sum(1 for frame in frames if frame.number <= self._resumed_below)
        return Event("frames_loaded", Loaded(frames, exhausted, ended_here))

    async def _do_load_part(self, action: Action) -> Event:
        return Event("part_loaded", await self._database.read(lambda c: read_part(c, CENTRAL_SITE, action.value)))

    async def _do_close_lane(self, _action: Action) -> Event:
        await self._database.write(close_lane)
        return Event("lane_closed")

    def look_at_hidden_again(self) -> None:
        """The next checkpoint, which is asked for, finds out what is hidden and referred to by nothing any more."""
        self._looked_at_hidden = False
        self.post(Event("round_wanted"))

    async def _do_stage_part(self, action: Action) -> Event:
        told = await self._database.write(lambda connection: stage(connection, CENTRAL_SITE, action.value))
        self.tally.progressed = True
        return Event("part_staged", told)

    async def _do_store_acknowledgement(self, action: Action) -> None:
        every: list[session_pb2.Acknowledgement] = action.value
        stored = await self._database.write(lambda connection: [self._settle(connection, told) for told in every])
        for told, settled in zip(every, stored, strict=True):
            self._trace("settled", told.number)
            self.tally.pushed += settled.records
            self.tally.progressed = True
            self._told("pushing", None)
            if settled.wants:
                keys = [document_pb2.RecordKey(table=table, id=root) for table, root in settled.wants]
                self.post(Event("wanted", keys))
            self.post(Event("acknowledgement_stored", settled.frees))

    def _settle(self, connection: sqlite3.Connection, told: session_pb2.Acknowledgement) -> Settled:
        settled = settle(connection, told, self._me.site, self._me.epoch)
        count(connection, "pushed", settled.records)
        count(connection, "resumed_frames", int(told.number <= self._resumed_below))
        return settled

    async def _do_store_pull(self, action: Action) -> None:
        waiting: deque[document_pb2.PullFrame] = deque(action.value)
        clock = asyncio.get_running_loop().time
        while waiting:
            work = partial(self._apply_some, frames=list(waiting), clock=clock)
            for frame, received in await self._database.write(work):
                waiting.popleft()
                self._trace("apply_commit", frame)
                self.tally.pulled += received.records
                self.tally.progressed = True
                self.tally.remaining = frame.records_remaining
                self._told("pulling", frame.records_remaining)
                wants = [document_pb2.RecordKey(table=table, id=record_id) for table, record_id in received.wants]
                stored = PullStored(frame.sequence, received.records, wants, received.requeued)
                self.post(Event("pull_stored", stored))

    def _apply_some(
        self, connection: sqlite3.Connection, frames: list[document_pb2.PullFrame], clock: Callable[[], float]
    ) -> list[tuple[document_pb2.PullFrame, Received]]:
        """Applies frames in one transaction: one, and as many more as fit into the time that others may wait for it."""
        applied: list[tuple[document_pb2.PullFrame, Received]] = []
        end = clock() + APPLY_SECONDS
        for frame in frames:
            if applied and clock() > end:
                break
            self._trace("apply_begin", frame)
            applied.append((frame, self._apply(connection, frame)))
        return applied

    def _apply(self, connection: sqlite3.Connection, frame: document_pb2.PullFrame) -> Received:
        body = unpack(document_pb2.PullBody, body_of(connection, CENTRAL_SITE, frame), frame.hash)
        received = apply_pull(connection, self._catalogue, self._me, body, int(time.time()))
        count(connection, "pulled", received.records)
        if frame.sequence:  # the central has judged this site's positions: they count in its present era from now on
            write_meta(connection, era=str(self._era))
        return received

    async def _do_compare(self, action: Action) -> Event:
        checkpoint: session_pb2.PullCheckpoint = action.value
        report, has_left = await self._database.write(lambda connection: self._compare(connection, checkpoint))
        self.tally.rounds, self.tally.report, self.tally.remaining = checkpoint.round, report, 0
        self._told("in agreement" if report.in_agreement else "comparing", 0)
        self._looked_at_hidden = True
        if has_left:
            self.on_left()
        self.on_report(report)
        return Event("compared", report)

    def _compare(
        self, connection: sqlite3.Connection, checkpoint: session_pb2.PullCheckpoint
    ) -> tuple[session_pb2.CheckpointReport, bool]:
        """The report, and whether records that left a scope may go now."""
        drop_unseen(connection, checkpoint)
        has_left = reach_checkpoint(connection, looks_at_hidden=not self._looked_at_hidden)
        note_filled(connection, checkpoint)
        unstage(connection, CENTRAL_SITE)  # a checkpoint comes when nothing goes in parts
        write_meta(connection, era=str(self._era))
        wanted = [(key.table, key.id) for key in checkpoint.wanted]
        if queue_for_central(connection, self._catalogue, wanted, last_number(connection)):
            self.post(Event("changed"))
        acknowledged = int(read_meta(connection)["acknowledged"])
        comparison = compare(connection, checkpoint, acknowledged)
        report = report_on(connection, checkpoint, comparison.comparable, comparison.differing)
        note(
            connection,
            agreed="1" if report.in_agreement else "0",
            differing=", ".join(report.differing),
            last_success=str(int(time.time())),
            waiting_to_pull="0",
            last_error="",
            last_error_code="",
        )
        return report, has_left

    async def _do_wait(self, action: Action) -> None:
        timer = asyncio.create_task(self._wait(action.value))
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(spread_retry(seconds, random.random()))  # noqa: S311 - spreads sites, keeps no secret
        self.post(Event("waited"))

"""One site's session at the central: performs what the state machine asks for."""

import asyncio
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.node import CentralNode
from central_node.storage.attempts import Submitted
from central_node.storage.checkpoints import Compared, compared_in, read_checkpoint
from central_node.storage.lane import fits, is_overtaken, resume_body
from central_node.storage.roster import (
    Opened,
    check_current,
    configuration_cursor,
    note_error,
    note_positions,
    note_report,
    open_session,
    reconcile_subscriptions,
    take_positions,
)
from central_node.storage.waiting import has_own_changes
from central_node.welcome import check_hello, introduce
from engine.errors import Code, PackhorseError, PeerProblem, Unavailable
from engine.limits import ASIDE_SECONDS, DIFFERING_SCOPES, PAGE_BYTES_MAX
from engine.rpc.driver import Driver
from engine.session.central_machine import CentralMachine, PageLoaded
from engine.session.frames import pack
from engine.session.machine import Action, Event, Message
from engine.storage.database import Result, Work
from engine.storage.pages import Cursor, Page, advanced, key_of, read_page, read_wanted
from engine.storage.parts import Body, drop_body, lane_state, open_body, read_part, stage, staged_for
from engine.storage.records import Writer

_NOTE_EVERY = 64
_READS = 50


class CentralSession:
    """See the module. `site` is the number that the credential belongs to; `one_round` is said of the machine."""

    def __init__(
        self,
        node: CentralNode,
        site: int,
        send: Callable[[Message], Awaitable[None]],
        receive: Callable[[], Awaitable[Message | None]],
        trace: Callable[[str, object], None],
        one_round: bool = False,
    ) -> None:
        self.site, self._one_round = site, one_round
        self._node, self._database, self.trace = node, node.database, trace
        self._id = secrets.token_hex(16)
        self._writer = Writer(site, "")
        self._tables: frozenset[str] = frozenset()
        self._cursors: dict[str, Cursor] = {}
        self._changes: list[document_pb2.SubscriptionChange] = []
        self._era = self._topology_number = 0
        self._shown_positions: list[session_pb2.FeedPosition] = []
        self._under_way: deque[dict[str, Cursor]] = deque()
        self._to_note: dict[str, Cursor] = {}
        self._compared: dict[str, Compared] = {}
        self._offered: dict[str, Compared] = {}
        self._unproved: dict[str, Cursor] = {}
        self._has_proved = False
        self._pace = node.pace_of(site)
        self._lane: Body | None = None
        self._lane_is_known = False
        self._staged = document_pb2.PartStored()
        self._wanted_later: list[document_pb2.RecordKey] = []
        self.machine = CentralMachine(self._pace, one_round)
        self._driver = Driver(self.machine, self._perform, send, receive, trace)

    async def run(self) -> PackhorseError | None:
        """Runs the session to its end and remembers how it ended."""
        try:
            return await self._driver.run()
        finally:
            self._node.unregister(self)
            # A site that has read why its session ended may drop the call, which cancels this before all is written.
            await asyncio.shield(self._close(self._driver.error))

    def post(self, event: Event) -> None:
        """See `node.Session`."""
        self._driver.post(event)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns when something holds of the machine."""
        await self._driver.until(holds)

    def follows(self, scopes: set[str]) -> bool:
        """See `node.Session`."""
        return not scopes.isdisjoint(self._cursors)

    async def _close(self, error: PackhorseError | None) -> None:
        now = int(time.time())

        def close(connection: sqlite3.Connection) -> None:
            note_positions(connection, self.site, list(self._to_note.values()))
            if error is not None:
                note_error(connection, self.site, error, now)

        if self._to_note and self._has_proved:
            await self._write_if_current(close)
        elif error is not None and error.code not in (Code.SUPERSEDED, Code.LINK_CUT, Code.DRAINING):
            await self._node.note_error(self.site, error, now)

    def _check_current(self, connection: sqlite3.Connection) -> None:
        check_current(connection, self.site, self._id, confirms=not self._one_round)

    async def _write_if_current(self, work: Work[None]) -> None:
        def checked(connection: sqlite3.Connection) -> None:
            self._check_current(connection)
            work(connection)

        try:
            await self._database.write(checked)
        except PackhorseError:
            pass  # superseded, or the disk is full: the site's own table is the truth and is asked for next time

    # --- actions ------------------------------------------------------------------------------------------------------

    async def _perform(self, action: Action) -> Event | None:
        if action.name != "judge_hello" and not (self._has_proved or self._one_round):
            # The site has spoken after Welcome, so it has stored what came with it: only now may that be confirmed.
            self._has_proved = True
            self._to_note |= self._unproved
        perform: Callable[[Action], Awaitable[Event | None]] = getattr(self, f"_do_{action.name}")
        return await perform(action)

    async def _do_judge_hello(self, action: Action) -> Event:
        hello: session_pb2.Hello = action.value
        check_hello(hello, self.site)
        await self._node.check_schema()
        await self._node.settle()
        self._tables, self._staged = frozenset(hello.tables), hello.staged
        self._writer = Writer(self.site, hello.epoch.hex())
        self._topology_number, topology = self._node.topology_number, self._node.topology
        token, now = secrets.token_bytes(32), int(time.time())
        catalogue, writer, tables = self._node.catalogue, self._writer, self._tables

        def judge(connection: sqlite3.Connection) -> tuple[Opened, Cursor | None, Page | None]:
            opened = open_session(connection, hello, self._id, token, topology, now)
            opened.welcome.staged.CopyFrom(staged_for(connection, self.site) or document_pb2.PartStored())
            cursor = configuration_cursor(connection, opened, hello)
            if cursor is None:
                return opened, None, None
            page = read_page(connection, catalogue, [cursor], writer, tables, 1 << 30)
            return opened, cursor, page

        opened, cursor, page = await self._database.write(judge)
        self._era, self._cursors, self._changes = hello.era or opened.welcome.era, opened.cursors, opened.changes
        if cursor is not None and page is not None:
            self._put_configuration(opened.welcome, cursor, page)
        introduce(opened.welcome, hello, catalogue)
        self._node.register(self)
        return Event("hello_judged", opened.welcome)

    def _put_configuration(self, welcome: session_pb2.Welcome, cursor: Cursor, page: Page) -> None:
        changes = [change for change in self._changes if change.scope == cursor.scope]
        self._changes = [change for change in self._changes if change.scope != cursor.scope]
        if changes or page.sections:
            body, body_hash = pack(document_pb2.PullBody(subscriptions=changes, sections=page.sections))
            welcome.configuration.hash, welcome.configuration.body = body_hash, body
        if page.sections and cursor.scope in self._cursors:
            self._cursors[cursor.scope] = cursor._replace(position=page.sections[-1].to_position)
            self._unproved[cursor.scope] = self._cursors[cursor.scope]

    async def _do_store_positions(self, action: Action) -> None:
        positions: session_pb2.Positions = action.value
        self._shown_positions += positions.positions
        if not positions.last:
            return
        topology, shown, era = self._node.topology, self._shown_positions, self._era

        def take(connection: sqlite3.Connection) -> tuple[dict[str, Cursor], list[document_pb2.SubscriptionChange]]:
            self._check_current(connection)
            return take_positions(connection, self.site, era, shown, topology)

        self._cursors, self._changes = await self._database.write(take)

    async def _do_ingest(self, action: Action) -> None:
        self._node.submit(self, Submitted(self._writer, self._id, action.value, not self._one_round))

    async def _do_load_page(self, _action: Action) -> Event:
        await self._node.until_all_is_taken()
        await self._follow_topology()
        await self._keep_lane()
        behind = {self._lane.scope} if self._lane is not None else set()
        changes, self._changes = self._changes, []
        while True:
            page, body, body_hash = await self._read_routed(partial(self._page, behind=behind, changes=changes))
            if not page.sections or len(body) <= self._pace.size_bytes:
                break
            # One document that is too large for the link: its feed waits for it, the others do not.
            section = page.sections[0]
            behind.add(key_of(section.scope, section.table))
            if self._lane is None:
                await self._open_lane(document_pb2.PullBody(sections=page.sections), section.documents[0], section)
        if not changes and not page.sections:
            return Event("page_loaded", PageLoaded(None, True))
        moved = advanced(self._cursors, page.sections)
        opened = {c.scope: self._cursors[c.scope] for c in changes if not c.closed and c.scope in self._cursors}
        self._cursors = self._cursors | moved
        self._under_way.append(opened | moved)
        frame = document_pb2.PullFrame(body=body, hash=body_hash, records_remaining=page.remaining)
        return Event("page_loaded", PageLoaded(frame, page.exhausted))

    def _page(
        self, connection: sqlite3.Connection, behind: set[str], changes: list[document_pb2.SubscriptionChange]
    ) -> tuple[Page, bytes, bytes]:
        """A page and its body; where that is too large for the link or the receiver, one of a single document."""
        cursors = [cursor for cursor in self._cursors.values() if cursor.key not in behind]
        catalogue, pace = self._node.catalogue, self._pace
        for records in (pace.records, 1):
            page = read_page(connection, catalogue, cursors, self._writer, self._tables, records, pace.size_bytes)
            content = document_pb2.PullBody(subscriptions=changes, sections=page.sections)
            body, body_hash = pack(content)
            if len(body) <= pace.size_bytes and content.ByteSize() <= PAGE_BYTES_MAX:
                break
        return page, body, body_hash

    # --- what goes in parts -------------------------------------------------------------------------------------------

    async def _keep_lane(self) -> None:
        """Goes on with what an earlier session had begun; gives up what does not fit any more."""
        if not self._lane_is_known:
            self._lane_is_known = True
            cursors = self._cursors
            self._lane = await self._database.write(lambda c: resume_body(c, self.site, cursors))
            self.post(Event("lane_moved", lane_state(self._lane, self._staged)))
        if self._lane is not None and not fits(self._lane, self._cursors):
            self._lane = None
            self.post(Event("lane_moved", None))

    async def _open_lane(
        self,
        body: document_pb2.PullBody,
        document: document_pb2.Document,
        section: document_pb2.FeedSection | None = None,
    ) -> None:
        content, body_hash = pack(body)
        key = key_of(section.scope, section.table) if section else ""
        fed = (key, section.generation, section.from_position, section.to_position) if section else ()
        lane = Body(self.site, body_hash, len(content), 0, document.table, document.id, *fed)

        def keep(connection: sqlite3.Connection) -> None:
            self._check_current(connection)
            drop_body(connection, self.site)
            open_body(connection, lane, content)

        await self._database.write(keep)
        self._lane = lane
        self.post(Event("lane_moved", lane_state(lane, self._staged)))

    async def _do_load_part(self, action: Action) -> Event:
        lane = self._lane

        def load(connection: sqlite3.Connection) -> document_pb2.Part | None:
            overtaken = lane is None or is_overtaken(connection, lane)
            return None if overtaken else read_part(connection, self.site, action.value)

        part = await self._database.read(load)
        if part is None:
            self._lane = None
            self.post(Event("lane_moved", None))
            self.post(Event("feed_moved"))
        return Event("part_loaded", part)

    async def _do_stage_part(self, action: Action) -> Event:
        def keep(connection: sqlite3.Connection) -> document_pb2.PartStored:
            self._check_current(connection)
            return stage(connection, self.site, action.value)

        return Event("part_staged", await self._database.write(keep))

    async def _do_close_lane(self, _action: Action) -> Event:
        lane, self._lane = self._lane, None
        wanted, self._wanted_later = self._wanted_later, []
        if wanted:
            self.post(Event("want", session_pb2.Want(documents=wanted)))
        if lane is None or not fits(lane, self._cursors):
            return Event("lane_closed", None)
        moved = {}
        if lane.scope:
            moved = {lane.scope: self._cursors[lane.scope]._replace(position=lane.to_position)}
        self._cursors = self._cursors | moved
        self._under_way.append(moved)
        return Event("lane_closed", document_pb2.PullFrame(hash=lane.hash, parts_bytes=lane.total_bytes))

    async def _follow_topology(self) -> None:
        if self._topology_number == self._node.topology_number:
            return
        self._topology_number, topology, known = self._node.topology_number, self._node.topology, self._cursors

        def reconcile(
            connection: sqlite3.Connection,
        ) -> tuple[dict[str, Cursor], list[document_pb2.SubscriptionChange]]:
            self._check_current(connection)
            return reconcile_subscriptions(connection, self.site, known, topology)

        self._cursors, changes = await self._database.write(reconcile)
        self._changes += changes

    async def _do_load_wanted(self, action: Action) -> Event:
        catalogue, scopes = self._node.catalogue, frozenset(self._cursors)
        roots = [(key.table, key.id) for key in action.value.documents]

        def load(connection: sqlite3.Connection) -> tuple[document_pb2.PullBody, list[document_pb2.RecordKey]]:
            found = read_wanted(connection, catalogue, roots, scopes, self._pace.size_bytes)
            later = [document_pb2.RecordKey(table=table, id=root_id) for table, root_id in found.later]
            return document_pb2.PullBody(wanted=found.documents), later

        wanted, later = await self._read_routed(load)
        if later:  # what does not fit into one frame is as if it had been asked for again
            self.post(Event("want", session_pb2.Want(documents=later)))
        body, body_hash = pack(wanted)
        if len(body) > self._pace.size_bytes and len(wanted.wanted) == 1:
            document = wanted.wanted[0]
            if self._lane is None:
                await self._open_lane(wanted, document)
            else:
                self._wanted_later.append(document_pb2.RecordKey(table=document.table, id=document.id))
            return Event("wanted_loaded", None)
        self._under_way.append({})
        return Event("wanted_loaded", document_pb2.PullFrame(body=body, hash=body_hash))

    async def _read_routed(self, work: Work[Result]) -> Result:
        """Reads in a snapshot in which every edit of the central's own has its version: content and version belong
        together."""

        def checked(connection: sqlite3.Connection) -> Result | None:
            return None if has_own_changes(connection) else work(connection)

        for _ in range(_READS):
            found = await self._database.read(checked)
            if found is not None:
                return found
            await self._node.settle()
        raise Unavailable(Code.BUSY, "The central node's own data change faster than they are routed.", 1.0)

    async def _do_load_checkpoint(self, action: Action) -> Event:
        await asyncio.sleep(ASIDE_SECONDS)  # the page before it is on its way first
        cursors, compared, tables = self._cursors, self._compared, self._tables
        found = await self._database.read(
            lambda c: read_checkpoint(c, self.site, cursors, compared, action.value, tables)
        )
        if found is None:
            await self._node.settle()
        else:
            self._offered = compared_in(found)
        return Event("checkpoint_loaded", found)

    async def _do_note_positions(self, action: Action) -> None:
        if not self._under_way:
            raise PeerProblem(Code.PROTOCOL_BROKEN, f"Pull frame {action.value} was never sent.")
        self._to_note |= self._under_way.popleft()
        if len(self._to_note) >= _NOTE_EVERY:
            await self._flush_positions()

    async def _flush_positions(self) -> None:
        noted, self._to_note = list(self._to_note.values()), {}
        await self._write_if_current(lambda connection: note_positions(connection, self.site, noted))

    async def _do_note_report(self, action: Action) -> None:
        noted, self._to_note = list(self._to_note.values()), {}
        now = int(time.time())
        report: session_pb2.CheckpointReport = action.value
        if report.comparable and len(report.differing) < DIFFERING_SCOPES:
            clean = self._offered.keys() - set(report.differing)
            self._compared |= {scope: self._offered[scope] for scope in clean}

        def note(connection: sqlite3.Connection) -> None:
            note_positions(connection, self.site, noted)
            note_report(connection, self.site, action.value, now)

        await self._write_if_current(note)

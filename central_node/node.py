"""The central at work: one loop that takes frames, routes the central's own edits and wakes what waited.

Every change of the database goes through `_turn`, so feeds are only ever moved by one task; sessions read in snapshots.
The loop cannot end but by being cancelled: a step that fails is told to the sessions concerned and tried again.
"""

import asyncio
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Protocol

import structlog
from packhorse.sync.v1 import session_pb2

from central_node.storage import purge
from central_node.storage.attempts import Submitted, note_attempts
from central_node.storage.eras import begin_era
from central_node.storage.follow_up import do_follow_up
from central_node.storage.purge import begin_day, purge_entries
from central_node.storage.roster import note_error
from central_node.storage.steps import IsLate, Taken, refresh_topology, route_own, take_frames, wake_held
from central_node.storage.waiting import anything_waits, has_own_changes, has_woken, has_work
from engine.catalogue.model import Catalogue
from engine.errors import Code, PackhorseError, PeerProblem, Unavailable
from engine.limits import (
    APPLY_SECONDS,
    ASIDE_SECONDS,
    INGEST_FRAMES,
    PAGE_WAIT_SECONDS,
    SWEEP_HOURS,
    SWEEP_PAUSE_SECONDS,
    WATCH_GROWTH,
    WATCH_SECONDS_BUSY,
    WATCH_SECONDS_IDLE,
)
from engine.rpc.trace import Trace
from engine.rules.topology import Topology
from engine.session.frames import Link
from engine.session.machine import Event
from engine.session.pace import Pace
from engine.storage import retention
from engine.storage.database import Database, DataVersion, Result, Work
from engine.storage.integrity import Mended, sweep_batch
from engine.storage.retention import purge_tombstones
from engine.storage.schema import repair_schema, schema_is_whole

_log = structlog.get_logger("central")


class Session(Protocol):
    """What the loop knows of a session."""

    site: int

    trace: Trace
    """Told of what becomes of the session's frames."""

    def post(self, event: Event) -> None:
        """Tells the session's machine of something."""

    def follows(self, scopes: set[str]) -> bool:
        """Whether the site is subscribed to one of these scopes."""


class CentralNode:
    """The state of a running central node. Everything that must survive is in its database."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self.database, self.catalogue = database, catalogue
        self.topology = Topology({}, {})
        self.topology_number = 0
        """Grows with each change of the topology, so that a session can see that its subscriptions are old."""
        self.sessions: dict[int, Session] = {}
        self.trouble: PackhorseError | None = None
        """Why the last step that was to change the database could not, until one could again."""
        self.counters = {"frames": 0, "records": 0, "sessions": 0, "errors": 0}
        self._frames: deque[tuple[Session, Submitted]] = deque()
        self._all_taken = asyncio.Event()
        self._all_taken.set()
        self._noted = 0
        """How many frames, from the first on, were noted as attempts and can be taken together (attempts.py)."""
        self._paces: dict[int, Pace] = {}
        self._signal = asyncio.Event()
        self._settled: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins an era and the loop."""
        era = secrets.randbits(62) + 1
        await self.database.write(lambda connection: begin_era(connection, era))
        self.topology = await self.database.write(partial(refresh_topology, catalogue=self.catalogue))
        self._tasks = [
            asyncio.create_task(self._forever(loop), name=f"central {loop.__name__}")
            for loop in (self._turn, self._look, self._sweep, self._purge)
        ]
        self._signal.set()

    async def stop(self) -> None:
        """Ends the loop; what is under way in the database is finished."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def register(self, session: Session) -> None:
        """Makes a session the current one of its site; an older one ends at once (F13)."""
        older = self.sessions.get(session.site)
        self.sessions[session.site] = session
        self.counters["sessions"] += 1
        self.trouble = None
        if older is not None and older is not session:
            older.post(
                Event("failed", PeerProblem(Code.SUPERSEDED, f"A newer session of site {session.site} took over."))
            )

    def unregister(self, session: Session) -> None:
        """Forgets a session that has ended."""
        if self.sessions.get(session.site) is session:
            del self.sessions[session.site]

    def pace_of(self, site: int) -> Pace:
        """How much the link of a site takes, from session to session."""
        return self._paces.setdefault(site, Pace())

    def submit(self, session: Session, submitted: Submitted) -> None:
        """Queues a frame; its session hears `frame_ingested` or `ingest_busy`. Bounded by the session's window."""
        self._frames.append((session, submitted))
        self._all_taken.clear()
        self._signal.set()

    async def until_all_is_taken(self) -> None:
        """Returns when no frame waits to be taken, or after PAGE_WAIT_SECONDS. What a site has written is safe only
        when it is here, so it goes before what others read, as long as nobody starves."""
        if not self._all_taken.is_set():
            try:
                await asyncio.wait_for(self._all_taken.wait(), PAGE_WAIT_SECONDS)
            except TimeoutError:
                pass  # more comes than can be taken: now it is the readers' turn

    async def settle(self) -> None:
        """Returns when everything that was committed in this database before the call is in the feeds (F44).

        Raises Unavailable with DISK_FULL.
        """
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled.append(settled)
        self._signal.set()
        await settled

    async def note_error(self, site: int, error: PackhorseError, now: int) -> None:
        """Remembers why a session of a site ended; told from memory while nothing can be written."""
        try:
            await self.database.write(lambda connection: note_error(connection, site, error, now))
        except PackhorseError:
            self.trouble = error

    async def check_schema(self) -> None:
        """Makes tables and triggers again that another program has dropped or changed (F43)."""
        if not await self.database.read(partial(schema_is_whole, catalogue=self.catalogue)):
            await self.database.write(partial(repair_schema, catalogue=self.catalogue))
            _log.warning("tables or triggers had been changed and were made again")

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _forever(self, loop: Callable[[], Any]) -> None:
        while True:
            try:
                await loop()
            except asyncio.CancelledError:
                raise
            except PackhorseError as error:
                self.trouble = error
                _log.warning("a step has to wait", code=error.code, what=error.what)
                await asyncio.sleep(1.0)
            except Exception:
                self.counters["errors"] += 1
                _log.exception("a step failed")
                await asyncio.sleep(1.0)

    async def _turn(self) -> None:
        await self._signal.wait()
        self._signal.clear()
        settled, self._settled = self._settled, []
        try:
            more_waits = await self._take_frames()
            if more_waits is None:
                more_waits = await self.database.read(anything_waits)
            if more_waits:
                await self._route_own()
                await self._wake()
                await self._follow_up()
        except BaseException as error:
            self._signal.set()
            if isinstance(error, Unavailable) and error.code is Code.DISK_FULL:  # it may take long until there is room
                for waiter in settled:
                    if not waiter.done():
                        waiter.set_exception(error)
                raise
            self._settled += settled
            raise
        for waiter in settled:
            if not waiter.done():
                waiter.set_result(None)

    async def _take_frames(self) -> bool | None:
        """Takes some of the frames that wait; returns whether anything else waits, or None where nothing was taken."""
        if not self._frames:
            return None
        more_waits = await self._take(list(islice(self._frames, self._noted or INGEST_FRAMES)))
        if self._frames:
            self._signal.set()
        return more_waits

    async def _take(self, group: list[tuple[Session, Submitted]]) -> bool | None:
        """Takes the frames at the head of the queue together; where that fails, one by one. Returns as
        `_take_frames`."""
        now, frames = int(time.time()), [submitted for _, submitted in group]

        def note(connection: sqlite3.Connection) -> None:
            # Committed before they are taken: a frame that ends this process is known to the next one (F39).
            self._noted = note_attempts(connection, frames)

        def work(connection: sqlite3.Connection, is_late: IsLate) -> tuple[Taken, bool]:
            together = group[: self._noted]
            for session, submitted in together:
                session.trace("apply_begin", submitted.frame)
            taken = take_frames(connection, self.catalogue, self.topology, frames[: len(together)], now, is_late)
            return taken, anything_waits(connection)

        try:
            taken, more_waits = await self.database.write(_timed(work), before=None if self._noted else note)
        except Exception as error:
            if len(group) > 1 and getattr(error, "code", None) is not Code.BUSY:
                for one in group:
                    self._noted = 0
                    await self._take([one])
                return None
            for _ in group:
                self._next_frame()
            known = error if isinstance(error, Unavailable) else None
            self._tell_busy(group, known or Unavailable(Code.INTERNAL, "A frame could not be taken.", 5.0))
            if known is None:
                raise
            return None
        await self._tell_taken({session.site for session, _ in group}, taken)
        return more_waits

    async def _tell_taken(self, pushing: set[int], taken: Taken) -> None:
        """Tells what became of frames of these sites; others first: a change is on its way to them while its own site
        hears that it has arrived."""
        done = list[tuple[Session, session_pb2.Acknowledgement | PackhorseError | None]]()
        for told in taken.acknowledgements:
            session, submitted = self._next_frame()
            if isinstance(told, session_pb2.Acknowledgement):
                session.trace("apply_commit", submitted.frame)
                self.counters["frames"] += 1
            done.append((session, told))
        self._count(taken)
        others = [session for site, session in self.sessions.items() if site not in pushing]
        if self._tell_moved(taken.moved, others) and not self._frames:
            await asyncio.sleep(ASIDE_SECONDS)  # nobody waits for an acknowledgement as for the change itself
        for session, told in done:
            if told is not None:
                is_error = isinstance(told, PackhorseError)
                session.post(Event("failed" if is_error else "frame_ingested", told))
        self._tell_moved(taken.moved, [self.sessions[site] for site in pushing if site in self.sessions])

    def _next_frame(self) -> tuple[Session, Submitted]:
        """Takes the frame at the head, one of those that were noted, out of the queue."""
        self._noted = max(0, self._noted - 1)
        frame = self._frames.popleft()
        if not self._frames:
            self._all_taken.set()
        return frame

    def _tell_busy(self, batch: list[tuple[Session, Submitted]], error: Unavailable) -> None:
        self.trouble = error
        _log.warning("frames have to wait", code=error.code, what=error.what)
        told: set[int] = set()
        for session, submitted in batch:
            if session.site in told:
                continue
            told.add(session.site)
            frame = submitted.frame
            seconds = error.retry_after_seconds or 1.0
            busy = session_pb2.Busy(number=frame.number, retry_after_milliseconds=int(seconds * 1000))
            session.post(Event("ingest_busy", (busy, Link(frame.previous_number, frame.previous_hash))))

    async def _route_own(self) -> None:
        while await self.database.read(has_own_changes):
            before = self.topology
            taken, after = await self.database.write(
                partial(route_own, catalogue=self.catalogue, topology=before, now=int(time.time()))
            )
            if after is not before:
                self._use(after)
            self._done(taken)

    def _use(self, topology: Topology) -> None:
        self.topology = topology
        self.topology_number += 1
        for session in list(self.sessions.values()):
            session.post(Event("feed_moved"))

    async def _follow_up(self) -> None:
        """Work that became necessary is done when nothing of the central's own changes waits any more."""
        while await self.database.read(has_work):
            moved, done = await self.database.write(
                partial(do_follow_up, catalogue=self.catalogue, topology=self.topology)
            )
            self._done(Taken(moved=moved, records=done))
            await self._route_own()

    async def _wake(self) -> None:
        while await self.database.read(has_woken):
            work = partial(wake_held, catalogue=self.catalogue, topology=self.topology, now=int(time.time()))
            self._done(await self.database.write(_timed(work)))

    def _done(self, taken: Taken) -> None:
        self._count(taken)
        self._tell_moved(taken.moved, list(self.sessions.values()))

    def _count(self, taken: Taken) -> None:
        self.trouble = None
        self.counters["records"] += taken.records
        if taken.topology is not None:
            self._use(taken.topology)

    def _tell_moved(self, moved: set[str], sessions: Iterable[Session]) -> bool:
        following = [session for session in sessions if session.follows(moved)] if moved else []
        for session in following:
            session.post(Event("feed_moved"))
        return bool(following)

    async def _sweep(self) -> None:
        """At start and daily, beside everything else: finds what was changed behind the triggers (F43)."""
        await self.check_schema()
        after = ("", "")
        while True:
            mended, after = await sweep_batch(self.database, self.catalogue, after, int(time.time()))
            if mended != Mended():
                _log.warning("uncaptured edits were found", queued=mended.queued, put_aside=mended.put_aside)
                self._signal.set()
            if mended.wants:
                for session in list(self.sessions.values()):
                    session.post(Event("feed_moved"))
            if after == ("", ""):
                break
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)
        await asyncio.sleep(SWEEP_HOURS * 3600)

    async def _purge(self) -> None:
        """Once a day, slowly: forgets what was deleted or left a scope long ago (F38)."""
        await self.database.write(partial(begin_day, now=int(time.time())))
        entry: purge.Place | None = purge.BEGINNING
        while entry is not None:
            entry = (await self.database.write(partial(purge_entries, after=entry))).after
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)
        record: retention.Place | None = retention.BEGINNING
        while record is not None:
            record = (await self.database.write(partial(purge_tombstones, after=record))).after
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)
        await asyncio.sleep(SWEEP_HOURS * 3600)

    async def _look(self) -> None:
        """Notices edits that other programs, or commands, commit into the database."""
        seen, quiet = DataVersion(), WATCH_SECONDS_IDLE
        while True:
            before, seen = seen, await self.database.data_version()
            quiet = min(quiet * WATCH_GROWTH, WATCH_SECONDS_IDLE)
            if seen.number != before.number and await self.database.read(has_own_changes):
                quiet = WATCH_SECONDS_BUSY
                self._signal.set()
            await asyncio.sleep(quiet)


def _timed(work: Callable[..., Result]) -> Work[Result]:
    """Work that is to end soon, counted from when it has the database: others wait for it (F43)."""
    clock = asyncio.get_running_loop().time

    def timed(connection: sqlite3.Connection) -> Result:
        end = clock() + APPLY_SECONDS
        return work(connection, is_late=lambda: clock() > end)

    return timed

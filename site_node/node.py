"""A site at work: one outer loop that dials, synchronises, waits and dials again, for as long as the daemon lives.

    live        a session stays open and carries changes as they happen; when it ends, the next one is tried at once if
                it had moved something, else after a wait that grows
    scheduled   a session a period, retried in the same way until one has ended with a goodbye

The loop cannot end but by being cancelled. Whatever goes wrong becomes a plain sentence in `status`.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import NamedTuple, Protocol

import structlog
from packhorse.sync.v1 import document_pb2, session_pb2
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.stop import stop_never
from tenacity.wait import wait_base, wait_random_exponential

from engine.catalogue.model import Catalogue
from engine.errors import Code, PackhorseError, Unavailable
from engine.limits import (
    ASIDE_SECONDS,
    RETRY_SECONDS_FIRST,
    RETRY_SECONDS_MAX,
    ROUNDS,
    SWEEP_HOURS,
    SWEEP_PAUSE_SECONDS,
    WATCH_GROWTH,
    WATCH_SECONDS_BUSY,
    WATCH_SECONDS_IDLE,
)
from engine.rpc.local_channel import Progress
from engine.rpc.trace import open_trace
from engine.session.machine import Event, Message
from engine.session.pace import Pace, spread_retry
from engine.storage.database import Database, DataVersion
from engine.storage.eviction import Place as EvictionPlace
from engine.storage.eviction import evict_some
from engine.storage.integrity import Mended, sweep_batch
from engine.storage.outbox import has_pushable
from engine.storage.records import Writer, read_meta
from engine.storage.retention import BEGINNING, Place, begin_day, purge_tombstones
from engine.storage.schema import repair_schema, schema_is_whole
from engine.storage.wants import read_wants
from site_node.session import SiteSession, Tally
from site_node.storage.notes import note

_log = structlog.get_logger("site")
_BROKEN = (Code.LINEAGE_BROKEN, Code.COPIED, Code.CENTRAL_RESTORED, Code.CHAIN_BROKEN)
_REFUSED = (Code.CREDENTIAL_UNKNOWN, Code.PROTOCOL_TOO_OLD, Code.CERTIFICATE_WRONG)


class Ended(NamedTuple):
    """How a session ended."""

    tally: Tally
    error: PackhorseError | None


class SessionFailed(Exception):
    """A session ended without having moved anything."""

    def __init__(self, error: PackhorseError) -> None:
        super().__init__(str(error))
        self.error = error


class ReconnectWait(wait_base):
    """Exponential with full jitter; longer where the central named a time, and longest where a person must act."""

    def __init__(self) -> None:
        self._usual = wait_random_exponential(multiplier=RETRY_SECONDS_FIRST, max=RETRY_SECONDS_MAX)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds until the next attempt."""
        usual = float(self._usual(retry_state))
        failed = retry_state.outcome.exception() if retry_state.outcome else None
        if not isinstance(failed, SessionFailed):
            return usual
        if not failed.error.advice.retry:
            return RETRY_SECONDS_MAX
        asked = failed.error.retry_after_seconds
        return max(usual, spread_retry(asked, random.random())) if asked else usual  # noqa: S311 - as below


class Stream(Protocol):
    """The messages of one session."""

    async def send(self, message: Message) -> None:
        """Writes one message. Raises Unavailable with LINK_CUT."""

    async def receive(self) -> Message | None:
        """Reads one message; None at the end of the stream."""


Dial = Callable[[int, str], AbstractAsyncContextManager[Stream]]
"""Opens a stream to the central for (site number, installation id). Raises PackhorseError."""


class SiteNode:
    """A site with its database open."""

    def __init__(self, database: Database, catalogue: Catalogue, dial: Dial) -> None:
        self.database, self.catalogue, self._dial = database, catalogue, dial
        self.told: Progress = lambda _phase, _remaining: None
        self.unnoted: dict[str, str] = {}
        """What the database could not take of what this node last said of itself, for `status`."""
        self._trace = open_trace()
        self._session: SiteSession | None = None
        self._begun, self._wake = asyncio.Event(), asyncio.Event()
        self._waiters: list[asyncio.Future[Ended]] = []
        self._waiters_for_next: list[asyncio.Future[Ended]] = []
        self._swept_at = 0.0
        self._pace = Pace()
        self._eviction: asyncio.Task[None] | None = None
        self._must_evict = False

    # --- one session --------------------------------------------------------------------------------------------------

    async def synchronise(self, stay: bool = False) -> Ended:
        """Runs one session; errors come back in the result."""
        meta = await self.database.read(read_meta)
        me = Writer(int(meta["site"]), meta["epoch"])
        session = SiteSession(self.database, self.catalogue, me, stay, self._pace, self._tell, self._trace(me.site))
        session.on_report, session.on_left = self._reported, self.evict
        error: PackhorseError | None
        try:
            async with self._dial(me.site, meta["installation"]) as stream:
                await self._sweep()
                await self._say("syncing", None)
                self._session = session
                self._begun.set()
                error = await session.run(stream.send, stream.receive)
        except PackhorseError as failed:
            error = failed
        finally:
            self._session = None
            self._begun.clear()
            waiters, self._waiters, self._waiters_for_next = self._waiters, self._waiters_for_next, []
        if self._eviction is not None and not stay:
            await self._eviction
        ended = Ended(session.tally, error)
        await self._say(_link_state(error), error)
        _tell(waiters, ended)
        return ended

    def _tell(self, phase: str, remaining: int | None) -> None:
        self.told(phase, remaining)

    async def _say(self, link: str, error: PackhorseError | None) -> None:
        facts = {"link": link}
        if error is not None:
            facts |= {"last_error": error.sentence, "last_error_code": error.code.value}
            if error.code in _BROKEN:
                facts["agreed"] = "0"
        try:
            await self.database.write(lambda connection: note(connection, **facts))
            self.unnoted = {}
        except PackhorseError as failed:
            self.unnoted = facts | {"last_error": failed.sentence, "last_error_code": failed.code.value}
            _log.warning("the state could not be noted", code=failed.code, what=failed.what)

    def evict(self) -> None:
        """Has what left a scope go, piece by piece, beside the session."""
        self._must_evict = True
        if self._eviction is None or self._eviction.done():
            self._eviction = asyncio.create_task(self._evict_all(), name="site eviction")

    async def _evict_all(self) -> None:
        while self._must_evict:
            self._must_evict = False
            try:
                await self._evict_from(EvictionPlace())
            except PackhorseError as failed:  # the next checkpoint begins again
                _log.warning("what left a scope could not be removed", code=failed.code, what=failed.what)

    async def _evict_from(self, place: EvictionPlace | None) -> None:
        while place is not None:
            work = partial(evict_some, catalogue=self.catalogue, place=place, now=int(time.time()))
            place = await self.database.write(work)

    async def _sweep(self) -> None:
        """Checks tables and triggers, and at the first session and once a day the rows themselves (F43)."""
        if not await self.database.read(partial(schema_is_whole, catalogue=self.catalogue)):
            await self.database.write(partial(repair_schema, catalogue=self.catalogue))
            _log.warning("tables or triggers had been changed and were made again")
            self._swept_at = 0.0
        if self._swept_at and time.monotonic() - self._swept_at < SWEEP_HOURS * 3600:
            return
        after = ("", "")
        while True:
            mended, after = await sweep_batch(self.database, self.catalogue, after, int(time.time()))
            if mended != Mended():
                _log.warning("uncaptured edits were found", queued=mended.queued, put_aside=mended.put_aside)
            if self._session is not None:
                await asyncio.sleep(SWEEP_PAUSE_SECONDS)
            if after == ("", ""):
                break
        await self._purge()
        self._swept_at = time.monotonic()
        wants = await self.database.read(read_wants)
        session = self._session
        if session is not None:
            wanted = [document_pb2.RecordKey(table=table, id=record_id) for table, record_id in wants]
            session.post(Event("wanted", wanted))
            session.post(Event("changed"))
            session.look_at_hidden_again()

    async def _sweep_daily(self) -> None:
        """A session may last for weeks: what it would be preceded by happens beside it."""
        await asyncio.sleep(SWEEP_HOURS * 3600)
        self._swept_at = 0.0
        await self._sweep()

    async def _purge(self) -> None:
        """Forgets what was deleted long ago (F38)."""
        await self.database.write(partial(begin_day, now=int(time.time())))
        after: Place | None = BEGINNING
        while after is not None:
            after = (await self.database.write(partial(purge_tombstones, after=after))).after

    # --- synchronising because somebody asked -------------------------------------------------------------------------

    async def synchronise_now(self) -> Ended:
        """Has the running loop synchronise now; returns when both sides agree, or when it is clear that they do not."""
        last: Ended | None = None
        for _ in range(ROUNDS):
            waiter: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
            if self._session is not None and self._session.machine.state in ("leaving", "closed"):
                self._waiters_for_next.append(waiter)  # what this session found says nothing of edits since
            else:
                self._waiters.append(waiter)
            if self._session is not None:
                self._session.post(Event("round_wanted"))
            self._wake.set()
            last = await waiter
            if last.error is not None or (last.tally.report is not None and last.tally.report.in_agreement):
                break
        assert last is not None
        return last

    def _reported(self, report: session_pb2.CheckpointReport) -> None:
        del report
        if self._session is not None:
            waiters, self._waiters = self._waiters, []
            _tell(waiters, Ended(self._session.tally, None))

    # --- the outer loop -----------------------------------------------------------------------------------------------

    async def run_forever(self, every_minutes: float | None) -> None:
        """Synchronises until it is cancelled: live, or once in `every_minutes`."""
        beside = [
            asyncio.create_task(self._forever(loop), name=f"site {loop.__name__}")
            for loop in (self._look, self._sweep_daily)
        ]
        try:
            await self._forever(partial(self._cycle, every_minutes))
        finally:
            if self._eviction is not None:
                beside.append(self._eviction)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _forever(self, loop: Callable[[], object]) -> None:
        while True:
            try:
                await loop()  # type: ignore[misc]
            except asyncio.CancelledError:
                raise
            except Exception as error:
                _log.exception("a step failed", step=getattr(loop, "__name__", "cycle"))
                known = error if isinstance(error, PackhorseError) else None
                unknown = Unavailable(Code.INTERNAL, "Something unexpected happened at this site.")
                await self._say("offline", known or unknown)
                await asyncio.sleep(1.0)

    async def _cycle(self, every_minutes: float | None) -> None:
        retrying = AsyncRetrying(
            wait=ReconnectWait(),
            stop=stop_never,
            retry=retry_if_exception_type(SessionFailed),
            sleep=self._pause,
        )
        async for attempt in retrying:
            with attempt:
                ended = await self.synchronise(stay=every_minutes is None)
                if ended.error is not None:
                    _log.info("session ended", code=ended.error.code, what=ended.error.what)
                    if not ended.tally.progressed or not ended.error.advice.retry:
                        raise SessionFailed(ended.error)
        if every_minutes is None or ended.error is not None:
            # The link works: the first attempt after a cut comes at once.
            await asyncio.sleep(random.uniform(0.0, 0.1))  # noqa: S311 - spreads sites, keeps no secret
        else:
            await self._pause(every_minutes * 60)

    async def _pause(self, seconds: float) -> None:
        """Waits, unless somebody asks for a synchronisation meanwhile."""
        _log.info("waiting", seconds=round(seconds, 1))
        self._wake.clear()
        if self._waiters:
            return
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass  # nobody asked

    async def _look(self) -> None:
        """Notices edits that other programs commit into the database, and tells the session that is open."""
        seen, quiet = DataVersion(), WATCH_SECONDS_IDLE
        while True:
            if self._session is None:
                await self._begun.wait()
            else:  # while it reads the outbox anyway it finds them by itself
                await self._session.until_all_is_sent()
            before, seen = seen, await self.database.data_version()
            quiet = min(quiet * WATCH_GROWTH, WATCH_SECONDS_IDLE)
            if seen.number != before.number and (seen.shows_others(before) or await self._has_pushable()):
                session = self._session
                if session is not None:
                    session.edited()
                    if session.stays:  # elsewhere nobody waits for the next edit
                        quiet = WATCH_SECONDS_BUSY
            await asyncio.sleep(quiet)

    async def _has_pushable(self) -> bool:
        """Asked after a commit of this node's own. Nobody waits for the answer: what was committed is sent first."""
        await asyncio.sleep(ASIDE_SECONDS)
        return await self.database.read(has_pushable)


def _tell(waiters: list[asyncio.Future[Ended]], ended: Ended) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(ended)


def _link_state(error: PackhorseError | None) -> str:
    if error is None:
        return "idle"
    if error.code in _BROKEN:
        return "lineage_broken"
    return "refused" if error.code in _REFUSED else "offline"

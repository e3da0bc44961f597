"""A site and a central with real machines, joined by a fake link, in a world where anything may happen at any moment.

The world is a list of moves that are possible now; a seeded generator picks the next one, so that a seed is a history.
In a *storm* the link is cut (losing any suffix of what is under way in each direction), either end crashes (keeping its
store), the central is busy or drains, people edit and ask for things. In the *calm* after it only what was begun goes
on. What must never happen is checked after every move; what must have happened is checked at rest.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PackhorseError, PeerProblem
from engine.limits import ROUNDS
from engine.session.frames import Link
from engine.session.machine import Event
from engine.session.pace import Pace
from tests.engine.session.ends import CentralEnd, End, Move, Pipe, SiteEnd
from tests.engine.session.lanes import LARGE, NEED_WHOLE
from tests.engine.session.stores import FEEDS, CentralStore, SiteStore

HONEST = (Code.LINK_CUT, Code.SUPERSEDED, Code.DRAINING, Code.PEER_SILENT)
"""How a session between two correct ends may end without a goodbye."""
SLOW_KINDS = (
    *("writes", "reads", "takes a turn", "has waited", "is noticed", "has moved"),
    *("reports frames_loaded", "reports acknowledgement_stored", "reports pull_stored", "reports compared"),
    *("reports page_loaded", "reports wanted_loaded", "reports checkpoint_loaded"),
    *("performs load_frames", "performs store_acknowledgement", "performs store_pull", "performs compare"),
    *("performs ingest", "performs load_page", "performs load_wanted", "performs load_checkpoint"),
)
_SLOW = 0.01
_CALM_MOVES = 5_000


@dataclass(frozen=True)
class World:
    """What may happen in a storm, and how often compared with a move of an end (1)."""

    stay: bool = True
    window: int = 2
    records_per_frame: int = 2
    edits: int = 20
    """How many there are in the whole storm, at either end."""
    edit: float = 0.3
    publish: float = 0.3
    traits: tuple[str, ...] = ("",)
    depth: int = 0
    cut: float = 0.0
    crash: float = 0.0
    drain: float = 0.0
    asks: int = 0
    """How often somebody wants a round, or the site to leave."""
    busy: float = 0.0
    """Share of the central's turns."""
    slow: frozenset[str] = frozenset()
    """Kinds of moves that are rare in this world, so that much happens between them."""


class Ended(NamedTuple):
    """A session of the site that is over."""

    error: PackhorseError | None
    rounds: int
    calm: bool
    """It began after the storm."""


@dataclass
class Pair:
    """See the module."""

    seed: int
    world: World
    ended: list[Ended] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.site_store = SiteStore(self.world.records_per_frame)
        self.central_store = CentralStore(self.world.window, self.world.records_per_frame)
        self.site: SiteEnd | None = None
        self.centrals: list[CentralEnd] = []
        """The newest last; older ones are connections whose end the central has not noticed."""
        self.registered: CentralEnd | None = None
        self.submitted: deque[tuple[CentralEnd, document_pb2.Frame]] = deque()
        self.site_pace, self.central_pace = Pace(), Pace()
        self.sessions = self.highest_sent = self.edits = self.asks = 0
        self.is_calm = self.began_calm = False

    # --- running ------------------------------------------------------------------------------------------------------

    def storm(self, moves: int) -> None:
        """Lets so many moves happen."""
        for _ in range(moves):
            self.move()

    def calm(self) -> None:
        """Ends the storm and lets everything that was begun come to rest.

        A site that does not stay connected is given one more session, as its schedule would.
        """
        self.is_calm = True
        for _ in range(_CALM_MOVES):
            if not self.move():
                return
        raise AssertionError(f"not at rest after {_CALM_MOVES} moves: {self.history[-40:]}")

    def break_now(self, how: str, kept: int = 0) -> None:
        """An end crashes, or the link is cut so that only so many messages of each direction still arrive."""
        if how == "the central crashes":
            self._crash_central()
        elif self.site is None:
            return
        elif how == "the site crashes":
            self._crash_site()
        else:
            for pipe in (self.site.reads, self.site.writes):
                pipe.cut(kept)

    def move(self) -> bool:
        """Makes one possible move; returns whether there was one."""
        ends = [move for end in self._ends() for move in end.moves()]
        moves = [*ends, *self._central_moves(), *self._world_moves()]
        if not moves:
            return False
        if all(move.kind == "has waited" for move in moves):
            self._check_nobody_waits()
        weights = [move.weight * (_SLOW if move.kind in self.world.slow else 1) for move in moves]
        chosen = self.random.choices(moves, weights)[0]
        self.history.append(f"{chosen.who} {chosen.kind}")
        chosen.make()
        self._check()
        self._bury()
        return True

    def _ends(self) -> list[End]:
        return [*([self.site] if self.site is not None else []), *self.centrals]

    def _bury(self) -> None:
        """Forgets the sessions that are over."""
        for end in self._ends():
            error = end.finish.error if end.finish is not None else None
            # A Hello that was under way when its link died may be read long after newer ones.
            late = end.reads.is_cut and error is not None and error.code is Code.LINEAGE_BROKEN
            assert error is None or late or error.code in HONEST, f"{end.name} ended with {error.code}: {error.what}"
        self.centrals = [central for central in self.centrals if not central.gone]
        if self.registered is not None and self.registered.gone:
            self.registered = None
        if self.site is not None and self.site.gone:
            assert self.site.finish is not None
            self._end_site(self.site, self.site.finish.error)

    def _end_site(self, site: SiteEnd, error: PackhorseError | None) -> None:
        self.ended.append(Ended(error, site.machine.rounds_run, self.began_calm))
        self.highest_sent = site.highest
        self.site = None

    # --- what can happen ----------------------------------------------------------------------------------------------

    def _central_moves(self) -> list[Move]:
        return [Move("the central", "takes a turn", self._turn)] if self.submitted else []

    def _world_moves(self) -> list[Move]:
        found: list[Move] = []
        if self.site is None and (not self.is_calm or (self._wants_session() and not self.centrals)):
            found.append(Move("the site", "dials", self.dial))
        if self.site_store.unnoticed:
            found.append(Move("an edit", "is noticed", self._notice))
        if self.central_store.unmoved:
            found.append(Move("a feed", "has moved", self._tell_moved))
        return found if self.is_calm else [*found, *self._storm_moves()]

    def _wants_session(self) -> bool:
        return self.world.stay or not any(ended.calm for ended in self.ended)

    def _storm_moves(self) -> list[Move]:
        world = self.world
        found: list[Move] = []
        if self.edits < world.edits:
            found.append(Move("a program", "edits", self._edit, world.edit))
            found.append(Move("the central", "publishes", self._publish, world.publish))
        if self.centrals:
            found.append(Move("a link", "is cut", self._cut, world.cut))
            found.append(Move("the central", "crashes", self._crash_central, world.crash))
            found.append(Move("the central", "drains", self._drain, world.drain))
        if self.site is not None:
            found.append(Move("the site", "crashes", self._crash_site, world.crash))
            if self.asks < world.asks:
                found.append(Move("somebody", "wants a round", self.want_round, 0.1))
                found.append(Move("somebody", "wants the site to leave", self.leave, 0.02))
        return [move for move in found if move.weight]

    def dial(self) -> None:
        """The site opens a session."""
        assert self.site is None
        self.sessions += 1
        self.began_calm = self.is_calm
        up, down = Pipe(), Pipe()
        self.site = SiteEnd(self.site_store, self.world.stay, self.site_pace, self.highest_sent, down, up)
        central = CentralEnd(
            self.central_store, self.sessions, self.central_pace, self._register, self._submit, up, down
        )
        self.centrals.append(central)

    def _register(self, central: CentralEnd) -> None:
        older, self.registered = self.registered, central
        if older is not None:
            older.post(Event("failed", PeerProblem(Code.SUPERSEDED, "A newer session took over.")))

    def _submit(self, central: CentralEnd, frame: document_pb2.Frame) -> None:
        self.submitted.append((central, frame))

    def _turn(self) -> None:
        """The central takes some of the frames that were submitted, or is busy."""
        size = self.random.randint(1, len(self.submitted))
        batch = [self.submitted.popleft() for _ in range(size)]
        if not self.is_calm and self.random.random() < self.world.busy:
            self._say_busy(batch)
            return
        for central, frame in batch:
            try:
                told = self.central_store.take(frame, central.session)
            except PackhorseError as error:
                central.post(Event("failed", error))
            else:
                if told is not None:
                    central.post(Event("frame_ingested", told))

    def _say_busy(self, batch: list[tuple[CentralEnd, document_pb2.Frame]]) -> None:
        """For the first frame of each session; those behind it report nothing any more."""
        first: dict[int, tuple[CentralEnd, document_pb2.Frame]] = {}
        for central, frame in batch:
            first.setdefault(central.session, (central, frame))
        self.submitted = deque(waiting for waiting in self.submitted if waiting[0].session not in first)
        for central, frame in first.values():
            busy = session_pb2.Busy(number=frame.number, retry_after_milliseconds=self.random.choice((0, 5_000)))
            central.submitted = Link(frame.previous_number, frame.previous_hash)
            central.post(Event("ingest_busy", (busy, central.submitted)))

    def _edit(self) -> None:
        self.edits += 1
        trait = self.random.choice([trait for trait in self.world.traits if trait in ("", NEED_WHOLE, LARGE)])
        self.site_store.edit(self.random.randint(0, self.world.depth), trait)
        self.site_store.unnoticed += self.random.randint(0, 1)  # one commit may be noticed twice

    def _publish(self) -> None:
        self.edits += 1
        trait = self.random.choice([trait for trait in self.world.traits if trait != "need-whole"])
        self.central_store.publish(self.random.choice(FEEDS), self.random.randint(0, self.world.depth), trait)

    def _notice(self) -> None:
        self.site_store.unnoticed -= 1
        if self.site is not None:
            self.site.post(Event("changed"))

    def _tell_moved(self) -> None:
        self.central_store.unmoved -= 1
        if self.registered is not None:
            self.registered.post(Event("feed_moved"))

    def want_round(self) -> None:
        """Somebody at the site wants another round."""
        assert self.site is not None
        self.asks += 1
        self.site.post(Event("round_wanted"))
        self.site.round_owed = self.site.finish is None

    def leave(self) -> None:
        """Somebody at the site wants the session to end."""
        assert self.site is not None
        self.asks += 1
        self.site.post(Event("leave"))

    def _cut(self) -> None:
        central = self.random.choice(self.centrals)
        for pipe in (central.reads, central.writes):
            pipe.cut(self.random.randint(0, len(pipe.items)))

    def _crash_site(self) -> None:
        assert self.site is not None
        for pipe in (self.site.reads, self.site.writes):
            pipe.cut(self.random.randint(0, len(pipe.items)))
        self._end_site(self.site, PeerProblem(Code.LINK_CUT, "The site crashed."))
        self.site_pace = Pace()

    def _crash_central(self) -> None:
        for central in self.centrals:
            for pipe in (central.reads, central.writes):
                pipe.cut(self.random.randint(0, len(pipe.items)))
        self.centrals, self.registered, self.central_pace = [], None, Pace()
        self.submitted.clear()

    def _drain(self) -> None:
        for central in self.centrals:
            central.post(Event("drain"))

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Never: an order changed, anything twice, a promise without the commit behind it."""
        site, central = self.site_store, self.central_store
        for large in (False, True):  # what goes in parts overtakes nothing of its kind
            applied, made = (
                [i for i in every if (i.trait == LARGE) == large] for every in (central.changes, site.changes)
            )
            assert applied == made[: len(applied)]
        assert site.acknowledged <= central.head.number
        for feed, entries in site.entries.items():
            assert entries == central.feeds[feed][: len(entries)]
            assert central.noted[feed] <= len(entries)

    def _check_nobody_waits(self) -> None:
        """An end that waits for its peer while nothing is under way would end the session for silence."""
        for end in self._ends():
            assert not end.machine.waits, f"{end.name} waits in {end.machine.state}; nothing is under way"

    def check_carried(self) -> None:
        """At rest: everything is at the other end, both know it, and the session is as it should be."""
        site, central = self.site_store, self.central_store
        assert len(central.changes) == len(site.changes), "changes stayed at the site"
        assert {feed: len(entries) for feed, entries in central.feeds.items()} == site.positions()
        assert not site.waiting and not site.wants
        if self.world.stay:
            assert self.site is not None and self.site.machine.state == "exchanging"
            assert not self.site.round_owed, "a round was asked for and never came"
        else:
            assert self.site is None and self.ended[-1].calm and self.ended[-1].error is None
            assert self.ended[-1].rounds <= ROUNDS
        assert central.report is not None and central.report.in_agreement
        self._check_nobody_waits()

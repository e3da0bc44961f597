"""Frames of many sites share a transaction: one that fails harms no other, and one that kills is set aside (F39)."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.node import CentralNode
from central_node.storage import steps
from central_node.storage.attempts import Submitted, note_attempts
from central_node.storage.eras import begin_era
from central_node.storage.ingest import Ingest
from central_node.storage.pushed import Pushed
from central_node.storage.tables import CENTRAL_TABLES
from engine.limits import INGEST_ATTEMPTS
from engine.rpc.trace import Trace
from engine.session.machine import Event
from engine.storage.aiosqlite_database import open_database
from field_lab.core_catalogue import core_catalogue
from tests.partners import Central, Site, connect, pull, push, synchronise

POISON = "poison"
ROLES = ("good", "poison", "good")


class Died(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(name="nodes")
def three_sites(tmp_path: Path) -> tuple[Central, list[Site]]:
    central = Central(tmp_path / "node-1.db")
    sites = [central.add(tmp_path, number) for number in (2, 3, 4)]
    for site in sites:
        assert synchronise(central, site).in_agreement
    return central, sites


def is_poison(ids: Iterable[str]) -> bool:
    return any(document_id.startswith(POISON) for document_id in ids)


def poisoned(monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]) -> None:
    """From now on SQL fails in this way for a document of that id, after a part of it was written."""
    real = Ingest.take

    def take(self: Ingest, documents: Sequence[Pushed]) -> Any:
        taken = real(self, documents)
        if is_poison(document.key[1] for document in documents):
            raise error()
        return taken

    monkeypatch.setattr(Ingest, "take", take)


def edit(site: Site, has_poison: bool) -> None:
    site.put_stock(f"a{site.number}")
    if has_poison:
        site.put_invoice(f"{POISON}{site.number}", ["x", "y"])
    site.put_invoice(f"i{site.number}", ["x"])


@pytest.mark.parametrize("where", list(product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("error", [sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeError])
def test_f39_only_the_culprit_is_held(
    nodes: tuple[Central, list[Site]],
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[bool, ...],
    error: type[Exception],
) -> None:
    central, sites = nodes
    frames = []
    for site, has_poison in zip(sites, where, strict=True):
        connect(central, site)
        edit(site, has_poison)
        frames += [central.submitted(site, frame) for frame in site.cut_all()]
    poisoned(monkeypatch, lambda: error("refused"))
    taken = central.take(frames)
    held = {tuple(row) for row in central.execute("SELECT id, site, code FROM sync_held")}
    culprits = [site for site, has_poison in zip(sites, where, strict=True) if has_poison]
    assert held == {(f"{POISON}{site.number}", site.number, "UNREADABLE") for site in culprits}
    for site, told in zip(sites, taken.acknowledgements, strict=True):
        assert isinstance(told, session_pb2.Acknowledgement)
        assert bool(told.outcomes) == where[site.number - 2]
        site.settle(told)
        assert site.count("sync_outbox") == (3 if told.outcomes else 0)
    assert central.count("stock_line") == 3 and not central.count("invoice", f"id LIKE '{POISON}%'")
    monkeypatch.undo()
    for site in sites:
        pull(central, site)
        site.execute("UPDATE invoice SET comment = 'again'")
        push(central, site)
        assert synchronise(central, site).in_agreement, "nothing of the failure is left in heads or digests"


def attempt(central: Central, submitted: list[Submitted], outcome: str) -> None:
    """A run of the central: what is noted, and how it ends."""
    central.write(lambda c: begin_era(c, central.count("central_era") + 1_000))
    together = central.write(lambda c: note_attempts(c, submitted))
    if outcome == "dies":
        return
    if outcome == "survives":
        central.take(submitted[:together])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_f39_a_frame_that_kills_the_process_is_set_aside(
    nodes: tuple[Central, list[Site]], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Three runs end while they take it; in the fourth it is kept whole, and what came with it is taken long before."""
    central, sites = nodes
    submitted = []
    for number, site in enumerate(sites):
        connect(central, site)
        edit(site, number == place)
        submitted += [central.submitted(site, frame) for frame in site.cut_all()]
    deaths = 0
    monkeypatch.setattr(steps, "_ingest", _dies_of_poison(steps._ingest))
    for life in range(INGEST_ATTEMPTS + 3):
        central.write(lambda c, life=life: begin_era(c, 1_000 + life))  # type: ignore[misc]
        waiting = [s for s in submitted if s.writer.site not in _taken(central, submitted)]
        try:
            while waiting:
                together = central.write(lambda c, frames=waiting: note_attempts(c, frames))  # type: ignore[misc]
                central.take(waiting[:together])
                waiting = waiting[together:]
        except Died:
            deaths += 1
            assert deaths < 2 or len(_taken(central, submitted)) == place, "what came before it is taken"
            waiting = []
        if len(_taken(central, submitted)) == len(submitted):
            break
    assert deaths == INGEST_ATTEMPTS
    assert not central.count("central_attempt")
    (held,) = central.execute("SELECT site, code, document FROM sync_held")
    assert held[:2] == (sites[place].number, "UNREADABLE")
    raw = document_pb2.Document.FromString(held[2]).records[0].content
    assert raw == submitted[place].frame.body, "it is kept as it came"
    site = sites[place]
    waits = site.count("sync_outbox")
    connect(central, site)
    assert site.count("sync_outbox") == waits == 7 - 1, "every change of it is still here"
    assert site.count("sync_outcome", "disposition = 'held'") == 3
    monkeypatch.undo()
    for site in sites:
        for table in ("stock_line", "invoice"):
            column = "batch" if table == "stock_line" else "comment"
            site.execute(f"UPDATE {table} SET {column} = 'again'")
        connect(central, site)
        push(central, site)
        pull(central, site)
        for table in ("stock_line", "invoice"):
            assert site.rows(table) <= central.rows(table), "it comes again whole once it is edited"


def _taken(central: Central, submitted: list[Submitted]) -> set[int]:
    heads = dict(central.execute("SELECT site, frame_number FROM central_site"))
    return {s.writer.site for s in submitted if heads[s.writer.site] >= s.frame.number}


def _dies_of_poison(real: Callable[..., Any]) -> Callable[..., Any]:
    def ingest(*arguments: Any) -> Any:
        if is_poison(document.id for document in arguments[-2]):
            raise Died
        return real(*arguments)

    return ingest


@pytest.mark.parametrize("survived", [1, 2, 5])
def test_f39_attempts_that_were_survived_do_not_count(nodes: tuple[Central, list[Site]], survived: int) -> None:
    """A disk that was full, or a run that was ended in peace, is no reason to set a frame aside."""
    central, sites = nodes
    connect(central, sites[0])
    edit(sites[0], False)
    submitted = [central.submitted(sites[0], frame) for frame in sites[0].cut_all()]
    for _ in range(survived):
        assert central.write(lambda c: note_attempts(c, submitted)) == 1
    (told,) = central.take(submitted).acknowledgements
    assert isinstance(told, session_pb2.Acknowledgement) and not told.outcomes
    assert not central.count("central_attempt")
    assert not central.count("sync_held")


class Listener:
    """A session that hears what became of its frames."""

    def __init__(self, site: int) -> None:
        self.site = site
        self.heard: list[Event] = []
        self.trace: Trace = lambda _word, _value: None

    def post(self, event: Event) -> None:
        """What the loop says."""
        self.heard.append(event)

    def follows(self, scopes: set[str]) -> bool:
        """Nobody is told of feeds here."""
        return False


@pytest.fixture(name="running")
async def running_central(nodes: tuple[Central, list[Site]]) -> Any:
    central, _ = nodes
    database = await open_database(central.path, core_catalogue(), CENTRAL_TABLES)
    node = CentralNode(database, core_catalogue())
    await node.start()
    yield node
    await node.stop()
    await database.close()


def submit(node: CentralNode, central: Central, sites: list[Site], frames_each: int) -> list[Listener]:
    """Each site hands in frames, all at once, mixed."""
    listeners = [Listener(site.number) for site in sites]
    queues: list[Iterator[document_pb2.Frame]] = []
    for site in sites:
        connect(central, site)
        for number in range(frames_each):
            site.put_invoice(f"i{site.number}-{number}", ["x", "y"])
            site.cut()
        queues.append(iter(site.frames()))
    for _ in range(frames_each):
        for site, listener, queue in zip(sites, listeners, queues, strict=True):
            node.submit(listener, central.submitted(site, next(queue)))
    return listeners


@pytest.mark.parametrize("failing", [(2,), (3,), (2, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("error", ["database or disk is full", "no such table: broken"])
async def test_f39_a_commit_that_fails_is_tried_one_by_one(
    nodes: tuple[Central, list[Site]],
    running: CentralNode,
    monkeypatch: pytest.MonkeyPatch,
    failing: tuple[int, ...],
    error: str,
) -> None:
    """The whole transaction fails because of one site's frame: that site is told to wait, the others are taken."""
    central, sites = nodes
    real = steps._take_frame

    def take(connection: sqlite3.Connection, *arguments: Any) -> Any:
        submitted = next(argument for argument in arguments if isinstance(argument, Submitted))
        if submitted.writer.site in failing:
            raise _operational(error)
        return real(connection, *arguments)

    monkeypatch.setattr(steps, "_take_frame", take)
    listeners = submit(running, central, sites, 2)
    await _until(lambda: all(listener.heard for listener in listeners) and not running._frames)
    for listener in listeners:
        names = [event.name for event in listener.heard]
        if listener.site in failing:
            assert set(names) == {"ingest_busy"}, "nothing of it was applied, and it is told so"
            assert listener.heard[0].value[0].number == min(event.value[0].number for event in listener.heard)
        else:
            assert names == ["frame_ingested"] * 2


def _operational(text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = "SQLITE_FULL" if "full" in text else "SQLITE_ERROR"
    return error


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["late at once", "never late"])
async def test_f43_what_does_not_fit_into_a_transaction_is_for_the_next(
    nodes: tuple[Central, list[Site]], running: CentralNode, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """However little time a transaction has, every frame is taken, each site's in order, each document whole."""
    monkeypatch.setattr("central_node.node.APPLY_SECONDS", seconds)
    sizes: list[int] = []
    real = steps.take_frames

    def take(connection: sqlite3.Connection, *arguments: Any, **more: Any) -> Any:
        taken = real(connection, *arguments, **more)
        sizes.append(len(taken.acknowledgements))
        lines = "SELECT count(*) FROM invoice_line AS l WHERE l.invoice_id = i.id"
        assert not connection.execute(f"SELECT 1 FROM invoice AS i WHERE ({lines}) <> 2").fetchall()
        return taken

    monkeypatch.setattr("central_node.node.take_frames", take)
    central, sites = nodes
    listeners = submit(running, central, sites, 4)
    await _until(lambda: sum(len(listener.heard) for listener in listeners) == 12)
    for site, listener in zip(sites, listeners, strict=True):
        assert [event.value.number for event in listener.heard] == [frame.number for frame in site.frames()]
    assert max(sizes) == 1 if not seconds else max(sizes) > 1

"""A central and its sites on real database files; what they tell each other is handed over by calls.

The functions are those that the sessions call, without sockets, tasks or waits, so that a test can lose, repeat or
delay any message and look at the databases in between. Each site has one store, `store-N`, active there and collected
by the central; the central has the items `item-0` to `item-4`.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.attempts import Submitted
from central_node.storage.checkpoints import read_checkpoint
from central_node.storage.copies import administering
from central_node.storage.effects import change_topology
from central_node.storage.eras import begin_era
from central_node.storage.follow_up import do_follow_up
from central_node.storage.roster import enrol, expect_site, note_positions, open_session, take_positions
from central_node.storage.steps import Taken, refresh_topology, route_own, take_frames, wake_held
from central_node.storage.stores import STORE_AS_SUBJECT, add_visibility
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, assign_store, found_central, set_sync_with
from engine.catalogue.model import Catalogue
from engine.errors import PackhorseError
from engine.rules.copies import SyncWith
from engine.rules.routing import site_scope
from engine.rules.topology import CopyType
from engine.session.frames import Link
from engine.storage.chain import frames_exceed, last_number, stored_frames, void_frames
from engine.storage.configuration import read_topology
from engine.storage.database import snapshot, transact
from engine.storage.eviction import Place, evict_some, reach_checkpoint
from engine.storage.integrity import Mended, mend, queue_for_central, sweep_rows
from engine.storage.outbox import write_beyond
from engine.storage.pages import Cursor, advanced, read_page, read_wanted
from engine.storage.positions import Comparison, compare, drop_unseen, note_filled, positions_hash, read_positions
from engine.storage.push import FULL_SIZE, cut_frame
from engine.storage.receive import Received, apply_pull
from engine.storage.records import Writer, applying, read_meta, write_meta
from engine.storage.schema import prepare
from engine.storage.settle import retry_deferred, settle
from engine.storage.sqlite_file import open_writer
from engine.storage.wants import read_wants
from field_lab.core_catalogue import core_catalogue
from site_node.storage.notes import found_site, report_on

NOW = 1_800_000_000
EVERY_TABLE = frozenset(table.name for table in core_catalogue())
Result = TypeVar("Result")
Acknowledgement = session_pb2.Acknowledgement | PackhorseError | None


class Node:
    """A database and what a program does to it."""

    def __init__(self, path: Path, more: tuple[str, ...] = (), known: Catalogue | None = None) -> None:
        self.path, self.now, self.catalogue = path, NOW, known or core_catalogue()
        self.connection = open_writer(path)
        self.connection.execute("PRAGMA synchronous = OFF")  # nothing here cuts the power
        self._more = more
        self.upgrade(self.catalogue)

    def upgrade(self, known: Catalogue) -> None:
        """Its program is replaced by one with another catalogue."""
        self.catalogue, self.tables = known, frozenset(table.name for table in known.synchronised)
        prepare(self.connection, known, self._more)

    def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Runs work in a transaction."""
        return transact(self.connection, work)

    def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Runs work in a snapshot."""
        return snapshot(self.connection, work)

    def execute(self, sql: str, *values: object) -> list[Any]:
        """One statement of another program, committed."""
        return self.connection.execute(sql, values).fetchall()

    def sweep(self) -> Mended:
        """What was changed behind the triggers is found and mended."""
        damaged: list[tuple[str, str]] = []
        swept = self.read(lambda c: sweep_rows(c, core_catalogue(), ("", "")))
        while swept.last != ("", ""):
            damaged += swept.damaged
            swept = self.read(partial(sweep_rows, catalogue=core_catalogue(), after=swept.last))
        return self.write(lambda c: mend(c, core_catalogue(), damaged, self.now))

    def behind(self, *statements: str) -> None:
        """What a program does that has switched the triggers off."""

        def execute(connection: sqlite3.Connection) -> None:
            with applying(connection):
                for statement in statements:
                    connection.execute(statement)

        self.write(execute)

    def rows(self, table: str) -> set[tuple[Any, ...]]:
        """Every row of a table."""
        return set(self.connection.execute(f"SELECT * FROM {table}"))

    def count(self, table: str, where: str = "1") -> int:
        """How many rows of a table fulfil a condition."""
        return int(self.connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])


class Site(Node):
    """A site with its one store."""

    def __init__(self, path: Path, number: int, epoch: bytes, known: Catalogue | None = None) -> None:
        super().__init__(path, known=known)
        self.number, self.store, self.epoch = number, f"store-{number}", epoch
        self.me = Writer(number, epoch.hex())
        self.write(lambda c: found_site(c, number, f"site {number}", secrets.token_hex(16), epoch))

    def put_stock(self, name: str, batch: str = "", item: str = "item-0") -> None:
        """Inserts or updates a stock line."""
        self.execute(
            "INSERT INTO stock_line (id, store_id, item_id, batch) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, item_id = excluded.item_id",
            name, self.store, item, batch,
        )  # fmt: skip

    def put_invoice(self, name: str, lines: Sequence[str], comment: str = "") -> None:
        """Writes an invoice with these lines, in one transaction."""

        def put(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO invoice (id, store_id, name_id, status, comment) VALUES (?, ?, 'name', 'new', ?)"
                " ON CONFLICT (id) DO UPDATE SET comment = excluded.comment",
                (name, self.store, comment),
            )
            connection.executemany(
                "INSERT INTO invoice_line (id, invoice_id, item_id) VALUES (?, ?, 'item-0') ON CONFLICT DO NOTHING",
                [(f"{name}/{line}", name) for line in lines],
            )

        self.write(put)

    def cut(self, size: tuple[int, int] = FULL_SIZE) -> document_pb2.Frame | None:
        """Cuts the next frame."""
        return self.write(lambda c: cut_frame(c, self.catalogue, self.number, self.now, size))

    def cut_all(self, size: tuple[int, int] = FULL_SIZE) -> list[document_pb2.Frame]:
        """Cuts until nothing waits; returns every frame that is not settled, those of before included."""
        while self.cut(size):
            pass
        return self.frames()

    def frames(self, after: int = 0) -> list[document_pb2.Frame]:
        """What was cut and is not settled, as it would be sent."""
        return self.read(lambda c: stored_frames(c, after, 1000))

    def recut(self, welcome: session_pb2.Welcome, records: int, size_bytes: int = 1 << 20) -> int:
        """What a session does with frames that are too large for the link; returns how many it takes back."""
        applied = Link(welcome.last_applied, welcome.last_applied_hash)
        return self.write(lambda c: void_frames(c, applied) if frames_exceed(c, records, size_bytes) else 0)

    def settle(self, told: session_pb2.Acknowledgement) -> int:
        """Takes note of an acknowledgement."""
        return self.write(lambda c: settle(c, told, self.number, self.epoch.hex()).records)

    def apply(self, body: document_pb2.PullBody) -> Received:
        """Takes a pull frame."""
        return self.write(lambda c: apply_pull(c, self.catalogue, self.me, body, self.now))

    def compare(self, checkpoint: session_pb2.PullCheckpoint) -> Comparison:
        """Compares digests with a checkpoint."""
        return self.write(lambda c: compare(c, checkpoint, int(read_meta(c)["acknowledged"])))

    def queue_for_central(self, checkpoint: session_pb2.PullCheckpoint) -> int:
        """What a session does with what the central asks for."""
        wanted = [(key.table, key.id) for key in checkpoint.wanted]
        return self.write(lambda c: queue_for_central(c, self.catalogue, wanted, last_number(c)))

    def report(self, checkpoint: session_pb2.PullCheckpoint) -> session_pb2.CheckpointReport:
        """What a session does at a checkpoint, and says of it."""
        self.write(lambda c: drop_unseen(c, checkpoint))
        self.write(lambda c: note_filled(c, checkpoint))
        self.evict()
        found = self.compare(checkpoint)
        return self.read(lambda c: report_on(c, checkpoint, found.comparable, found.differing))

    def evict(self) -> None:
        """What a checkpoint lets go, piece by piece."""
        place = Place() if self.write(lambda c: reach_checkpoint(c, looks_at_hidden=True)) else None
        while place is not None:
            place = self.write(partial(evict_some, catalogue=self.catalogue, place=place, now=NOW))

    def hello(self) -> session_pb2.Hello:
        """How a session begins."""
        meta, positions = self.read(read_meta), self.read(read_positions)
        return session_pb2.Hello(
            site=self.number,
            epoch=self.epoch,
            lineage_token=bytes.fromhex(meta.get("lineage_token", "")),
            protocol_version=1,
            tables=sorted(self.tables),
            era=int(meta.get("era", "0")),
            position_count=len(positions),
            positions_hash=positions_hash((p.scope, p.generation, p.position) for p in positions),
            configuration=next((p for p in positions if p.scope == site_scope(self.number)), None),
            last_acknowledged=int(meta["acknowledged"]),
        )


class Central(Node):
    """The central, with what a session of each site knows."""

    def __init__(self, path: Path, known: Catalogue | None = None) -> None:
        super().__init__(path, CENTRAL_TABLES, known)
        self.write(lambda c: found_central(c, self.catalogue, "central"))
        self.write(lambda c: begin_era(c, secrets.randbits(62) + 1))
        self.write(self._fill)
        self.topology = self.write(lambda c: refresh_topology(c, self.catalogue))
        self.sessions: dict[int, str] = {}
        self.cursors: dict[int, dict[str, Cursor]] = {}
        self.changes: dict[int, list[document_pb2.SubscriptionChange]] = {}

    def _fill(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO unit (id, name) VALUES ('each', 'each')")
        connection.executemany(
            "INSERT INTO item (id, name, unit_id) VALUES (?, 'x', 'each')", [(f"item-{n}",) for n in range(5)]
        )
        connection.execute("INSERT INTO name (id, name) VALUES ('name', 'name')")

    def add(self, folder: Path, number: int, known: Catalogue | None = None) -> Site:
        """Makes a site, enrolled, with its store."""
        secret, epoch, store = secrets.token_bytes(32), secrets.token_bytes(16), f"store-{number}"

        def add(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO name (id, name, type) VALUES (?, ?, 'store')", (store, store))
            connection.execute(
                "INSERT INTO store (id, name, name_id, mode) VALUES (?, ?, ?, 'store')", (store, store, store)
            )
            assert expect_site(connection, f"site {number}", secret, self.now) == number
            add_site(connection, number, f"site {number}")
            enrol(connection, secret, secrets.token_hex(16), bytes(32), epoch, self.now)
            topology = read_topology(connection)
            assign_store(connection, self.catalogue, topology, store, number, CopyType.COLLECTOR)
            refresh_topology(connection, self.catalogue)

        self.write(add)
        self.route()
        return Site(folder / f"node-{number}.db", number, epoch, known)

    def collect(self, store: str, site: Site) -> None:
        """Gives a site a collector copy of a store, which becomes visible to the site's own."""

        def choose(connection: sqlite3.Connection) -> dict[str, Any]:
            add_visibility(connection, self.catalogue, STORE_AS_SUBJECT, store, site.store)
            return set_sync_with(connection, self.catalogue, store, site.number, SyncWith.ACTIVE_COLLECTOR)

        self.write(lambda c: change_topology(c, self.catalogue, choose, dry_run=False))
        self.route()

    def route(self) -> None:
        """What the loop does between frames: routes own changes, does what follows, wakes what waited."""
        while self.count("sync_outbox", "token <> framed_token") or self.count("sync_work", "problem = ''"):
            _, self.topology = self.write(
                lambda c: route_own(c, self.catalogue, self.topology, self.now)  # the topology of the turn before
            )
            self.write(lambda c: do_follow_up(c, self.catalogue, self.topology))
        while self.count("sync_held", "ready = 1"):
            self.write(lambda c: wake_held(c, self.catalogue, self.topology, self.now))

    def make_primary(self, number: int, term: int) -> None:
        """The right to edit central data goes to a site, under that term."""

        def change(connection: sqlite3.Connection) -> None:
            with administering(connection):
                connection.execute("UPDATE site SET is_primary = 0, term = 0, term_id = 0")
                connection.execute(
                    "UPDATE site SET is_primary = 1, term = ?, term_id = 99 WHERE id = ?", (term, str(number))
                )

        self.write(change)
        self.topology = self.read(read_topology)
        self.route()

    def submitted(self, site: Site, frame: document_pb2.Frame) -> Submitted:
        """A frame as the present session of the site hands it in."""
        return Submitted(site.me, self.sessions[site.number], frame)

    def take(self, frames: Iterable[Submitted]) -> Taken:
        """Takes frames of any sites, in one transaction."""
        every = list(frames)
        return self.write(lambda c: take_frames(c, self.catalogue, self.topology, every, self.now))

    def take_from(self, site: Site, frames: Iterable[document_pb2.Frame]) -> list[Acknowledgement]:
        """Takes frames of one site."""
        return self.take(self.submitted(site, frame) for frame in frames).acknowledgements

    def pull_body(self, site: Site, records: int = 500) -> tuple[document_pb2.PullBody, dict[str, Cursor]]:
        """The next pull frame for a site, and where it stands afterwards."""
        cursors = self.cursors[site.number]
        page = self.read(lambda c: read_page(c, self.catalogue, cursors.values(), site.me, site.tables, records))
        moved = advanced(cursors, page.sections)
        body = document_pb2.PullBody(subscriptions=self.changes[site.number], sections=page.sections)
        return body, cursors | moved

    def wanted(self, site: Site, keys: Iterable[tuple[str, str]]) -> document_pb2.PullBody:
        """The answer to a want."""
        scopes = frozenset(self.cursors[site.number])
        found = self.read(lambda c: read_wanted(c, self.catalogue, list(keys), scopes, limit_bytes=1 << 30))
        return document_pb2.PullBody(wanted=found.documents)


def central_and_two_sites(folder: Path) -> tuple[Central, Site, Site]:
    """A central and the sites 2 and 3, which know what concerns them."""
    central = Central(folder / "node-1.db")
    sites = central.add(folder, 2), central.add(folder, 3)
    for site in sites:
        synchronise(central, site)
    return central, *sites


def greet(central: Central, site: Site) -> session_pb2.Welcome:
    """Begins a session at the central: Hello, and the Welcome that answers it."""
    hello, session, topology, number = site.hello(), secrets.token_hex(8), central.topology, site.number
    opened = central.write(lambda c: open_session(c, hello, session, secrets.token_bytes(32), topology, central.now))
    cursors, changes = opened.cursors, opened.changes
    if opened.welcome.send_positions:
        positions = site.read(read_positions)
        cursors, changes = central.write(lambda c: take_positions(c, number, hello.era, positions, topology))
    central.sessions[number], central.cursors[number], central.changes[number] = session, cursors, changes
    return opened.welcome


def connect(central: Central, site: Site) -> session_pb2.Welcome:
    """Begins a session: Hello, Welcome, and what the site stores of it."""
    welcome = greet(central, site)
    for told in welcome.missed:
        site.settle(told)
    site.write(lambda c: write_meta(c, lineage_token=welcome.lineage_token.hex(), era=str(welcome.era)))
    site.write(lambda c: write_beyond(c, site.catalogue, [table.name for table in central.catalogue.synchronised]))
    site.write(retry_deferred)
    return welcome


def push(central: Central, site: Site, size: tuple[int, int] = FULL_SIZE) -> list[session_pb2.Acknowledgement]:
    """Sends everything that waits, one frame at a time; every answer arrives."""
    answers = []
    while frame := next(iter(site.frames()), None) or site.cut(size):
        (told,) = central.take_from(site, [frame])
        assert isinstance(told, session_pb2.Acknowledgement), told
        answers.append(told)
        site.settle(told)
        central.route()
    return answers


def pull(central: Central, site: Site, records: int = 500) -> None:
    """Fetches everything that waits, with what is wanted because of it."""
    central.route()
    read_feeds(central, site, records)


def read_feeds(central: Central, site: Site, records: int = 500) -> None:
    """Fetches what is in the feeds now, with what is wanted because of it; the central may have more to do."""
    while True:
        body, cursors = central.pull_body(site, records)
        if not body.sections and not body.subscriptions:
            break
        received = site.apply(body)
        central.cursors[site.number], central.changes[site.number] = cursors, []
        if received.wants:
            site.apply(central.wanted(site, received.wants))
    noted = list(central.cursors[site.number].values())
    central.write(lambda c: note_positions(c, site.number, noted))
    site.evict()


def checkpoint(central: Central, site: Site) -> session_pb2.PullCheckpoint | None:
    """The checkpoint of all feeds of a site, as things are."""
    cursors = central.cursors[site.number]
    work = partial(read_checkpoint, site=site.number, cursors=cursors, compared={}, round_=1, tables=site.tables)
    return central.read(work)


def synchronise(central: Central, site: Site) -> session_pb2.CheckpointReport:
    """A session of as many rounds as something moves; returns the last report."""
    connect(central, site)
    for _ in range(5):
        push(central, site)
        pull(central, site)
        if asked := site.read(read_wants):
            site.apply(central.wanted(site, asked))
        if not site.count("sync_outbox", "token <> framed_token"):
            break
    told = checkpoint(central, site)
    assert told is not None
    site.queue_for_central(told)
    return site.report(told)

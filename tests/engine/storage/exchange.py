"""A central node and its sites, whose messages are carried by hand: real databases, the real functions, no network.

A test decides what is cut, sent, taken, told and lost, and in which order; between any two of these a node may be
restarted, copied or restored. Site N edits the store `store-N`; the central edits central data and `store-1`. Databases
are copied from ones that were founded once and synchronised; they do not wait for the disk.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from packhorse.sync.v1 import session_pb2

from central_node.storage.checkpoints import read_checkpoint
from central_node.storage.roster import (
    enrol,
    expect_site,
)
from central_node.storage.steps import refresh_topology
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, assign_store, found_central
from engine.rules.topology import CopyType
from engine.storage.configuration import read_topology
from engine.storage.database import transact
from engine.storage.outbox import waiting
from engine.storage.positions import compare
from engine.storage.records import read_meta
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from engine.storage.wants import read_wants
from field_lab.core_catalogue import core_catalogue
from site_node.storage.notes import found_site
from tests.engine.storage.central_end import CentralEnd, Session
from tests.engine.storage.site_end import NOW, PLENTY, SiteEnd

SITES = (2, 3)


class Exchange:
    """The country. Leave it with `close`."""

    def __init__(self, folder: Path) -> None:
        self.central = CentralEnd(folder / "node-1.db")
        self.central.era = int(str(self.central.one("SELECT max(era) FROM central_era") or 1))
        self.sites = {number: SiteEnd(folder / f"node-{number}.db", number) for number in SITES}
        self.site = self.sites[SITES[0]]

    def close(self) -> None:
        """Closes every database."""
        for node in (self.central, *self.sites.values()):
            node.connection.close()

    def connect(self, site: SiteEnd) -> Session:
        """Opens a session: Hello, Welcome, and positions where they are asked for. Raises Refused."""
        hello = site.hello()
        session = self.central.open(hello)
        shown = site.take_welcome(session.welcome)
        if session.welcome.send_positions:
            session = self.central.take_positions(session, shown, hello.era or session.welcome.era)
        return session

    def push(self, site: SiteEnd, session: Session) -> None:
        """Frames until none is left, each acknowledged."""
        while frames := site.frames() or [frame for frame in [site.cut()] if frame is not None]:
            for frame in frames:
                (told,) = self.central.take(session, frame)
                assert isinstance(told, session_pb2.Acknowledgement), told
                site.settle(told)

    def pull(self, site: SiteEnd, session: Session, records: int = PLENTY) -> None:
        """Pages, and what the site wants, until neither is left; then the sweep of the checkpoint."""
        while (body := self.central.page(session, records)) is not None:
            site.apply(body, session.welcome.era)
        while asked := site.read(read_wants):
            site.apply(self.central.wanted(session, asked))
        self.central.note(session)
        site.evict()

    def synchronise(self, site: SiteEnd, rounds: int = 5) -> Session:
        """A session of rounds until nothing is left to be done."""
        session = self.connect(site)
        for _ in range(rounds):
            self.central.route()
            self.central.wake()
            self.push(site, session)
            self.pull(site, session)
        return session

    def differing(self, site: SiteEnd, session: Session) -> list[str]:
        """What keeps central and site from agreement: scopes, and what waits or is held."""
        tables = frozenset(core_catalogue().tables)
        found = self.central.read(lambda c: read_checkpoint(c, site.number, session.cursors, {}, 1, tables))
        assert found is not None, "something was not sent yet"
        checkpoint = found
        acknowledged = int(read_meta(site.connection)["acknowledged"])
        comparison = site.read(lambda c: compare(c, checkpoint, acknowledged))
        assert comparison.comparable
        counts = {
            "waiting": site.read(waiting),
            "held at the central": self.central.one("SELECT count(*) FROM sync_held"),
            "held at the site": site.one("SELECT count(*) FROM sync_held"),
            "outcomes": site.one("SELECT count(*) FROM sync_outcome"),
            "wanted": site.one("SELECT count(*) FROM sync_want"),
        }
        return [*comparison.differing, *(name for name, count in counts.items() if count)]


# --- founding ---------------------------------------------------------------------------------------------------------


@contextmanager
def exchange() -> Iterator[Exchange]:
    """A country in which everything agrees."""
    with tempfile.TemporaryDirectory(prefix="packhorse-exchange-") as name:
        folder = Path(name)
        for file, content in _founded():
            (folder / file).write_bytes(content)
        made = Exchange(folder)
        try:
            yield made
        finally:
            made.close()


@cache
def _founded() -> tuple[tuple[str, bytes], ...]:
    with tempfile.TemporaryDirectory(prefix="packhorse-founded-") as name:
        folder = Path(name)
        for number in (1, *SITES):
            connection = open_writer(folder / f"node-{number}.db")
            prepare(connection, core_catalogue(), CENTRAL_TABLES if number == 1 else ())
            transact(connection, _found_central_data if number == 1 else lambda c, n=number: _found_site(c, n))  # type: ignore[misc]
            connection.close()
        made = Exchange(folder)
        made.central.start()
        made.central.route()
        for site in made.sites.values():
            session = made.synchronise(site)
            assert not made.differing(site, session)
        made.close()
        return tuple((path.name, path.read_bytes()) for path in sorted(folder.iterdir()))


def _found_site(connection: sqlite3.Connection, number: int) -> None:
    found_site(connection, number, f"site {number}", f"installation-{number}", bytes([number] * 16))


def _found_central_data(connection: sqlite3.Connection) -> None:
    found_central(connection, core_catalogue(), "central")
    connection.execute("INSERT INTO unit (id, name) VALUES ('each', 'each')")
    connection.execute("INSERT INTO name (id, name) VALUES ('name', 'name')")
    for item in ("item-1", "item-2"):
        connection.execute("INSERT INTO item (id, name, unit_id) VALUES (?, ?, 'each')", (item, item))
    for number in (1, *SITES):
        store = (f"store-{number}", f"store {number}")
        connection.execute("INSERT INTO name (id, name, type) VALUES (?, ?, 'store')", store)
        connection.execute("INSERT INTO store (id, name, name_id, mode) VALUES (?, ?, ?, 'store')", (*store, store[0]))
    for number in SITES:
        secret = bytes([number] * 32)
        assert expect_site(connection, f"site {number}", secret, NOW) == number
        enrol(connection, secret, f"installation-{number}", bytes(32), bytes([number] * 16), NOW)
        add_site(connection, number, f"site {number}")
    for number in (1, *SITES):
        refresh_topology(connection, core_catalogue())
        topology = read_topology(connection)
        assign_store(connection, core_catalogue(), topology, f"store-{number}", number, CopyType.COLLECTOR)
    refresh_topology(connection, core_catalogue())

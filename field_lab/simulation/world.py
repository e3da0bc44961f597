"""A central and sites that live through power cuts and bad links, on one event loop."""

import asyncio
import random
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from central_node.node import CentralNode
from central_node.session import CentralSession
from central_node.storage.roster import enrol, expect_site
from central_node.storage.steps import refresh_topology
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, assign_store, found_central
from engine.catalogue.descriptors import catalogue
from engine.errors import Code, Unavailable
from engine.rules.topology import CopyType
from engine.storage.configuration import read_topology
from field_lab.simulation.inline_database import InlineDatabase
from field_lab.simulation.link import Counters, SimulatedStream, Weather
from site_node.node import SiteNode
from site_node.storage.notes import found_site


class Incarnation:
    """One life of a node, from its start to the power cut that ends it."""

    def __init__(self, database: InlineDatabase) -> None:
        self.database = database
        self.tasks: dict[asyncio.Task[object], None] = {}

    def spawn(self, work: object, name: str) -> None:
        """Starts a task that ends with this life."""
        task: asyncio.Task[object] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    async def end(self) -> None:
        """The power is gone."""
        self.database.is_dead = True
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.database.cut_power()


class World:
    """See the module. Everything random comes from `chance`."""

    def __init__(self, folder: Path, sites: int, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.counters, self.weather = Counters(), Weather()
        self.power_cut_rate = 0.0
        self.numbers = list(range(2, 2 + sites))
        self.stores = {number: f"store-{number}" for number in self.numbers}
        self.streams: dict[SimulatedStream, int] = {}
        self._lives: dict[int, Incarnation] = {}
        self._central: CentralNode | None = None
        self.nodes: dict[int, SiteNode] = {}

    def path(self, number: int) -> Path:
        """The database of a node; 1 is the central."""
        return self.folder / f"node-{number}.db"

    # --- making it ----------------------------------------------------------------------------------------------------

    async def found(self) -> None:
        """Makes every database and starts every node."""
        database = self._open(1)
        await database.write(partial(found_central, catalogue=catalogue(), name="central"))
        await database.write(self._found_stores)
        for number in self.numbers:
            await self._enrol(database, number)
        database.cut_power()
        for number in (1, *self.numbers):
            await self.start(number)

    def _found_stores(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO unit (id, name) VALUES ('each', 'each')")
        for number in range(30):
            connection.execute("INSERT INTO item (id, name, unit_id) VALUES (?, ?, 'each')", (f"item-{number}", "x"))
        connection.execute("INSERT INTO name (id, name) VALUES ('name', 'name')")
        for store in self.stores.values():
            connection.execute(
                "INSERT INTO store (id, name, name_id, mode) VALUES (?, ?, 'name', 'store')", (store, store)
            )

    async def _enrol(self, central: InlineDatabase, number: int) -> None:
        secret, epoch, installation = secrets.token_bytes(32), secrets.token_bytes(16), secrets.token_hex(16)
        now = int(time.time())

        def enrolled(connection: sqlite3.Connection) -> None:
            assert expect_site(connection, f"site {number}", secret, now) == number
            add_site(connection, number, f"site {number}")
            enrol(connection, secret, installation, bytes(32), epoch, now)
            assign_store(
                connection, catalogue(), read_topology(connection), self.stores[number], number, CopyType.COLLECTOR
            )
            refresh_topology(connection, catalogue())

        await central.write(enrolled)
        site = self._open(number)
        await site.write(lambda c: found_site(c, number, f"site {number}", installation, epoch))
        site.cut_power()

    # --- lives --------------------------------------------------------------------------------------------------------

    def _open(self, number: int) -> InlineDatabase:
        more = CENTRAL_TABLES if number == 1 else ()
        return InlineDatabase(
            self.path(number), catalogue(), more, partial(self._power_fails, number), partial(self._fell, number)
        )

    def _power_fails(self, number: int, where: str) -> bool:
        if number not in self._lives or self.chance.random() >= self.power_cut_rate:
            return False
        kind = "central" if number == 1 else "site"
        self.counters.count(f"power cut of a {kind} {where} a commit")
        return True

    def _fell(self, number: int) -> None:
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.restart(number)))

    async def start(self, number: int) -> None:
        """Begins a life of a node."""
        life = Incarnation(self._open(number))
        self._lives[number] = life
        if number == 1:
            self._central = CentralNode(life.database, catalogue())
            life.spawn(self._run_central(self._central), "central")
        else:
            node = SiteNode(life.database, catalogue(), self._dial)
            self.nodes[number] = node
            life.spawn(node.run_forever(None), f"site {number}")

    @staticmethod
    async def _run_central(node: CentralNode) -> None:
        try:
            await node.start()
            await asyncio.get_running_loop().create_future()
        finally:
            await node.stop()

    async def restart(self, number: int) -> None:
        """Power comes back after a while."""
        life = self._lives.pop(number, None)
        if life is None:
            return
        if number == 1:
            self._central = None
        self.nodes.pop(number, None)
        for stream, site in list(self.streams.items()):
            if number in (1, site):
                stream.cut()
        await life.end()
        await asyncio.sleep(self.chance.random() * 2.0)
        await self.start(number)

    async def end(self) -> None:
        """Ends every node."""
        for number in list(self._lives):
            life = self._lives.pop(number)
            await life.end()

    # --- the way between them -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _dial(self, site: int, installation: str) -> AsyncIterator[SimulatedStream]:
        del installation
        await asyncio.sleep(0.01)
        central, life = self._central, self._lives.get(1)
        if central is None or life is None or self.chance.random() < self.weather.refuse_rate:
            self.counters.count("refused connection")
            raise Unavailable(Code.UNREACHABLE, "Nothing answers.")
        stream = SimulatedStream(self.weather, self.chance, self.counters)
        self.streams[stream] = site
        life.spawn(self._serve(central, site, stream), f"central's session with {site}")
        try:
            yield stream
        finally:
            stream.cut()
            del self.streams[stream]

    @staticmethod
    async def _serve(central: CentralNode, site: int, stream: SimulatedStream) -> None:
        trace: Callable[[str, object], None] = lambda _word, _value: None  # noqa: E731 - typed here
        session = CentralSession(central, site, stream.central_send, stream.central_receive, trace)
        try:
            await session.run()
            stream.to_site.finish()
        except BaseException:
            stream.cut()
            raise

"""A central and sites that live through crashes, power cuts and bad links, on one event loop."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.node import CentralNode
from central_node.one_round import one_round
from central_node.session import CentralSession
from engine.errors import Code, PackhorseError, Unavailable
from field_lab.core_catalogue import core_catalogue
from field_lab.simulation.counters import Counters
from field_lab.simulation.disk import SimulatedDisk
from field_lab.simulation.founding import Founded
from field_lab.simulation.link import LATE_SECONDS, SimulatedStream, garbled
from field_lab.simulation.machine import CENTRAL, Machine
from field_lab.simulation.observer import Observer
from field_lab.simulation.round_site import RoundSite
from field_lab.simulation.truth import Truth
from field_lab.simulation.weather import Weather
from site_node.node import SiteNode

_BOOT_SECONDS = 2.0


class World:
    """See the module. Everything random comes from `chance`."""

    def __init__(
        self,
        folder: Path,
        founded: Founded,
        truths: Mapping[int, Truth],
        chance: random.Random,
        counters: Counters,
    ) -> None:
        self.chance, self.counters = chance, counters
        self.observer = Observer(self.counters)
        self.weather = Weather()
        self.numbers = [number for number in truths if number != CENTRAL]
        self.machines: dict[int, Machine] = {}
        for number, truth in truths.items():
            path = folder / f"node-{number}.db"
            self.machines[number] = Machine(
                number, truth, SimulatedDisk(path, chance, self.counters), chance, self.counters,
                lambda: self.weather, self._ended,
            )  # fmt: skip
            self.machines[number].found(founded.databases[number])
        self.nodes: dict[int, SiteNode] = {}
        self.central: CentralNode | None = None
        self.modes = {number: chance.choice(("live", "live", "scheduled", "calls")) for number in self.numbers}
        """How each site synchronises."""
        self._streams: dict[SimulatedStream, None] = {}
        self._restarts: dict[asyncio.Task[None], None] = {}
        self._poisoned: set[bytes] = set()
        self.heard: deque[session_pb2.SiteMessage] = deque(maxlen=40)
        """What sites have said lately."""

    # --- lives --------------------------------------------------------------------------------------------------------

    def start(self, number: int) -> None:
        """Begins a life of a node."""
        machine = self.machines[number]
        database = machine.begin()
        if number == CENTRAL:
            self.central = CentralNode(database, core_catalogue())
            machine.spawn(_run_central(self.central), "central")
            return
        node = SiteNode(database, core_catalogue(), self._dial)
        self.nodes[number] = node
        machine.spawn(self._run_site(node, number), f"site {number}")

    def _run_site(self, node: SiteNode, number: int) -> Coroutine[Any, Any, None]:
        match self.modes[number]:
            case "live":
                return node.run_forever(None)
            case "scheduled":
                return node.run_forever(self.chance.uniform(0.03, 0.3))
        site = RoundSite(node, partial(self._call, number), partial(self._begin_round, number))
        return site.run_forever(self.chance)

    def _begin_round(self, number: int) -> None:
        self.counters.count("round in calls")
        self.observer.begun(number)

    def _ended(self, machine: Machine) -> None:
        """A life has ended by itself: what is connected to it hears nothing more, and after a while it begins again."""
        task = asyncio.get_running_loop().create_task(self.restart(machine.number))
        self._restarts[task] = None
        task.add_done_callback(lambda done: self._restarts.pop(done, None))

    async def restart(self, number: int) -> None:
        """Ends a life of a node and, after a while, begins another."""
        machine = self.machines[number]
        if machine.database is None:  # it is restarting already
            return
        if number == CENTRAL:
            self.central = None
        self.nodes.pop(number, None)
        for stream in list(self._streams):
            if number in (CENTRAL, stream.site):
                stream.cut()
        await machine.end()
        await asyncio.sleep(self.chance.random() * _BOOT_SECONDS)
        self.start(number)

    def lose_power(self, number: int) -> None:
        """The power of a running machine fails."""
        machine = self.machines[number]
        if machine.is_on and machine.database is not None and not machine.database.is_dead:
            machine.lose_power()

    async def settle_restarts(self) -> None:
        """Waits until every node runs."""
        while self._restarts:
            await asyncio.gather(*self._restarts)

    async def end(self) -> None:
        """Ends every node."""
        for task in list(self._restarts):
            task.cancel()
        for machine in self.machines.values():
            if machine.database is not None:
                await machine.end()
            machine.turn_off()

    def check(self) -> None:
        """What holds at every moment. Raises Broken."""
        for machine in self.machines.values():
            machine.raise_unexpected()

    # --- the way between them -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _dial(self, site: int, installation: str) -> AsyncIterator[SimulatedStream]:
        del installation
        await asyncio.sleep(0.01)
        central = self._reached()
        self.counters.count(f"session {self.modes[site]}")
        stream = SimulatedStream(site, lambda: self.weather, self.chance, self.observer, self.counters)
        stream.on_hello = partial(self._come_twice, site)
        stream.heard = self.heard
        self._streams[stream] = None
        self.machines[CENTRAL].spawn(self._serve(central, site, stream), f"central's session with {site}")
        try:
            yield stream
        finally:
            stream.cut()
            self._streams.pop(stream, None)

    def _reached(self) -> CentralNode:
        """The central, where it answers. Raises Unavailable."""
        central, database = self.central, self.machines[CENTRAL].database
        if central is None or database is None or database.is_dead:
            raise Unavailable(Code.UNREACHABLE, "Nothing answers.")
        if self.chance.random() < self.weather.refuse_rate:
            self.counters.count("refused connection")
            raise Unavailable(Code.UNREACHABLE, "Nothing answers.")
        return central

    async def _serve(self, central: CentralNode, site: int, stream: SimulatedStream) -> None:
        session = CentralSession(central, site, stream.central_send, stream.central_receive, partial(self._trace, site))
        try:
            self.observer.ended(await session.run())
            stream.to_site.finish()
        except BaseException:
            stream.cut()
            raise

    def _trace(self, _site: int, word: str, value: Any) -> None:
        """What the central says of a frame; one that is poisoned ends its process."""
        if word != "apply_begin" or not isinstance(value, document_pb2.Frame):
            return
        if value.hash not in self._poisoned and self.chance.random() < self.weather.poison_rate:
            self._poisoned.add(value.hash)
        database = self.machines[CENTRAL].database
        if value.hash in self._poisoned and database is not None:
            self.counters.count("process of the central ended by a frame")
            database.ends_with_this = True

    def heal(self) -> None:
        """Fine weather, room on every disk; no way is silent, and no frame ends a process any more."""
        self.weather = Weather()
        self._poisoned.clear()
        for machine in self.machines.values():
            machine.fill_disk(full=False)
        for stream in self._streams:
            stream.tell()

    def _come_twice(self, site: int, hello: session_pb2.SiteMessage) -> None:
        """A proxy opens the stream once more, as it may as long as the site has got no answer, i.e. with Hello only."""
        central = self.central
        if central is None or self.chance.random() >= self.weather.twice_rate:
            return
        self.counters.count("Hello that comes twice")
        stream = SimulatedStream(site, lambda: self.weather, self.chance, self.observer, self.counters)
        stream.to_central.put(
            asyncio.get_running_loop().time() + self.chance.random() * LATE_SECONDS, hello.SerializeToString()
        )
        stream.to_central.finish()
        self.machines[CENTRAL].spawn(self._serve(central, site, stream), f"central's doubled session with {site}")

    # --- calls --------------------------------------------------------------------------------------------------------

    async def _call(self, site: int, messages: Sequence[session_pb2.SiteMessage]) -> list[session_pb2.CentralMessage]:
        """Push or Pull over the network. Raises Unavailable where no answer comes."""
        await asyncio.sleep(0.01 + self.chance.random() * self.weather.delay_seconds_max)
        central, weather, chance = self._reached(), self.weather, self.chance
        for message in messages:
            self.observer.sent(site, message)
        said = [garbled(message, weather, chance, self.counters) for message in messages]
        machine = self.machines[CENTRAL]
        if chance.random() < weather.twice_rate:
            self.counters.count("call that is done twice")
            machine.spawn(self._later(site, said, chance.random() * LATE_SECONDS), f"doubled call of {site}")
        if chance.random() < weather.lost_call_rate:
            fate = chance.choice(("call lost on its way", "call that comes late", "call whose answer is lost"))
            self.counters.count(fate)
            if fate == "call that comes late":
                machine.spawn(self._later(site, said, chance.random() * LATE_SECONDS), f"late call of {site}")
            if fate == "call whose answer is lost":
                await asyncio.wait([machine.spawn(self._answer(central, site, said), f"call of {site}")])
            raise Unavailable(Code.LINK_CUT, "The link was cut.")
        task = machine.spawn(self._answer(central, site, said), f"call of {site}")
        await asyncio.wait([task])
        if task.cancelled():
            raise Unavailable(Code.LINK_CUT, "The central has gone.")
        answers, _ = task.result()
        return [garbled(message, weather, chance, self.counters) for message in answers]

    async def _later(self, site: int, messages: Sequence[session_pb2.SiteMessage], seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.central is not None:
            await self._answer(self.central, site, messages)

    async def _answer(
        self, central: CentralNode, site: int, messages: Sequence[session_pb2.SiteMessage]
    ) -> tuple[list[session_pb2.CentralMessage], PackhorseError | None]:
        answers, error = await one_round(central, site, messages, partial(self._trace, site))
        for message in answers:
            self.observer.sent(site, message)
        if error is not None:
            self.observer.ended(error)
        return answers, error


async def _run_central(node: CentralNode) -> None:
    try:
        await node.start()
        await asyncio.get_running_loop().create_future()
    finally:
        await node.stop()

"""The world of a seed of the simulator: a store at each site, the invariants, and a stranger that means harm."""

import random
from pathlib import Path

from field_lab.simulation.checks import Checks
from field_lab.simulation.counters import Counters
from field_lab.simulation.founding import found, store_of
from field_lab.simulation.hostile import HostileSite
from field_lab.simulation.machine import CENTRAL, Machine
from field_lab.simulation.truth import CENTRAL_TABLES, STORE_TABLES, Truth
from field_lab.simulation.world import World


class FaultyWorld(World):
    """See the module. Everything random comes from `chance`."""

    def __init__(self, folder: Path, sites: int, chance: random.Random) -> None:
        counters = Counters()
        self.stores = {number: store_of(number) for number in range(2, 2 + sites)}
        truths = {CENTRAL: Truth(f"node {CENTRAL}", "", CENTRAL_TABLES, counters)}
        for number, store in self.stores.items():
            truths[number] = Truth(f"node {number}", store, STORE_TABLES, counters)
        founded = found(sites + 1)  # the last one is the stranger
        super().__init__(folder, founded, truths, chance, counters)
        stranger = 2 + sites
        self.hostile = HostileSite(
            stranger, store_of(stranger), founded.epochs[stranger], self.stores, self.heard, chance
        )
        self.checks = Checks(counters, truths, (stranger, store_of(stranger)))
        self._followed: set[int] = set()

    def start(self, number: int) -> None:
        """See `World.start`."""
        super().start(number)
        if number not in self._followed:
            self._followed.add(number)
            self.checks.follow(number, self.machines[number].disk.path)

    def _ended(self, machine: Machine) -> None:
        if not machine.is_on:
            self._followed.discard(machine.number)
            self.checks.leave(machine.number)
        super()._ended(machine)

    def check(self) -> None:
        """See `World.check`."""
        super().check()
        self.checks.step(sorted(self._followed))

    def attack(self) -> None:
        """The stranger opens a session."""
        machine = self.machines[CENTRAL]
        if self.central is not None and machine.database is not None and not machine.database.is_dead:
            self.counters.count("hostile session")
            machine.spawn(self.hostile.attack(self.central), "hostile session")

    async def end(self) -> None:
        """See `World.end`."""
        self.checks.close()
        await super().end()

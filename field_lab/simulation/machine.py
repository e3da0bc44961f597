"""The machine of a node: its disk, its clock, the other programs that edit the database, and one life after another."""

import asyncio
import contextvars
import csv
import random
import sqlite3
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from central_node.storage.tables import CENTRAL_TABLES
from engine.errors import Code
from engine.limits import WRITE_LOCK_SECONDS
from engine.storage.csv_import import read_import, write_import
from field_lab.core_catalogue import core_catalogue
from field_lab.simulation.counters import Counters
from field_lab.simulation.disk import SimulatedDisk
from field_lab.simulation.inline_database import Fate, InlineDatabase, is_full, limit_pages
from field_lab.simulation.truth import Row, Truth
from field_lab.simulation.virtual_loop import CLOCK, WallClock
from field_lab.simulation.weather import Weather
from field_lab.simulation.workload import ITEMS, Edit, Operation

CENTRAL = 1
_CLOCK_JUMPS = (60.0, 86_400.0, 10 * 365 * 86_400.0)


class Machine:
    """See the module. `on_end` is called when a life has ended by itself."""

    def __init__(
        self,
        number: int,
        truth: Truth,
        disk: SimulatedDisk,
        chance: random.Random,
        counters: Counters,
        weather: Callable[[], Weather],
        on_end: Callable[["Machine"], None],
    ) -> None:
        self.number, self.truth, self.store, self.disk = number, truth, truth.store, disk
        self.kind = "the central" if number == CENTRAL else "a site"
        self._chance, self._counters, self._weather, self._on_end = chance, counters, weather, on_end
        self._clock = WallClock()
        self._context = contextvars.copy_context()
        self._context.run(CLOCK.set, self._clock)
        self.database: InlineDatabase | None = None
        self._program: sqlite3.Connection | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._unexpected: list[BaseException] = []
        self._lost_power = False
        self._torn_at: int | None = None
        self._lane: tuple[str, str] | None = None
        self._is_silent = False
        self._edits = 0
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each commit of the node itself."""

    def found(self, content: bytes) -> None:
        """Puts the database there with which the node begins."""
        self.disk.path.write_bytes(content)
        connection = sqlite3.connect(f"file:{self.disk.path}?mode=ro", uri=True)
        self.truth.begin(self.truth.read(connection))
        connection.close()

    # --- lives --------------------------------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether the machine has power, so that programs can run."""
        return self._program is not None

    def begin(self) -> InlineDatabase:
        """Power comes back where it was lost, and the node's process begins."""
        if self._lost_power:
            self.disk.come_back()
        database = InlineDatabase(core_catalogue(), CENTRAL_TABLES if self.number == CENTRAL else (), self)
        if self._program is None:
            self._program = sqlite3.connect(self.disk.path, timeout=WRITE_LOCK_SECONDS, isolation_level=None)
            self._program.execute("PRAGMA wal_autocheckpoint = 0")
        if self._lost_power:
            self._after_power_cut()
        self.truth.came_back(self.truth.read(self._program), self._lost_power)
        self._lost_power = False
        self.database = database
        return database

    def _after_power_cut(self) -> None:
        if self._torn_at is not None:
            there = self.disk.frames() >= self._torn_at
            self._counters.count(f"commit {'at a power cut and there' if there else 'torn at a power cut and gone'}")
        self._torn_at = None
        self.disk.now_durable()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Starts a task that ends with this life and reads this machine's clock."""
        task = asyncio.get_running_loop().create_task(work, name=name, context=self._context.copy())
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._unexpected.append(error)

    def raise_unexpected(self) -> None:
        """Raises what a task of this machine has ended with, none of which may."""
        if self._unexpected:
            raise self._unexpected[0]

    def lose_power(self) -> None:
        """The power of the machine fails now."""
        self._counters.count(f"power of {self.kind} lost")
        self._cut_power()
        self._on_end(self)

    def _cut_power(self) -> None:
        self._lost_power = True
        self.disk.fail()
        assert self._program is not None
        self._program.close()
        self._program = None
        if self.database is not None:
            self.database.is_dead = True

    async def end(self) -> None:
        """Ends what is left of a life."""
        assert self.database is not None
        self.database.is_dead = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.database.close_now()
        self.database = None

    def turn_off(self) -> None:
        """Closes what is still open, at the end of a run."""
        if self._program is not None:
            self._program.close()

    # --- what the database asks and tells -----------------------------------------------------------------------------

    def fate(self) -> Fate:
        """See `Surroundings`."""
        if self._chance.random() >= self._weather().crash_rate or self.database is None:
            return Fate.LIVES
        return self._chance.choice((Fate.ENDS_BEFORE, Fate.ENDS_AFTER, Fate.LOSES_POWER))

    def fell(self, fate: Fate) -> None:
        """See `Surroundings`."""
        if fate is Fate.LOSES_POWER:
            self._counters.count(f"power of {self.kind} lost at a commit")
            self._torn_at = self.disk.frames()
            self._cut_power()
        else:
            self._counters.count(f"process of {self.kind} {fate.value} a commit")
        self._on_end(self)

    def committed(self, durable: bool) -> None:
        """See `Surroundings`."""
        if durable:
            self.truth.now_durable()
        if self.number != CENTRAL and self._program is not None:
            self._watch(self._program)
        self.on_commit()

    def _watch(self, program: sqlite3.Connection) -> None:
        silent = program.execute(
            "SELECT value = 'PEER_SILENT' FROM sync_status WHERE key = 'last_error_code'"
        ).fetchone()
        if silent == (1,) and not self._is_silent:
            self._counters.count("session ended by PEER_SILENT")
        self._is_silent = silent == (1,)
        query = "SELECT root_table, root_id FROM sync_lane WHERE peer = 1 AND frame = 0"
        lane, self._lane = self._lane, program.execute(query).fetchone()
        if lane is None or lane == self._lane:
            return
        if program.execute(f"SELECT 1 FROM {lane[0]} WHERE id = ?", (lane[1],)).fetchone() is None:
            self._counters.count("lane of the site overtaken")

    def refused(self) -> None:
        """See `Surroundings`."""
        self._counters.count("work refused because the disk is full")

    def copied_log(self) -> None:
        """See `Surroundings`."""
        self._counters.count("log copied into the database")

    # --- work of the node itself --------------------------------------------------------------------------------------

    async def import_rows(self, folder: Path) -> None:
        """Somebody imports a file through the node, which may end meanwhile."""
        database, number = self.database, self._edits
        if database is None or database.is_dead:
            return
        self._edits += 1
        table = "item" if self.number == CENTRAL else "stock_line"
        rows = self._rows_to_import(table, number)
        file = folder / f"import-{self.number}.csv"
        with file.open("w", newline="") as opened:
            csv.writer(opened).writerows([list(rows[0]), *(row.values() for row in rows)])
        plan = read_import(core_catalogue(), table, file, {}, {})
        self.truth.attempted({(table, row["id"]): self._imported(table, row) for row in rows})
        task = self.spawn(database.write(partial(write_import, plan=plan)), "import")
        await asyncio.wait([task])
        if task.cancelled():  # without power, what became of it is seen when the node begins again
            if self._program is not None:  # other programs may go on before that
                self.truth.look(self._program)
            return
        error = task.exception()
        self.truth.answered(was_committed=error is None)
        self._unexpected = [found for found in self._unexpected if found is not error]
        if error is None:
            self._counters.count("import by the node")
            self.truth.now_durable()
        elif getattr(error, "code", None) not in (Code.DISK_FULL, Code.EDIT_REFUSED):
            raise error

    def _rows_to_import(self, table: str, number: int) -> list[dict[str, str]]:
        chance = self._chance
        if table == "item":
            drawn = chance.sample(range(ITEMS), chance.randrange(1, 5))
            return [{"id": f"item-{item}", "name": f"imported {number}", "unit_id": "each"} for item in drawn]
        known = sorted(record_id for name, record_id in self.truth.rows if name == table)
        ids = {f"{self.store}-import-{number}-{line}" for line in range(chance.randrange(1, 5))}
        ids |= set(chance.sample(known, min(len(known), 2)))
        return [
            {
                "id": record_id,
                "store_id": self.store,
                "item_id": f"item-{chance.randrange(ITEMS)}",
                "batch": str(number),
            }
            for record_id in sorted(ids)
        ]

    def _imported(self, name: str, row: Mapping[str, str]) -> Row:
        table = core_catalogue()[name]
        before = self.truth.rows.get((name, row["id"]))
        if before is None:
            before = tuple(None if column.optional else column.default for column in table.columns)
        return tuple(row.get(column.name, value) for column, value in zip(table.columns, before, strict=True))

    @property
    def program(self) -> sqlite3.Connection:
        """The connection of the other programs on a machine that has power."""
        assert self._program is not None
        return self._program

    def ask(self, query: str) -> list[Any]:
        """Rows of the machine's database."""
        return self.program.execute(query).fetchall()

    # --- what else happens to it --------------------------------------------------------------------------------------

    def fill_disk(self, full: bool) -> None:
        """Nothing more fits on the disk, or something does again."""
        if full and not self.disk.is_full:
            self._counters.count(f"disk of {self.kind} full")
        self.disk.is_full = full

    def jump_clock(self) -> None:
        """Somebody sets the clock."""
        by = self._chance.choice(_CLOCK_JUMPS) * self._chance.uniform(0.5, 1.0)
        forward = self._chance.random() < 0.5
        self._counters.count(f"clock of {self.kind} put {'forward' if forward else 'back'}")
        self._clock.wrong_by_seconds = by if forward else -by

    def edit(self, operation: Operation) -> None:
        """Another program commits one transaction; not all of them wait for the disk."""
        program, chance = self.program, self._chance
        self._edits += 1
        waits = chance.random() < 0.5
        program.execute(f"PRAGMA synchronous = {'FULL' if waits else 'NORMAL'}")
        limit_pages(program, self.disk.is_full)
        program.execute("BEGIN IMMEDIATE")
        try:
            edit = Edit(program, self.store, chance, self._edits)
            operation.run(edit)
            delta = edit.delta()
            program.execute("COMMIT")
        except sqlite3.Error as error:
            if program.in_transaction:
                program.execute("ROLLBACK")
            if is_full(error):
                self._counters.count("edit refused because the disk is full")
            elif "STORE_DATA_WHERE_ACTIVE" in str(error):
                self._counters.count("edit refused because the configuration is not there yet")
            else:
                raise
            return
        self._counters.count(f"edit: {operation.name}")
        self.truth.committed(delta)
        if self.database is not None:
            self.database.somebody_committed()
        if waits:
            self.disk.now_durable()
            self.truth.now_durable()

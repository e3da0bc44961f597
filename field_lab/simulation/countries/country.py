"""The world of a seed of the oracle: sites with many stores, links that are cut, and a journal of what people did."""

import random
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from field_lab.oracle.copies import Copies, Pair, faults, rules_applied
from field_lab.oracle.data_types import DATA_TYPES, Kind, root_of
from field_lab.oracle.editing import Standing
from field_lab.oracle.judge import Journal, Judgement, judge
from field_lab.oracle.storage.reading import copies_at_central, nothing_under_way, standing_of
from field_lab.simulation.counters import Counters
from field_lab.simulation.countries.founding import MIRRORED_PRIMARY, found_country
from field_lab.simulation.countries.names import NAMES, SELDOM
from field_lab.simulation.countries.rows import Writing
from field_lab.simulation.machine import CENTRAL
from field_lab.simulation.truth import Broken, Delta, Row, Truth
from field_lab.simulation.world import World

Key = tuple[str, str]
_HAS_AN_AUTHOR = (Kind.MESSAGE, Kind.LOCAL)


class Country(World):
    """See the module. Everything random comes from `chance`."""

    def __init__(self, folder: Path, sites: int, is_mirrored: bool, chance: random.Random) -> None:
        counters = Counters((*NAMES, *SELDOM))
        numbers = (CENTRAL, *range(2, 2 + sites))
        # No power fails here and no disk is full: nothing is committed that could be lost again.
        truths = {number: Truth(f"node {number}", "", {}, counters) for number in numbers}
        super().__init__(folder, found_country(sites, is_mirrored), truths, chance, counters)
        self.primary = MIRRORED_PRIMARY if is_mirrored else CENTRAL
        self.edits = self.changes = 0
        self.chosen: dict[Pair, str] = {}
        """What people choose of the copies in the command that is under way."""
        self._transactions = 0
        self._records: dict[Key, Row | None] = {}
        self._authors: dict[Key, int] = {}
        self._faults: list[str] = []
        self._copies: Copies | None = None
        self.machines[CENTRAL].on_commit = self._look

    def start(self, number: int) -> None:
        """See `World.start`."""
        super().start(number)
        if self._copies is None:
            self._copies = copies_at_central(self.program(CENTRAL))
            self._note_first_records()

    def _note_first_records(self) -> None:
        for table, data in DATA_TYPES.items():
            if data.kind is not Kind.SYNC:
                for row in self.program(CENTRAL).execute(f"SELECT * FROM {table}"):
                    self._records[table, row[0]] = row

    def program(self, number: int) -> sqlite3.Connection:
        """The connection of the programs that people use at a node."""
        return self.machines[number].program

    def standing_there(self, number: int) -> Standing:
        """How a node stands as far as it knows."""
        return standing_of(self.program(number), number)

    def standing(self, number: int) -> Standing:
        """How a node stands."""
        return standing_of(self.program(CENTRAL), number)

    def copies(self) -> Copies:
        """The copies of stores now."""
        return copies_at_central(self.program(CENTRAL))

    def is_guarded(self, number: int, table: str) -> bool:
        """Whether a node's triggers of a table are there: a program may have dropped them a moment ago."""
        if DATA_TYPES[root_of(table)].kind is Kind.LOCAL:
            return True  # there is nothing to guard
        query = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?"
        return self.program(number).execute(query, (root_of(table),)).fetchone() is not None

    def keeps(self, number: int, store: str) -> list[str]:
        """What of the data of a store is not to leave its site, as far as a node knows."""
        leaves_out = (
            "SELECT 'transactions' FROM store AS s JOIN store_copy AS c ON c.store_id = s.id WHERE s.id = :store"
            " AND c.type = 'active' AND c.excludes_transactions AND s.mode = 'dispensary'"
        )
        collected = "SELECT 'everything' FROM store_copy WHERE store_id = :store AND site = 1 AND type = 'transfer'"
        found = self.program(number).execute(f"{leaves_out} UNION {collected}", {"store": store})
        return sorted(row[0] for row in found)

    def has_data(self, store: str) -> bool:
        """Whether there is store data of a store anywhere."""
        tables = (table for table, data in DATA_TYPES.items() if data.kind is Kind.STORE and data.store)
        found = " UNION ALL ".join(f"SELECT 1 FROM {table} WHERE store_id = :store" for table in tables)
        return any(self.program(number).execute(found, {"store": store}).fetchone() for number in self.machines)

    # --- what people do -----------------------------------------------------------------------------------------------

    def write(self, number: int, work: Callable[[Writing], None]) -> Delta:
        """A program commits a transaction at a node; returns what it left. Raises sqlite3.IntegrityError where it is
        refused."""
        program = self.program(number)
        self._transactions += 1
        writing = Writing(program, self.chance, self._transactions)
        program.execute("BEGIN IMMEDIATE")
        try:
            work(writing)
            delta = writing.delta()
            program.execute("COMMIT")
        finally:
            if program.in_transaction:
                program.execute("ROLLBACK")
        database = self.machines[number].database
        if database is not None:
            database.somebody_committed()
        return delta

    def note(self, number: int, delta: Delta) -> None:
        """People at a node did this, and had the right to."""
        self._records.update(delta)
        for table, record_id in delta:
            if DATA_TYPES[root_of(table)].kind in _HAS_AN_AUTHOR:
                self._authors[table, record_id] = number

    def note_rows(self, number: int, keys: list[Key]) -> None:
        """A command has written these records at a node."""
        for table, record_id in keys:
            row = self.program(number).execute(f"SELECT * FROM {table} WHERE id = ?", (record_id,)).fetchone()
            if row is not None or (table, record_id) in self._records:
                self._records[table, record_id] = row

    # --- what holds ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """The central has committed something: where nothing is under way any more, its copies are judged."""
        before, program = self._copies, self.program(CENTRAL)
        if before is None or not nothing_under_way(program):
            return
        after = copies_at_central(program)
        if after == before:
            return
        # While a command is under way, what it chooses may not be there yet.
        by_themselves = list(faults(before, {}, after))
        chosen = self.chosen if by_themselves else {}
        self._faults += list(faults(before, chosen, after)) if chosen else by_themselves
        for rule in rules_applied(before, chosen, after):
            self.counters.count(rule)
        self._copies = after

    def check(self) -> None:
        """See `World.check`."""
        super().check()
        if self._faults:
            raise Broken("; ".join(self._faults[:3]))

    def judge(self) -> Judgement:
        """What the oracle says of the databases as they are."""
        paths: Mapping[int, Path] = {number: machine.disk.path for number, machine in self.machines.items()}
        return judge(paths, Journal(self._records, self._authors))

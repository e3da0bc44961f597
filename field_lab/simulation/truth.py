"""What the rows of an owner must be: the oracle of the simulator, kept beside the databases by whoever edits.

Nothing that the engine does ever changes a row at its owner, so at every moment the owner's tables are what its people
have committed, and after healing so is every copy. A power cut may take the last commits of programs that do not wait
for the disk, in order, from the newest on; and of work that was cut off nobody knows whether it was committed.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from engine.storage.records import Key
from field_lab.simulation.counters import Counters

Row = tuple[Any, ...]
Delta = Mapping[Key, Row | None]
"""What one transaction has changed: the rows that it left, None for those it deleted."""

CENTRAL_TABLES = dict.fromkeys(("unit", "item", "name", "store"), "true")
STORE_TABLES = {
    "stock_line": "store_id = :store",
    "invoice": "store_id = :store",
    "invoice_line": "invoice_id IN (SELECT id FROM invoice WHERE store_id = :store)",
}


class Broken(AssertionError):
    """An invariant does not hold."""


class Truth:
    """What one node owns: the rows of `tables` (table -> condition), which may speak of `:store`."""

    def __init__(self, node: str, store: str, tables: Mapping[str, str], counters: Counters) -> None:
        self.store, self._node, self._tables, self._counters = store, node, tables, counters
        self._durable: dict[Key, Row] = {}
        self._committed: list[Delta] = []
        self._doubtful: Delta | None = None
        self.rows: dict[Key, Row] = {}
        """As they are now."""

    def begin(self, found: Mapping[Key, Row]) -> None:
        """What is there at first."""
        self.rows, self._durable = dict(found), dict(found)

    def committed(self, delta: Delta) -> None:
        """A transaction of the owner was committed."""
        self._committed.append(delta)
        _apply(self.rows, delta)

    def attempted(self, delta: Delta) -> None:
        """A transaction was begun by a process that may end before it says whether it was committed."""
        self._doubtful = delta

    def answered(self, was_committed: bool) -> None:
        """The process has said it."""
        assert self._doubtful is not None
        delta, self._doubtful = self._doubtful, None
        if was_committed:
            self.committed(delta)

    def look(self, connection: sqlite3.Connection) -> None:
        """The process has ended without saying it; the database shows it."""
        assert self._doubtful is not None
        was_committed = delta_of(connection, self._doubtful) == self._doubtful
        if was_committed:
            self._counters.count("import whose answer was lost")
        self.answered(was_committed)

    def now_durable(self) -> None:
        """Whatever is committed survives a power cut."""
        for delta in self._committed:
            _apply(self._durable, delta)
        self._committed.clear()

    def read(self, connection: sqlite3.Connection, schema: str = "main") -> dict[Key, Row]:
        """The owner's rows in a database, the owner's or another."""
        found: dict[Key, Row] = {}
        for table, where in self._tables.items():
            query = f"SELECT * FROM {schema}.{table} WHERE {where.replace('FROM ', f'FROM {schema}.')}"
            for row in connection.execute(query, {"store": self.store}):
                found[table, row[0]] = row
        return found

    def check(self, found: Mapping[Key, Row], what: str) -> None:
        """Raises Broken unless these are the rows, where it is known what they must be."""
        if found != self.rows and self._doubtful is None:
            keys = sorted(key for key in found.keys() | self.rows.keys() if found.get(key) != self.rows.get(key))
            shown = "; ".join(
                f"{key}: {_short(found.get(key))} is not {_short(self.rows.get(key))}" for key in keys[:3]
            )
            raise Broken(f"{what}: {len(keys)} rows are not what {self._node} has made them: {shown}")

    def came_back(self, found: Mapping[Key, Row], lost_power: bool) -> None:
        """Takes note of what is there when the owner's node begins again. Raises Broken where that cannot be."""
        doubtful, self._doubtful = self._doubtful, None
        rows = dict(self._durable)
        states = [dict(rows)]
        for delta in self._committed:
            _apply(rows, delta)
            states.append(dict(rows))
        if not lost_power:
            states = states[-1:]
        if doubtful is not None:
            _apply(rows, doubtful)
            states.append(rows)
        kept = next((place for place in reversed(range(len(states))) if states[place] == found), None)
        if kept is None:
            self.rows = states[-1]
            self.check(found, f"I1, after {'a power cut' if lost_power else 'the end of a process'}")
            raise AssertionError("the last state was compared before")
        if doubtful is not None and states[kept] is rows:
            self._counters.count("import whose answer was lost")
        elif lost_power and kept < len(self._committed):
            self._counters.count("edit of another program lost with the power")
        self.rows = dict(found)
        if lost_power:
            self._durable = dict(found)
            self._committed.clear()
        elif doubtful is not None and states[kept] is rows:
            self._committed.append(doubtful)


def _apply(rows: dict[Key, Row], delta: Delta) -> None:
    for key, row in delta.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row


def _short(row: Row | None) -> str:
    return "nothing" if row is None else str(tuple(str(value)[:20] for value in row))


def read_row(connection: sqlite3.Connection, key: Key) -> Row | None:
    """A row as it is now, None where there is none."""
    row: Row | None = connection.execute(f"SELECT * FROM {key[0]} WHERE id = ?", (key[1],)).fetchone()
    return row


def delta_of(connection: sqlite3.Connection, keys: Iterable[Key]) -> Delta:
    """What a transaction that has touched these rows leaves, read before its end."""
    return {key: read_row(connection, key) for key in keys}

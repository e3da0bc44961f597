"""The settings of a connection that a program may choose, and that must not matter."""

import sqlite3
from itertools import product
from typing import NamedTuple


class Settings(NamedTuple):
    """One value for each PRAGMA."""

    recursive_triggers: int = 0
    foreign_keys: int = 0
    ignore_check_constraints: int = 0
    trusted_schema: int = 1
    synchronous: int = 2
    defer_foreign_keys: int = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        """Outside of a transaction: all but the last, which lasts for one transaction only."""
        for name, value in self._asdict().items():
            if name != "defer_foreign_keys":
                connection.execute(f"PRAGMA {name} = {value}")
                assert connection.execute(f"PRAGMA {name}").fetchone() == (value,)

    def apply_in_transaction(self, connection: sqlite3.Connection) -> None:
        """Inside of a transaction: the one that belongs there."""
        connection.execute(f"PRAGMA defer_foreign_keys = {self.defer_foreign_keys}")

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._asdict().items())


EVERY_COMBINATION = tuple(
    Settings(recursive, foreign, ignoring, trusted, synchronous, deferring)
    for recursive, foreign, ignoring, trusted, deferring in product((0, 1), repeat=5)
    for synchronous in range(4)
)
EVERY_PAIR = tuple(
    Settings(
        recursive_triggers=bit,
        foreign_keys=bit ^ (level & 1),
        ignore_check_constraints=bit ^ (level >> 1),
        trusted_schema=bit ^ (level & 1) ^ (level >> 1),
        synchronous=level,
        defer_foreign_keys=bit ^ (level == 3),
    )
    for level in range(4)
    for bit in (0, 1)
)
"""Eight combinations in which any two settings take every pair of values."""
RECURSION = {"recursion off": Settings(recursive_triggers=0), "recursion on": Settings(recursive_triggers=1)}
"""For what only depends on the setting that decides whether INSERT OR REPLACE fires delete triggers."""

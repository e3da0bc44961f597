"""What programs do that know nothing of Packhorse: plain SQL through the standard sqlite3 module."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from field_lab.bench.supplies import COLUMNS, Row

_ROWS_PER_TRANSACTION = 5_000


def enter(database: Path, rows: Sequence[Row]) -> None:
    """Enters stock lines at a site."""
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    marks = ", ".join("?" * len(COLUMNS))
    statement = f"INSERT INTO stock_line ({', '.join(COLUMNS)}) VALUES ({marks})"
    for start in range(0, len(rows), _ROWS_PER_TRANSACTION):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(statement, rows[start : start + _ROWS_PER_TRANSACTION])
        connection.execute("COMMIT")
    connection.close()


def is_all_sent(database: Path) -> bool:
    """Whether nothing waits at a site to be sent or acknowledged."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    try:
        return connection.execute("SELECT 1 FROM sync_outbox LIMIT 1").fetchone() is None
    finally:
        connection.close()


def count_stock_lines(database: Path) -> int:
    """The stock lines in a database."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    try:
        return int(connection.execute("SELECT count(*) FROM stock_line").fetchone()[0])
    finally:
        connection.close()


class Edits:
    """Single edits at one site, and looks at another whether they are there."""

    def __init__(self, here: Path, there: Path, stock_lines: Sequence[str]) -> None:
        self._writer = sqlite3.connect(here, timeout=60, isolation_level=None)
        self._reader = sqlite3.connect(f"file:{there}?mode=ro", uri=True, timeout=60, isolation_level=None)
        self._stock_lines, self._count = stock_lines, 0

    def commit_one(self) -> None:
        """Changes one stock line; it is committed when this returns."""
        self._count += 1
        self._writer.execute("UPDATE stock_line SET batch = ? WHERE id = ?", (f"E{self._count}", self._edited))

    def is_visible(self) -> bool:
        """Whether the last edit can be read at the other site."""
        row = self._reader.execute("SELECT batch FROM stock_line WHERE id = ?", (self._edited,)).fetchone()
        return row is not None and row[0] == f"E{self._count}"

    def close(self) -> None:
        """Closes both databases."""
        self._writer.close()
        self._reader.close()

    @property
    def _edited(self) -> str:
        return self._stock_lines[self._count % len(self._stock_lines)]

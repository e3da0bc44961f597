"""Compares databases row by row, with plain SQL: knows nothing of how they were synchronised."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def rows(database: Path, table: str, where: str = "1", values: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    """The rows of a table, from one read transaction."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return set(connection.execute(f"SELECT * FROM {table} WHERE {where}", values))
    finally:
        connection.close()


def differences(one: Path, other: Path, tables: Iterable[str], where: str = "1") -> dict[str, int]:
    """Table -> number of rows that only one of two databases has; tables that agree are left out."""
    found = {table: len(rows(one, table, where) ^ rows(other, table, where)) for table in tables}
    return {table: count for table, count in found.items() if count}

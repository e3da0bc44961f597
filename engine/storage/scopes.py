"""The numbers under which scopes are stored."""

import sqlite3
from collections.abc import Iterable


def scope_numbers(connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, int]:
    """The number of each scope; a scope that has none gets one."""
    numbers: dict[str, int] = {}
    for name in names:
        if name in numbers:
            continue
        row = connection.execute("SELECT scope FROM sync_scope WHERE name = ?", (name,)).fetchone()
        if row is None:
            cursor = connection.execute("INSERT INTO sync_scope (name) VALUES (?)", (name,))
            numbers[name] = int(cursor.lastrowid or 0)
        else:
            numbers[name] = row[0]
    return numbers

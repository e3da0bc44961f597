"""Records that are in the tables and not to be shown: lists to pick from and digests leave them out (F7, F36)."""

import sqlite3
from collections.abc import Iterable

from engine.rules.eviction import Fate
from engine.storage.records import Key


def hide(connection: sqlite3.Connection, records: Iterable[tuple[str, str, str]], why: Fate, now: int) -> None:
    """Hides records: (table, id, root id)."""
    connection.executemany(
        "INSERT INTO sync_hidden VALUES (?, ?, ?, ?, ?) ON CONFLICT (table_name, id) DO UPDATE SET why = excluded.why",
        [(*record, why, now) for record in records],
    )


def show(connection: sqlite3.Connection, keys: Iterable[Key]) -> None:
    """Records that came with a scope are hidden no more."""
    if connection.execute("SELECT 1 FROM sync_hidden LIMIT 1").fetchone() is not None:
        connection.executemany("DELETE FROM sync_hidden WHERE table_name = ? AND id = ?", keys)


def hidden_among(connection: sqlite3.Connection, keys: Iterable[Key]) -> set[Key]:
    """Which of these records are hidden because they are not visible any more."""
    query = f"SELECT 1 FROM sync_hidden WHERE table_name = ? AND id = ? AND why = '{Fate.NOT_VISIBLE}'"
    return {key for key in keys if connection.execute(query, key).fetchone() is not None}

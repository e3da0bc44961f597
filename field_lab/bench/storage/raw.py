"""What SQLite alone does on this machine with the rows that a receiver writes: the raw limits.

Plain sqlite3, one connection, WAL with synchronous FULL and otherwise SQLite's defaults, the engine's own tables and
indexes without its triggers, 1,000 records per transaction, upserts prepared beforehand.
"""

import random
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from engine.catalogue.descriptors import catalogue
from engine.storage.schema import prepare
from field_lab.bench.supplies import COLUMNS, Row

_RECORDS_PER_TRANSACTION = 1_000
_EPOCH = "0" * 32

_RECORD = (
    f"INSERT INTO stock_line ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (id) DO UPDATE"
    f" SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS[1:])}"
)
_STATE = (
    "INSERT INTO sync_record (table_name, id, term, term_id, counter, hash, writer_site, writer_epoch)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (table_name, id) DO UPDATE SET counter = excluded.counter,"
    " hash = excluded.hash"
)
_MEMBERSHIP = (
    "INSERT INTO sync_membership (table_name, id, scope, position) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (table_name, id, scope) DO UPDATE SET position = excluded.position"
)
_LOG = "INSERT INTO log (table_name, id) VALUES (?, ?)"

Statement = tuple[str, list[tuple[object, ...]]]


def raw_seconds(folder: Path, rows: Sequence[Row], publishes: bool) -> float:
    """Seconds for record, state and membership of each row.

    Args:
        folder: where the database is made.
        rows: in the order in which the receiver gets them.
        publishes: True for what the central writes: the membership is a feed entry with a position and its index.
    """
    chance = random.Random(0)
    states = [("stock_line", row[0], 1, 1 << 61, 1, chance.randbytes(16), 2, _EPOCH) for row in rows]
    scopes = {store: number for number, store in enumerate(dict.fromkeys(row[1] for row in rows))}
    heads = dict.fromkeys(scopes.values(), 0)
    memberships: list[tuple[object, ...]] = []
    for row in rows:
        scope = scopes[row[1]]
        heads[scope] += 1
        memberships.append(("stock_line", row[0], scope, heads[scope] if publishes else 0))
    return _seconds(folder, [(_RECORD, list(rows)), (_STATE, list(states)), (_MEMBERSHIP, memberships)])


def raw_two_rows_seconds(folder: Path, rows: Sequence[Row]) -> float:
    """Seconds for the record and a line in a log."""
    return _seconds(folder, [(_RECORD, list(rows)), (_LOG, [("stock_line", row[0]) for row in rows])])


def _seconds(folder: Path, statements: Sequence[Statement]) -> float:
    file = folder / "raw.db"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    prepare(connection, catalogue())
    for (trigger,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute("CREATE TABLE log (position INTEGER PRIMARY KEY, table_name TEXT NOT NULL, id TEXT NOT NULL)")
    connection.execute("PRAGMA synchronous = FULL")
    begun = time.perf_counter()
    for start in range(0, len(statements[0][1]), _RECORDS_PER_TRANSACTION):
        connection.execute("BEGIN IMMEDIATE")
        for statement, rows in statements:
            connection.executemany(statement, rows[start : start + _RECORDS_PER_TRANSACTION])
        connection.execute("COMMIT")
    seconds = time.perf_counter() - begun
    connection.close()
    for made in folder.glob("raw.db*"):
        made.unlink()
    return seconds

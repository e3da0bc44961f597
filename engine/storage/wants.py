"""The documents that this node has asked its peer for: at a site the central, at the central whoever owns them."""

import sqlite3
from collections.abc import Iterable

from engine.storage.records import Key


def read_wants(connection: sqlite3.Connection) -> list[Key]:
    """The documents that were asked for and have not come."""
    return connection.execute("SELECT table_name, id FROM sync_want").fetchall()


def end_wants(connection: sqlite3.Connection, arrived: Iterable[Key]) -> None:
    """These documents have come, whole."""
    connection.executemany("DELETE FROM sync_want WHERE table_name = ? AND id = ?", arrived)

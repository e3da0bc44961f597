"""Whether there is something for the central's loop to do, beside frames."""

import sqlite3


def anything_waits(connection: sqlite3.Connection) -> bool:
    """Whether any of it waits."""
    return has_own_changes(connection) or has_woken(connection) or has_work(connection)


def has_own_changes(connection: sqlite3.Connection) -> bool:
    """Whether something was edited at the central that is not in the feeds yet."""
    return connection.execute("SELECT 1 FROM sync_outbox WHERE token <> framed_token LIMIT 1").fetchone() is not None


def has_woken(connection: sqlite3.Connection) -> bool:
    """Whether a held document can be judged again."""
    return connection.execute("SELECT 1 FROM sync_held WHERE ready = 1 LIMIT 1").fetchone() is not None


def has_work(connection: sqlite3.Connection) -> bool:
    """Whether follow-up work waits that has not failed."""
    return connection.execute("SELECT 1 FROM sync_work WHERE problem = '' LIMIT 1").fetchone() is not None

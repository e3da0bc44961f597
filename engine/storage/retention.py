"""How long deleted records are remembered, and what is kept of those that are not remembered any more (F38).

Age is counted in days on which the node has worked, because a clock may stand at any time: however far it jumps, one
day has begun. A node that is switched off for a while remembers for longer.

A tombstone is forgotten when it is older than the longest backup kept and is in no feed any more. Its id may be used
again, and somebody who was away may still have the tombstone; so the greatest counter of a forgotten version is kept,
and ids of which nothing is known begin above it: whatever is written again is newer than every tombstone of it.
"""

import sqlite3
from typing import NamedTuple

from engine.limits import PURGE_RECORDS, TOMBSTONE_DAYS
from engine.rules.versions import Version
from engine.storage.records import write_meta

Place = tuple[int, str, str]
"""(day of the delete, table, id): where a purge goes on."""
BEGINNING: Place = (0, "", "")


class Purged(NamedTuple):
    """What a step of a purge did."""

    records: int
    after: Place | None
    """Where to go on; None when it is through."""


def begin_day(connection: sqlite3.Connection, now: int) -> bool:
    """Begins the next day where the clock, in seconds since 1970, is a day away from the beginning of the last one, in
    whichever direction; returns whether it did."""
    query = "UPDATE sync_day SET number = number + 1, begun_at = ?1 WHERE abs(begun_at - ?1) >= 86400"
    return connection.execute(query, (now,)).rowcount > 0


def last_day_forgotten(connection: sqlite3.Connection) -> int:
    """What ended on that day or earlier may be forgotten."""
    return int(connection.execute("SELECT number FROM sync_day").fetchone()[0]) - TOMBSTONE_DAYS


def purge_tombstones(connection: sqlite3.Connection, after: Place) -> Purged:
    """Forgets some of the tombstones that are old, in no feed and in no change under way.

    Args:
        connection: inside a write transaction.
        after: the `after` of the step before; BEGINNING begins.
    """
    found = connection.execute(
        "SELECT deleted_on, table_name, id, counter FROM sync_record WHERE deleted = 1 AND deleted_on <= ?"
        " AND (deleted_on, table_name, id) > (?, ?, ?) ORDER BY deleted_on, table_name, id LIMIT ?",
        (last_day_forgotten(connection), *after, PURGE_RECORDS),
    ).fetchall()
    forgotten = [row for row in found if not _is_in_use(connection, row[1], row[2])]
    if forgotten:
        connection.executemany(
            "DELETE FROM sync_record WHERE table_name = ? AND id = ?", [(row[1], row[2]) for row in forgotten]
        )
        counter = max(last_forgotten(connection).counter, *(row[3] for row in forgotten))
        write_meta(connection, forgotten_counter=str(counter))
    return Purged(len(forgotten), found[-1][:3] if len(found) == PURGE_RECORDS else None)


def _is_in_use(connection: sqlite3.Connection, table: str, record_id: str) -> bool:
    for place in ("sync_membership", "sync_outbox", "sync_in_flight", "sync_held", "sync_hidden"):
        query = f"SELECT 1 FROM {place} WHERE table_name = ? AND id = ? LIMIT 1"
        if connection.execute(query, (table, record_id)).fetchone():
            return True
    return False


def last_forgotten(connection: sqlite3.Connection) -> Version:
    """The version that ids of which nothing is known continue; NEVER until something was forgotten."""
    row = connection.execute("SELECT value FROM sync_meta WHERE key = 'forgotten_counter'").fetchone()
    return Version(counter=int(row[0]) if row else 0)

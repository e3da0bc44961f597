"""The central forgets feed entries of what was deleted, or left a scope, long ago (F38).

An entry goes when it is older than the longest backup kept and every live subscriber of the feed has acknowledged it.
The feed's floor is the highest position that went. A site that was away for longer than that begins the feed again
(`roster.reconcile_subscriptions`). A subscription needs no entry from before its beginning: what was deleted by then
was never shown to it.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from engine.limits import PURGE_RECORDS, TOMBSTONE_DAYS
from engine.storage import retention
from engine.storage.records import chunks
from engine.storage.retention import last_day_forgotten

Place = tuple[int, str, str, int]
"""(day of the end, table, id, scope): where a purge goes on."""
BEGINNING: Place = (0, "", "", 0)


class PurgedEntries(NamedTuple):
    """What a step of a purge did."""

    entries: int
    after: Place | None
    """Where to go on; None when it is through."""


def begin_day(connection: sqlite3.Connection, now: int) -> None:
    """Begins the next day where it is time, and counts for each site the days since it was heard of."""
    if retention.begin_day(connection, now):
        connection.execute(
            "UPDATE central_site SET silent_days = iif(last_seen IS seen_before, silent_days + 1, 0),"
            " seen_before = last_seen"
        )


def purge_entries(connection: sqlite3.Connection, after: Place) -> PurgedEntries:
    """Forgets some of the entries that nobody needs any more, and raises the floors of their feeds.

    Args:
        connection: inside a write transaction.
        after: the `after` of the step before; BEGINNING begins.
    """
    found = connection.execute(
        "SELECT ended_on, table_name, id, scope, position FROM sync_membership WHERE ended_on > 0 AND ended_on <= ?"
        " AND (ended_on, table_name, id, scope) > (?, ?, ?, ?) ORDER BY ended_on, table_name, id, scope LIMIT ?",
        (last_day_forgotten(connection), *after, PURGE_RECORDS),
    ).fetchall()
    reached = _reached(connection, {row[3] for row in found})
    gone = [row for row in found if row[4] <= reached.get(row[3], row[4])]
    connection.executemany(
        "DELETE FROM sync_membership WHERE table_name = ? AND id = ? AND scope = ?", [row[1:4] for row in gone]
    )
    connection.executemany(
        "UPDATE sync_scope SET floor = max(floor, ?) WHERE scope = ?", [(row[4], row[3]) for row in gone]
    )
    return PurgedEntries(len(gone), found[-1][:4] if len(found) == PURGE_RECORDS else None)


def _reached(connection: sqlite3.Connection, scopes: Iterable[int]) -> Mapping[int, int]:
    """Scope -> up to where no live subscriber needs anything; scopes without one are left out. A site that has been
    silent for longer than tombstones are kept is not live."""
    found: dict[int, int] = {}
    for marks, part in chunks([str(scope) for scope in sorted(scopes)]):
        found |= connection.execute(
            "SELECT f.scope, min(max(u.position, u.begun)) FROM central_subscription AS u"
            " JOIN central_site AS c ON c.site = u.site JOIN sync_scope AS f ON f.name = u.scope"
            f" WHERE c.silent_days < ? AND f.scope IN ({marks}) GROUP BY f.scope",
            (TOMBSTONE_DAYS, *part),
        )
    return found


def floors_of(connection: sqlite3.Connection, site: int) -> Mapping[str, int]:
    """Scope -> floor of its feed, where something went that was written after the site's subscription began."""
    return dict(
        connection.execute(
            "SELECT u.scope, f.floor FROM central_subscription AS u JOIN sync_scope AS f ON f.name = u.scope"
            " WHERE u.site = ? AND f.floor > u.begun",
            (site,),
        )
    )

"""What a site could not take while its program did not know a table, sent after its upgrade (F45).

Its positions have passed those records. When a Hello names tables that the one before did not, each subscription whose
feed has records of such a table gets a backfill: the records of that table from the start of the feed to where it
stands now. What comes later the subscription itself brings. A backfill is resumed like a subscription and ends with its
last acknowledged page; a subscription that begins again needs none.
"""

import json
import sqlite3
from collections.abc import Iterable

from engine.storage.pages import Cursor


def note_tables(connection: sqlite3.Connection, site: int, tables: Iterable[str]) -> None:
    """Remembers which tables a site knows, and opens backfills for those that it has not known before."""
    (noted,) = connection.execute("SELECT tables FROM central_site WHERE site = ?", (site,)).fetchone()
    known = json.dumps(sorted(tables))
    if noted == known:
        return
    connection.execute("UPDATE central_site SET tables = ? WHERE site = ?", (known, site))
    if not noted:
        return
    before, after = set(json.loads(noted)), set(json.loads(known))
    connection.executemany(
        "DELETE FROM central_backfill WHERE site = ? AND table_name = ?", [(site, table) for table in before - after]
    )
    connection.executemany(
        "INSERT OR REPLACE INTO central_backfill SELECT u.site, u.scope, d.table_name, u.generation, 0, f.position"
        " FROM central_subscription AS u JOIN sync_scope AS f ON f.name = u.scope"
        " JOIN sync_digest AS d ON d.scope = f.scope AND d.table_name = ? WHERE u.site = ? AND d.count > 0",
        [(table, site) for table in sorted(after - before)],
    )


def open_backfills(connection: sqlite3.Connection, site: int) -> dict[str, Cursor]:
    """Key -> what is under way, for the subscriptions that go on."""
    rows = connection.execute(
        "SELECT b.scope, b.generation, b.position, b.table_name, b.until FROM central_backfill AS b"
        " JOIN central_subscription AS u ON u.site = b.site AND u.scope = b.scope AND u.generation = b.generation"
        " WHERE b.site = ? ORDER BY b.scope, b.table_name",
        (site,),
    )
    return {cursor.key: cursor for cursor in (Cursor(*row) for row in rows)}


def note_backfills(connection: sqlite3.Connection, site: int, cursors: Iterable[Cursor]) -> None:
    """Remembers how far a site is; what has come to its end is forgotten."""
    for cursor in cursors:
        these = "site = ? AND scope = ? AND table_name = ? AND generation = ?"
        which = (site, cursor.scope, cursor.table, cursor.generation)
        connection.execute(
            f"UPDATE central_backfill SET position = max(position, ?) WHERE {these}", (cursor.position, *which)
        )
        connection.execute(f"DELETE FROM central_backfill WHERE {these} AND position >= until", which)

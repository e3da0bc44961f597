"""Eras: each start of the central begins a new, random one, and the ends of the former are recorded (F10).

Positions are compared within an era only. A site that shows a position beyond the recorded end of its era, or an era
that was never here, proves that this database was restored from a backup. Eras are kept for ever, because a site may be
away for longer than any number of restarts; an end is recorded only for feeds that moved in the run.
"""

import sqlite3

from packhorse.sync.v1 import session_pb2

from engine.errors import Code, Refused
from engine.storage.work import retry_failed

_LAST_END = "SELECT position FROM central_era_end WHERE scope = ? AND number <= ? ORDER BY number DESC LIMIT 1"


def begin_era(connection: sqlite3.Connection, era: int) -> None:
    """Ends the present era where the feeds stand now and begins another; work that failed before is tried again."""
    present = connection.execute("SELECT max(number) FROM central_era").fetchone()[0]
    if present is not None:
        connection.execute(
            "INSERT INTO central_era_end SELECT name, ?, position FROM sync_scope AS s WHERE position > ifnull("
            "(SELECT position FROM central_era_end AS e WHERE e.scope = s.name ORDER BY number DESC LIMIT 1), 0)",
            (present,),
        )
    connection.execute("INSERT INTO central_era (era) VALUES (?)", (era,))
    retry_failed(connection)


def current_era(connection: sqlite3.Connection) -> int | None:
    """The era of the run under way, or of the last one."""
    row = connection.execute("SELECT era FROM central_era ORDER BY number DESC LIMIT 1").fetchone()
    return row[0] if row else None


def check_era(connection: sqlite3.Connection, era: int) -> None:
    """Raises Refused with CENTRAL_RESTORED when this database has never known the era."""
    is_possible = era < 1 << 63
    if not is_possible or connection.execute("SELECT 1 FROM central_era WHERE era = ?", (era,)).fetchone() is None:
        raise Refused(
            Code.CENTRAL_RESTORED, "The site has seen a run of the central node that this database does not know."
        )


def check_position(connection: sqlite3.Connection, era: int, position: session_pb2.FeedPosition) -> None:
    """Raises Refused with CENTRAL_RESTORED when a position lies beyond the end of its era."""
    if era == current_era(connection):
        row = connection.execute("SELECT position FROM sync_scope WHERE name = ?", (position.scope,)).fetchone()
    else:
        number = connection.execute("SELECT number FROM central_era WHERE era = ?", (era,)).fetchone()[0]
        row = connection.execute(_LAST_END, (position.scope, number)).fetchone()
    if position.position > (row[0] if row else 0):
        raise Refused(
            Code.CENTRAL_RESTORED,
            f"The site has applied {position.scope} up to {position.position}; this database ends before that.",
        )

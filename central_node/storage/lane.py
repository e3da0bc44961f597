"""The pull frame that goes to a site in parts: chosen once, kept until it arrived or was overtaken (F42)."""

import sqlite3
from collections.abc import Mapping

from engine.storage.pages import Cursor
from engine.storage.parts import Body, body_for, drop_body


def resume_body(connection: sqlite3.Connection, site: int, cursors: Mapping[str, Cursor]) -> Body | None:
    """The body that an earlier session had begun to send, where it still fits; else it is forgotten.

    What the site wanted it asks for again, so that such a body is made again.
    """
    body = body_for(connection, site)
    if body is None:
        return None
    if body.scope and fits(body, cursors) and not is_overtaken(connection, body):
        return body
    drop_body(connection, site)
    return None


def fits(body: Body, cursors: Mapping[str, Cursor]) -> bool:
    """Whether a body continues what the site has of the feed. One that was wanted is of no feed and fits."""
    cursor = cursors.get(body.scope)
    continues = cursor is not None and (cursor.generation, cursor.position) == (body.generation, body.from_position)
    return not body.scope or continues


def is_overtaken(connection: sqlite3.Connection, body: Body) -> bool:
    """Whether the document was deleted meanwhile: that does not wait behind what it ends."""
    row = connection.execute(
        "SELECT deleted FROM sync_record WHERE table_name = ? AND id = ?", (body.root_table, body.root_id)
    ).fetchone()
    return row is None or bool(row[0])

"""What a checkpoint says: where the feeds of a site stand, with their digests, from one snapshot (F25, F44)."""

import sqlite3
from collections.abc import Container, Mapping
from itertools import islice
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.limits import WANT_DOCUMENTS
from engine.storage.digests import read_digests
from engine.storage.feeds import heads, scopes_in_force
from engine.storage.held import held_count
from engine.storage.pages import Cursor
from engine.storage.wants import read_wants


class Compared(NamedTuple):
    """Where a feed stood in a checkpoint. A subscription that begins again is another generation: its subscriber has
    to be shown the feed once more, even where nothing has come into it."""

    generation: int
    position: int


def compared_in(checkpoint: session_pb2.PullCheckpoint) -> dict[str, Compared]:
    """Scope -> what the checkpoint says of its feed."""
    return {feed.scope: Compared(feed.generation, feed.position) for feed in checkpoint.feeds}


def read_checkpoint(
    connection: sqlite3.Connection,
    site: int,
    cursors: Mapping[str, Cursor],
    compared: Mapping[str, Compared],
    round_: int,
    tables: Container[str],
) -> session_pb2.PullCheckpoint | None:
    """The checkpoint for a site, or None when something has come that was not sent yet.

    Args:
        connection: inside a read snapshot.
        site: the site.
        cursors: what was sent to it, by scope.
        compared: what earlier checkpoints of the session said of the feeds, where the site found it to be so.
        round_: the push checkpoint that is answered.
        tables: those that the site knows; it can have no digest of another (F25).
    """
    busy = (
        "SELECT 1 FROM sync_outbox WHERE token <> framed_token UNION ALL SELECT 1 FROM sync_held WHERE ready = 1"
        " UNION ALL SELECT 1 FROM sync_work WHERE problem = ''"
    )
    if connection.execute(f"SELECT 1 FROM ({busy}) LIMIT 1").fetchone():
        return None
    if any(cursor.until > cursor.position for cursor in cursors.values() if cursor.table):
        return None
    followed = {scope: cursor for scope, cursor in cursors.items() if not cursor.table}
    known = heads(connection, followed)
    feeds = []
    for scope, cursor in followed.items():
        number, head = known.get(scope, (0, 0))
        if head > cursor.position:
            return None
        if compared.get(scope) == Compared(cursor.generation, head):
            continue
        digests = [
            session_pb2.Digest(table=table, count=digest.records, sum=digest.sum)
            for table, digest in (read_digests(connection, number) if number else {}).items()
            if table in tables
        ]
        feeds.append(
            session_pb2.FeedCheckpoint(scope=scope, generation=cursor.generation, position=head, digests=digests)
        )
    frame = connection.execute("SELECT frame_number FROM central_site WHERE site = ?", (site,)).fetchone()[0]
    told = session_pb2.PullCheckpoint(round=round_, last_frame=frame, feeds=feeds, wanted=_wanted(connection, cursors))
    told.held, told.subscriptions = held_count(connection, site), len(followed)
    return told


def _wanted(connection: sqlite3.Connection, scopes: Container[str]) -> list[document_pb2.RecordKey]:
    """The damaged documents of these scopes, which whoever owns them is asked for (F43)."""
    concerned = (
        document_pb2.RecordKey(table=key[0], id=key[1])
        for key in read_wants(connection)
        if any(scope in scopes for scope in scopes_in_force(connection, key))
    )
    return list(islice(concerned, WANT_DOCUMENTS))

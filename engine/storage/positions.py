"""How far a receiver is in each feed, and whether both ends agree there."""

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from packhorse.sync.v1 import session_pb2

from engine.storage.digests import read_digests
from engine.storage.echoes import MARKED
from engine.storage.eviction import leave_scopes


def read_positions(connection: sqlite3.Connection) -> list[session_pb2.FeedPosition]:
    """The position in every feed that this node follows, sorted by scope."""
    rows = connection.execute("SELECT name, generation, position FROM sync_scope WHERE generation > 0 ORDER BY name")
    return [session_pb2.FeedPosition(scope=row[0], generation=row[1], position=row[2]) for row in rows]


def positions_hash(positions: Iterable[tuple[str, int, int]]) -> bytes:
    """SHA-256 over the sorted (scope, generation, position)."""
    told = "\n".join(f"{scope} {generation} {position}" for scope, generation, position in sorted(positions))
    return hashlib.sha256(told.encode()).digest()


class Comparison(NamedTuple):
    """What a checkpoint showed."""

    comparable: bool
    """Every feed stands at the position of the checkpoint, and no acknowledgement is outstanding."""
    differing: list[str]
    """Scopes whose digests were compared and differ."""


def compare(connection: sqlite3.Connection, checkpoint: session_pb2.PullCheckpoint, acknowledged: int) -> Comparison:
    """Compares the digests of a checkpoint with this node's own, where both speak of the same state (F25)."""
    comparable, differing = checkpoint.last_frame == acknowledged, []
    for feed in checkpoint.feeds:
        row = connection.execute(
            "SELECT scope, generation, position FROM sync_scope WHERE name = ?", (feed.scope,)
        ).fetchone()
        if row is None or (row[1], row[2]) != (feed.generation, feed.position):
            comparable = False
            continue
        mine = {table: tuple(digest) for table, digest in read_digests(connection, row[0]).items()}
        theirs = {digest.table: (digest.count, digest.sum) for digest in feed.digests}
        if comparable and mine != theirs:
            differing.append(feed.scope)
    return Comparison(comparable, differing)


def drop_unseen(connection: sqlite3.Connection, checkpoint: session_pb2.PullCheckpoint) -> int:
    """Ends the memberships that a feed which was read again to its end did not show; returns how many (F38). The sweep
    decides what becomes of their records."""
    dropped = 0
    for feed in checkpoint.feeds:
        marked = connection.execute(
            "SELECT m.table_name, m.id, m.scope FROM sync_scope AS s JOIN sync_membership AS m ON m.scope = s.scope"
            f" WHERE m.state = {MARKED} AND s.name = ? AND s.generation = ? AND s.position = ?",
            (feed.scope, feed.generation, feed.position),
        ).fetchall()
        leave_scopes(connection, [((table, record_id), scope) for table, record_id, scope in marked])
        dropped += len(marked)
    return dropped


def note_filled(connection: sqlite3.Connection, checkpoint: session_pb2.PullCheckpoint) -> None:
    """Notes the scopes of which a checkpoint has shown that everything is here."""
    connection.executemany(
        "UPDATE sync_scope SET filled = 1 WHERE name = ? AND generation = ? AND position = ? AND filled = 0",
        [(feed.scope, feed.generation, feed.position) for feed in checkpoint.feeds],
    )

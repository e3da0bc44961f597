"""How far a receiver is in each feed, and whether both ends agree there."""

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from packhorse.sync.v1 import session_pb2

from engine.catalogue.model import Catalogue
from engine.storage.configuration import read_rights
from engine.storage.digests import read_digests
from engine.storage.receive import MARKED, drop_membership
from engine.storage.records import applying


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
        for table, record_id, scope in marked:
            drop_membership(connection, (table, record_id), scope)
        dropped += len(marked)
    return dropped


def sweep_left(connection: sqlite3.Connection, catalogue: Catalogue) -> int:
    """Removes records that are in no scope any more; returns how many.

    One that this node owns, or that has a change pending or in flight, or is held, stays (F7).
    """
    stores = {right.key for right in read_rights(connection) if right.key}
    removed = 0
    with applying(connection):
        for name, record_id in connection.execute("SELECT table_name, id FROM sync_left").fetchall():
            if name not in catalogue or _is_needed(connection, name, record_id):
                continue
            table = catalogue[name]
            if table.store_column:
                row = connection.execute(f"SELECT {table.store_column} FROM {name} WHERE id = ?", (record_id,))
                if (found := row.fetchone()) and found[0] in stores:
                    continue
            connection.execute(f"DELETE FROM {name} WHERE id = ?", (record_id,))
            for bookkeeping in ("sync_record", "sync_unknown"):
                connection.execute(f"DELETE FROM {bookkeeping} WHERE table_name = ? AND id = ?", (name, record_id))
            connection.execute("DELETE FROM sync_left WHERE table_name = ? AND id = ?", (name, record_id))
            removed += 1
    return removed


def _is_needed(connection: sqlite3.Connection, table: str, record_id: str) -> bool:
    for needed in ("sync_membership", "sync_outbox", "sync_in_flight"):
        query = f"SELECT 1 FROM {needed} WHERE table_name = ? AND id = ? LIMIT 1"
        if connection.execute(query, (table, record_id)).fetchone():
            return True
    return False

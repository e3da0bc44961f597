"""A site loses scopes: memberships end when it is told, records go when a checkpoint has shown that all was told (F7).

    close_scope, leave_scopes,  a pull frame: memberships end; the records are noted with a number that grows
    lose_rights
    reach_checkpoint            the pull checkpoint: what has such a number by now may go
    evict_some                  one bounded piece of work in a transaction of its own, until none is left:
        DRAIN   walks over all records: ends memberships in closed scopes, notes what is in no scope and not noted yet
        JUDGE   crosses out the documents that stay or are left behind
        MARK    walks over the records that refer to others: what they refer to is only hidden
        CLEAR   judges again what is still noted, and hides or removes it

Between two pieces anything may happen: edits, frames, the end of the process. CLEAR judges by what is true in its own
transaction, whatever the pieces before have seen; a process that begins anew begins with DRAIN. What becomes of a
document is decided in engine/rules/eviction.py.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from engine.catalogue.model import Catalogue, Kind, Table
from engine.rules.eviction import Fate
from engine.storage.candidates import Documents
from engine.storage.digests import DigestLedger
from engine.storage.hidden import hide
from engine.storage.records import Key, read_states, write_meta

CLOSED = -1
"""The generation of a scope that is being emptied."""
_WALKED, _JUDGED, _CLEARED = 2_000, 300, 500
"""Records in one piece: at most some 50 ms of work. One document alone may be larger."""
_NOT_A_CANDIDATE = (
    "NOT EXISTS (SELECT 1 FROM sync_left AS l WHERE l.table_name = ? AND l.id = r.id AND l.number <= ?)"
    f" AND NOT EXISTS (SELECT 1 FROM sync_hidden AS h WHERE h.table_name = ? AND h.id = r.id"
    f" AND h.why = '{Fate.NOT_VISIBLE}')"
)


class Phase(IntEnum):
    """See the module."""

    DRAIN = 0
    JUDGE = 1
    MARK = 2
    CLEAR = 3


class Place(NamedTuple):
    """How far an eviction is. The default begins."""

    due: int = 0
    phase: Phase = Phase.DRAIN
    after: Key = ("", "")
    token: int = 0
    """The last edit before MARK began."""


# --- what a pull frame does -------------------------------------------------------------------------------------------


def close_scope(connection: sqlite3.Connection, name: str) -> None:
    """The site does not follow a scope any more. Its memberships are ended later, in bounded pieces; the scope may be
    opened again meanwhile, under the same name."""
    connection.execute(
        "UPDATE sync_scope SET name = name || ' closed ' || scope, generation = ?, position = ? WHERE name = ?",
        (CLOSED, _next_number(connection), name),
    )


def lose_rights(connection: sqlite3.Connection) -> None:
    """The site may not edit something any more. What it wrote under that right before it followed the scopes to which
    that belongs is in no scope that will ever be closed: it is looked for as if one had been."""
    number = _next_number(connection)
    connection.execute(
        "INSERT INTO sync_scope (name, generation, position) VALUES (?, ?, ?)",
        (f"right closed {number}", CLOSED, number),
    )


def leave_scopes(connection: sqlite3.Connection, left: Sequence[tuple[Key, int]]) -> None:
    """Records left scopes: ends these memberships, with their part of the digests."""
    if not left:
        return
    ledger, number, noted = DigestLedger(), _next_number(connection), []
    states = read_states(connection, [key for key, _ in left])
    for key, scope in left:
        state = states.get(key)
        query = "DELETE FROM sync_membership WHERE table_name = ? AND id = ? AND scope = ? RETURNING root_id"
        there = connection.execute(query, (*key, scope)).fetchone()
        if there and state is not None and not state.deleted:
            ledger.remove(scope, key[0], state.hash)
        noted.append((*key, there[0] if there else state.root_id if state else "", number))
    ledger.write(connection)
    note_left(connection, noted)


def note_left(connection: sqlite3.Connection, records: Iterable[tuple[str, str, str, int]]) -> None:
    """Notes (table, id, root id, number) as candidates."""
    connection.executemany(
        "INSERT INTO sync_left (table_name, id, root_id, number) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (table_name, id) DO UPDATE SET number = excluded.number, referred_to = 0",
        records,
    )


def linger(connection: sqlite3.Connection, records: Sequence[tuple[str, str, str]], now: int) -> None:
    """Records (table, id, root id) that were deleted elsewhere are only hidden until it is known whether a document
    here refers to them (F36)."""
    if records:
        hide(connection, records, Fate.NOT_VISIBLE, now)
        number = _next_number(connection)
        note_left(connection, [(*record, number) for record in records])


# --- what a checkpoint does -------------------------------------------------------------------------------------------


def reach_checkpoint(connection: sqlite3.Connection, looks_at_hidden: bool) -> bool:
    """Everything was told: what has left until now may go. Returns whether there is anything to do.

    Args:
        connection: inside the write transaction of the checkpoint.
        looks_at_hidden: whether to look again whether anything refers to what is hidden. What was left behind is looked
            at every time.
    """
    number = _next_number(connection) - 1
    again = f"'{Fate.LEFT_BEHIND}'" + (f", '{Fate.NOT_VISIBLE}'" if looks_at_hidden else "")
    connection.execute(
        "INSERT INTO sync_left (table_name, id, root_id, number)"
        f" SELECT table_name, id, root_id, ? FROM sync_hidden WHERE why IN ({again}) ON CONFLICT DO NOTHING",
        (max(number, 1),),
    )
    if not number and connection.execute("SELECT 1 FROM sync_left LIMIT 1").fetchone() is None:
        return False
    write_meta(connection, **{"left_next" if _noted(connection, "left_due") else "left_due": str(max(number, 1))})
    return True


def _noted(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute("SELECT value FROM sync_meta WHERE key = ?", (key,)).fetchone()
    return int(row[0]) if row else 0


def _next_number(connection: sqlite3.Connection) -> int:
    """A number that no checkpoint has let go and none of what was noted before has."""
    noted = connection.execute("SELECT ifnull(max(number), 0) FROM sync_left").fetchone()[0]
    query = "SELECT ifnull(max(position), 0) FROM sync_scope WHERE generation = ?"
    closed = connection.execute(query, (CLOSED,)).fetchone()[0]
    return 1 + max(int(noted), int(closed), _noted(connection, "left_due"), _noted(connection, "left_next"))


# --- pieces of work ---------------------------------------------------------------------------------------------------


def evict_some(connection: sqlite3.Connection, catalogue: Catalogue, place: Place, now: int) -> Place | None:
    """Does one piece and returns where the next begins; None when nothing is left to be done.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        place: what the last piece returned that was committed; the default to begin.
        now: seconds since 1970.
    """
    due = _noted(connection, "left_due")
    if not due:
        return None
    if place.due != due:
        place = Place(due)
    match place.phase:
        case Phase.DRAIN:
            return _drain(connection, catalogue, place)
        case Phase.JUDGE:
            return _judge(connection, catalogue, place, now)
        case Phase.MARK:
            return _mark(connection, catalogue, place)
        case Phase.CLEAR:
            return _clear(connection, catalogue, place, now)


def _drain(connection: sqlite3.Connection, catalogue: Catalogue, place: Place) -> Place:
    query = "SELECT scope FROM sync_scope WHERE generation = ? AND position <= ?"
    closed = ", ".join(str(row[0]) for row in connection.execute(query, (CLOSED, place.due)))
    if not closed:
        return place._replace(phase=Phase.JUDGE, after=("", ""))
    last = connection.execute(
        "SELECT table_name, id FROM sync_record WHERE (table_name, id) > (?, ?) ORDER BY table_name, id"
        f" LIMIT 1 OFFSET {_WALKED - 1}",
        place.after,
    ).fetchone()
    these, values = "(table_name, id) > (?, ?)", place.after
    if last is not None:
        these, values = f"{these} AND (table_name, id) <= (?, ?)", (*values, *last)
    member = "SELECT 1 FROM sync_membership AS m WHERE m.table_name = sync_record.table_name AND m.id = sync_record.id"
    # A message that was in no scope before has lost none: it stays with whoever wrote it.
    messages = ", ".join(f"'{table.name}'" for table in catalogue if table.kind is Kind.MESSAGE)
    loses_one = f"(table_name NOT IN ({messages}) OR EXISTS ({member} AND m.scope IN ({closed})))"
    connection.execute(
        "INSERT INTO sync_left (table_name, id, root_id, number) SELECT table_name, id, root_id, ? FROM sync_record"
        f" WHERE {these} AND deleted = 0 AND NOT EXISTS ({member} AND m.scope NOT IN ({closed})) AND {loses_one}"
        " ON CONFLICT DO NOTHING",
        (place.due, *values),
    )
    connection.execute(f"DELETE FROM sync_membership WHERE {these} AND scope IN ({closed})", values)
    if last is not None:
        return place._replace(after=(last[0], last[1]))
    connection.execute(f"DELETE FROM sync_digest WHERE scope IN ({closed})")
    connection.execute(f"DELETE FROM sync_scope WHERE scope IN ({closed})")
    return place._replace(phase=Phase.JUDGE, after=("", ""))


def _judge(connection: sqlite3.Connection, catalogue: Catalogue, place: Place, now: int) -> Place:
    rows = connection.execute(
        "SELECT table_name, id, root_id FROM sync_left WHERE (table_name, id) > (?, ?) AND number <= ?"
        " ORDER BY table_name, id LIMIT ?",
        (*place.after, place.due, _JUDGED),
    ).fetchall()
    documents = Documents(connection, catalogue, rows)
    for root in documents.roots:
        if (fate := documents.fate(root)) in (Fate.STAYS, Fate.LEFT_BEHIND):
            documents.settle(root, fate, now)
    if len(rows) == _JUDGED:
        return place._replace(after=(rows[-1][0], rows[-1][1]))
    token = int(connection.execute("SELECT last FROM sync_counter").fetchone()[0])
    return place._replace(phase=Phase.MARK, after=("", ""), token=token)


def _mark(connection: sqlite3.Connection, catalogue: Catalogue, place: Place) -> Place:
    for table in sorted(catalogue, key=lambda table: table.name):
        if table.name < place.after[0]:
            continue
        columns = [
            column
            for column in table.references
            if column.name != table.parent_column and _has_candidates(connection, column.refers_to)
        ]
        if not columns:
            continue
        past = place.after[1] if table.name == place.after[0] else ""
        last = _after_walking(connection, table, past)
        these, values = ("r.id > ?", [past]) if last is None else ("r.id > ? AND r.id <= ?", [past, last])
        for column in columns:
            referred = f"SELECT r.{column.name} FROM {table.name} AS r WHERE {these} AND {_NOT_A_CANDIDATE}"
            connection.execute(
                f"UPDATE sync_left SET referred_to = 1 WHERE table_name = ? AND number <= ? AND id IN ({referred})",
                (column.refers_to, place.due, *values, table.name, place.due, table.name),
            )
        # The name with a zero behind it comes after this table and before every other one.
        return place._replace(after=(table.name, last) if last is not None else (f"{table.name}\0", ""))
    return place._replace(phase=Phase.CLEAR, after=("", ""))


def _has_candidates(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute("SELECT 1 FROM sync_left WHERE table_name = ? LIMIT 1", (table,)).fetchone() is not None


def _after_walking(connection: sqlite3.Connection, table: Table, past: str) -> str | None:
    query = f"SELECT id FROM {table.name} WHERE id > ? ORDER BY id LIMIT 1 OFFSET {_WALKED - 1}"
    try:
        row = connection.execute(query, (past,)).fetchone()
    except sqlite3.OperationalError:  # an id that is no UTF-8 (undecodable.py): the rest of the table in one piece
        return None
    return str(row[0]) if row else None


def _clear(connection: sqlite3.Connection, catalogue: Catalogue, place: Place, now: int) -> Place | None:
    rows = connection.execute(
        "SELECT table_name, id, root_id FROM sync_left WHERE number <= ? LIMIT ?", (place.due, _CLEARED // 5)
    ).fetchall()
    if not rows:
        following = _noted(connection, "left_next")
        connection.execute("DELETE FROM sync_meta WHERE key IN ('left_due', 'left_next')")
        if not following:
            return None
        write_meta(connection, left_due=str(following))
        return Place(following)
    documents = Documents(connection, catalogue, rows, place.token)
    cleared = 0
    for root, records in documents.roots.items():
        documents.settle(root, documents.fate(root), now)
        cleared += len(records)
        if cleared >= _CLEARED:  # the rest is for the next piece
            break
    return place

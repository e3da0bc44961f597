"""The feeds that a node publishes: positions are given here, as the last step of the transaction that made the change.

One counter per feed (`sync_scope.position`), raised under the write lock that the commit holds: positions are in commit
order and a reader that has seen position n has seen everything up to n (law 4). The membership row of (record, scope)
is the feed entry; a newer entry of the same record replaces it, so a feed holds each record once.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import NamedTuple

from engine.limits import COUNT_CAP
from engine.storage.bulk import insert_rows
from engine.storage.digests import DigestLedger
from engine.storage.records import Change, Key, State, by_table, chunks
from engine.storage.scopes import scope_numbers

PUT, DELETE, LEAVE = 0, 1, 2
_NOWHERE: Mapping[int, int] = {}


class Routed(NamedTuple):
    """A written change with the scopes that it is in now. A deleted record stays in those it was in."""

    change: Change
    scopes: Sequence[str]
    before: State | None


def publish(connection: sqlite3.Connection, routed: Sequence[Routed]) -> set[str]:
    """Writes feed entries and digests for changes that are already in the tables; returns the scopes that moved."""
    numbers = scope_numbers(connection, dict.fromkeys(scope for entry in routed for scope in entry.scopes))
    before = _memberships(connection, [(entry.change.table.name, entry.change.id) for entry in routed])
    heads = _heads(connection, chain(numbers.values(), *before.values()))
    ledger, entries = DigestLedger(), []
    moved: set[int] = set()
    for entry in routed:
        change, key = entry.change, (entry.change.table.name, entry.change.id)
        old = before.get(key, _NOWHERE)
        if not old and len(entry.scopes) == 1 and change.row is not None:  # most records, and nothing to be compared
            scope = numbers[entry.scopes[0]]
            ledger.add(scope, key[0], change.hash)
            heads[scope] += 1
            moved.add(scope)
            entries.append((*key, scope, heads[scope], change.root_id, PUT, False))
            continue
        new = set(old) if change.row is None and not entry.scopes else {numbers[scope] for scope in entry.scopes}
        if entry.before is not None and not entry.before.deleted:
            for scope, state in old.items():
                if state == PUT:
                    ledger.remove(scope, key[0], entry.before.hash)
        for scope in sorted(new | {scope for scope, state in old.items() if state != LEAVE}):
            state = LEAVE if scope not in new else DELETE if change.row is None else PUT
            if state == PUT:
                ledger.add(scope, key[0], change.hash)
            if old.get(scope) == state and entry.before is not None and entry.before.hash == change.hash:
                continue  # only other scopes of it change
            heads[scope] += 1
            moved.add(scope)
            entries.append((*key, scope, heads[scope], change.root_id, state, state != PUT))
    _write_entries(connection, entries)
    roots = [entry for entry in routed if entry.change.row is not None and not entry.change.table.parent]
    _note_nowhere(
        connection,
        [(entry.change.table.name, entry.change.id) for entry in routed],
        [(entry.change.table.name, entry.change.id) for entry in roots if not entry.scopes],
    )
    ledger.write(connection)
    _write_heads(connection, {scope: heads[scope] for scope in moved})
    return scope_names(connection, moved)


class Published(NamedTuple):
    """Documents of one record, of one table, that were never in any scope, with the scopes that all of them are in."""

    table: str
    scopes: Sequence[str]
    ids: Sequence[str]
    hashes: Sequence[bytes]


def publish_new(connection: sqlite3.Connection, published: Sequence[Published]) -> set[str]:
    """What `publish` does, for documents that were never in any scope."""
    numbers = scope_numbers(connection, (scope for group in published for scope in group.scopes))
    heads, ledger = _heads(connection, numbers.values()), DigestLedger()
    for table, scopes, ids, hashes in published:
        if not scopes:
            _note_nowhere(connection, [], [(table, record_id) for record_id in ids])
        for scope in map(numbers.__getitem__, scopes):
            positions = range(heads[scope] + 1, heads[scope] + 1 + len(ids))
            heads[scope] = positions[-1]
            ledger.add_all(scope, table, hashes)
            insert_rows(
                connection, "INSERT INTO sync_membership (table_name, id, scope, position)", "(?, ?, ?, ?)",
                list(zip(repeat(table), ids, repeat(scope), positions)),
            )  # fmt: skip
    ledger.write(connection)
    _write_heads(connection, heads)
    return set(numbers)


def _heads(connection: sqlite3.Connection, scopes: Iterable[int]) -> dict[int, int]:
    """Scope -> the position that was given last in its feed."""
    query = "SELECT position FROM sync_scope WHERE scope = ?"
    return {scope: connection.execute(query, (scope,)).fetchone()[0] for scope in set(scopes)}


def _write_heads(connection: sqlite3.Connection, heads: Mapping[int, int]) -> None:
    connection.executemany(
        "UPDATE sync_scope SET position = ? WHERE scope = ?", [(heads[scope], scope) for scope in sorted(heads)]
    )


def _note_nowhere(connection: sqlite3.Connection, written: Sequence[Key], nowhere: Sequence[Key]) -> None:
    """Keeps a list of the documents that no site is sent, so that it never happens unnoticed."""
    if connection.execute("SELECT 1 FROM sync_nowhere LIMIT 1").fetchone() is not None:
        connection.executemany("DELETE FROM sync_nowhere WHERE table_name = ? AND id = ?", written)
    connection.executemany("INSERT OR IGNORE INTO sync_nowhere VALUES (?, ?)", nowhere)


def nowhere_count(connection: sqlite3.Connection) -> int:
    """How many documents are in no scope, counted up to COUNT_CAP + 1."""
    query = f"SELECT count(*) FROM (SELECT 1 FROM sync_nowhere LIMIT {COUNT_CAP + 1})"
    return int(connection.execute(query).fetchone()[0])


def _memberships(connection: sqlite3.Connection, keys: Iterable[Key]) -> dict[Key, dict[int, int]]:
    """Record -> scope -> state of its feed entry."""
    found: dict[Key, dict[int, int]] = {}
    for table, ids in by_table(keys).items():
        for marks, part in chunks(ids):
            for record_id, scope, state in connection.execute(
                f"SELECT id, scope, state FROM sync_membership WHERE table_name = ? AND id IN ({marks})",
                (table, *part),
            ):
                found.setdefault((table, record_id), {})[scope] = state
    return found


def _write_entries(connection: sqlite3.Connection, entries: Sequence[tuple[object, ...]]) -> None:
    insert_rows(
        connection,
        "INSERT INTO sync_membership (table_name, id, scope, position, root_id, state, ended_on)",
        "(?, ?, ?, ?, ?, ?, iif(?, (SELECT number FROM sync_day), 0))",
        entries,
        "ON CONFLICT (table_name, id, scope) DO UPDATE SET position = excluded.position,"
        " state = excluded.state, ended_on = excluded.ended_on",
    )


def scope_names(connection: sqlite3.Connection, scopes: Iterable[int]) -> set[str]:
    """The names of scopes by their numbers."""
    return {
        connection.execute("SELECT name FROM sync_scope WHERE scope = ?", (scope,)).fetchone()[0] for scope in scopes
    }


def scopes_in_force(connection: sqlite3.Connection, key: Key) -> list[str]:
    """The scopes that a record is in now."""
    rows = connection.execute(
        "SELECT s.name FROM sync_membership AS m JOIN sync_scope AS s USING (scope)"
        " WHERE m.table_name = ? AND m.id = ? AND m.state <> 2",
        key,
    )
    return [row[0] for row in rows]


def heads(connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Scope name -> (number, position of the feed's last entry), for the scopes that exist."""
    found: dict[str, tuple[int, int]] = {}
    for marks, part in chunks(list(names)):
        for name, scope, position in connection.execute(
            f"SELECT name, scope, position FROM sync_scope WHERE name IN ({marks})", part
        ):
            found[name] = (scope, position)
    return found

"""Rows of the catalogue's tables and what is known of each record: version, hash, who wrote it."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from engine.catalogue.codec import Unreadable
from engine.catalogue.model import Row, Table
from engine.rules.versions import Version
from engine.storage.bulk import insert_rows

Key = tuple[str, str]
"""(table name, id)."""

_CHUNK = 1_000


class State(NamedTuple):
    """What both ends agreed on for a record. At the central: what is stored."""

    version: Version
    hash: bytes
    deleted: bool
    root_id: str
    writer_site: int
    writer_epoch: str


class Change(NamedTuple):
    """A record as it is to be written: `row` None deletes it."""

    table: Table
    id: str
    root_id: str
    """The root's id for every record of a document that can have members, else empty."""
    version: Version
    row: Row | None
    unknown: bytes
    hash: bytes
    content: bytes = b""
    """The record as it travels, where it was read here to be sent."""

    def required(self) -> Iterator[Key]:
        """The records that it refers to and cannot be without."""
        if self.row is not None:
            for place, table in self.table.required:
                if target := self.row[place]:
                    yield table, str(target)


class Writer(NamedTuple):
    """Who wrote a record: a site and the incarnation of its database."""

    site: int
    epoch: str


def by_table(keys: Iterable[Key]) -> dict[str, list[str]]:
    """Groups keys by table, each id once."""
    grouped: dict[str, dict[str, None]] = {}
    for table, record_id in keys:
        grouped.setdefault(table, {})[record_id] = None
    return {table: list(ids) for table, ids in grouped.items()}


def chunks(ids: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Cuts ids into groups small enough for one statement; yields (the question marks, the ids)."""
    for start in range(0, len(ids), _CHUNK):
        part = ids[start : start + _CHUNK]
        yield ",".join("?" * len(part)), part


def read_states(connection: sqlite3.Connection, keys: Iterable[Key]) -> dict[Key, State]:
    """What is known of the records with these keys; records never seen are left out."""
    found: dict[Key, State] = {}
    for table, ids in by_table(keys).items():
        for marks, part in chunks(ids):
            for row in connection.execute(
                "SELECT id, term, term_id, counter, hash, deleted, root_id, writer_site, writer_epoch"
                f" FROM sync_record WHERE table_name = ? AND id IN ({marks})",
                (table, *part),
            ):
                found[table, row[0]] = State(Version(row[1], row[2], row[3]), row[4], bool(row[5]), *row[6:])
    return found


def read_memberships(connection: sqlite3.Connection, keys: Iterable[Key]) -> dict[Key, list[int]]:
    """The numbers of the scopes that records are in, whatever the state; records that are in none are left out."""
    found: dict[Key, list[int]] = {}
    for table, ids in by_table(keys).items():
        for marks, part in chunks(ids):
            for record_id, scope in connection.execute(
                f"SELECT id, scope FROM sync_membership WHERE table_name = ? AND id IN ({marks})", (table, *part)
            ):
                found.setdefault((table, record_id), []).append(scope)
    return found


def read_rows(connection: sqlite3.Connection, table: Table, ids: Sequence[str]) -> dict[str, Row]:
    """The rows with these ids; missing ones are left out."""
    columns = ", ".join(table.column_names)
    found: dict[str, Row] = {}
    for marks, part in chunks(ids):
        query = f"SELECT {columns} FROM {table.name} WHERE id IN ({marks})"
        try:
            rows = connection.execute(query, part).fetchall()
        except sqlite3.OperationalError:
            rows = _undecodable_rows(connection, query, part)
        found.update((row[0], row) for row in rows)
    return found


def _undecodable_rows(connection: sqlite3.Connection, query: str, values: Sequence[str]) -> list[Row]:
    """Rows with text that is no UTF-8, which another program may have written: the codec then finds them unreadable."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.text_factory = str


def has_unknown(connection: sqlite3.Connection) -> bool:
    """Whether unknown fields are kept beside any row."""
    return connection.execute("SELECT 1 FROM sync_unknown LIMIT 1").fetchone() is not None


def read_unknown(connection: sqlite3.Connection, table: Table, ids: Sequence[str]) -> dict[str, bytes]:
    """The unknown fields kept beside rows with these ids."""
    if not has_unknown(connection):
        return {}
    found: dict[str, bytes] = {}
    for marks, part in chunks(ids):
        found.update(
            connection.execute(
                f"SELECT id, fields FROM sync_unknown WHERE table_name = ? AND id IN ({marks})", (table.name, *part)
            )
        )
    return found


def members_of(connection: sqlite3.Connection, member: Table, root_id: str) -> list[str]:
    """The ids of the member rows of one document in one table. Raises Unreadable where one of them is no UTF-8."""
    query = f"SELECT id FROM {member.name} WHERE {member.parent_column} = ?"
    try:
        return [row[0] for row in connection.execute(query, (root_id,))]
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        raise Unreadable(f"an id of {member.name} in it is no UTF-8") from error


@cache
def _upsert(table: Table) -> tuple[str, str, str]:
    """(up to VALUES, the values of a row, what follows them)."""
    columns = ", ".join(table.column_names)
    marks = ", ".join("?" * len(table.columns))
    updates = ", ".join(f"{name} = excluded.{name}" for name in table.column_names[1:])
    return f"INSERT INTO {table.name} ({columns})", f"({marks})", f"ON CONFLICT (id) DO UPDATE SET {updates}"


def write_changes(connection: sqlite3.Connection, changes: Iterable[Change], writer: Writer) -> None:
    """Writes rows, unknown fields and states. The caller has set `sync_flag.applying` (see `applying`)."""
    puts: dict[Table, list[Row]] = {}
    deletes: dict[Table, list[tuple[str]]] = {}
    states, unknown = [], []
    for table, record_id, root_id, version, row, fields, hashed, _ in changes:
        if row is None:
            deletes.setdefault(table, []).append((record_id,))
        else:
            puts.setdefault(table, []).append(row)
        if fields:
            unknown.append((table.name, record_id, fields))
        states.append((table.name, record_id, root_id, *version, hashed, row is None, *writer))
    for table, rows in puts.items():
        into, values, then = _upsert(table)
        insert_rows(connection, into, values, rows, then)
    for table, ids in deletes.items():
        connection.executemany(f"DELETE FROM {table.name} WHERE id = ?", ids)
    write_states(connection, states)
    if has_unknown(connection):
        connection.executemany("DELETE FROM sync_unknown WHERE table_name = ? AND id = ?", [s[:2] for s in states])
    if unknown:
        connection.executemany("INSERT OR REPLACE INTO sync_unknown VALUES (?, ?, ?)", unknown)


def forget_unknown(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Deletes what was kept beside records that are deleted here; an id that is used again begins without it (F21)."""
    if has_unknown(connection):
        gone = [(change.table.name, change.id) for change in changes if change.row is None]
        connection.executemany("DELETE FROM sync_unknown WHERE table_name = ? AND id = ?", gone)


def write_states(connection: sqlite3.Connection, states: Sequence[tuple[object, ...]]) -> None:
    """Writes states: (table, id, root id, term, term id, counter, hash, deleted, site, epoch)."""
    insert_rows(
        connection,
        "INSERT INTO sync_record (table_name, id, root_id, term, term_id, counter, hash, deleted, writer_site,"
        " writer_epoch, deleted_on)",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, iif(?, (SELECT number FROM sync_day), 0))",
        [(*state, state[7]) for state in states],
        "ON CONFLICT (table_name, id) DO UPDATE SET term = excluded.term, term_id = excluded.term_id,"
        " counter = excluded.counter, hash = excluded.hash, deleted = excluded.deleted,"
        " writer_site = excluded.writer_site, writer_epoch = excluded.writer_epoch, deleted_on = excluded.deleted_on",
    )


def known_among(connection: sqlite3.Connection, source: str, table: str, ids: Sequence[str]) -> set[str]:
    """Those of some ids, one or more, that are in a table of the engine with the columns table_name and id, or in the
    table of the catalogue itself where `source` is its name."""
    where, values = ("", ()) if source == table else ("table_name = ? AND ", (table,))
    # Ids that sort by time mostly come where nothing is yet.
    query = f"SELECT 1 FROM {source} WHERE {where}id BETWEEN ? AND ? LIMIT 1"
    if connection.execute(query, (*values, min(ids), max(ids))).fetchone() is None:
        return set()
    found: set[str] = set()
    for marks, part in chunks(ids):
        query = f"SELECT id FROM {source} WHERE {where}id IN ({marks})"
        found.update(row[0] for row in connection.execute(query, (*values, *part)))
    return found


def are_unknown(connection: sqlite3.Connection, table: Table, ids: Sequence[str]) -> bool:
    """Whether there is no row, no state and no membership of any of these ids, which are one or more."""
    sources = (table.name, "sync_record", "sync_membership")
    return not any(known_among(connection, source, table.name, ids) for source in sources)


def insert_new(
    connection: sqlite3.Connection,
    table: Table,
    rows: Sequence[Row],
    versions: Sequence[Version],
    hashes: Sequence[bytes],
    unknown: Sequence[tuple[str, bytes]],
    writer: Writer,
) -> None:
    """Writes rows of which nothing is known (`are_unknown`), roots without lines, with their states.

    Args:
        connection: inside the caller's transaction.
        table: theirs.
        rows: the records.
        versions: of each.
        hashes: of each.
        unknown: (id, fields that this program does not know) of those that have some.
        writer: who wrote them.
    """
    name = table.name
    with applying(connection):
        insert_rows(connection, *_upsert(table)[:2], rows)
    insert_rows(
        connection,
        "INSERT INTO sync_record (table_name, id, term, term_id, counter, hash, writer_site, writer_epoch)",
        "(?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (name, row[0], *version, hashed, *writer)
            for row, version, hashed in zip(rows, versions, hashes, strict=True)
        ],
    )
    if unknown or has_unknown(connection):
        connection.executemany("DELETE FROM sync_unknown WHERE table_name = ? AND id = ?", [(name, r[0]) for r in rows])
        connection.executemany("INSERT INTO sync_unknown VALUES (?, ?, ?)", [(name, *fields) for fields in unknown])


class applying:  # noqa: N801 - a context manager that reads as a word
    """While it is entered, triggers neither check nor capture: what is written comes from a peer that proved its right.

    Set and cleared inside the one transaction that applies (F23).
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("UPDATE sync_flag SET applying = 1")

    def __exit__(self, *_exception: object) -> None:
        self._connection.execute("UPDATE sync_flag SET applying = 0")


def exists(connection: sqlite3.Connection, table: Table, ids: Sequence[str]) -> set[str]:
    """Which of these ids are in the table, or were and are deleted (a tombstone counts as present, F26)."""
    found: set[str] = set()
    for marks, part in chunks(ids):
        found.update(row[0] for row in connection.execute(f"SELECT id FROM {table.name} WHERE id IN ({marks})", part))
    for marks, part in chunks([record_id for record_id in ids if record_id not in found]):
        query = f"SELECT id FROM sync_record WHERE table_name = ? AND deleted = 1 AND id IN ({marks})"
        found.update(row[0] for row in connection.execute(query, (table.name, *part)))
    return found


def are_here(connection: sqlite3.Connection, table: Table, ids: Sequence[str]) -> bool:
    """Whether `exists` would find each of these ids, none of which comes twice."""
    count = 0
    for marks, part in chunks(ids):
        query = f"SELECT count(*) FROM {table.name} WHERE id IN ({marks})"
        count += connection.execute(query, part).fetchone()[0]
    return count == len(ids) or len(exists(connection, table, ids)) == len(ids)


def read_meta(connection: sqlite3.Connection) -> Mapping[str, str]:
    """The node's own facts by name."""
    return dict(connection.execute("SELECT key, value FROM sync_meta"))


def write_meta(connection: sqlite3.Connection, **facts: str) -> None:
    """Writes some of the node's own facts."""
    connection.executemany("INSERT OR REPLACE INTO sync_meta VALUES (?, ?)", facts.items())

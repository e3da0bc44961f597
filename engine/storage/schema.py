"""The tables of a node's database: those of the catalogue, and the engine's own, whose names begin with `sync_`.

Every step that changes the shape of the engine's own tables is a migration: it and its number in `user_version` share
one transaction. The catalogue's tables are compared with the catalogue at each opening: missing tables and columns are
added, nothing is ever dropped. Triggers are compared by their text and made again where they differ (F43).
"""

import sqlite3
from collections.abc import Callable
from functools import cache

from engine.catalogue.codec import codec
from engine.catalogue.model import Catalogue, Column, Table
from engine.errors import Code, Refused
from engine.storage.records import applying, read_rows
from engine.storage.triggers import triggers_of

APPLICATION_ID = 0x50414B48
"""`PRAGMA application_id` of a node's database ("PAKH")."""

_FIRST = """
CREATE TABLE sync_meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sync_flag (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    applying INTEGER NOT NULL DEFAULT 0 CHECK (applying IN (0, 1)),
    administering INTEGER NOT NULL DEFAULT 0 CHECK (administering IN (0, 1)),
    is_replacing INTEGER NOT NULL DEFAULT 0,
    replacing_table TEXT NOT NULL DEFAULT '',
    replacing_id TEXT NOT NULL DEFAULT '',
    replacing_total INTEGER NOT NULL DEFAULT 0,
    replacing_changes INTEGER NOT NULL DEFAULT 0);
INSERT INTO sync_flag (one) VALUES (1);
CREATE TABLE sync_probe (one INTEGER PRIMARY KEY CHECK (one = 1), depth INTEGER NOT NULL);
INSERT INTO sync_probe VALUES (1, 0);
CREATE TABLE sync_counter (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL);
INSERT INTO sync_counter VALUES (1, 0);
-- The rights that this node holds now, with their terms.
CREATE TABLE sync_authority (
    owner TEXT NOT NULL, key TEXT NOT NULL, term INTEGER NOT NULL, term_id INTEGER NOT NULL,
    PRIMARY KEY (owner, key)) WITHOUT ROWID;
-- What the central does not collect of the stores that are active here: those documents wait in the outbox.
CREATE TABLE sync_withheld (
    store_id TEXT NOT NULL, root_table TEXT NOT NULL, PRIMARY KEY (store_id, root_table)) WITHOUT ROWID;
-- Tables that the peer does not know: their changes wait for its upgrade.
CREATE TABLE sync_beyond (table_name TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
-- Edits that the peer has not acknowledged: one row per record, whatever happened to it.
CREATE TABLE sync_outbox (
    table_name TEXT NOT NULL, id TEXT NOT NULL, root_table TEXT NOT NULL, root_id TEXT NOT NULL,
    store_id TEXT NOT NULL, token INTEGER NOT NULL, queued_at INTEGER NOT NULL,
    term INTEGER NOT NULL, term_id INTEGER NOT NULL, framed_token INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (table_name, id)) WITHOUT ROWID;
CREATE INDEX sync_outbox_waiting ON sync_outbox (queued_at) WHERE token <> framed_token;
CREATE INDEX sync_outbox_document ON sync_outbox (root_table, root_id);
-- The days that this node has worked, numbered (retention.py).
CREATE TABLE sync_day (
    one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, begun_at INTEGER NOT NULL);
INSERT INTO sync_day VALUES (1, 1, 0);
-- What both ends agreed on, record by record; tombstones included.
CREATE TABLE sync_record (
    table_name TEXT NOT NULL, id TEXT NOT NULL, root_id TEXT NOT NULL DEFAULT '',
    term INTEGER NOT NULL, term_id INTEGER NOT NULL, counter INTEGER NOT NULL,
    hash BLOB NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
    acked_frame INTEGER NOT NULL DEFAULT 0, token INTEGER NOT NULL DEFAULT 0,
    writer_site INTEGER NOT NULL DEFAULT 0, writer_epoch TEXT NOT NULL DEFAULT '',
    deleted_on INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (table_name, id)) WITHOUT ROWID;
CREATE INDEX sync_record_member ON sync_record (root_id) WHERE root_id <> '';
CREATE INDEX sync_record_deleted ON sync_record (deleted_on) WHERE deleted = 1;
-- Scopes. At the central `position` is the head of the feed, and entries up to `floor` were purged; at a site it is the
-- last one applied (the cursor). `filled`: a checkpoint has shown that everything is here. Generation -1: closed, being
-- emptied (eviction.py).
CREATE TABLE sync_scope (
    scope INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0,
    filled INTEGER NOT NULL DEFAULT 0);
-- Record is in scope. At the central this row is the feed entry. state: 0 put, 1 delete, 2 leave; at a site: 0, or
-- 3 while a subscription that has begun again has not shown the record. `ended_on`: day of the delete or leave.
CREATE TABLE sync_membership (
    table_name TEXT NOT NULL, id TEXT NOT NULL, scope INTEGER NOT NULL,
    position INTEGER NOT NULL DEFAULT 0, root_id TEXT NOT NULL DEFAULT '', state INTEGER NOT NULL DEFAULT 0,
    ended_on INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (table_name, id, scope)) WITHOUT ROWID;
CREATE INDEX sync_membership_ended ON sync_membership (ended_on) WHERE ended_on > 0;
CREATE INDEX sync_membership_marked ON sync_membership (scope) WHERE state = 3;
CREATE TABLE sync_digest (
    scope INTEGER NOT NULL, table_name TEXT NOT NULL, count INTEGER NOT NULL, sum BLOB NOT NULL,
    PRIMARY KEY (scope, table_name)) WITHOUT ROWID;
-- Documents kept aside, with the reason; at most one per document and site.
CREATE TABLE sync_held (
    table_name TEXT NOT NULL, id TEXT NOT NULL, site INTEGER NOT NULL,
    term INTEGER NOT NULL, term_id INTEGER NOT NULL, counter INTEGER NOT NULL,
    base_term INTEGER NOT NULL, base_term_id INTEGER NOT NULL, base_counter INTEGER NOT NULL,
    code TEXT NOT NULL, sentence TEXT NOT NULL, waits_table TEXT NOT NULL DEFAULT '',
    waits_id TEXT NOT NULL DEFAULT '', ready INTEGER NOT NULL DEFAULT 0, held_at INTEGER NOT NULL,
    document BLOB NOT NULL, bytes INTEGER NOT NULL GENERATED ALWAYS AS (length(document)) VIRTUAL,
    PRIMARY KEY (table_name, id, site)) WITHOUT ROWID;
CREATE INDEX sync_held_site ON sync_held (site, bytes);
CREATE INDEX sync_held_waiting ON sync_held (waits_table, waits_id) WHERE waits_id <> '';
CREATE INDEX sync_held_ready ON sync_held (held_at) WHERE ready = 1;
-- Fields of a record that this program does not know: kept beside the row and passed on.
CREATE TABLE sync_unknown (
    table_name TEXT NOT NULL, id TEXT NOT NULL, fields BLOB NOT NULL, PRIMARY KEY (table_name, id)) WITHOUT ROWID;
-- What the node last said of itself, for `status`.
CREATE TABLE sync_status (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- Figures since the database was made, changed in the transaction that they count.
CREATE TABLE sync_total (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
-- The sender's side: frames that are not acknowledged, with their exact bytes, and what is in them.
CREATE TABLE sync_frame (
    number INTEGER PRIMARY KEY, hash BLOB NOT NULL, previous_number INTEGER NOT NULL, previous_hash BLOB NOT NULL,
    documents INTEGER NOT NULL, body BLOB NOT NULL, parts_bytes INTEGER NOT NULL DEFAULT 0);
CREATE TABLE sync_in_flight (
    frame INTEGER NOT NULL, table_name TEXT NOT NULL, id TEXT NOT NULL, document INTEGER NOT NULL,
    root_table TEXT NOT NULL, root_id TEXT NOT NULL, member_of TEXT NOT NULL, token INTEGER NOT NULL,
    term INTEGER NOT NULL, term_id INTEGER NOT NULL, counter INTEGER NOT NULL,
    hash BLOB NOT NULL, deleted INTEGER NOT NULL, whole INTEGER NOT NULL,
    PRIMARY KEY (frame, table_name, id)) WITHOUT ROWID;
CREATE INDEX sync_in_flight_record ON sync_in_flight (table_name, id);
-- Bodies of frames that go in parts, at most one to a peer, and those that wait until the lane is free (parts.py).
CREATE TABLE sync_lane (
    peer INTEGER PRIMARY KEY, hash BLOB NOT NULL, frame INTEGER NOT NULL, root_table TEXT NOT NULL,
    root_id TEXT NOT NULL, scope TEXT NOT NULL, generation INTEGER NOT NULL, from_position INTEGER NOT NULL,
    to_position INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE sync_lane_waiting (
    root_table TEXT NOT NULL, root_id TEXT NOT NULL, PRIMARY KEY (root_table, root_id)) WITHOUT ROWID;
-- What came of a body that a peer sends in parts, slice by slice.
CREATE TABLE sync_staged (
    peer INTEGER NOT NULL, at INTEGER NOT NULL, hash BLOB NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (peer, at));
-- Documents that the peer holds, or wants whole, or will take later.
CREATE TABLE sync_outcome (
    root_table TEXT NOT NULL, root_id TEXT NOT NULL, frame INTEGER NOT NULL, disposition TEXT NOT NULL,
    code TEXT NOT NULL, sentence TEXT NOT NULL,
    PRIMARY KEY (root_table, root_id)) WITHOUT ROWID;
-- Documents that this node asked its peer for.
CREATE TABLE sync_want (table_name TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (table_name, id)) WITHOUT ROWID;
-- Contents that lost: of a record of others that a program wrote without capture (as the record travels), and of a
-- document that was refused for NO_AUTHORITY (the Document, and the one of the central; empty where it has none).
CREATE TABLE sync_aside (
    number INTEGER PRIMARY KEY, table_name TEXT NOT NULL, id TEXT NOT NULL, code TEXT NOT NULL,
    sentence TEXT NOT NULL, put_aside_at INTEGER NOT NULL, content BLOB NOT NULL,
    in_its_place BLOB NOT NULL DEFAULT x'');
-- Follow-up work of the central: (who does it, what about), with how often it became necessary (work.py).
CREATE TABLE sync_work (
    processor TEXT NOT NULL, table_name TEXT NOT NULL, id TEXT NOT NULL, generation INTEGER NOT NULL,
    problem TEXT NOT NULL DEFAULT '', PRIMARY KEY (processor, table_name, id)) WITHOUT ROWID;
-- Records that left a scope, to be looked at when a checkpoint has shown that the feeds were read beyond `number`.
CREATE TABLE sync_left (
    table_name TEXT NOT NULL, id TEXT NOT NULL, root_id TEXT NOT NULL DEFAULT '', number INTEGER NOT NULL,
    referred_to INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (table_name, id)) WITHOUT ROWID;
CREATE INDEX sync_left_number ON sync_left (number);
-- Records that are here and not to be shown: left behind, or not visible any more and referred to (rules/eviction.py).
CREATE TABLE sync_hidden (
    table_name TEXT NOT NULL, id TEXT NOT NULL, root_id TEXT NOT NULL DEFAULT '', why TEXT NOT NULL,
    hidden_at INTEGER NOT NULL, PRIMARY KEY (table_name, id)) WITHOUT ROWID;
-- Documents that are in no scope: nobody is sent them (feeds.py).
CREATE TABLE sync_nowhere (table_name TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (table_name, id)) WITHOUT ROWID;
-- The receiver's side of frames, and the feeds that it publishes.
CREATE INDEX sync_membership_feed ON sync_membership (scope, position) WHERE position > 0;
CREATE INDEX sync_membership_document ON sync_membership (scope, root_id, position)
    WHERE position > 0 AND root_id <> '';
"""

MIGRATIONS: tuple[str, ...] = (_FIRST,)
"""Numbered from 1, never edited after a release."""


def prepare(connection: sqlite3.Connection, catalogue: Catalogue, more: tuple[str, ...] = ()) -> bool:
    """Brings an open database to this program's shape. Runs in its own transactions; on an up-to-date database it
    writes nothing.

    Args:
        connection: a writing connection outside a transaction.
        catalogue: the tables that must exist.
        more: CREATE ... IF NOT EXISTS statements of the node's own tables.

    Returns:
        Whether triggers or tables had to be made again although the database was not new, i.e. whether another program
        has changed the schema since.

    Raises:
        Refused: DATABASE_NEWER, or DATABASE_DAMAGED for a file that is no Packhorse database.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if version > len(MIGRATIONS):
        raise Refused(Code.DATABASE_NEWER, f"The database has schema {version}, this program knows {len(MIGRATIONS)}.")
    is_empty = connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None
    if application != APPLICATION_ID and not (version == application == 0 and is_empty):
        raise Refused(Code.DATABASE_DAMAGED, "The file node.db is no Packhorse database.")
    for number in range(version + 1, len(MIGRATIONS) + 1):
        _in_transaction(connection, lambda number=number: _migrate(connection, number))  # type: ignore[misc]
    missing = _missing(connection, catalogue, more)
    if missing:
        _in_transaction(connection, lambda: _make(connection, catalogue, missing, note=version > 0))
    return bool(missing) and version > 0


def schema_is_whole(connection: sqlite3.Connection, catalogue: Catalogue) -> bool:
    """Whether every table, column and trigger of the catalogue is as this program made it, and nothing switches the
    triggers off."""
    return not _missing(connection, catalogue, ())


def repair_schema(connection: sqlite3.Connection, catalogue: Catalogue) -> None:
    """Makes again what is missing or changed, inside the caller's write transaction, and notes it for `status`."""
    _make(connection, catalogue, _missing(connection, catalogue, ()), note=True)


def _make(connection: sqlite3.Connection, catalogue: Catalogue, statements: list[str], note: bool) -> None:
    for statement in statements:
        connection.execute(statement)
    for name in sorted({statement.split()[2] for statement in statements if statement.startswith("ALTER TABLE")}):
        _adopt_unknown(connection, catalogue[name])
    if note:
        words = (statement.split() for statement in statements if not statement.startswith("DROP"))
        names = sorted({word[1] if word[0] == "UPDATE" else word[2] for word in words})
        connection.execute(
            "INSERT OR REPLACE INTO sync_status VALUES ('schema_repaired', datetime() || ' UTC: ' || ?)",
            (", ".join(names),),
        )


def _adopt_unknown(connection: sqlite3.Connection, table: Table) -> None:
    """Moves fields that were kept beside rows into the columns that this program has for them."""
    kept = dict(connection.execute("SELECT id, fields FROM sync_unknown WHERE table_name = ?", (table.name,)))
    rows, left = [], []
    for record_id, row in read_rows(connection, table, list(kept)).items():
        decoded = codec(table).decode(codec(table).encode(row) + kept[record_id])
        rows.append((*decoded.row[1:], record_id))
        left.append((decoded.unknown, table.name, record_id))
    updates = ", ".join(f"{name} = ?" for name in table.column_names[1:])
    with applying(connection):
        connection.executemany(f"UPDATE {table.name} SET {updates} WHERE id = ?", rows)
    connection.executemany("UPDATE sync_unknown SET fields = ? WHERE table_name = ? AND id = ?", left)
    connection.execute("DELETE FROM sync_unknown WHERE fields = x''")


def _in_transaction(connection: sqlite3.Connection, work: Callable[[], object]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        work()
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, number: int) -> None:
    for statement in _statements(MIGRATIONS[number - 1]):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {number}")


def _statements(script: str) -> list[str]:
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [statement for part in "\n".join(lines).split(";") if (statement := part.strip())]


def _missing(connection: sqlite3.Connection, catalogue: Catalogue, more: tuple[str, ...]) -> list[str]:
    """The statements that make what is missing or different."""
    found = {
        (kind, name): sql or ""
        for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE type <> 'index'")
    }
    statements = [statement for statement in more if ("table", _name_in(statement)) not in found]
    for table in catalogue:
        create = _create(table)
        as_found = found.get(("table", table.name))
        if as_found is None:
            statements += create
        if as_found is None or as_found == create[0]:  # which saves reading the columns of most
            continue
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
        statements += [
            f"ALTER TABLE {table.name} ADD COLUMN {_column(column)}"
            for column in table.columns
            if column.name not in there
        ]
    for name, sql in triggers_of(catalogue).items():
        if found.get(("trigger", name)) != sql:
            statements += [f"DROP TRIGGER IF EXISTS {name}", sql]
    # Set and cleared inside one transaction: whoever committed them has switched checks and capture off (F23).
    if connection.execute("SELECT applying OR administering FROM sync_flag").fetchone() != (0,):
        statements.append("UPDATE sync_flag SET applying = 0, administering = 0")
    return statements


def _name_in(statement: str) -> str:
    return statement.split("IF NOT EXISTS", 1)[1].split(None, 1)[0].rstrip("(")


@cache
def _create(table: Table) -> tuple[str, ...]:
    columns = ",\n    ".join(_column(column) for column in table.columns)
    # Without a rowid, which would be a second unique key that OR REPLACE can hit.
    statements = [f"CREATE TABLE {table.name} (\n    {columns}) WITHOUT ROWID"]
    if table.parent_column:
        statements.append(f"CREATE INDEX {table.name}_{table.parent_column} ON {table.name} ({table.parent_column})")
    elif table.store_column and table.store_column != "id":
        statements.append(f"CREATE INDEX {table.name}_{table.store_column} ON {table.name} ({table.store_column})")
    return tuple(statements)


def _column(column: Column) -> str:
    if column.name == "id":
        return "id TEXT NOT NULL PRIMARY KEY"
    if column.optional:
        return f"{column.name} {column.type.sql}"
    default = column.default if isinstance(column.default, int) else f"'{column.default}'"
    return f"{column.name} {column.type.sql} NOT NULL DEFAULT {default}"

"""Opening a database: newer and foreign ones are refused, what is missing is made, nothing is ever dropped (F43)."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from packhorse.catalogue.v1 import options_pb2

from central_node.storage.tables import CENTRAL_TABLES
from engine.catalogue.codec import codec
from engine.catalogue.descriptors import catalogue_of
from engine.catalogue.model import Catalogue
from engine.errors import Code, PackhorseError, Refused
from engine.storage.records import applying
from engine.storage.schema import APPLICATION_ID, MIGRATIONS, prepare, repair_schema, schema_is_whole
from engine.storage.sqlite_file import open_writer
from engine.storage.triggers import triggers_of
from field_lab.core_catalogue import core_catalogue
from tests.engine.catalogue.dynamic import ID, central, changed_catalogue, field, file_of, message
from tests.engine.storage.nodes import execute, read_contents, site_database

EDIT = "UPDATE invoice SET comment = 'x' WHERE id = 'invoice-1-own'"
Shape = dict[tuple[str, str], str]


@pytest.fixture(name="opened")
def filled_database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = site_database(tmp_path / "node.db")
    yield connection
    connection.close()


@pytest.fixture(name="empty")
def empty_database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(tmp_path / "empty.db")
    yield connection
    connection.close()


def shape(connection: sqlite3.Connection) -> Shape:
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {(row[0], row[1]): row[2] for row in rows}


def refusal(connection: sqlite3.Connection) -> PackhorseError:
    with pytest.raises(Refused) as caught:
        prepare(connection, core_catalogue())
    return caught.value


def test_a_new_database_has_every_table_and_trigger(empty: sqlite3.Connection) -> None:
    assert not prepare(empty, core_catalogue(), CENTRAL_TABLES)  # it was not another program that changed it
    found = shape(empty)
    assert {("table", name) for name in core_catalogue().tables} <= found.keys()
    assert ("table", "central_site") in found
    assert {name: sql for (kind, name), sql in found.items() if kind == "trigger"} == triggers_of(core_catalogue())
    assert schema_is_whole(empty, core_catalogue())
    assert empty.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert empty.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_the_sql_types_are_the_contract_with_other_programs(empty: sqlite3.Connection) -> None:
    prepare(empty, core_catalogue())
    for table in core_catalogue():
        columns = empty.execute(f"PRAGMA table_info({table.name})").fetchall()
        assert [row[1] for row in columns] == list(table.column_names)
        for (_, name, kind, not_null, _, key), column in zip(columns, table.columns, strict=True):
            assert (kind, bool(not_null)) == (column.type.sql, not column.optional), name
            assert bool(key) == (name == "id")
        empty.execute("UPDATE sync_flag SET applying = 1")
        empty.execute(f"INSERT INTO {table.name} (id) VALUES ('x')")
        defaults = empty.execute(f"SELECT * FROM {table.name}").fetchone()[1:]
        assert defaults == tuple(column.default for column in table.columns[1:])


def test_f03_there_is_no_second_key_and_no_foreign_key(empty: sqlite3.Connection) -> None:
    prepare(empty, core_catalogue())
    for table in core_catalogue():
        unique = [row for row in empty.execute(f"PRAGMA index_list({table.name})") if row[2]]
        assert len(unique) == 1
        assert empty.execute(f"PRAGMA foreign_key_list({table.name})").fetchall() == []


def test_opening_again_changes_nothing(opened: sqlite3.Connection, tmp_path: Path) -> None:
    before = opened.total_changes, shape(opened)
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    version = other.execute("PRAGMA data_version").fetchone()
    assert not prepare(opened, core_catalogue())
    assert (opened.total_changes, shape(opened)) == before
    assert other.execute("PRAGMA data_version").fetchone() == version
    other.close()


def test_a_newer_database_is_refused_and_left_alone(opened: sqlite3.Connection) -> None:
    opened.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    opened.execute("DROP TRIGGER sync_item_before_insert")
    before = shape(opened)
    error = refusal(opened)
    assert error.code is Code.DATABASE_NEWER
    assert str(len(MIGRATIONS) + 1) in error.what
    assert shape(opened) == before


FOREIGN = {
    "another application": ["PRAGMA application_id = 252006674", "PRAGMA user_version = 1", "CREATE TABLE t (x)"],
    "no application": ["PRAGMA user_version = 1", "CREATE TABLE t (x)"],
    "no version": ["CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"],
    "a table of our name": [
        "CREATE TABLE item (id INTEGER PRIMARY KEY, colour TEXT)",
        "INSERT INTO item VALUES (1, 'red')",
    ],
    "another application without a version": ["PRAGMA application_id = 252006674", "CREATE TABLE t (x)"],
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_database_is_refused_and_left_alone(empty: sqlite3.Connection, case: str) -> None:
    for statement in FOREIGN[case]:
        empty.execute(statement)
    before = list(empty.iterdump())
    assert refusal(empty).code is Code.DATABASE_DAMAGED
    assert list(empty.iterdump()) == before


@pytest.mark.parametrize(
    "content", [b"no database, but long enough to be read as the header of one" * 20, b"SQLite format 3\x00" * 80]
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        open_writer(path)
    assert caught.value.code is Code.DATABASE_DAMAGED
    assert path.read_bytes() == content


DAMAGES = {
    "a dropped trigger": ["DROP TRIGGER sync_invoice_after_update"],
    "a changed trigger": [
        "DROP TRIGGER sync_item_before_insert",
        "CREATE TRIGGER sync_item_before_insert BEFORE INSERT ON item BEGIN SELECT 1; END",
    ],
    "every trigger of a table dropped": [
        f"DROP TRIGGER sync_invoice_line_{when}_{what}"
        for when in ("before", "after")
        for what in ("insert", "update", "delete")
    ],
    "the probe dropped": ["DROP TRIGGER sync_probe_again"],
    "a dropped table": ["DROP TABLE location"],
    "a dropped column": [
        *(
            f"DROP TRIGGER sync_unit_{when}_{what}"
            for when in ("before", "after")
            for what in ("insert", "update", "delete")
        ),
        "ALTER TABLE unit DROP COLUMN comment",
    ],
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_another_program_changed_is_found_and_mended(opened: sqlite3.Connection, case: str) -> None:
    whole = shape(opened)
    for statement in DAMAGES[case]:
        opened.execute(statement)
    assert not schema_is_whole(opened, core_catalogue())
    assert prepare(opened, core_catalogue())
    assert schema_is_whole(opened, core_catalogue())
    assert set(shape(opened)) == set(whole)
    assert {key: sql for key, sql in shape(opened).items() if key[0] == "trigger"} == {
        key: sql for key, sql in whole.items() if key[0] == "trigger"
    }
    assert not prepare(opened, core_catalogue())


def test_a_mended_trigger_captures_again(opened: sqlite3.Connection) -> None:
    opened.execute("DROP TRIGGER sync_invoice_after_update")
    assert execute(opened, EDIT) == ""
    assert read_contents(opened).outbox == {}
    prepare(opened, core_catalogue())
    assert execute(opened, EDIT) == ""
    assert set(read_contents(opened).outbox) == {("invoice", "invoice-1-own")}


def test_a_missing_table_of_the_node_is_made_again(opened: sqlite3.Connection) -> None:
    assert prepare(opened, core_catalogue(), CENTRAL_TABLES)
    assert not prepare(opened, core_catalogue(), CENTRAL_TABLES)
    opened.execute("DROP TABLE central_note")
    assert prepare(opened, core_catalogue(), CENTRAL_TABLES)
    assert ("table", "central_note") in shape(opened)


DECIMAL = options_pb2.FORMAT_DECIMAL
ADDED = [
    field("added_text", 100),
    field("added_number", 101, FieldDescriptorProto.TYPE_INT64),
    field("added_decimal", 102, written=DECIMAL),
    field("added_word", 103, FieldDescriptorProto.TYPE_ENUM, type_name=".packhorse.records.v1.StoreMode"),
]


def test_new_columns_are_added_with_their_defaults(opened: sqlite3.Connection) -> None:
    newer, before = changed_catalogue(ADDED), read_contents(opened)
    assert not schema_is_whole(opened, newer)
    assert prepare(opened, newer)
    assert not prepare(opened, newer)
    after = read_contents(opened)
    assert after.rows == {key: (*row, "", 0, "0", "unspecified") for key, row in before.rows.items()}
    assert (after.outbox, after.last_token) == (before.outbox, before.last_token)
    for bad in ("added_decimal = 'odd'", "added_word = 'odd'", "added_number = 'odd'"):
        assert "VALUE_VALID" in execute(opened, f"UPDATE invoice SET {bad} WHERE id = 'invoice-1-own'")
    assert execute(opened, "UPDATE invoice SET added_decimal = '1.5' WHERE id = 'invoice-1-own'") == ""
    assert set(read_contents(opened).outbox) == {("invoice", "invoice-1-own")}


def test_a_new_column_leaves_the_hash_of_its_rows_alone(opened: sqlite3.Connection) -> None:
    newer, before = changed_catalogue(ADDED), read_contents(opened)
    prepare(opened, newer)
    for key, row in read_contents(opened).rows.items():
        assert codec(newer[key[0]]).canonical(row) == codec(core_catalogue()[key[0]]).canonical(before.rows[key])


def test_a_column_that_becomes_known_takes_the_value_that_was_kept(opened: sqlite3.Connection) -> None:
    """What was kept beside the row as unknown moves into it: one value must not stand in two places (law 13)."""
    newer = changed_catalogue(ADDED)
    kept = newer["invoice"].message(added_text="kept").SerializeToString()
    opened.execute("INSERT INTO sync_unknown VALUES ('invoice', 'invoice-1-own', ?)", (kept,))
    prepare(opened, newer)
    row = opened.execute("SELECT added_text FROM invoice WHERE id = 'invoice-1-own'").fetchone()
    assert row == ("kept",)
    assert opened.execute("SELECT 1 FROM sync_unknown WHERE fields <> x''").fetchone() is None


def test_a_new_table_is_added_and_an_old_one_kept(opened: sqlite3.Connection) -> None:
    before = read_contents(opened)
    more = Catalogue(
        dict(core_catalogue().tables) | dict(catalogue_of([file_of([message("Ward", central("ward"), ID)])]).tables)
    )
    assert prepare(opened, more)
    assert "CENTRAL_DATA_ON_PRIMARY" in execute(opened, "INSERT INTO ward (id) VALUES ('w')")
    with applying(opened):
        assert execute(opened, "INSERT INTO ward (id) VALUES ('w')") == ""
    prepare(opened, core_catalogue())  # an older program: what it does not know stays
    assert opened.execute("SELECT id FROM ward").fetchall() == [("w",)]
    assert read_contents(opened).rows == before.rows


def test_what_other_programs_added_stays(opened: sqlite3.Connection) -> None:
    opened.execute("CREATE TABLE shop_event (note TEXT)")
    opened.execute("INSERT INTO shop_event VALUES ('kept')")
    opened.execute("CREATE INDEX shop_index ON invoice (number)")
    opened.execute("ALTER TABLE unit ADD COLUMN shop_colour TEXT")
    opened.execute("CREATE TRIGGER shop_trigger AFTER UPDATE ON invoice BEGIN INSERT INTO shop_event VALUES ('x'); END")
    before = shape(opened)
    prepare(opened, changed_catalogue(ADDED))
    assert {key: shape(opened)[key] for key in before if "shop" in key[1]} == {
        key: sql for key, sql in before.items() if "shop" in key[1]
    }
    assert "shop_colour" in shape(opened)["table", "unit"]
    assert opened.execute("SELECT note FROM shop_event").fetchall() == [("kept",)]


def test_a_failed_preparation_leaves_the_database_as_it_was(opened: sqlite3.Connection) -> None:
    opened.execute("CREATE VIEW ward AS SELECT 1 AS id")  # in the way of the table of that name
    ward = catalogue_of([file_of([message("Ward", central("ward"), ID)])])
    more = Catalogue(dict(changed_catalogue(ADDED).tables) | dict(ward.tables))
    before = shape(opened)
    with pytest.raises(sqlite3.Error):
        prepare(opened, more)
    assert shape(opened) == before
    assert not opened.in_transaction


def test_a_repair_shares_the_transaction_of_its_caller_and_is_noted(opened: sqlite3.Connection) -> None:
    opened.execute("DROP TRIGGER sync_item_before_insert")
    opened.execute("BEGIN IMMEDIATE")
    repair_schema(opened, core_catalogue())
    noted = opened.execute("SELECT value FROM sync_status WHERE key = 'schema_repaired'").fetchone()
    assert "sync_item_before_insert" in noted[0]
    assert schema_is_whole(opened, core_catalogue())
    opened.execute("ROLLBACK")
    assert not schema_is_whole(opened, core_catalogue())

"""Laws 1 and 2 for every table of the catalogue: at a node without the right each edit is refused by the name of its
rule, at the owner each is captured, and a value that does not fit its column is refused. Local data are nobody's
business (issue: at each site plain SQL cannot make an edit that the specification forbids)."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Column, ColumnType, Kind, Row, RowValue, Table
from engine.rules.authority import Owner, Right, Rule, rule_of
from engine.rules.topology import CENTRAL_SITE, CONFIGURATION_TABLES, Copy, CopyType, Site, Topology
from engine.rules.versions import Term
from engine.storage.configuration import write_rights
from engine.storage.database import transact
from engine.storage.records import applying
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from tests.engine.storage.nodes import execute, undone

OWNER, STRANGER = 2, 3
STORE = "store-1"
TERM = Term(1, 1)
WRONG: Mapping[ColumnType, tuple[RowValue, ...]] = {
    ColumnType.TEXT: ("a\0b",),
    ColumnType.INTEGER: ("many", "1.5"),
    ColumnType.BOOLEAN: (2, "yes"),
    ColumnType.DECIMAL: ("1,5", "NaN", "."),
    ColumnType.DATE: ("2026-02-30", "27.11.2026"),
    ColumnType.TIME: ("2026-11-27", "2026-11-27T25:00:00Z"),
    ColumnType.WORD: ("no such word", ""),
}
RIGHT: Mapping[ColumnType, RowValue] = {
    ColumnType.INTEGER: 7,
    ColumnType.BOOLEAN: 1,
    ColumnType.DECIMAL: "7.5",
    ColumnType.DATE: "2026-11-27",
    ColumnType.TIME: "2026-11-27T10:00:00Z",
}
TABLES = list(catalogue())
OWNED = [table for table in catalogue().synchronised if table.kind is not Kind.MESSAGE]
"""All but the local ones and messages, which everybody may write."""
EDITABLE = [table for table in catalogue().synchronised if table.kind is not Kind.SYNC]
"""Tables that somebody may edit with plain SQL: all but those of kind sync, which commands change."""


def made(path: str, number: int, more: Mapping[Owner, Term] | None = None) -> sqlite3.Connection:
    """A node's database with one record of every table, about a store that is active at the owner, the primary; with
    more rights than follow from that."""
    connection = open_writer(path)  # type: ignore[arg-type]
    prepare(connection, catalogue())
    sites = [Site(site, str(site), site == OWNER, TERM if site == OWNER else Term()) for site in (OWNER, STRANGER)]
    topology = Topology.of(sites, [Copy(STORE, OWNER, CopyType.ACTIVE, TERM)])

    def fill(_: sqlite3.Connection) -> None:
        with applying(connection):
            for table in TABLES:
                insert(connection, table, row_of(table, "1"))
        write_rights(connection, catalogue(), number, topology, more)

    transact(connection, fill)
    return connection


def row_of(table: Table, record_id: str) -> Row:
    """A record whose text columns say something, in a document that is there and not final."""
    special: dict[str, RowValue] = {"id": record_id}
    if table.is_store_record:
        special["id"] = STORE if record_id == "1" else record_id
    elif table.store_column:
        special[table.store_column] = STORE
    if table.parent:
        special[table.parent_column] = "1"
    return tuple(special.get(column.name, _some(column)) for column in table.columns)


def _some(column: Column) -> RowValue:
    return "x" if column.type is ColumnType.TEXT and not column.refers_to else column.default


def insert(connection: sqlite3.Connection, table: Table, row: Row) -> str:
    return execute(connection, f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(row))})", row)


def id_of(table: Table) -> str:
    return str(row_of(table, "1")[0])


def plain_column(table: Table) -> Column:
    """A column that may change."""
    fixed = {"id", table.store_column, table.parent_column, table.receiving_store_column, table.final_column}
    fixed |= {catalogue().subjects[table.name][1]} if table.name in catalogue().subjects else set()
    return next(column for column in table.columns if column.name not in fixed and not column.words)


def edits(table: Table) -> Iterator[tuple[str, tuple[RowValue, ...]]]:
    """A statement that changes the record which is there, and one that deletes it."""
    column, record_id = plain_column(table), id_of(table)
    value = RIGHT.get(column.type, "y")
    yield f"UPDATE {table.name} SET {column.name} = ? WHERE id = ?", (value, record_id)
    yield f"DELETE FROM {table.name} WHERE id = ?", (record_id,)


def replacements(table: Table) -> Iterator[tuple[str, Row]]:
    """Statements that put another record in the place of the one which is there."""
    column, row = plain_column(table), list(row_of(table, "1"))
    row[table.index[column.name]] = RIGHT.get(column.type, "y")
    marks = ", ".join("?" * len(row))
    yield f"INSERT OR REPLACE INTO {table.name} VALUES ({marks})", tuple(row)
    upsert = f"ON CONFLICT (id) DO UPDATE SET {column.name} = excluded.{column.name}"
    yield f"INSERT INTO {table.name} VALUES ({marks}) {upsert}", tuple(row)
    yield f"UPDATE OR REPLACE {table.name} SET {column.name} = ? WHERE id = ?", (row[table.index[column.name]], row[0])


@pytest.fixture(scope="module", name="owner")
def owner_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = made(str(tmp_path_factory.mktemp("owner") / "node.db"), OWNER)
    yield connection
    connection.close()


@pytest.fixture(scope="module", name="stranger")
def strangers_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = made(str(tmp_path_factory.mktemp("stranger") / "node.db"), STRANGER)
    yield connection
    connection.close()


def outbox(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return connection.execute("SELECT table_name, id, root_table FROM sync_outbox ORDER BY token").fetchall()


@pytest.mark.parametrize("table", OWNED, ids=lambda table: table.name)
def test_nobody_else_can_edit_it(stranger: sqlite3.Connection, table: Table) -> None:
    rule = rule_of(catalogue().root_of(table))
    with undone(stranger):
        before = stranger.execute(f"SELECT * FROM {table.name}").fetchall()
        assert insert(stranger, table, row_of(table, "2")) == rule.text
        assert [execute(stranger, *edit) for edit in edits(table)] == [rule.text] * 2
        for recursive in (1, 0):
            stranger.execute(f"PRAGMA recursive_triggers = {recursive}")
            assert [execute(stranger, *edit) for edit in replacements(table)] == [rule.text] * 3
        assert (stranger.execute(f"SELECT * FROM {table.name}").fetchall(), outbox(stranger)) == (before, [])


def test_what_is_about_synchronisation_is_edited_at_the_central_or_by_command(tmp_path: Path) -> None:
    central = made(str(tmp_path / "node.db"), CENTRAL_SITE, {Owner(Right.SYNC): TERM})
    tables = [table for table in catalogue().synchronised if table.kind is Kind.SYNC]
    by_command = {table.name for table in tables if rule_of(table) is Rule.CONFIGURATION_BY_COMMAND}
    assert by_command == CONFIGURATION_TABLES
    for table in tables:
        expected = rule_of(table).text if table.name in by_command else ""
        for sql, values in (("", ()), *edits(table), *replacements(table)):
            with undone(central):
                record_id = id_of(table) if sql else "2"
                done = execute(central, sql, values) if sql else insert(central, table, row_of(table, "2"))
                assert done == expected
                assert ((table.name, record_id, table.name) in outbox(central)) == (not expected)
    central.close()


@pytest.mark.parametrize("table", EDITABLE, ids=lambda table: table.name)
def test_its_owner_can_and_every_edit_is_captured(owner: sqlite3.Connection, table: Table) -> None:
    root = catalogue().root_of(table).name
    with undone(owner):
        assert insert(owner, table, row_of(table, "2")) == ""
        assert outbox(owner) == [(table.name, "2", root)]
    for sql, values in edits(table):
        expected = Rule.MESSAGE_IS_SENT.text if table.kind is Kind.MESSAGE else ""
        if table.is_store_record and sql.startswith("DELETE"):  # all that has a store refers to it
            expected = Rule.STORE_STAYS.text
        with undone(owner):
            assert execute(owner, sql, values) == expected
            assert ((table.name, id_of(table), root) in outbox(owner)) == (not expected)


@pytest.mark.parametrize("table", EDITABLE, ids=lambda table: table.name)
def test_a_value_that_does_not_fit_its_column_is_refused(owner: sqlite3.Connection, table: Table) -> None:
    new = row_of(table, "2")
    for place, column in enumerate(table.columns[1:], 1):
        if column.name in (table.store_column, table.parent_column):
            continue
        for wrong in WRONG[column.type]:
            with undone(owner):
                row = (*new[:place], wrong, *new[place + 1 :])
                assert insert(owner, table, row) == Rule.VALUE_VALID.text, (column.name, wrong)


@pytest.mark.parametrize("table", [t for t in TABLES if t.store_column and t.store_column != "id" and t.travels],
                         ids=lambda table: table.name)  # fmt: skip
def test_it_cannot_move_to_another_store(owner: sqlite3.Connection, table: Table) -> None:
    expected = Rule.MESSAGE_IS_SENT if table.kind is Kind.MESSAGE else Rule.STORE_IMMUTABLE
    with undone(owner):
        sql = f"UPDATE {table.name} SET {table.store_column} = 'store-2' WHERE id = '1'"
        assert execute(owner, sql) == expected.text


@pytest.mark.parametrize("table", [t for t in TABLES if t.final_column], ids=lambda table: table.name)
def test_what_is_final_stays_as_it_is(owner: sqlite3.Connection, table: Table) -> None:
    (member,) = catalogue().members_of(table.name)
    with undone(owner):
        word = table.final_words[0]
        assert execute(owner, f"UPDATE {table.name} SET {table.final_column} = ? WHERE id = '1'", (word,)) == ""
        assert insert(owner, member, row_of(member, "2")) == Rule.FINAL_IS_FINAL.text
        assert [execute(owner, *edit) for edit in edits(member)] == [Rule.FINAL_IS_FINAL.text] * 2
        assert execute(owner, f"DELETE FROM {table.name} WHERE id = '1'") == Rule.FINAL_IS_FINAL.text


def test_a_message_is_written_once(stranger: sqlite3.Connection) -> None:
    message = catalogue()["message"]
    with undone(stranger):
        assert insert(stranger, message, row_of(message, "2")) == ""
        assert outbox(stranger) == [("message", "2", "message")]
        assert [execute(stranger, *edit) for edit in edits(message)] == [Rule.MESSAGE_IS_SENT.text] * 2


@pytest.mark.parametrize("table", [t for t in TABLES if not t.travels], ids=lambda table: table.name)
def test_local_data_are_edited_anywhere_and_captured_nowhere(stranger: sqlite3.Connection, table: Table) -> None:
    with undone(stranger):
        assert insert(stranger, table, row_of(table, "2")) == ""
        assert [execute(stranger, *edit) for edit in edits(table)] == ["", ""]
        assert outbox(stranger) == []

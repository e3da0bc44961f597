"""A local edit cannot put text into a column that is no plain decimal, date, time or known word."""

import sqlite3
from collections.abc import Iterator
from itertools import cycle

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalogue.codec import codec
from engine.catalogue.formats import parse
from engine.catalogue.model import Column, ColumnType, Table
from engine.rules.authority import Rule
from engine.storage.push import cut_frame
from engine.storage.records import Key, applying
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import HERE, capture_flaws, execute, read_contents, undone
from tests.engine.storage.settings import EVERY_PAIR
from tests.engine.storage.statements import UPDATES

RECORDS: tuple[Key, ...] = (
    ("unit", "unit-1"),
    ("item", "item-1"),
    ("name", "name-own"),
    ("store", "own"),
    ("site", "2"),
    ("store_copy", "far@1"),
    ("location", "location-own"),
    ("stock_line", "stock-own"),
    ("invoice", "invoice-1-own"),
    ("invoice_line", "invoice-1-own-a"),
    ("stocktake", "stocktake-1-own"),
    ("stocktake_line", "stocktake-1-own-a"),
)
"""One record of each table, to be edited at the central, by its own commands where those of the kind ask for it."""

BAD: dict[ColumnType, tuple[str, ...]] = {
    ColumnType.TEXT: ("x'61'", "x''", "zeroblob(3)"),
    ColumnType.INTEGER: ("'abc'", "''", "1.5", "'1.5'", "x'01'", "9223372036854775808", "'1e400'", "'0x1F'", "'1 000'"),
    ColumnType.BOOLEAN: ("2", "-1", "'yes'", "''", "0.5", "x'00'", "'true'", "256"),
    ColumnType.WORD: (
        "'nonsense'", "''", "'INVOICE_TYPE_BUILD'", "' new'", "'NEW'", "'Store'", "3", "'9'", "x'6e6577'",
    ),
    ColumnType.DECIMAL: (
        "''", "' '", "'abc'", "'1,5'", "'1e5'", "'1E5'", "'.5'", "'5.'", "'-'", "'.'", "'--1'", "'1-'", "'-1-'", "'+1'",
        "'1.2.3'", "'1..2'", "'-.5'", "' 1'", "'1 '", "'0x10'", "'٣'", "'NaN'", "'Infinity'", "'1_000'", "x'31'",
        "1e20", "1e-7", "9e999", "'1' || char(10)", "'1.-5'",
    ),
    ColumnType.DATE: (
        "''", "'2026-02-30'", "'2026-02-29'", "'2100-02-29'", "'2026-04-31'", "'2026-13-01'", "'2026-00-10'",
        "'2026-01-00'",
        "'2026-1-1'", "'26-01-01'", "'2026/01/01'", "'20260101'", "'2026-01-01 '", "' 2026-01-01'", "'01.02.2026'",
        "'2026-01-01T00:00:00Z'", "'2026-01-01 00:00:00'", "'now'", "'today'", "20260101", "2461000.5",
        "CAST('2026-01-01' AS BLOB)", "'0000-00-00'", "'2026-01-32'", "'-026-01-01'", "'2026-01-0x'", "'٢٠٢٦-01-01'",
    ),
    ColumnType.TIME: (
        "''", "'2026-01-01'", "'2026-01-01 10:00:00'", "'2026-01-01 10:00:00Z'", "'2026-01-01T10:00:00'",
        "'2026-01-01T10:00:00+00:00'", "'2026-01-01T25:00:00Z'", "'2026-01-01T10:60:00Z'", "'2026-01-01T10:00:61Z'",
        "'2026-01-01T10:00Z'", "'2026-13-01T10:00:00Z'", "'2026-01-32T10:00:00Z'", "'2026-01-01t10:00:00Z'", "'now'",
        "'2026-01-01T10:00:00.Z'", "'2026-01-01T10:00:00ZZ'", "'2026-01-01T10:00:00+01:00Z'", "CURRENT_TIMESTAMP",
        "CAST('2026-01-01T10:00:00Z' AS BLOB)", "2461000.5", "'2026-01-01T10:00:00z'", "'2026-01-01T1:00:00Z'",
    ),
}  # fmt: skip

GOOD: dict[ColumnType, tuple[str, ...]] = {
    ColumnType.TEXT: ("''", "'text'", "'O''Brien, \"x\"'", "'日本 🩺'", "5", "'a' || char(10) || 'b'"),
    ColumnType.INTEGER: ("0", "1", "'12'", "3.0"),
    ColumnType.BOOLEAN: ("0", "1", "'1'", "true", "1.0"),
    ColumnType.DECIMAL: (
        "'0'", "'-0'", "'1'", "'1.50'", "'01.5'", "'-3.25'", "'00'", "5", "1.5", f"'{'9' * 40}.{'9' * 40}'",
    ),
    ColumnType.DATE: ("'2024-02-29'", "'2000-02-29'", "'2026-12-31'", "'1900-01-01'", "'9999-12-31'"),
    ColumnType.TIME: ("'2026-01-01T00:00:00Z'", "'2024-02-29T23:59:59.999Z'", "'2026-01-01T10:00:00.123456Z'"),
}  # fmt: skip


def routes(table: Table) -> set[str]:
    """The columns that have rules of their own."""
    return {"id", table.store_column, table.parent_column}


def columns() -> Iterator[tuple[Key, Column]]:
    for key in RECORDS:
        table = core_catalogue()[key[0]]
        yield from ((key, column) for column in table.columns if column.name not in routes(table))


def _bounds(key: Key, column: Column) -> tuple[int, int]:
    """The smallest and the greatest number that the field of a column of integers holds."""
    match core_catalogue()[key[0]].message.DESCRIPTOR.fields_by_name[column.name].type:
        case FieldDescriptor.TYPE_INT32:
            return -(2**31), 2**31 - 1
        case FieldDescriptor.TYPE_UINT32:
            return 0, 2**32 - 1
        case FieldDescriptor.TYPE_UINT64:
            return 0, 2**64 - 1
        case FieldDescriptor.TYPE_INT64:
            return -(2**63), 2**63 - 1
        case _:
            return -(2**64), 2**64  # no number: nothing beyond its bounds fits into SQL


EVERY_COLUMN = [pytest.param(key, column, id=f"{key[0]}.{column.name}") for key, column in columns()]


def begin(connection: sqlite3.Connection) -> None:
    """The central's commands may edit every table; nobody else may edit those of kind sync."""
    connection.execute("UPDATE sync_flag SET administering = 1")


def written(key: Key, column: Column, value: str) -> list[str]:
    """The statements that write a value into a column of a record, and into that of a new one."""
    table, name = key[0], column.name
    route = next(iter(routes(core_catalogue()[table]) - {"id", ""}), "")
    copied = f"id, {route}" if route else "id"
    new = f"'new-1', {route}" if route else "'new-1'"
    return [
        *(f"{verb} {table} SET {name} = {value} WHERE id = '{key[1]}'" for verb in UPDATES),
        *(
            f"{verb} INTO {table} ({copied}, {name}) SELECT {identity}, {value} FROM {table} WHERE id = '{key[1]}'"
            for verb in ("INSERT", "INSERT OR IGNORE", "REPLACE")
            for identity in (copied, new)
        ),
        f"INSERT INTO {table} ({copied}, {name}) SELECT {copied}, {value} FROM {table} WHERE id = '{key[1]}'"
        f" ON CONFLICT (id) DO UPDATE SET {name} = excluded.{name}",
    ]


@pytest.mark.parametrize(("key", "column"), EVERY_COLUMN)
def test_a_bad_value_is_refused(central: sqlite3.Connection, key: Key, column: Column) -> None:
    before = read_contents(central)
    for value, chosen in zip([*BAD[column.type], *([] if column.optional else ["NULL"])], cycle(EVERY_PAIR)):
        chosen.apply(central)
        with undone(central):
            chosen.apply_in_transaction(central)
            begin(central)
            statements = written(key, column, value)
            said = {sql: execute(central, sql) for sql in statements}
            assert said == dict.fromkeys(statements, Rule.VALUE_VALID.text), chosen
            assert read_contents(central, [key[0]]).outbox == before.outbox


UNSIGNED = [
    pytest.param(key, column, f"{value}", id=f"{key[0]}.{column.name}={value}")
    for key, column in columns()
    for low, high in [_bounds(key, column)]
    for value in (low - 1, high + 1)
    if -(2**63) <= value < 2**63
]


@pytest.mark.parametrize(("key", "column", "value"), UNSIGNED)
def test_a_number_that_its_field_cannot_hold_is_refused(
    central: sqlite3.Connection, key: Key, column: Column, value: str
) -> None:
    with undone(central):
        begin(central)
        for sql in written(key, column, value):
            assert execute(central, sql) == Rule.VALUE_VALID.text


@pytest.mark.parametrize(("key", "column"), EVERY_COLUMN)
def test_a_good_value_is_captured_and_travels(central: sqlite3.Connection, key: Key, column: Column) -> None:
    table = core_catalogue()[key[0]]
    low, high = _bounds(key, column)
    good = [*GOOD.get(column.type, [f"'{word}'" for word in column.words.values()])]
    good += [f"{low}", f"{min(high, 2**63 - 1)}"] if column.type is ColumnType.INTEGER else []
    for value in [*good, *(["NULL"] if column.optional else [])]:
        with undone(central):
            begin(central)
            before = read_contents(central)
            assert execute(central, f"UPDATE {key[0]} SET {column.name} = {value} WHERE id = '{key[1]}'") == ""
            after = read_contents(central)
        assert after.outbox[key].token > before.last_token
        row = after.rows[key]
        assert codec(table).decode(codec(table).encode(row)).row == row, value


def column_of(kind: ColumnType) -> tuple[Key, Column]:
    return next((key, column) for key, column in columns() if column.type is kind and key[0].startswith("invoice"))


HOLES = (
    (ColumnType.TIME, "'2026-02-30T10:00:00Z'", "a day that does not exist"),
    (ColumnType.TIME, "'2026-01-01T24:00:00Z'", "an hour that does not exist"),
    (ColumnType.TIME, "'2026-01-01T10:00:00 Z'", "a blank"),
    (ColumnType.TIME, "'2026-01-01T10:00:00.1234567Z'", "more than microseconds"),
    (ColumnType.TIME, "'2026-01-01T10:00:00Z' || char(0) || 'x'", "text after a NUL"),
    (ColumnType.DECIMAL, "'1' || char(0) || 'x'", "text after a NUL"),
    (ColumnType.DECIMAL, "'1' || char(0)", "a NUL at the end"),
    (ColumnType.DATE, "'2026-01-01' || char(0) || 'x'", "text after a NUL"),
)
"""What functions of SQL read more kindly than `formats.parse` does."""


@pytest.mark.parametrize(("kind", "value", "why"), HOLES, ids=[f"{kind.value}: {why}" for kind, _, why in HOLES])
def test_triggers_are_as_strict_as_an_import(
    central: sqlite3.Connection, kind: ColumnType, value: str, why: str
) -> None:
    key, column = column_of(kind)
    with undone(central):
        said = execute(central, f"UPDATE {key[0]} SET {column.name} = {value} WHERE id = '{key[1]}'")
    assert said == Rule.VALUE_VALID.text, why


ALPHABETS = {
    ColumnType.DECIMAL: st.text("0123456789.-+e ", min_size=1, max_size=6),
    ColumnType.DATE: st.from_regex(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]", fullmatch=True)
    | st.text("0123456789-", max_size=11),
    ColumnType.TIME: st.from_regex(r"20[0-9]{2}-0[1-9]-[0-2][0-8]T[0-2][0-35-9]:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z?"),
    ColumnType.INTEGER: st.from_regex(r"-?[1-9][0-9]{0,20}", fullmatch=True),
}


@pytest.mark.parametrize("kind", ALPHABETS)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_triggers_and_imports_agree_on_what_is_valid(
    central: sqlite3.Connection, kind: ColumnType, data: st.DataObject
) -> None:
    key, column = column_of(kind)
    text = data.draw(ALPHABETS[kind])
    try:
        parse(column, text)
        fits = text != ""
    except ValueError:
        fits = False
    with undone(central):
        central.execute("PRAGMA recursive_triggers = 0")
        try:
            central.execute(f"UPDATE {key[0]} SET {column.name} = ? WHERE id = ?", (text, key[1]))
            passed = True
        except sqlite3.IntegrityError:
            passed = False
    assert passed == fits, text


def test_a_value_that_came_from_a_peer_stays_until_it_is_changed(node: sqlite3.Connection) -> None:
    """A word of a newer catalogue is kept as digits; editing another column does not ask for it."""
    key: Key = ("invoice", "invoice-1-own")
    with undone(node):
        with applying(node):
            node.execute("UPDATE invoice SET type = '99', created_at = 'once' WHERE id = ?", (key[1],))
        before = read_contents(node)
        assert execute(node, f"UPDATE invoice SET comment = 'x', type = '99' WHERE id = '{key[1]}'") == ""
        assert capture_flaws(before, read_contents(node), [key]) == []
        for change in ("type = '98'", "created_at = 'twice'", "type = 99.5"):
            assert execute(node, f"UPDATE invoice SET {change} WHERE id = '{key[1]}'") == Rule.VALUE_VALID.text


def test_text_that_is_no_unicode_blocks_nobody(site: sqlite3.Connection) -> None:
    """A program with another encoding can write such bytes as TEXT: refused, or put aside, but the rest flows."""
    with undone(site):
        execute(site, "UPDATE invoice SET comment = CAST(x'c4ff' AS TEXT) WHERE id = 'invoice-1-own'")
        assert execute(site, "UPDATE invoice SET comment = 'well' WHERE id = 'invoice-2-own'") == ""
        assert cut_frame(site, core_catalogue(), HERE, 0) is not None
        assert site.execute("SELECT 1 FROM sync_in_flight WHERE id = 'invoice-2-own'").fetchone()

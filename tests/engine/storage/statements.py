"""Every form of a statement that writes one record, and what it is to do where the record may be edited."""

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from engine.catalogue.model import ColumnType, Row, RowValue, Table
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import Contents, edited_column, members_in

CLAUSES = ("", "OR REPLACE ", "OR IGNORE ", "OR ABORT ", "OR FAIL ", "OR ROLLBACK ")
INSERTS = (*(f"INSERT {clause}INTO" for clause in CLAUSES), "REPLACE INTO")
UPDATES = tuple(f"UPDATE {clause}".rstrip() for clause in CLAUSES)


class Effect(Enum):
    """What a statement does when nothing refuses it."""

    INSERTS = "inserts a new record"
    UPDATES = "updates the record"
    DELETES = "deletes the record with its lines"
    NOTHING = "does nothing"
    CONFLICT = "fails, because the id is there"


class Statement(NamedTuple):
    """One statement against one record."""

    sql: str
    values: tuple[RowValue, ...]
    effect: Effect

    def changes(self, target: Key, new: Key, before: Contents) -> list[Key]:
        """The records that the statement changes, where it is allowed."""
        match self.effect:
            case Effect.INSERTS:
                return [new]
            case Effect.UPDATES:
                return [target]
            case Effect.DELETES:
                return [target, *members_in(before.rows, target)]
            case _:
                return []


def every_statement(table: Table, row: Row, new_id: str) -> Iterator[Statement]:
    """The statements against the record `row`, and those that insert a copy of it under a new id."""
    column = edited_column(table)
    value: RowValue = "edited" if table.column(column).type is ColumnType.TEXT else 77
    same = _with(table, row, **{column: value})
    new = _with(table, same, id=new_id)
    yield from _inserts(table, column, new, Effect.INSERTS)
    yield from _inserts(table, column, same, Effect.UPDATES)
    yield from _updates(table, column, value, str(row[0]))
    yield Statement(f"DELETE FROM {table.name} WHERE id = ?", (row[0],), Effect.DELETES)
    yield Statement(f"DELETE FROM {table.name} WHERE id = ? RETURNING *", (row[0],), Effect.DELETES)


def _with(table: Table, row: Row, **values: RowValue) -> Row:
    return tuple(values.get(name, value) for name, value in zip(table.column_names, row, strict=True))


def _inserts(table: Table, column: str, row: Row, effect: Effect) -> Iterator[Statement]:
    """The forms that insert; `effect` is that of the forms that write in any case."""
    into = f"{table.name} ({', '.join(table.column_names)})"
    values = f"VALUES ({', '.join('?' * len(row))})"
    selected = f"SELECT {', '.join('?' * len(row))} FROM {table.name} LIMIT 1"
    is_there = effect is Effect.UPDATES
    for verb in INSERTS:
        kind = effect
        if is_there and "REPLACE" not in verb:
            kind = Effect.NOTHING if "IGNORE" in verb else Effect.CONFLICT
        yield Statement(f"{verb} {into} {values}", row, kind)
        yield Statement(f"{verb} {into} {selected}", row, kind)
    yield Statement(f"REPLACE INTO {into} {values} RETURNING id", row, effect)
    update = f"DO UPDATE SET {column} = excluded.{column}"
    for verb in INSERTS[:-1]:
        yield Statement(f"{verb} {into} {values} ON CONFLICT (id) {update}", row, effect)
    yield Statement(f"INSERT INTO {into} {selected.replace('LIMIT', 'WHERE true LIMIT')} ON CONFLICT DO NOTHING",
                    row, Effect.NOTHING if is_there else effect)  # fmt: skip
    for conflict in ("(id) DO NOTHING", "DO NOTHING", f"(id) {update} WHERE false"):
        yield Statement(f"INSERT INTO {into} {values} ON CONFLICT {conflict}", row,
                        Effect.NOTHING if is_there else effect)  # fmt: skip


def _updates(table: Table, column: str, value: RowValue, record_id: str) -> Iterator[Statement]:
    for verb in UPDATES:
        yield Statement(f"{verb} {table.name} SET {column} = ? WHERE id = ?", (value, record_id), Effect.UPDATES)
    source = "FROM (SELECT ? AS new_value, ? AS wanted) AS source"
    written = f"SET {column} = source.new_value {source} WHERE {table.name}.id = source.wanted"
    for verb in ("UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE"):
        yield Statement(f"{verb} {table.name} {written}", (value, record_id), Effect.UPDATES)
    yield Statement(f"UPDATE {table.name} {written} RETURNING id", (value, record_id), Effect.UPDATES)
    yield Statement(f"UPDATE {table.name} SET ({column}) = (?) WHERE id = ?", (value, record_id), Effect.UPDATES)
    again = f"UPDATE {table.name} SET {column} = {column} WHERE id = ?"
    yield Statement(f"{again} AND ? IS NULL", (record_id, value), Effect.NOTHING)


def table_of(key: Key) -> Table:
    """The table of a record."""
    return core_catalogue()[key[0]]

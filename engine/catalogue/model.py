"""Tables, columns and references as the rest of the engine sees them."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any

from google.protobuf.message import Message

RowValue = str | int | None
"""What a column of a synchronised table can hold."""
Row = tuple[RowValue, ...]
"""The values of one record in the order of its table's columns; the id comes first."""


class Kind(StrEnum):
    """Who owns the records of a table and who receives them (specification, "Data types")."""

    CENTRAL = "central"
    CENTRAL_STORE = "central_store"
    STORE = "store"
    SYNC = "sync"
    PATIENT = "patient"
    MESSAGE = "message"
    LOCAL = "local"


class ColumnType(Enum):
    """How a column's value is stored and checked."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    DECIMAL = "decimal"
    DATE = "date"
    TIME = "time"
    WORD = "word"

    @property
    def sql(self) -> str:
        """The SQL type: INTEGER for numbers and booleans, TEXT for the rest."""
        return "INTEGER" if self in (ColumnType.INTEGER, ColumnType.BOOLEAN) else "TEXT"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, from one field of its message."""

    name: str
    number: int
    type: ColumnType
    optional: bool = False
    words: Mapping[int, str] = field(default_factory=dict)
    """For a column of words: enum number -> word."""
    refers_to: str = ""
    required: bool = False
    least: int = -(1 << 63)
    """Smallest value of a column of whole numbers."""
    most: int = (1 << 63) - 1
    """Greatest value of a column of whole numbers."""

    @property
    def default(self) -> RowValue:
        """The value of a column that was not given."""
        if self.optional:
            return None
        match self.type:
            case ColumnType.INTEGER | ColumnType.BOOLEAN:
                return 0
            case ColumnType.DECIMAL:
                return "0"
            case ColumnType.WORD:
                return self.words[0]
            case _:
                return ""


@dataclass(frozen=True, eq=False)
class Table:
    """One synchronised table, from one message of the catalogue. Compared by identity."""

    name: str
    kind: Kind
    columns: tuple[Column, ...]
    message: type[Message]
    store_column: str = ""
    """On root tables of the kinds about a store: the column that names the store (options.proto says in which role)."""
    parent_column: str = ""
    """On members: the column that names the root record."""
    parent: str = ""
    """On members: the root's table."""
    final_column: str = ""
    final_words: tuple[str, ...] = ()
    is_store_record: bool = False
    is_dispensary_data: bool = False
    follows_transactions: bool = False
    can_be_centralised: bool = False
    active_column: str = ""
    """On central tables whose records are deactivated, not deleted, while they are in use."""
    visibility_table: str = ""
    receiving_store_column: str = ""
    scope_family: str = ""

    @property
    def travels(self) -> bool:
        """Whether its records are synchronised at all."""
        return self.kind is not Kind.LOCAL

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Column name -> place in a row."""
        return {name: place for place, name in enumerate(self.column_names)}

    @cached_property
    def references(self) -> tuple[Column, ...]:
        """The columns that refer to another table."""
        return tuple(column for column in self.columns if column.refers_to)

    @cached_property
    def required(self) -> tuple[tuple[int, str], ...]:
        """(place in a row, table) of each reference that must be there before the record, the document apart."""
        return tuple(
            (self.index[column.name], column.refers_to)
            for column in self.references
            if column.required and column.name != self.parent_column
        )

    def column(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        return self.columns[self.index[name]]

    def value(self, row: Row, column: str) -> RowValue:
        """The value of a named column in a row of this table."""
        return row[self.index[column]]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Every synchronised table, in dependency order: a table comes after those it requires."""

    tables: Mapping[str, Table]

    def __getitem__(self, name: str) -> Table:
        return self.tables[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tables

    def __iter__(self) -> Any:
        return iter(self.tables.values())

    def part(self, names: Collection[str]) -> "Catalogue":
        """The catalogue of these tables alone, in the same order. Raises ValueError when one of them refers to a table
        that is left out."""
        kept = {name: table for name, table in self.tables.items() if name in names}
        needed = {column.refers_to for table in kept.values() for column in table.references}
        needed |= {table.visibility_table for table in kept.values() if table.visibility_table}
        if missing := (needed | set(names)) - kept.keys():
            raise ValueError(f"without {', '.join(sorted(missing))} it is no catalogue")
        return Catalogue(kept)

    @cached_property
    def synchronised(self) -> tuple[Table, ...]:
        """The tables whose records travel: all but those of kind local."""
        return tuple(table for table in self.tables.values() if table.travels)

    def root_of(self, table: Table) -> Table:
        """The table of the document's root: the table itself unless it holds members."""
        return self.tables[table.parent] if table.parent else table

    @cached_property
    def order(self) -> Mapping[str, int]:
        """Table name -> place in dependency order."""
        return {name: place for place, name in enumerate(self.tables)}

    @cached_property
    def _members(self) -> Mapping[str, tuple[Table, ...]]:
        found: dict[str, tuple[Table, ...]] = {}
        for table in self.tables.values():
            if table.parent:
                found[table.parent] = (*found.get(table.parent, ()), table)
        return found

    def visibility_of(self, subject: Table) -> tuple[Table, str]:
        """The table that says in which stores a record of `subject` is visible, and its column for the record."""
        visibility = self.tables[subject.visibility_table]
        return visibility, next(column.name for column in visibility.references if column.refers_to == subject.name)

    @cached_property
    def subjects(self) -> Mapping[str, tuple[Table, str]]:
        """Name of a table of visibility -> the table whose records it makes visible, and its column that names them."""
        return {
            subject.visibility_table: (subject, self.visibility_of(subject)[1])
            for subject in self.tables.values()
            if subject.visibility_table
        }

    def visible_with(self, root: Table) -> tuple[tuple[str, Table], ...]:
        """(column, table) of the records with which a root of kind patient is visible, where no table makes it visible
        itself: the merging of two patients goes wherever one of them does."""
        if root.kind is not Kind.PATIENT or root.parent or root.visibility_table:
            return ()
        referred = ((column.name, self.tables[column.refers_to]) for column in root.references)
        return tuple((name, subject) for name, subject in referred if subject.visibility_table)

    @cached_property
    def _going_along(self) -> Mapping[str, tuple[tuple[Table, str], ...]]:
        found: dict[str, tuple[tuple[Table, str], ...]] = {}
        for table in self.tables.values():
            for column, subject in self.visible_with(table):
                found[subject.name] = (*found.get(subject.name, ()), (table, column))
        return found

    def going_along_with(self, subject: str) -> tuple[tuple[Table, str], ...]:
        """(table, column) of the roots that are visible with records of that table; see `visible_with`."""
        return self._going_along.get(subject, ())

    @cached_property
    def _referring(self) -> Mapping[str, tuple[tuple[Table, str], ...]]:
        found: dict[str, tuple[tuple[Table, str], ...]] = {}
        for table in self.tables.values():
            for column in table.references:
                if column.name != table.parent_column:
                    found[column.refers_to] = (*found.get(column.refers_to, ()), (table, column.name))
        return found

    def referring_to(self, table: str) -> tuple[tuple[Table, str], ...]:
        """(table, column) of every reference to records of that table, but for those of members to their own root."""
        return self._referring.get(table, ())

    def stays_while_used(self, table: Table) -> bool:
        """Whether records of the table are not deleted while they are in use: central data and stores that something
        may refer to. They are switched off where the table has a column for that."""
        if not (table.kind is Kind.CENTRAL or table.is_store_record) or table.parent:
            return False
        return any(referring.parent != table.name for referring, _ in self.referring_to(table.name))

    def is_required(self, table: str) -> bool:
        """Whether other records may have to wait until one of that table is there."""
        return any(referring.column(column).required for referring, column in self.referring_to(table))

    def members_of(self, root: str) -> tuple[Table, ...]:
        """The tables whose records are members of documents of that root table."""
        return self._members.get(root, ())

    @cached_property
    def hash(self) -> bytes:
        """32 bytes; equal exactly when tables, columns, types, kinds and references are equal."""
        told = "\n".join(repr(_told(table)) for table in sorted(self.tables.values(), key=lambda table: table.name))
        return hashlib.sha256(told.encode()).digest()


def _told(table: Table) -> tuple[Any, ...]:
    columns = [
        (column.name, column.number, column.type.value, column.optional, sorted(column.words.items()), column.refers_to)
        for column in table.columns
    ]
    rules = (
        table.store_column, table.parent_column, table.final_words, table.is_store_record, table.is_dispensary_data,
        table.follows_transactions, table.can_be_centralised, table.active_column, table.visibility_table,
        table.receiving_store_column, table.scope_family,
    )  # fmt: skip
    return table.name, table.kind.value, rules, columns


def in_dependency_order(tables: Iterable[Table]) -> dict[str, Table]:
    """Sorts tables so that each comes after those it requires.

    Raises:
        ValueError: required references form a cycle, or name a table that does not exist.
    """
    waiting = {table.name: table for table in tables}
    known = set(waiting)
    done: dict[str, Table] = {}
    while waiting:
        ready = [name for name, table in waiting.items() if _required(table, known) <= done.keys() | {name}]
        if not ready:
            raise ValueError(f"required references form a cycle among {', '.join(sorted(waiting))}")
        for name in ready:
            done[name] = waiting.pop(name)
    return done


def _required(table: Table, known: set[str]) -> set[str]:
    for column in table.references:
        if column.refers_to not in known:
            raise ValueError(f"{table.name}.{column.name} refers to {column.refers_to}, which is no table")
    return {column.refers_to for column in table.references if column.required}

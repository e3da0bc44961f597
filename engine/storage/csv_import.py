"""Imports a CSV file into one table: read and checked as a whole, then written in one transaction, or not at all.

The rows are written as a local edit: triggers check authority and capture every change. Existing records with the same
id are updated in the columns that the file has.
"""

import csv
import io
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from engine.catalogue.formats import parse
from engine.catalogue.model import Catalogue, Column, RowValue, Table
from engine.errors import Code, Refused
from engine.limits import ID_BYTES_MAX

_FIELD_BYTES_MAX = 1 << 20
_ERRORS_SHOWN = 5


@dataclass(frozen=True)
class ImportPlan:
    """A file that was read and fits."""

    table: Table
    columns: tuple[str, ...]
    rows: tuple[tuple[RowValue, ...], ...]
    lines: tuple[int, ...]
    rows_read: int
    ignored_columns: tuple[str, ...]


class _Problems:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._shown: list[str] = []
        self._count = 0

    def add(self, where: str, what: str) -> None:
        """One more; `where` is a line or an option."""
        self._count += 1
        if self._count <= _ERRORS_SHOWN:
            self._shown.append(f"{where}: {what}")

    def refuse(self) -> None:
        if self._count:
            more = self._count - _ERRORS_SHOWN
            text = "; ".join(self._shown) + (f"; and {more} more" if more > 0 else "")
            raise Refused(Code.CSV_WRONG, f"{self._path.name}: {text}.")


def read_import(
    catalogue: Catalogue,
    table_name: str,
    path: Path,
    mapping: Mapping[str, str],
    settings: Mapping[str, str],
    last_wins: str = "",
) -> ImportPlan:
    """Reads and checks a file.

    Args:
        catalogue: the tables.
        table_name: where to import.
        path: the file: UTF-8, a header line, comma separated.
        mapping: table column -> column of the file.
        settings: table column -> the value of every row.
        last_wins: a column of the file; of rows with one id the one with its greatest value counts. Empty: an id that
            occurs twice is an error.

    Raises:
        Refused: CSV_WRONG with line, column and value of what does not fit; DIRECTORY_WRONG where there is no file.
    """
    table, problems = _table(catalogue, table_name, (*mapping, *settings)), _Problems(path)
    lines = _lines(path)
    header = next(lines, (1, []))[1]
    used, ignored = _choose(table, header, mapping, settings, path)
    if last_wins and last_wins not in header:
        raise Refused(Code.CSV_WRONG, f"{path.name} has no column {last_wins[:60]!r} for --last-wins.")
    fixed = [_value(table.column(name), text, 0, problems) for name, text in settings.items()]
    found: dict[str, tuple[int, tuple[RowValue, ...], str]] = {}
    read = 0
    for number, fields in lines:
        if not fields:
            continue
        read += 1
        if len(fields) != len(header):
            problems.add(f"line {number}", f"{len(fields)} fields, the header has {len(header)}")
            continue
        row = (*(_value(column, fields[at], number, problems) for column, at in used), *fixed)
        rank = fields[header.index(last_wins)] if last_wins else ""
        _keep(found, number, row, [*(column.name for column, _ in used), *settings].index("id"), rank, problems)
    problems.refuse()
    kept = list(found.values())
    columns = (*(column.name for column, _ in used), *settings)
    rows, at = tuple(row for _, row, _ in kept), tuple(number for number, _, _ in kept)
    return ImportPlan(table, columns, rows, at, read, ignored)


def _table(catalogue: Catalogue, name: str, columns: Sequence[str]) -> Table:
    if name not in catalogue:
        known = ", ".join(sorted(table.name for table in catalogue))
        raise Refused(Code.CSV_WRONG, f"There is no table {name[:60]!r}; the tables are {known}.")
    for column in columns:
        if columns.count(column) > 1:
            raise Refused(Code.CSV_WRONG, f"The column {column} is both mapped and set.")
        if column not in catalogue[name].index:
            raise Refused(Code.CSV_WRONG, f"{name} has no column {column[:60]!r}.")
    return catalogue[name]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise Refused(Code.CSV_WRONG, f"{path} is no file, and may have no end.")
        content = path.read_bytes()
    except OSError as error:
        raise Refused(Code.CSV_WRONG, f"{path} cannot be read ({os.strerror(error.errno or 0)}).") from error
    except ValueError as error:  # a NUL or a character in it that no file system takes
        raise Refused(Code.CSV_WRONG, f"{str(path)[:60]!r} is no name of a file.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Refused(Code.CSV_WRONG, f"{path.name}: line {line}: the file is not UTF-8.") from error
    csv.field_size_limit(_FIELD_BYTES_MAX)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise Refused(Code.CSV_WRONG, f"{path.name}: line {line}: {error}.") from error


def _choose(
    table: Table, header: Sequence[str], mapping: Mapping[str, str], settings: Mapping[str, str], path: Path
) -> tuple[list[tuple[Column, int]], tuple[str, ...]]:
    """(table column and its place in the file, the columns of the file that are ignored)."""
    if not header:
        raise Refused(Code.CSV_WRONG, f"{path.name} has no header line.")
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise Refused(Code.CSV_WRONG, f"{path.name}: line 1: the column {min(twice)[:60]!r} occurs twice.")
    for column, source in mapping.items():
        if source not in header:
            raise Refused(
                Code.CSV_WRONG, f"{path.name}: line 1: there is no column {source[:60]!r} to map to {column}."
            )
    source_of = {name: name for name in header if name in table.index and name not in mapping and name not in settings}
    source_of |= mapping
    ignored = tuple(name for name in header if name not in source_of.values())
    if ignored and not mapping and not settings:
        raise Refused(
            Code.CSV_WRONG,
            f"{path.name}: line 1: {table.name} has no column {ignored[0][:60]!r}; its columns are"
            f" {', '.join(table.column_names)}. With --map or --set, columns that do not fit are ignored.",
        )
    if "id" not in source_of and "id" not in settings:
        raise Refused(Code.CSV_WRONG, f"{path.name}: line 1: the column id is missing.")
    return [(table.column(name), list(header).index(source)) for name, source in source_of.items()], ignored


def _value(column: Column, text: str, line: int, problems: _Problems) -> RowValue:
    try:
        value = parse(column, text)
        if column.name == "id" and not 1 <= len(text.encode()) <= ID_BYTES_MAX:
            raise ValueError(f"a text of 1 to {ID_BYTES_MAX} bytes")
    except ValueError as error:
        problems.add(f"line {line}" if line else "--set", f"column {column.name}: {text[:60]!r} is not {error}")
        return None
    return value


def _keep(
    found: dict[str, tuple[int, tuple[RowValue, ...], str]],
    number: int,
    row: tuple[RowValue, ...],
    id_at: int,
    rank: str,
    problems: _Problems,
) -> None:
    if row[id_at] is None:  # it was found wrong already
        return
    record_id = str(row[id_at])
    earlier = found.get(record_id)
    if earlier is None:
        found[record_id] = (number, row, rank)
    elif not rank and not earlier[2]:
        problems.add(f"line {number}", f"the id {record_id!r} stands in line {earlier[0]} already")
    elif _rank(rank) >= _rank(earlier[2]):
        found[record_id] = (number, row, rank)


def _rank(text: str) -> tuple[int, Decimal, str]:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return (0, Decimal(0), text)
    return (1, number, "") if number.is_finite() else (0, Decimal(0), text)


def write_import(connection: sqlite3.Connection, plan: ImportPlan) -> dict[str, Any]:
    """Writes the rows inside the caller's transaction; returns what to tell the user.

    Raises:
        Refused: EDIT_REFUSED with the line whose record the rules do not let this node edit.
    """
    marks = ", ".join("?" * len(plan.columns))
    others = [name for name in plan.columns if name != "id"]
    insert = f"INSERT INTO {plan.table.name} ({', '.join(plan.columns)}) VALUES ({marks})"
    update = f"UPDATE {plan.table.name} SET {', '.join(f'{name} = :{name}' for name in others)} WHERE id = :id"
    line = 0
    try:
        for line, row in zip(plan.lines, plan.rows, strict=True):  # noqa: B007 - named in the error
            values = dict(zip(plan.columns, row, strict=True))
            there = connection.execute(f"SELECT 1 FROM {plan.table.name} WHERE id = :id", values).fetchone()
            if there is None:
                connection.execute(insert, row)
            elif others:
                connection.execute(update, values)
    except sqlite3.IntegrityError as error:
        text = str(error).removeprefix("Packhorse: ")
        raise Refused(Code.EDIT_REFUSED, f"Line {line}: {text}") from error
    return {
        "table": plan.table.name,
        "rows_read": plan.rows_read,
        "imported": len(plan.rows),
        "ignored_columns": list(plan.ignored_columns),
    }

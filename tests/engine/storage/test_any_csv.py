"""Any CSV file: it is imported as it reads, or refused by name with nothing changed."""

import csv
import io
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from engine.catalogue.model import ColumnType
from engine.errors import Code, Refused
from engine.storage.csv_import import read_import, write_import
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import read_contents, undone
from tests.garbling import EXAMPLES, SLOW_MACHINES

FUZZ = settings(deadline=None, database=None, max_examples=2 * EXAMPLES, suppress_health_check=SLOW_MACHINES)
TABLES = ["unit", "item", "name", "store", "stock_line", "invoice", "invoice_line", "site", "no_such_table"]
COLUMNS = [
    *sorted({column.name for table in core_catalogue() for column in table.columns}),
    "colour",
    "",
    "ID",
    "\ufeffid",
]
STRANGE = [
    *("", "own", "unit-1", "-1", "1e5", "NaN", "2026-02-30", str(1 << 63), "9" * 5_000, "x" * 300, "x" * (1 << 21)),
    *("\x00", "\ud7ff", '"', '""', 'a"b', "a\nb", "a\rb", ";", "\t", "=1+1", "'; DROP TABLE item; --", "\u2028"),
]
VALUES = st.one_of(st.sampled_from(STRANGE), st.text(max_size=6))
FITTING = {
    ColumnType.TEXT: ["a", "é", "own", "unit-1", "item-1", "two\nlines", "a;b"],
    ColumnType.INTEGER: ["0", "7", "-1"],
    ColumnType.BOOLEAN: ["yes", "0"],
    ColumnType.DECIMAL: ["1.50", "12"],
    ColumnType.DATE: ["2026-01-31"],
    ColumnType.TIME: ["2026-01-01T10:00:00Z"],
}
ENCODINGS = [*["utf-8"] * 8, "utf-8-sig", "utf-8-sig", "utf-16", "latin-1", "cp1252"]
INSIDE = ("Traceback", "Error", "sqlite3", "<class", "0x", "None", "codec")


def value(draw: st.DrawFn, table: str, column: str) -> str:
    """A value that fits its column, nine times of ten."""
    known = core_catalogue()[table].index if table in core_catalogue() else {}
    if column not in known or draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    if column == "id":
        return draw(st.sampled_from(["new", "new-2", "new-3", "new-4", "unit-1", "item-1"]))
    fitting = FITTING.get(core_catalogue()[table].column(column).type)
    return draw(st.sampled_from(fitting or list(core_catalogue()[table].column(column).words.values())))


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(table, a file that looks like one of it, more or less; or any bytes)."""
    table = draw(st.sampled_from(TABLES))
    if draw(st.integers(0, 19)) == 0:
        return table, draw(st.binary(max_size=200))
    own = list(core_catalogue()[table].column_names) if table in core_catalogue() else COLUMNS
    header = ["id", *draw(st.lists(st.sampled_from(own[1:]), unique=True, max_size=4))]
    if draw(st.integers(0, 3)) == 0:
        header = draw(st.lists(st.sampled_from(COLUMNS), max_size=5))
    text = io.StringIO()
    writer = csv.writer(
        text,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"])),
    )
    writer.writerow(header)
    for _ in range(draw(st.integers(0, 4))):
        fields = [value(draw, table, column) for column in header]
        writer.writerow(fields if draw(st.integers(0, 19)) else fields[1:])
    content = text.getvalue().encode(draw(st.sampled_from(ENCODINGS)), "replace")
    for _ in range(draw(st.integers(0, 2)) if draw(st.integers(0, 4)) == 0 else 0):
        at = draw(st.integers(0, len(content)))
        noise = draw(st.sampled_from([b"\x00", b"\xff", b'"', b",", b"\r", b"\xef\xbb\xbf"]))
        content = content[:at] + noise + content[at:]
    return table, content


@FUZZ
@given(
    file=files(),
    mapping=st.one_of(st.just({}), st.dictionaries(st.sampled_from(COLUMNS), st.sampled_from(COLUMNS), max_size=1)),
    fixed=st.one_of(st.just({}), st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=1)),
    last_wins=st.sampled_from(["", "", "", "", "code", "name", "colour"]),
)
@example(file=("unit", b"id,name\nu,n\n"), mapping={}, fixed={}, last_wins="")
@example(file=("unit", b"id,code\nu,1e999999999\nu,1e-999999999\n"), mapping={}, fixed={}, last_wins="code")
def test_any_file_is_imported_as_it_reads_or_refused_by_name(
    central: sqlite3.Connection, tmp_path: Path, file: tuple[str, bytes], last_wins: str, **options: Any
) -> None:
    table, content = file
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with undone(central):
        before = read_contents(central)
        central.execute("SAVEPOINT import")
        try:
            plan = read_import(core_catalogue(), table, path, options["mapping"], options["fixed"], last_wins)
            told = write_import(central, plan)
        except Refused as error:
            event(error.code)
            assert error.code in (Code.CSV_WRONG, Code.EDIT_REFUSED)
            assert len(error.sentence) < 2_000 and error.sentence.isprintable(), error.sentence
            assert not [inside for inside in INSIDE if inside in error.sentence], error.sentence
            central.execute("ROLLBACK TO import")
            assert read_contents(central) == before
            return
        event("imported")
        after = read_contents(central)
        assert told["imported"] == len(plan.rows) <= told["rows_read"]
        for row in plan.rows:
            values = dict(zip(plan.columns, row, strict=True))
            there = dict(zip(core_catalogue()[table].column_names, after.rows[table, str(values["id"])], strict=True))
            assert {name: there[name] for name in values} == values
        assert {key for key in after.rows if after.rows[key] != before.rows.get(key)} <= {
            (table, str(dict(zip(plan.columns, row, strict=True))["id"])) for row in plan.rows
        }


@pytest.mark.parametrize(
    "content",
    [b"," * 300_000, b"id," + b"a," * 300_000, b'"' * 300_000, b"id\n" + b'"",' * 100_000, b"\n" * 300_000],
    ids=["commas", "columns", "quotes", "fields", "lines"],
)
def test_a_strange_file_is_refused_soon(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    begin = time.process_time()
    with pytest.raises(Refused) as caught:
        read_import(core_catalogue(), "unit", path, {}, {})
    assert caught.value.code is Code.CSV_WRONG and len(caught.value.what) < 2_000
    assert time.process_time() - begin < 5.0


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path, tmp_path / "missing", Path("a\x00b"), Path("a\ud800b")):
        with pytest.raises(Refused) as caught:
            read_import(core_catalogue(), "unit", path, {}, {})
        assert caught.value.code is Code.CSV_WRONG, path

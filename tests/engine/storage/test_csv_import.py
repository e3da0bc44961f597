"""Imports: every error names line, column and value; all of a file is written or nothing (issue 2)."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Code, PackhorseError, Refused
from engine.limits import ID_BYTES_MAX
from engine.storage.csv_import import ImportPlan, read_import, write_import
from engine.storage.database import transact
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import Contents, read_contents, undone

NONE: dict[str, str] = {}


@pytest.fixture(name="folder")
def folder_of_files(tmp_path: Path) -> Path:
    return tmp_path


def plan_of(
    folder: Path,
    table: str,
    content: str | bytes,
    mapping: Mapping[str, str] = NONE,
    fixed: Mapping[str, str] = NONE,
    last_wins: str = "",
) -> ImportPlan:
    path = folder / "file.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_import(core_catalogue(), table, path, mapping, fixed, last_wins)


def refusal(folder: Path, table: str, content: str | bytes, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        plan_of(folder, table, content, **options)
    assert caught.value.code is Code.CSV_WRONG
    return caught.value.what


def imported(
    connection: sqlite3.Connection, folder: Path, table: str, content: str | bytes, **options: Any
) -> tuple[Contents, dict[str, Any]]:
    """What the node has in the transaction of an import."""
    plan = plan_of(folder, table, content, **options)
    with undone(connection):
        told = write_import(connection, plan)
        return read_contents(connection), told


def values(contents: Contents, table: str, record_id: str) -> dict[str, object]:
    return dict(zip(core_catalogue()[table].column_names, contents.rows[table, record_id], strict=True))


WRONG: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    # what is wrong: table, content, what the sentence must name
    "empty file": ("unit", "", ("file.csv", "no header")),
    "blank first line": ("unit", "\nid,code\nu,c\n", ("file.csv", "no header")),
    "unknown column": ("unit", "id,colour\nu,red\n", ("line 1", "'colour'", "id, code, name, comment")),
    "column of another case": ("unit", "id,Name\nu,x\n", ("line 1", "'Name'")),
    "missing id": ("unit", "code,name\nc,n\n", ("line 1", "column id is missing")),
    "a column twice": ("unit", "id,name,name\nu,n,m\n", ("line 1", "'name'", "twice")),
    "bad whole number": ("invoice", "id,store_id,number\ni,own,12.5\n", ("line 2", "number", "'12.5'", "whole number")),
    "number too great": ("invoice", f"id,store_id,number\ni,own,{2**63}\n", ("line 2", "number", str(2**63))),
    "bad decimal": (
        "item", "id,default_pack_size\na,1\nb,'1'\nc,1e5\n",
        ("line 3", "line 4", "default_pack_size", "'1e5'", "plain decimal")),
    "decimal with a comma": ("item", 'id,default_pack_size\na,"1,5"\n', ("line 2", "'1,5'")),
    "bad date": (
        "invoice_line", "id,expiry_date\nl,2026-02-30\n", ("line 2", "expiry_date", "'2026-02-30'", "YYYY-MM-DD")),
    "date in another order": (
        "stocktake", "id,stocktake_date\nl,30/01/2026\n", ("line 2", "stocktake_date", "'30/01/2026'")),
    "bad time": (
        "invoice", "id,created_at\ni,2026-01-01 10:00:00\n", ("line 2", "created_at", "'2026-01-01 10:00:00'", "UTC")),
    "time of a day that is not": (
        "invoice", "id,created_at\ni,2026-02-30T10:00:00Z\n", ("line 2", "'2026-02-30T10:00:00Z'")),
    "bad boolean": ("item", "id,is_active\na,maybe\n", ("line 2", "is_active", "'maybe'", "true or false")),
    "bad word": ("store", "id,mode\ns,shop\n", ("line 2", "mode", "'shop'", "dispensary")),
    "empty id": ("unit", "id,name\nu,n\n,m\n", ("line 3", "column id", "''")),
    "id too long": ("unit", f"id\n{'é' * 101}\n", ("line 2", "column id", f"{ID_BYTES_MAX} bytes")),
    "id twice": ("unit", "id,name\nu,n\nv,o\nu,m\n", ("line 4", "'u'", "line 2")),
    "too few fields": ("unit", "id,code,name\nu,c\n", ("line 2", "2 fields", "3")),
    "too many fields": ("unit", "id,code\nu,c\nv,c,n\n", ("line 3", "3 fields", "2")),
    "unterminated quote": ("unit", 'id,name\nu,n\nv,"open\nw,x\n', ("line 3", "unexpected end")),
    "text after a quote": ("unit", 'id,name\nu,"n"x\n', ("line 2", "expected after")),
    "NUL in a text": ("unit", "id,name\nu,a\x00b\n", ("line 2", "column name", "NUL")),
    "NUL in an id": ("unit", "id\nu\x00\n", ("line 2", "column id", "NUL")),
    "NUL in a number": ("item", "id,default_pack_size\na,1\x00\n", ("line 2", "default_pack_size")),
    "another encoding": ("unit", "id,name\nu,plain\nv,caf\u00e9\n".encode("latin-1"), ("line 3", "not UTF-8")),
    "UTF-16": ("unit", "id,name\nu,n\n".encode("utf-16"), ("line 1", "not UTF-8")),
    "a field too large": ("unit", f"id,name\nu,{'x' * (1 << 21)}\n", ("line 2", "limit")),
    "no such table": ("units", "id\nu\n", ("'units'", "unit")),
    "line after a quoted line break": ("item", 'id,name,is_active\na,"x\ny",1\nb,z,perhaps\n', ("line 4", "'perhaps'")),
    "semicolons": ("unit", "id;name\nu;n\n", ("line 1", "'id;name'")),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_the_place(folder: Path, case: str) -> None:
    table, content, named = WRONG[case]
    text = refusal(folder, table, content)
    assert [part for part in named if part not in text] == [], text


WRONG_OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "map to no column": ({"mapping": {"colour": "name"}}, ("unit", "'colour'")),
    "map from no column": ({"mapping": {"comment": "remark"}}, ("line 1", "'remark'", "comment")),
    "set no column": ({"fixed": {"colour": "red"}}, ("unit", "'colour'")),
    "map and set one column": ({"mapping": {"code": "name"}, "fixed": {"code": "x"}}, ("code",)),
    "last wins by no column": ({"last_wins": "version"}, ("'version'", "--last-wins")),
    "set an empty id": ({"fixed": {"id": ""}}, ("id", "''")),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_wrong_options_are_refused(folder: Path, case: str) -> None:
    options, named = WRONG_OPTIONS[case]
    text = refusal(folder, "unit", "id,name\nu,n\n", **options)
    assert [part for part in named if part not in text] == [], text


def test_a_bad_set_value_names_the_option_and_no_line(folder: Path) -> None:
    text = refusal(folder, "item", "id\na\n", fixed={"is_active": "perhaps"})
    assert "is_active" in text
    assert "'perhaps'" in text
    assert "line 0" not in text


def test_every_error_is_counted_and_the_first_are_shown(folder: Path) -> None:
    lines = "".join(f"i{number},maybe\n" for number in range(8))
    text = refusal(folder, "item", f"id,is_active\n{lines}")
    assert [f"line {number}" in text for number in range(2, 10)] == [True] * 5 + [False] * 3
    assert "3 more" in text


def test_empty_ids_are_no_duplicates_of_each_other(folder: Path) -> None:
    text = refusal(folder, "unit", "id,name\n,n\n,m\nNone,o\n")
    assert "stands in" not in text


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(PackhorseError) as caught:
        read_import(core_catalogue(), "unit", folder / "missing.csv", NONE, NONE)
    assert "missing.csv" in caught.value.what


GOOD: dict[str, tuple[str | bytes, dict[str, str]]] = {
    # how the file is written: content -> name of each unit
    "plain": ("id,name\nu1,tablet\n", {"u1": "tablet"}),
    "quotes and commas": ('id,name\nu1,"a, ""b"""\n"u,2",c\n', {"u1": 'a, "b"', "u,2": "c"}),
    "a quote inside": ('id,name\nu1,6" tube\n', {"u1": '6" tube'}),
    "byte order mark": (b"\xef\xbb\xbfid,name\nu1,tablet\n", {"u1": "tablet"}),
    "carriage returns": ("id,name\r\nu1,tablet\r\n", {"u1": "tablet"}),
    "no line end": ("id,name\nu1,tablet", {"u1": "tablet"}),
    "blank lines": ("id,name\n\nu1,tablet\n\n", {"u1": "tablet"}),
    "line break in quotes": ('id,name\nu1,"two\nlines"\n', {"u1": "two\nlines"}),
    "other order": ("name,id\ntablet,u1\n", {"u1": "tablet"}),
    "other scripts": ("id,name\nu1,錠剤 🩺 é\n", {"u1": "錠剤 🩺 é"}),
    "blanks are kept": ("id,name\nu1, tablet \n", {"u1": " tablet "}),
    "header only": ("id,name\n", {}),
    "next line control": ("id,name\nu1,a\x85b\nu2,c\n", {"u1": "a\x85b", "u2": "c"}),
    "line separator": ("id,name\nu1,a\u2028b\nu2,c\n", {"u1": "a\u2028b", "u2": "c"}),
    "vertical tab": ("id,name\nu1,a\x0bb\nu2,c\n", {"u1": "a\x0bb", "u2": "c"}),
    "form feed at the end of a field": ("id,name,code\nu1,a\x0c,1\nu2,c,2\n", {"u1": "a\x0c", "u2": "c"}),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_file_is_written_as_it_reads(central: sqlite3.Connection, folder: Path, case: str) -> None:
    content, names = GOOD[case]
    before = read_contents(central)
    contents, told = imported(central, folder, "unit", content)
    assert {key[1]: row[2] for key, row in contents.rows.items() if key not in before.rows} == names
    assert set(contents.outbox) == {("unit", record_id) for record_id in names}
    assert told == {"table": "unit", "rows_read": len(names), "imported": len(names), "ignored_columns": []}


VALUES: tuple[tuple[str, str, str, object], ...] = (
    ("item", "is_active", "YES", 1),
    ("item", "is_active", " False ", 0),
    ("item", "is_active", "", 0),
    ("item", "default_pack_size", "01.50", "01.50"),
    ("item", "default_pack_size", "", "0"),
    ("name", "type", "Supplier", "supplier"),
    ("name", "type", "", "unspecified"),
    ("invoice", "number", "-1", -1),
    ("invoice", "number", "+7", 7),
    ("invoice", "number", "", 0),
    ("invoice", "created_at", "", None),
    ("invoice", "created_at", "2026-01-01T10:00:00.5Z", "2026-01-01T10:00:00.5Z"),
    ("stock_line", "expiry_date", "", None),
    ("stock_line", "expiry_date", "2024-02-29", "2024-02-29"),
    ("stock_line", "batch", "", ""),
)


@pytest.mark.parametrize(("table", "column", "text", "value"), VALUES)
def test_values_are_read_as_their_columns_say(
    central: sqlite3.Connection, folder: Path, table: str, column: str, text: str, value: object
) -> None:
    store = {"store_id": "own"} if "store_id" in core_catalogue()[table].index else NONE
    contents, _ = imported(central, folder, table, f"id,{column}\nnew,{text}\n", fixed=store)
    assert values(contents, table, "new")[column] == value


def test_columns_are_mapped_set_and_ignored(central: sqlite3.Connection, folder: Path) -> None:
    content = "code,label,name,colour\na1,amoxicillin,other,red\n"
    contents, told = imported(
        central, folder, "item", content, mapping={"id": "code", "name": "label"}, fixed={"unit_id": "unit-1"}
    )
    found = values(contents, "item", "a1")
    assert (found["name"], found["unit_id"], found["code"]) == ("amoxicillin", "unit-1", "a1")
    assert told["ignored_columns"] == ["name", "colour"]


def test_one_column_may_fill_two(central: sqlite3.Connection, folder: Path) -> None:
    contents, _ = imported(
        central, folder, "unit", "id,name\nu1,x\n", mapping={"code": "id", "comment": "name", "id": "id"}
    )
    assert contents.rows["unit", "u1"][:4] == ("u1", "u1", "x", "x")


def test_a_set_value_wins_over_a_column_of_its_name(central: sqlite3.Connection, folder: Path) -> None:
    contents, told = imported(central, folder, "unit", "id,name\nu1,file\n", fixed={"name": "set"})
    assert values(contents, "unit", "u1")["name"] == "set"
    assert told["ignored_columns"] == ["name"]


LAST_WINS = {
    "greatest number": ("9,a\n10,b\n2,c\n", "b"),
    "greatest decimal": ("1.5,a\n1.25,b\n", "a"),
    "later of two equal": ("3,a\n3,b\n", "b"),
    "number over text": ("x,a\n1,b\n,c\n", "b"),
    "greatest text": ("2026-01-02,a\n2026-01-01,b\n", "a"),
    "something over nothing": (",a\n0,b\n", "b"),
    "negative": ("-2,a\n-1,b\n-3,c\n", "b"),
    "no number": ("NaN,a\n1,b\n", "b"),
    "no number after": ("1,a\nnan,b\n", "a"),
}


@pytest.mark.parametrize("case", LAST_WINS)
def test_the_greatest_value_wins(central: sqlite3.Connection, folder: Path, case: str) -> None:
    lines, name = LAST_WINS[case]
    content = "id,version,name\n" + "".join(f"u1,{line}\n" for line in lines.splitlines())
    contents, told = imported(central, folder, "unit", content, fixed={"comment": ""}, last_wins="version")
    assert values(contents, "unit", "u1")["name"] == name
    assert (told["rows_read"], told["imported"]) == (len(lines.splitlines()), 1)


def test_rows_without_a_rank_are_duplicates(folder: Path) -> None:
    text = refusal(folder, "unit", "id,version\nu,\nu,\n", fixed={"comment": ""}, last_wins="version")
    assert "line 3" in text
    assert "line 2" in text


def test_known_records_are_updated_in_the_columns_of_the_file(central: sqlite3.Connection, folder: Path) -> None:
    before = values(read_contents(central), "item", "item-1")
    contents, _ = imported(central, folder, "item", "id,code\nitem-1,b2\nitem-2,c3\n")
    assert values(contents, "item", "item-1") == {**before, "code": "b2"}
    assert set(contents.outbox) == {("item", "item-1"), ("item", "item-2")}


@pytest.mark.parametrize(
    ("table", "record"),
    [("invoice", "invoice-1-own"), ("invoice_line", "invoice-1-own-a"), ("stock_line", "stock-own")],
)
def test_known_records_of_a_store_need_not_repeat_their_store(
    node: sqlite3.Connection, folder: Path, table: str, record: str
) -> None:
    column = "comment" if table == "invoice" else "batch"
    before = values(read_contents(node), table, record)
    contents, _ = imported(node, folder, table, f"id,{column}\n{record},imported\n")
    assert values(contents, table, record) == {**before, column: "imported"}


def test_ids_alone_are_enough(central: sqlite3.Connection, folder: Path) -> None:
    contents, told = imported(central, folder, "unit", "id\nunit-1\nu2\n")
    assert values(contents, "unit", "unit-1")["name"] == "tablet"
    assert ("unit", "u2") in contents.rows
    assert told["imported"] == 2


REFUSED: tuple[tuple[str, str, str, int, str], ...] = (
    # node, table, content, line, rule
    ("site", "item", "id,name\nitem-1,x\n", 2, "CENTRAL_DATA_ON_PRIMARY"),
    ("site", "store", "id,name\nown,x\n", 2, "STORE_RECORD_ON_PRIMARY"),
    ("site", "invoice", "id,store_id\na,own\nb,second\nc,far\n", 4, "STORE_DATA_WHERE_ACTIVE"),
    ("central", "stock_line", "id,store_id\na,own\n\nb,far\n", 4, "STORE_DATA_WHERE_ACTIVE"),
    ("site", "invoice", "id,store_id,status\na,own,new\nb,own,finalised\n", 3, "FINALISE_LAST"),
    ("site", "invoice_line", "id,invoice_id\na,invoice-1-own\nb,nowhere\n", 3, "PARENT_REQUIRED"),
    ("site", "invoice_line", "id,invoice_id\na,invoice-final-own\n", 2, "FINAL_IS_FINAL"),
    ("central", "site", "id,name\n3,x\n", 2, "CONFIGURATION_BY_COMMAND"),
)


@pytest.mark.parametrize(("node_name", "table", "content", "line", "rule"), REFUSED)
def test_a_refused_record_refuses_the_file_and_is_named(
    request: pytest.FixtureRequest, folder: Path, node_name: str, table: str, content: str, line: int, rule: str
) -> None:
    connection: sqlite3.Connection = request.getfixturevalue(node_name)
    before, plan = read_contents(connection), plan_of(folder, table, content)
    with pytest.raises(Refused) as caught:
        transact(connection, lambda open_connection: write_import(open_connection, plan))
    assert caught.value.code is Code.EDIT_REFUSED
    assert f"Line {line}:" in caught.value.what
    assert f"(rule {rule})" in caught.value.what
    assert "Packhorse:" not in caught.value.what
    assert read_contents(connection) == before


def test_a_site_imports_what_it_may_edit(site: sqlite3.Connection, folder: Path) -> None:
    content = "id,store_id,item_id,number_of_packs\ns1,own,item-1,12.5\ns2,second,item-1,3\n"
    contents, _ = imported(site, folder, "stock_line", content)
    keys: set[Key] = {("stock_line", "s1"), ("stock_line", "s2")}
    assert set(contents.outbox) == keys
    assert {contents.outbox[key].store_id for key in keys} == {"own", "second"}

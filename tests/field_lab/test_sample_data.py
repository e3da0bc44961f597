"""The packaged sample data are complete and consistent."""

import csv
import re
from pathlib import Path

import pytest

import field_lab

FOLDER = Path(field_lab.__file__).parent / "sample_data"
HEADERS = {
    "unit": ["id", "code", "name"],
    "item": ["id", "code", "name", "unit_id", "default_pack_size", "is_active"],
    "name": ["id", "code", "name", "type", "is_customer", "is_supplier"],
    "store": ["id", "code", "name", "name_id", "mode"],
}
PLAIN_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", re.ASCII)


def rows(table: str) -> list[dict[str, str]]:
    with (FOLDER / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def column(table: str, name: str) -> list[str]:
    return [row[name] for row in rows(table)]


def test_there_is_one_file_per_table_and_nothing_else() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{table}.csv" for table in HEADERS)


@pytest.mark.parametrize("table", HEADERS)
def test_file_is_regular(table: str) -> None:
    text = (FOLDER / f"{table}.csv").read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    lines = list(csv.reader(text.splitlines(), strict=True))
    assert lines[0] == HEADERS[table]
    assert {len(line) for line in lines} == {len(HEADERS[table])}
    assert all(cell and cell == cell.strip() for line in lines for cell in line)


@pytest.mark.parametrize("table", HEADERS)
@pytest.mark.parametrize("name", ["id", "code", "name"])
def test_ids_codes_and_names_are_unique(table: str, name: str) -> None:
    values = column(table, name)
    assert len(set(values)) == len(values)


def test_there_is_enough_of_everything() -> None:
    types = column("name", "type")
    assert len(rows("item")) >= 220
    assert len(rows("store")) >= 12
    assert types.count("store") >= 12
    assert types.count("supplier") >= 6
    assert types.count("facility") >= 6
    assert types.count("manufacturer") >= 1
    assert set(column("item", "is_active")) == {"0", "1"}


def test_words_are_known() -> None:
    assert set(column("name", "type")) <= {"facility", "store", "supplier", "manufacturer"}
    assert set(column("store", "mode")) == {"store", "dispensary"}
    assert set(column("name", "is_customer") + column("name", "is_supplier")) == {"0", "1"}


def test_references_resolve_and_every_unit_is_used() -> None:
    assert set(column("item", "unit_id")) == set(column("unit", "id"))
    names_of_stores = {row["id"] for row in rows("name") if row["type"] == "store"}
    assert set(column("store", "name_id")) == names_of_stores
    assert len(set(column("store", "name_id"))) == len(rows("store"))


def test_a_store_is_called_as_its_name() -> None:
    names = {row["id"]: row["name"] for row in rows("name")}
    assert all(names[row["name_id"]] == row["name"] for row in rows("store"))


def test_pack_sizes_are_plain_decimals_above_zero() -> None:
    sizes = column("item", "default_pack_size")
    assert all(PLAIN_DECIMAL.fullmatch(size) and float(size) > 0 for size in sizes)

"""What names a record and routes it never changes: its id, its store, its document (F3)."""

import sqlite3
from itertools import product

import pytest

from engine.limits import ID_BYTES_MAX
from engine.rules.authority import Rule, rule_of
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import PARENTS, capture_flaws, execute, read_contents, undone
from tests.engine.storage.settings import EVERY_COMBINATION, EVERY_PAIR, RECURSION, Settings
from tests.engine.storage.statements import INSERTS, UPDATES

FOREIGN = Rule.STORE_DATA_WHERE_ACTIVE
UPSERT = "INSERT INTO {into} VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {column} = excluded.{column}"
ROOTS = ("location", "stock_line", "invoice", "stocktake")
ID_OF = {"location": "location-{}", "stock_line": "stock-{}", "invoice": "invoice-1-{}", "stocktake": "stocktake-1-{}"}


def refusals_are_right(node: sqlite3.Connection, cases: list[tuple[str, Rule]], every: tuple[Settings, ...]) -> None:
    before = read_contents(node)
    for settings in every:
        settings.apply(node)
        with undone(node):
            settings.apply_in_transaction(node)
            said = [(sql, execute(node, sql) or "passed") for sql, _ in cases]
            after = read_contents(node)
        assert said == [(sql, rule.text) for sql, rule in cases], settings
        assert before == after, settings


STORE_MOVES = (
    # from, to, what refuses an UPDATE, what refuses an INSERT over the row that is there
    ("own", "second", Rule.STORE_IMMUTABLE, Rule.STORE_IMMUTABLE),
    ("second", "own", Rule.STORE_IMMUTABLE, Rule.STORE_IMMUTABLE),
    ("own", "far", Rule.STORE_IMMUTABLE, FOREIGN),
    ("far", "own", FOREIGN, Rule.STORE_IMMUTABLE),
    ("own", "nowhere", Rule.STORE_IMMUTABLE, FOREIGN),
    ("own", "", Rule.STORE_IMMUTABLE, FOREIGN),
)


@pytest.mark.parametrize("table", ROOTS)
def test_f03_a_record_never_moves_to_another_store(node: sqlite3.Connection, table: str) -> None:
    cases = []
    for old, new, by_update, by_insert in STORE_MOVES:
        record = ID_OF[table].format(old)
        cases += [(f"{verb} {table} SET store_id = '{new}' WHERE id = '{record}'", by_update) for verb in UPDATES]
        into, values = f"{table} (id, store_id)", f"'{record}', '{new}'"
        cases += [(f"{verb} {into} VALUES ({values})", by_insert) for verb in INSERTS]
        cases.append((UPSERT.format(into=into, values=values, column="store_id"), by_insert))
    own = ID_OF[table].format("own")
    cases.append((f"UPDATE {table} SET store_id = NULL WHERE id = '{own}'", Rule.STORE_IMMUTABLE))
    cases.append((f"UPDATE {table} SET store_id = s.id FROM store AS s WHERE s.id = 'second' AND {table}.id = '{own}'",
                  Rule.STORE_IMMUTABLE))  # fmt: skip
    cases.append((f"INSERT INTO {table} (id, store_id) VALUES ('{own}', 'own') ON CONFLICT (id) DO UPDATE"
                  " SET store_id = 'far'", Rule.STORE_IMMUTABLE))  # fmt: skip
    refusals_are_right(node, cases, EVERY_PAIR)


LINE_MOVES = (
    ("1-own", "2-own", Rule.PARENT_IMMUTABLE, Rule.PARENT_IMMUTABLE),
    ("1-own", "1-second", Rule.PARENT_IMMUTABLE, Rule.PARENT_IMMUTABLE),
    ("1-own", "1-far", Rule.PARENT_IMMUTABLE, FOREIGN),
    ("1-far", "1-own", FOREIGN, Rule.PARENT_IMMUTABLE),
    ("1-far", "2-far", FOREIGN, FOREIGN),
    ("1-own", "final-own", Rule.PARENT_IMMUTABLE, Rule.PARENT_IMMUTABLE),
    ("final-own", "1-own", Rule.PARENT_IMMUTABLE, Rule.PARENT_IMMUTABLE),
    ("1-own", "nowhere", Rule.PARENT_IMMUTABLE, Rule.PARENT_REQUIRED),
)


@pytest.mark.parametrize("table", PARENTS)
def test_f03_a_line_never_moves_to_another_document(node: sqlite3.Connection, table: str) -> None:
    root, cases = PARENTS[table], []
    for old, new, by_update, by_insert in LINE_MOVES:
        line, parent = f"{root}-{old}-a", f"{root}-{new}"
        where = f"WHERE id = '{line}'"
        cases += [(f"{verb} {table} SET {root}_id = '{parent}' {where}", by_update) for verb in UPDATES]
        into, values = f"{table} (id, {root}_id)", f"'{line}', '{parent}'"
        cases += [(f"{verb} {into} VALUES ({values})", by_insert) for verb in INSERTS]
        cases.append((UPSERT.format(into=into, values=values, column=f"{root}_id"), by_insert))
    line = f"{root}-1-own-a"
    cases.append((f"UPDATE {table} SET {root}_id = NULL WHERE id = '{line}'", Rule.PARENT_IMMUTABLE))
    cases.append((f"UPDATE {table} SET {root}_id = r.id FROM {root} AS r WHERE r.id = '{root}-1-far' AND"
                  f" {table}.id = '{line}'", Rule.PARENT_IMMUTABLE))  # fmt: skip
    cases.append((f"INSERT INTO {table} (id, {root}_id) VALUES ('new-1', NULL)", Rule.PARENT_REQUIRED))
    refusals_are_right(node, cases, EVERY_PAIR)


@pytest.mark.parametrize("table", [*ROOTS, *PARENTS])
def test_f03_an_id_never_changes(node: sqlite3.Connection, table: str) -> None:
    pattern = ID_OF.get(table, f"{PARENTS.get(table)}-1-{{}}-a")
    own, second, far = (pattern.format(store) for store in ("own", "second", "far"))
    cases = []
    for verb, new in product(UPDATES, ("zz", second, far, own.upper())):
        cases.append((f"{verb} {table} SET id = '{new}' WHERE id = '{own}'", Rule.ID_IMMUTABLE))
        cases.append((f"{verb} {table} SET id = '{new}' WHERE id = '{far}'", FOREIGN))
    cases.append((f"UPDATE {table} SET id = NULL WHERE id = '{own}'", Rule.ID_IMMUTABLE))
    cases.append((f"UPDATE {table} SET id = CAST(id AS BLOB) WHERE id = '{own}'", Rule.ID_IMMUTABLE))
    route = f"{PARENTS[table]}_id" if table in PARENTS else "store_id"
    cases.append((f"INSERT INTO {table} (id, {route}) SELECT id, {route} FROM {table} WHERE id = '{own}'"
                  " ON CONFLICT (id) DO UPDATE SET id = excluded.id || 'x'", Rule.ID_IMMUTABLE))  # fmt: skip
    refusals_are_right(node, cases, EVERY_PAIR)


def test_f03_ids_of_central_data_never_change(central: sqlite3.Connection, site: sqlite3.Connection) -> None:
    records: tuple[Key, ...] = (("unit", "unit-1"), ("item", "item-1"), ("name", "name-own"), ("store", "own"))
    changes = [(verb, key) for verb in UPDATES for key in records]
    at_central = [(f"{verb} {key[0]} SET id = 'zz' WHERE id = '{key[1]}'", Rule.ID_IMMUTABLE) for verb, key in changes]
    at_site = [(sql, rule_of(core_catalogue()[key[0]])) for (sql, _), (_, key) in zip(at_central, changes, strict=True)]
    refusals_are_right(central, at_central, EVERY_PAIR)
    refusals_are_right(site, at_site, EVERY_PAIR)


OWN_LINE = "invoice_line (id, invoice_id) VALUES ('invoice-1-own-a', 'invoice-1-second')"
FAR_LINE = "invoice_line (id, invoice_id) VALUES ('invoice-1-far-a', 'invoice-1-own')"
OWN_INVOICE = "invoice (id, store_id) VALUES ('invoice-1-own', 'second')"
FAR_INVOICE = "invoice (id, store_id) VALUES ('invoice-1-far', 'own')"
IN_FULL = [
    ("UPDATE invoice SET id = 'zz' WHERE id = 'invoice-1-own'", Rule.ID_IMMUTABLE),
    ("UPDATE OR REPLACE invoice SET id = 'invoice-2-own' WHERE id = 'invoice-1-own'", Rule.ID_IMMUTABLE),
    ("UPDATE OR IGNORE invoice SET id = 'zz' WHERE id = 'invoice-1-far'", FOREIGN),
    ("UPDATE invoice SET store_id = 'far' WHERE id = 'invoice-1-own'", Rule.STORE_IMMUTABLE),
    ("UPDATE OR IGNORE invoice SET store_id = 'own' WHERE id = 'invoice-1-far'", FOREIGN),
    (f"REPLACE INTO {OWN_INVOICE}", Rule.STORE_IMMUTABLE),
    (f"REPLACE INTO {FAR_INVOICE}", Rule.STORE_IMMUTABLE),
    (f"INSERT INTO {OWN_INVOICE} ON CONFLICT (id) DO UPDATE SET store_id = excluded.store_id", Rule.STORE_IMMUTABLE),
    (f"INSERT INTO {FAR_INVOICE} ON CONFLICT (id) DO UPDATE SET store_id = excluded.store_id", Rule.STORE_IMMUTABLE),
    ("UPDATE invoice_line SET invoice_id = 'invoice-1-far' WHERE id = 'invoice-1-own-a'", Rule.PARENT_IMMUTABLE),
    ("UPDATE OR REPLACE invoice_line SET invoice_id = 'invoice-1-own' WHERE id = 'invoice-1-far-a'", FOREIGN),
    (f"REPLACE INTO {OWN_LINE}", Rule.PARENT_IMMUTABLE),
    (f"REPLACE INTO {FAR_LINE}", Rule.PARENT_IMMUTABLE),
    (f"INSERT INTO {OWN_LINE} ON CONFLICT (id) DO UPDATE SET invoice_id = excluded.invoice_id", Rule.PARENT_IMMUTABLE),
    (f"INSERT INTO {FAR_LINE} ON CONFLICT (id) DO UPDATE SET invoice_id = excluded.invoice_id", Rule.PARENT_IMMUTABLE),
    ("INSERT INTO invoice (id, store_id) VALUES (NULL, 'own')", Rule.ID_REQUIRED),
    ("REPLACE INTO invoice (id, store_id) VALUES (x'61', 'own')", Rule.ID_REQUIRED),
]


def test_f03_nothing_moves_in_any_combination_of_settings(node: sqlite3.Connection) -> None:
    refusals_are_right(node, IN_FULL, EVERY_COMBINATION)


NO_UTF_8 = ("ff", "61e9", "80", "c080", "eda080", "f4908080", "c3a9e2")
BAD_IDS = (
    *("NULL", "''", "x''", "x'61'", f"'{'a' * (ID_BYTES_MAX + 1)}'", f"'{'é' * (ID_BYTES_MAX // 2)}a'"),
    *(f"CAST(x'{raw}' AS TEXT)" for raw in NO_UTF_8),
)
GOOD_IDS = {
    "'0190-a'": "0190-a",
    "7": "7",
    f"'{'a' * ID_BYTES_MAX}'": "a" * ID_BYTES_MAX,
    f"'{'é' * (ID_BYTES_MAX // 2)}'": "é" * (ID_BYTES_MAX // 2),
    "' '": " ",
    "'\ufffd錠𝄞\x80'": "\ufffd錠𝄞\x80",
    "'a,\"b''c'": "a,\"b'c",
}
ROUTES = {
    **dict.fromkeys(ROOTS, ("store_id", "own")),
    **{line: (f"{root}_id", f"{root}-1-own") for line, root in PARENTS.items()},
}


@pytest.mark.parametrize("table", ROUTES)
def test_f03_bad_ids_are_refused(node: sqlite3.Connection, table: str) -> None:
    column, value = ROUTES[table]
    cases = [
        (f"{verb} {table} (id, {column}) VALUES ({bad}, '{value}')", Rule.ID_REQUIRED)
        for verb in INSERTS
        for bad in BAD_IDS
    ]
    cases.append((f"INSERT INTO {table} DEFAULT VALUES", Rule.ID_REQUIRED))
    cases.append((f"INSERT INTO {table} ({column}) VALUES ('{value}')", Rule.ID_REQUIRED))
    refusals_are_right(node, cases, EVERY_PAIR)


@pytest.mark.parametrize("table", ["unit", "item", "name", "store"])
def test_f03_bad_ids_of_central_data_are_refused(central: sqlite3.Connection, table: str) -> None:
    cases = [(f"{verb} {table} (id) VALUES ({bad})", Rule.ID_REQUIRED) for verb in INSERTS for bad in BAD_IDS]
    refusals_are_right(central, cases, EVERY_PAIR)


@pytest.mark.parametrize("table", ROUTES)
@pytest.mark.parametrize("written", GOOD_IDS)
def test_any_other_id_is_captured(node: sqlite3.Connection, table: str, written: str) -> None:
    column, value = ROUTES[table]
    before = read_contents(node)
    with undone(node):
        assert execute(node, f"INSERT INTO {table} (id, {column}) VALUES ({written}, '{value}')") == ""
        assert capture_flaws(before, read_contents(node), [(table, GOOD_IDS[written])]) == []


@pytest.mark.parametrize("settings", RECURSION.values(), ids=RECURSION.keys())
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT OR REPLACE INTO invoice (rowid, id, store_id) SELECT rowid, 'new-1', 'own' FROM invoice WHERE id = {}",
        "REPLACE INTO invoice (rowid, id, store_id) SELECT rowid, 'invoice-1-own', 'own' FROM invoice WHERE id = {}",
        "UPDATE OR REPLACE invoice SET rowid = (SELECT rowid FROM invoice WHERE id = {}) WHERE id = 'invoice-1-own'",
    ],
    ids=["a new record", "a replaced record", "an updated record"],
)
@pytest.mark.parametrize("victim", ["'invoice-1-far'", "'invoice-2-own'"], ids=["foreign", "own"])
def test_f03_the_rowid_is_no_second_key(node: sqlite3.Connection, settings: Settings, sql: str, victim: str) -> None:
    """A conflict of rowids must not delete another record, uncaptured (F3: no other UNIQUE)."""
    settings.apply(node)
    key: Key = ("invoice", victim.strip("'"))
    with undone(node):
        try:
            node.execute(sql.format(victim))
        except sqlite3.Error:
            pass  # refused, or there is no rowid: both keep the record
        after = read_contents(node)
    if key not in after.rows:  # an own record may go, but not without a word
        assert (key in after.outbox, victim) == (True, "'invoice-2-own'")


@pytest.mark.parametrize(
    ("delete", "insert", "key"),
    [
        (
            "DELETE FROM invoice_line WHERE id = 'invoice-1-own-a'",
            "INSERT INTO invoice_line (id, invoice_id) VALUES ('invoice-1-own-a', 'invoice-2-own')",
            ("invoice_line", "invoice-1-own-a"),
        ),
        (
            "DELETE FROM invoice_line WHERE id = 'invoice-1-own-a'",
            "INSERT INTO invoice_line (id, invoice_id) VALUES ('invoice-1-own-a', 'invoice-1-second')",
            ("invoice_line", "invoice-1-own-a"),
        ),
        (
            "DELETE FROM location WHERE id = 'location-own'",
            "INSERT INTO location (id, store_id) VALUES ('location-own', 'second')",
            ("location", "location-own"),
        ),
    ],
    ids=["a line in its store", "a line in another store", "a location"],
)
def test_an_id_is_not_used_again_elsewhere(node: sqlite3.Connection, delete: str, insert: str, key: Key) -> None:
    """Delete and insert under the same id is a move too: it is refused, or captured under the new owner."""
    with undone(node):
        assert execute(node, delete) == ""
        before = read_contents(node)
        if execute(node, insert) == "":
            assert capture_flaws(before, read_contents(node), [key]) == []


def test_an_id_may_be_used_again_in_its_place(node: sqlite3.Connection) -> None:
    with undone(node):
        assert execute(node, "DELETE FROM invoice_line WHERE id = 'invoice-1-own-a'") == ""
        before = read_contents(node)
        again = "INSERT INTO invoice_line (id, invoice_id) VALUES ('invoice-1-own-a', 'invoice-1-own')"
        assert execute(node, again) == ""
        assert capture_flaws(before, read_contents(node), [("invoice_line", "invoice-1-own-a")]) == []

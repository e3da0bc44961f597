"""Databases of a site and of a central node with a few records of every table, and what statements do to them.

Three stores, the same at both nodes: `own` and `second` are edited at this node, `far` elsewhere. Each has a location,
a stock line, two open invoices, a final one, two open stocktakes and a final one; every document has two lines.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from central_node.storage.steps import refresh_topology
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, assign_store, found_central
from engine.catalogue.model import ColumnType, Row, RowValue, Table
from engine.rules.authority import RIGHT_OF_KIND, Right
from engine.rules.topology import CENTRAL_SITE, Copy, CopyType, Site, Topology
from engine.rules.versions import Term
from engine.storage.configuration import read_topology, write_rights
from engine.storage.database import transact
from engine.storage.records import Key, applying
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from field_lab.core_catalogue import core_catalogue

HERE = 2
"""Number of the site whose database `site_database` makes."""
STORES = ("own", "second", "far")
TERMS = {"own": Term(3, 33), "second": Term(5, 55), "far": Term(4, 44)}
PARENTS = {"invoice_line": "invoice", "stocktake_line": "stocktake"}

Values = Mapping[str, RowValue]


class Entry(NamedTuple):
    """A row of the outbox."""

    root: Key
    store_id: str
    token: int
    queued_at: int
    term: Term
    framed_token: int


class Contents(NamedTuple):
    """Everything that a statement may change, as it is in the transaction under way."""

    rows: dict[Key, Row]
    outbox: dict[Key, Entry]
    rights: dict[tuple[str, str], Term]
    last_token: int


def site_database(path: Path) -> sqlite3.Connection:
    """The database of site 2, which has active copies of `own` and `second` and a collector copy of `far`."""
    connection = open_writer(path)
    prepare(connection, core_catalogue())
    copies = [
        *(Copy(store, HERE, CopyType.ACTIVE, TERMS[store]) for store in ("own", "second")),
        *(Copy(store, CENTRAL_SITE, CopyType.COLLECTOR) for store in ("own", "second")),
        Copy("far", HERE, CopyType.COLLECTOR),
    ]
    topology = Topology.of([Site(HERE, "here")], copies)

    def fill(_: sqlite3.Connection) -> None:
        with applying(connection):
            _insert_central_data(connection)
            _insert_store_data(connection)
            _insert(connection, "site", id=str(HERE), name="here")
            for copy in copies:
                _insert(
                    connection, "store_copy", id=f"{copy.store_id}@{copy.site}", store_id=copy.store_id,
                    site=copy.site, type=copy.type.value, term=copy.term.counter, term_id=copy.term.random,
                )  # fmt: skip
        write_rights(connection, core_catalogue(), HERE, topology)
        connection.execute("UPDATE sync_counter SET last = 100")

    transact(connection, fill)
    return connection


def central_database(path: Path) -> sqlite3.Connection:
    """The database of a central node, which is the primary and has active copies of `own` and `second`."""
    connection = open_writer(path)
    prepare(connection, core_catalogue(), CENTRAL_TABLES)

    def fill(_: sqlite3.Connection) -> None:
        found_central(connection, core_catalogue(), "central")
        with applying(connection):
            _insert_central_data(connection)
            _insert_store_data(connection)
        add_site(connection, HERE, "here")
        for store, site in (("own", CENTRAL_SITE), ("second", CENTRAL_SITE), ("far", HERE)):
            refresh_topology(connection, core_catalogue())
            topology = read_topology(connection)
            assign_store(connection, core_catalogue(), topology, store, site, CopyType.COLLECTOR)
        refresh_topology(connection, core_catalogue())
        connection.execute("DELETE FROM sync_outbox")

    transact(connection, fill)
    return connection


def _insert_central_data(connection: sqlite3.Connection) -> None:
    _insert(connection, "unit", id="unit-1", name="tablet")
    _insert(connection, "unit", id="unused", name="bottle")
    _insert(connection, "name", id="unused", name="nobody")
    _insert(connection, "item", id="item-1", code="a1", name="amoxicillin", unit_id="unit-1", is_active=1)
    for store in STORES:
        _insert(connection, "name", id=f"name-{store}", name=store, type="store")
        _insert(connection, "store", id=store, code=store, name=store, name_id=f"name-{store}", mode="store")
    _insert(connection, "store", id="unused", code="unused", name="unused", name_id="name-far", mode="store")
    _insert(connection, "name_visibility", id="far@own", store_id="own", name_id="name-far", comment="c")
    _insert(connection, "item_visibility", id="item-1@own", store_id="own", item_id="item-1")


def _insert_store_data(connection: sqlite3.Connection) -> None:
    for store in STORES:
        _insert(connection, "location", id=f"location-{store}", store_id=store, name="shelf")
        _insert(connection, "stock_line", id=f"stock-{store}", store_id=store, item_id="item-1", batch="b")
        for member, root in PARENTS.items():
            for document in (f"{root}-1-{store}", f"{root}-2-{store}", f"{root}-final-{store}"):
                status = "finalised" if "final" in document else "confirmed"
                _insert(connection, root, id=document, store_id=store, status=status, comment="c")
                for line in ("a", "b"):
                    parent: Values = {f"{root}_id": document}
                    _insert(connection, member, id=f"{document}-{line}", item_id="item-1", note="n", **parent)


def _insert(connection: sqlite3.Connection, table: str, **values: RowValue) -> None:
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def read_contents(connection: sqlite3.Connection, tables: Iterable[str] = tuple(core_catalogue().tables)) -> Contents:
    """All rows of these synchronised tables, the outbox, the rights and the last token."""
    rows = {(table, row[0]): row for table in tables for row in connection.execute(f"SELECT * FROM {table}")}
    outbox = {
        (row[0], row[1]): Entry((row[2], row[3]), row[4], row[5], row[6], Term(row[7], row[8]), row[9])
        for row in connection.execute(
            "SELECT table_name, id, root_table, root_id, store_id, token, queued_at, term, term_id, framed_token"
            " FROM sync_outbox"
        )
    }
    rights = {
        (row[0], row[1]): Term(row[2], row[3])
        for row in connection.execute("SELECT owner, key, term, term_id FROM sync_authority")
    }
    return Contents(rows, outbox, rights, connection.execute("SELECT last FROM sync_counter").fetchone()[0])


@contextmanager
def undone(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that leaves nothing behind."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def execute(connection: sqlite3.Connection, sql: str, values: Sequence[RowValue] = ()) -> str:
    """Runs a statement to its end; returns the text of the error that refused it, or nothing."""
    try:
        connection.execute(sql, values).fetchall()
    except sqlite3.IntegrityError as error:
        return str(error)
    return ""


def capture_flaws(before: Contents, after: Contents, expected: Iterable[Key]) -> list[str]:
    """What is wrong with the capture of a statement that changed exactly these records."""
    keys = set(expected)
    changed = {key for key in before.rows.keys() | after.rows.keys() if before.rows.get(key) != after.rows.get(key)}
    captured = {key for key in after.outbox if after.outbox[key] != before.outbox.get(key)}
    flaws = [f"changed {sorted(changed)}"] if changed != keys else []
    if captured != keys or before.outbox.keys() - after.outbox.keys():
        flaws.append(f"captured {sorted(captured)} instead of {sorted(keys)}")
    entries = {key: after.outbox[key] for key in captured & keys}
    tokens = [entry.token for entry in entries.values()]
    if len(set(tokens)) != len(tokens) or any(not before.last_token < token <= after.last_token for token in tokens):
        flaws.append(f"tokens {tokens} after {before.last_token}")
    for key, entry in entries.items():
        flaws += [f"{key} {flaw}" for flaw in _entry_flaws(key, entry, before, after)]
    return flaws


def _entry_flaws(key: Key, entry: Entry, before: Contents, after: Contents) -> list[str]:
    table = core_catalogue()[key[0]]
    row = after.rows.get(key) or before.rows[key]
    root = (table.parent, str(table.value(row, table.parent_column))) if table.parent else key
    root_row = after.rows.get(root) or before.rows[root]
    root_table, right = core_catalogue()[root[0]], RIGHT_OF_KIND[table.kind]
    store = str(root_table.value(root_row, root_table.store_column)) if right is Right.STORE else ""
    expected = {"root": root, "store_id": store, "term": after.rights.get((right, store))}
    told = entry._asdict()
    return [
        f"has the {name} {told[name]} instead of {value}" for name, value in expected.items() if told[name] != value
    ]


def edited_column(table: Table) -> str:
    """A column that any program may change: free text where there is one, else a number."""
    plain = [
        column
        for column in table.columns[1:]
        if column.type in (ColumnType.TEXT, ColumnType.INTEGER) and not column.refers_to
    ]
    return next((column.name for column in plain if column.type is ColumnType.TEXT), plain[-1].name)


def members_in(rows: Mapping[Key, Row], root: Key) -> list[Key]:
    """The keys of the lines of a document."""
    return [
        key
        for key, row in rows.items()
        for table in [core_catalogue()[key[0]]]
        if table.parent == root[0] and table.value(row, table.parent_column) == root[1]
    ]

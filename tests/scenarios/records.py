"""The records that scripts enter and look for: plain SQL, as another program at the site would write it."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNIT, ITEM, CUSTOMER = "tablet", "amoxicillin", "customer"
"""Central data that every country of a scenario begins with."""
LINES = 2
"""How many lines a document is entered with."""
Rows = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Kind:
    """What scripts call by a name: its table, the columns that it is entered with, and the table of its lines."""

    table: str
    columns: Mapping[str, str] = field(default_factory=dict)
    store_column: str = ""
    lines: str = ""

    @property
    def parent_column(self) -> str:
        """The column of a line that names its document."""
        return f"{self.table}_id"


_OF_STORE = "store_id"
KINDS: Mapping[str, Kind] = {
    "invoice": Kind("invoice", {"name_id": CUSTOMER, "type": "customer_invoice"}, _OF_STORE, "invoice_line"),
    "requisition": Kind("requisition", {"name_id": CUSTOMER}, _OF_STORE, "requisition_line"),
    "stocktake": Kind("stocktake", {}, _OF_STORE, "stocktake_line"),
    "stock line": Kind("stock_line", {"item_id": ITEM, "batch": "B1", "number_of_packs": "10"}, _OF_STORE),
    "location": Kind("location", {"code": "L1"}, _OF_STORE),
    "name note": Kind("name_note", {"name_id": CUSTOMER, "text": "closed on Fridays"}, _OF_STORE),
    "store preference": Kind("store_preference", {"months_of_history": "6"}, _OF_STORE),
    "patient": Kind("patient", {"first_name": "Ana"}, "home_store_id"),
    "prescriber": Kind("prescriber", {"first_name": "Tau"}, "home_store_id"),
    "item": Kind("item", {"unit_id": UNIT}),
    "name": Kind("name", {"type": "facility"}),
    "diagnosis": Kind("diagnosis"),
    "barcode": Kind("barcode", {"item_id": ITEM}),
    "reminder": Kind("reminder", {"text": "count the cold store"}),
    "store": Kind("store"),
    "visibility of name": Kind("name_visibility"),
    "visibility of item": Kind("item_visibility"),
    "visibility of patient": Kind("patient_visibility"),
    "visibility of prescriber": Kind("prescriber_visibility"),
}


def enter(connection: sqlite3.Connection, kind: Kind, record_id: str, store: str = "") -> None:
    """Inserts a record, with its lines where it has any, in one transaction. Raises sqlite3.IntegrityError."""
    columns = {"id": record_id, **({kind.store_column: store} if store else {}), **kind.columns}
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(*_insert(kind.table, columns))
        for number in range(1, LINES + 1) if kind.lines else ():
            connection.execute(*_insert(kind.lines, _line(kind, record_id, number)))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def enter_line(connection: sqlite3.Connection, kind: Kind, record_id: str, number: int) -> None:
    """Inserts one line of a record. Raises sqlite3.IntegrityError."""
    connection.execute(*_insert(kind.lines, _line(kind, record_id, number)))


def change(connection: sqlite3.Connection, kind: Kind, record_id: str, column: str, value: str) -> None:
    """Updates one column of a record that is there. Raises sqlite3.IntegrityError."""
    done = connection.execute(f"UPDATE {kind.table} SET {column} = ? WHERE id = ?", (value, record_id))
    assert done.rowcount == 1, f"there is no {kind.table} {record_id} to be changed"


def delete(connection: sqlite3.Connection, table: str, record_id: str) -> None:
    """Deletes a record that is there. Raises sqlite3.IntegrityError."""
    done = connection.execute(f"DELETE FROM {table} WHERE id = ?", (record_id,))
    assert done.rowcount == 1, f"there is no {table} {record_id} to be deleted"


def read(connection: sqlite3.Connection, kind: Kind, record_id: str) -> Rows:
    """The rows of a record and of its lines, from one snapshot; empty where nothing of it is there."""
    connection.execute("BEGIN")
    found = connection.execute(f"SELECT * FROM {kind.table} WHERE id = ?", (record_id,)).fetchall()
    if kind.lines:
        query = f"SELECT * FROM {kind.lines} WHERE {kind.parent_column} = ? ORDER BY id"
        found += connection.execute(query, (record_id,)).fetchall()
    connection.execute("COMMIT")
    return tuple(found)


def value_of(connection: sqlite3.Connection, kind: Kind, record_id: str, column: str) -> str | None:
    """One column of a record, as text; None where the record is not there."""
    row = connection.execute(f"SELECT {column} FROM {kind.table} WHERE id = ?", (record_id,)).fetchone()
    return None if row is None else str(row[0])


def line_id(record_id: str, number: int) -> str:
    """The id of a line of a record."""
    return f"{record_id} line {number}"


def _line(kind: Kind, record_id: str, number: int) -> dict[str, str]:
    return {"id": line_id(record_id, number), kind.parent_column: record_id, "item_id": ITEM}


def _insert(table: str, columns: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())

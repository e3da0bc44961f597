"""How people write rows of any table: what has to be in a record, and which of the records that are there they take."""

import random
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from field_lab.oracle.data_types import DATA_TYPES, lines_of
from field_lab.simulation.truth import Delta, delta_of


class Shape(NamedTuple):
    """A column of free text that edits change, and the columns that refer to other records: column -> table."""

    text: str
    refers: Mapping[str, str] = {}
    may_refer: Mapping[str, str] = {}
    """Left empty now and then."""
    has_status: bool = False
    """It changes until it is `finalised`."""


SHAPES: Mapping[str, Shape] = {
    "unit": Shape("name"),
    "item": Shape("name", {"unit_id": "unit"}),
    "name": Shape("name"),
    "location_type": Shape("name"),
    "transaction_category": Shape("name"),
    "master_list": Shape("name"),
    "master_list_line": Shape("price_per_pack", {"item_id": "item"}),
    "master_list_name_link": Shape("note", {"master_list_id": "master_list", "name_id": "name"}),
    "diagnosis": Shape("description"),
    "store": Shape("address"),
    "name_visibility": Shape("comment", {"name_id": "name"}),
    "item_visibility": Shape("comment", {"item_id": "item"}),
    "patient_visibility": Shape("comment", {"patient_id": "patient"}),
    "prescriber_visibility": Shape("comment", {"prescriber_id": "prescriber"}),
    "location": Shape("name", may_refer={"location_type_id": "location_type"}),
    "stock_line": Shape("batch", {"item_id": "item"}),
    "stocktake": Shape("comment", has_status=True),
    "stocktake_line": Shape("note", {"item_id": "item"}),
    "invoice": Shape(
        "their_reference", {"name_id": "name"},
        {"patient_id": "patient", "prescriber_id": "prescriber", "diagnosis_id": "diagnosis",
         "category_id": "transaction_category"}, has_status=True,
    ),
    "invoice_line": Shape("note", {"item_id": "item"}),
    "transaction_note": Shape("text", {"invoice_id": "invoice"}),
    "patient": Shape("last_name"),
    "prescriber": Shape("last_name"),
    "message": Shape("body"),
    "site": Shape("name"),
    "store_copy": Shape("type"),
    "user_account": Shape("display_name"),
}  # fmt: skip
_OF_THE_STORE = frozenset(("invoice",))
"""What is referred to here is of the same store."""


class Writing:
    """One transaction of whole documents under way at a node. `number`: of the transaction, in the whole country."""

    def __init__(self, connection: sqlite3.Connection, chance: random.Random, number: int) -> None:
        self.connection, self.chance, self._number = connection, chance, number
        self.is_rogue = False
        """What it makes then tells so by its id, and nobody else refers to it."""
        self._drawn = 0
        self._touched: dict[tuple[str, str], None] = {}

    def delta(self) -> Delta:
        """What the transaction leaves."""
        return delta_of(self.connection, self._touched)

    def touch(self, table: str, record_id: str) -> None:
        """A record is changed by this transaction."""
        self._touched[table, record_id] = None

    def any_of(self, table: str, where: str = "1", *values: str) -> str | None:
        """One of the records of a table."""
        query = f"SELECT id FROM {table} WHERE {where} AND id NOT LIKE 'rogue%' ORDER BY id"
        rows = self.connection.execute(query, values).fetchall()
        return str(self.chance.choice(rows)[0]) if rows else None

    def one_of(self, table: str, store: str) -> str | None:
        """A record of a table, and of a store where it has one, that may still be changed."""
        column, where, values = DATA_TYPES[table].store, ["1"], list[str]()
        if column and store:
            where, values = [f"{column} = ?"], [store]
        if SHAPES[table].has_status:
            where.append("status <> 'finalised'")
        return self.any_of(table, " AND ".join(where), *values)

    # --- one record ---------------------------------------------------------------------------------------------------

    def insert(self, table: str, store: str, more: Mapping[str, str] | None = None) -> str | None:
        """A new record of a store; None where something that it needs is not there."""
        values = {SHAPES[table].text: self._text(), **self._references(table, store), **(more or {})}
        if "" in (values[column] for column in SHAPES[table].refers):
            return None
        if column := DATA_TYPES[table].store:
            values[column] = store
        values["id"] = self._new_id(table, store, values)
        if SHAPES[table].has_status:
            values["status"] = "new" if table == "invoice" else "suggested"
        if table == "message":
            values["to_store_id"] = self.any_of("store") or ""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", (*values.values(),))
        self.touch(table, values["id"])
        return values["id"]

    def _references(self, table: str, store: str) -> dict[str, str]:
        found = {}
        for column, other in SHAPES[table].refers.items():
            found[column] = (self.one_of(other, store) if other in _OF_THE_STORE else self.any_of(other)) or ""
        for column, other in SHAPES[table].may_refer.items():
            if self.chance.random() < 0.5:
                found[column] = self.any_of(other) or ""
        return found

    def _new_id(self, table: str, store: str, values: Mapping[str, str]) -> str:
        if table == "store":
            return values["id"]
        if table.endswith("_visibility"):  # one for each subject and store, which may come again
            subject = values[table.removesuffix("_visibility") + "_id"]
            known = self.connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (f"{subject}@{store}",)).fetchone()
            if known is None:
                return f"{subject}@{store}"
        self._drawn += 1
        return f"{'rogue-' if self.is_rogue else ''}{table}-{self._number}-{self._drawn}"

    def change(self, table: str, record_id: str) -> None:
        """Another text in a record."""
        self.connection.execute(f"UPDATE {table} SET {SHAPES[table].text} = ? WHERE id = ?", (self._text(), record_id))
        self.touch(table, record_id)

    def delete(self, table: str, record_id: str) -> None:
        """Deletes a record with its lines."""
        for line in lines_of(table):
            for name in self._lines(line, record_id):
                self.touch(line, name)
        self.connection.execute(f"DELETE FROM {table} WHERE id = ?", (record_id,))
        self.touch(table, record_id)

    def delete_unless_used(self, table: str, record_id: str) -> None:
        """Deletes a record with its lines; where something refers to it, that may be refused."""
        try:
            self.delete(table, record_id)
        except sqlite3.IntegrityError as error:
            if "rule IN_USE" not in str(error) or not self._is_used(table, record_id):
                raise

    def _is_used(self, table: str, record_id: str) -> bool:
        places = [
            (name, column)
            for name, shape in SHAPES.items()
            for column, other in (*shape.refers.items(), *shape.may_refer.items())
            if other == table
        ]
        found = " UNION ALL ".join(f"SELECT 1 FROM {name} WHERE {column} = :id" for name, column in places)
        return bool(places) and self.connection.execute(found, {"id": record_id}).fetchone() is not None

    def _text(self) -> str:
        return str(self.chance.randrange(10**9))

    # --- documents ----------------------------------------------------------------------------------------------------

    def _lines(self, table: str, parent: str) -> list[str]:
        query = f"SELECT id FROM {table} WHERE {DATA_TYPES[table].parent_column} = ? ORDER BY id"
        return [row[0] for row in self.connection.execute(query, (parent,))]

    def add_lines(self, table: str, document: str, store: str) -> None:
        """Some lines more."""
        for line in lines_of(table):
            for _ in range(self.chance.randrange(1, 4)):
                self.insert(line, store, {DATA_TYPES[line].parent_column: document})
        if lines_of(table):
            self.touch(table, document)

    def change_line(self, table: str, document: str) -> None:
        """Changes or deletes a line."""
        for line in lines_of(table):
            there = self._lines(line, document)
            if not there:
                continue
            self.touch(table, document)
            if self.chance.random() < 0.5:
                self.change(line, self.chance.choice(there))
            else:
                self.delete(line, self.chance.choice(there))

    def finalise(self, table: str, document: str) -> None:
        """From now on it does not change."""
        if SHAPES[table].has_status:
            self.connection.execute(f"UPDATE {table} SET status = 'finalised' WHERE id = ?", (document,))
            self.touch(table, document)

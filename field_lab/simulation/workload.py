"""What people do meanwhile: a table of operations, each a transaction of whole documents in SQL.

Add an operation: a function that takes an `Edit`, and a line in OPERATIONS. What it changes it names with `touch`, so
that the oracle (truth.py) knows. Each invoice carries its line count in its comment.
"""

import random
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from engine.storage.records import Key
from field_lab.simulation.truth import Delta, delta_of

ITEMS_AT_FIRST, ITEMS = 30, 60
"""Some items exist at the central only later: whatever refers to them has to wait."""


class Edit:
    """A transaction under way at a node."""

    def __init__(self, connection: sqlite3.Connection, store: str, chance: random.Random, number: int) -> None:
        self.connection, self.store, self.chance = connection, store, chance
        self._number, self._drawn = number, 0
        self._touched: dict[Key, None] = {}

    def touch(self, table: str, record_id: str) -> None:
        """A row is changed by this transaction."""
        self._touched[table, record_id] = None

    def delta(self) -> Delta:
        """What the transaction leaves."""
        return delta_of(self.connection, self._touched)

    def new_id(self, what: str) -> str:
        """An id that nobody else has."""
        self._drawn += 1
        return f"{what}-{self._number}-{self._drawn}"

    def item(self) -> str:
        """Any item, of which some do not exist yet."""
        return f"item-{self.chance.randrange(ITEMS)}"

    def any_of(self, query: str) -> str | None:
        """One id of those that a query finds for the store, or None."""
        rows = self.connection.execute(query, {"store": self.store}).fetchall()
        return str(self.chance.choice(rows)[0]) if rows else None

    def open_invoice(self) -> str | None:
        """An invoice that may still be changed."""
        return self.any_of("SELECT id FROM invoice WHERE store_id = :store AND status = 'new' ORDER BY id")


class Operation(NamedTuple):
    """Something that people do."""

    name: str
    weight: int
    run: Callable[[Edit], None]
    at_central: bool = False


def draw_operation(chance: random.Random, at_central: bool) -> Operation:
    """One of the operations that are possible there."""
    possible = [operation for operation in OPERATIONS if operation.at_central == at_central]
    return chance.choices(possible, [operation.weight for operation in possible])[0]


def _large_text(edit: Edit) -> str:
    return edit.chance.randbytes(edit.chance.choice((5_000, 20_000, 20_000, 200_000))).hex()


def _catalogue(edit: Edit) -> None:
    item = edit.item()
    edit.connection.execute(
        "INSERT INTO item (id, name, unit_id) VALUES (?, ?, 'each')"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        (item, f"name {edit.chance.random()}"),
    )
    edit.touch("item", item)


def _large_item(edit: Edit) -> None:
    item = edit.any_of("SELECT id FROM item ORDER BY id")
    assert item is not None
    edit.connection.execute("UPDATE item SET name = ? WHERE id = ?", (_large_text(edit), item))
    edit.touch("item", item)


def _name(edit: Edit) -> None:
    name = f"name-{edit.chance.randrange(5)}"
    if edit.chance.random() < 0.5:
        edit.connection.execute(
            "INSERT OR REPLACE INTO name (id, name) VALUES (?, ?)", (name, str(edit.chance.random()))
        )
    else:
        try:
            edit.connection.execute("DELETE FROM name WHERE id = ?", (name,))
        except sqlite3.IntegrityError as error:
            if "rule IN_USE" not in str(error):
                raise
    edit.touch("name", name)


def _stock(edit: Edit) -> None:
    for _ in range(edit.chance.randrange(1, 6)):
        record_id = edit.new_id(f"{edit.store}-stock")
        edit.connection.execute(
            "INSERT INTO stock_line (id, store_id, item_id, batch) VALUES (?, ?, ?, ?)",
            (record_id, edit.store, edit.item(), str(edit.chance.random())),
        )
        edit.touch("stock_line", record_id)
    for _ in range(2):
        changed = edit.any_of("SELECT id FROM stock_line WHERE store_id = :store ORDER BY id")
        assert changed is not None
        edit.connection.execute(
            "UPDATE stock_line SET batch = ?, item_id = ? WHERE id = ?",
            (str(edit.chance.random()), edit.item(), changed),
        )
        edit.touch("stock_line", changed)


def _put_lines(edit: Edit, invoice: str, count: int) -> None:
    for _ in range(count):
        line = edit.new_id(f"{invoice}-line")
        edit.connection.execute(
            "INSERT INTO invoice_line (id, invoice_id, item_id) VALUES (?, ?, ?)", (line, invoice, edit.item())
        )
        edit.touch("invoice_line", line)
    edit.connection.execute(
        "UPDATE invoice SET comment = (SELECT count(*) FROM invoice_line WHERE invoice_id = :id) WHERE id = :id",
        {"id": invoice},
    )
    edit.touch("invoice", invoice)


def _invoice(edit: Edit) -> None:
    invoice = edit.new_id(f"{edit.store}-invoice")
    edit.connection.execute(
        "INSERT INTO invoice (id, store_id, name_id, status) VALUES (?, ?, 'name', 'new')", (invoice, edit.store)
    )
    _put_lines(edit, invoice, edit.chance.randrange(0, 5))


def _lines(edit: Edit) -> None:
    invoice = edit.open_invoice()
    if invoice is None:
        return
    gone = edit.connection.execute("SELECT min(id) FROM invoice_line WHERE invoice_id = ?", (invoice,)).fetchone()[0]
    if gone is not None:
        edit.connection.execute("DELETE FROM invoice_line WHERE id = ?", (gone,))
        edit.touch("invoice_line", gone)
    _put_lines(edit, invoice, edit.chance.randrange(0, 3))


def _large(edit: Edit) -> None:
    """A document that goes in parts, on a bad link or on any."""
    invoice = edit.open_invoice()
    if invoice is not None:
        edit.connection.execute("UPDATE invoice SET their_reference = ? WHERE id = ?", (_large_text(edit), invoice))
        edit.touch("invoice", invoice)


def _delete_invoice(edit: Edit) -> None:
    _delete(edit, edit.open_invoice())


def _delete_large(edit: Edit) -> None:
    """What goes in parts may be on its way."""
    query = (
        "SELECT id FROM invoice WHERE store_id = :store AND status = 'new'"
        " ORDER BY length(their_reference) DESC, id LIMIT 1"
    )
    _delete(edit, edit.any_of(query))


def _delete(edit: Edit, invoice: str | None) -> None:
    if invoice is None:
        return
    for (line,) in edit.connection.execute("SELECT id FROM invoice_line WHERE invoice_id = ?", (invoice,)).fetchall():
        edit.touch("invoice_line", line)
    edit.connection.execute("DELETE FROM invoice WHERE id = ?", (invoice,))
    edit.touch("invoice", invoice)


def _delete_stock(edit: Edit) -> None:
    gone = edit.any_of("SELECT id FROM stock_line WHERE store_id = :store ORDER BY id")
    if gone is not None:
        edit.connection.execute("DELETE FROM stock_line WHERE id = ?", (gone,))
        edit.touch("stock_line", gone)


def _finalise(edit: Edit) -> None:
    invoice = edit.open_invoice()
    if invoice is not None:
        edit.connection.execute("UPDATE invoice SET status = 'finalised' WHERE id = ?", (invoice,))
        edit.touch("invoice", invoice)


def _again(edit: Edit) -> None:
    """A record that was deleted comes back under its old id."""
    gone = edit.any_of(
        "SELECT id FROM sync_record WHERE table_name = 'stock_line' AND deleted = 1 AND id LIKE :store || '-%'"
        " AND id NOT IN (SELECT id FROM stock_line) ORDER BY id"
    )
    if gone is not None:
        edit.connection.execute(
            "INSERT INTO stock_line (id, store_id, item_id, batch) VALUES (?, ?, 'item-1', 'again')", (gone, edit.store)
        )
        edit.touch("stock_line", gone)


def _replace(edit: Edit) -> None:
    """INSERT OR REPLACE of a record means an update of it."""
    replaced = edit.any_of("SELECT id FROM stock_line WHERE store_id = :store ORDER BY id")
    if replaced is not None:
        edit.connection.execute(
            "INSERT OR REPLACE INTO stock_line (id, store_id, item_id, batch) VALUES (?, ?, ?, 'replaced')",
            (replaced, edit.store, edit.item()),
        )
        edit.touch("stock_line", replaced)


def touch_again(edit: Edit, key: Key) -> None:
    """Somebody opens and saves a document that the central could not take; one that is gone is entered and deleted."""
    table, record_id = key
    if edit.connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (record_id,)).fetchone():
        column = "batch" if table == "stock_line" else "their_reference"
        edit.connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE id = ?", (f"again {edit.new_id('')}", record_id)
        )
    elif table == "stock_line":
        edit.connection.execute(
            "INSERT INTO stock_line (id, store_id, item_id) VALUES (?, ?, 'item-1')", (record_id, edit.store)
        )
        edit.connection.execute("DELETE FROM stock_line WHERE id = ?", (record_id,))
    else:
        edit.connection.execute(
            "INSERT INTO invoice (id, store_id, name_id) VALUES (?, ?, 'name')", (record_id, edit.store)
        )
        edit.connection.execute("DELETE FROM invoice WHERE id = ?", (record_id,))
    edit.touch(table, record_id)


OPERATIONS = (
    Operation("catalogue", 4, _catalogue, at_central=True),
    Operation("large item", 1, _large_item, at_central=True),
    Operation("name", 1, _name, at_central=True),
    Operation("stock", 4, _stock),
    Operation("invoice", 4, _invoice),
    Operation("lines", 3, _lines),
    Operation("large document", 2, _large),
    Operation("delete invoice", 1, _delete_invoice),
    Operation("delete large document", 2, _delete_large),
    Operation("delete stock line", 1, _delete_stock),
    Operation("finalise", 2, _finalise),
    Operation("record comes again", 2, _again),
    Operation("replace", 1, _replace),
)
"""What people do, with how often they do it."""

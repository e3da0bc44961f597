"""A program that edits a store with plain SQL: documents and single lines are inserted, updated and deleted.

Each invoice says in its comment how many lines it has and how many packs they make together, and is kept true in the
same transaction; whoever reads a header that its lines do not bear out has read half a document.
"""

import random
import sqlite3
import threading
from collections import Counter
from pathlib import Path

SAYS = "SELECT count(*) || ' lines, ' || ifnull(sum(CAST(number_of_packs AS INTEGER)), 0) || ' packs' FROM invoice_line"
TORN = f"SELECT count(*) FROM invoice AS i WHERE comment <> ({SAYS} WHERE invoice_id = i.id)"
"""How many headers disagree with their lines."""
_LINE = "INSERT INTO invoice_line (id, invoice_id, item_id, number_of_packs) VALUES (?, ?, ?, ?)"
_STOCK = "INSERT INTO stock_line (id, store_id, item_id, batch, pack_size, number_of_packs) VALUES (?, ?, ?, ?, '1', ?)"
_INVOICES_MOST = 300


class Paperwork:
    """The edits of one store, drawn from a seed."""

    def __init__(self, database: Path, store: str, seed: int) -> None:
        self.store, self.done = store, Counter[str]()
        self._database, self._chance, self._number = database, random.Random(seed), 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, pause_seconds: float = 0.03) -> None:
        """Begins to edit, a transaction at a time, until `stop`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(pause_seconds,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the edits. Raises what went wrong with one of them."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def burst(self, invoices: int, lines: int, stock: int) -> None:
        """Edits much in one transaction: new invoices of so many lines, and new stock."""
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(stock):
            self._enter_stock(connection)
        for _ in range(invoices):
            self._enter_invoice(connection, lines)
        connection.execute("COMMIT")
        connection.close()

    def revise(self) -> None:
        """Changes every invoice that is not final, in one transaction: lines are added, changed and deleted."""
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        for invoice in self._ids(connection, "invoice", "status = 'new'"):
            for edit in self._chance.choices((self._add_line, self._change_line, self._delete_line), k=6):
                edit(connection, invoice)
        connection.execute("COMMIT")
        connection.close()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._database, timeout=60, isolation_level=None)

    def _run(self, pause_seconds: float) -> None:
        try:
            connection = self._open()
            while not self._stop.wait(pause_seconds):
                connection.execute("BEGIN IMMEDIATE")
                self._edit(connection)
                connection.execute("COMMIT")
            connection.close()
        except BaseException as error:  # told by `stop`, in the thread of the test
            self._error = error

    def _edit(self, connection: sqlite3.Connection) -> None:
        open_invoices = self._ids(connection, "invoice", "status = 'new'")
        if len(open_invoices) < 5:
            self._enter_invoice(connection, self._chance.randrange(1, 7))
            return
        invoice = self._chance.choice(open_invoices)
        edits = [
            lambda: self._enter_stock(connection),
            lambda: self._change_stock(connection),
            lambda: self._add_line(connection, invoice),
            lambda: self._change_line(connection, invoice),
            lambda: self._delete_line(connection, invoice),
            lambda: self._delete_invoice(connection, invoice),
            lambda: self._finalise(connection, invoice),
        ]
        if len(open_invoices) < _INVOICES_MOST:
            edits += [lambda: self._enter_invoice(connection, self._chance.randrange(1, 7))] * 3
        self._chance.choice(edits)()

    def _ids(self, connection: sqlite3.Connection, table: str, where: str) -> list[str]:
        query = f"SELECT id FROM {table} WHERE store_id = ? AND {where} ORDER BY id LIMIT 1000"
        return [row[0] for row in connection.execute(query, (self.store,))]

    def _new_id(self, kind: str) -> str:
        self._number += 1
        return f"{self.store}-{kind}-{self._number:06}"

    def _item(self, connection: sqlite3.Connection) -> str:
        number = self._chance.randrange(300)
        return str(connection.execute("SELECT id FROM item ORDER BY id LIMIT 1 OFFSET ?", (number,)).fetchone()[0])

    def _packs(self) -> str:
        return str(self._chance.randrange(1, 500))

    def _keep_true(self, connection: sqlite3.Connection, invoice: str) -> None:
        says = connection.execute(f"{SAYS} WHERE invoice_id = ?", (invoice,)).fetchone()[0]
        connection.execute("UPDATE invoice SET comment = ? WHERE id = ?", (says, invoice))

    def _enter_invoice(self, connection: sqlite3.Connection, lines: int) -> None:
        invoice, item = self._new_id("invoice"), self._item(connection)
        connection.execute(
            "INSERT INTO invoice (id, store_id, type, status) VALUES (?, ?, 'customer_invoice', 'new')",
            (invoice, self.store),
        )
        connection.executemany(_LINE, [(self._new_id("line"), invoice, item, self._packs()) for _ in range(lines)])
        self._keep_true(connection, invoice)
        self.done["documents inserted"] += 1

    def _add_line(self, connection: sqlite3.Connection, invoice: str) -> None:
        connection.execute(_LINE, (self._new_id("line"), invoice, self._item(connection), self._packs()))
        self._keep_true(connection, invoice)
        self.done["lines inserted"] += 1

    def _change_line(self, connection: sqlite3.Connection, invoice: str) -> None:
        one = "(SELECT min(id) FROM invoice_line WHERE invoice_id = ?)"
        connection.execute(f"UPDATE invoice_line SET number_of_packs = ? WHERE id = {one}", (self._packs(), invoice))
        self._keep_true(connection, invoice)
        self.done["lines updated"] += 1

    def _delete_line(self, connection: sqlite3.Connection, invoice: str) -> None:
        connection.execute(
            "DELETE FROM invoice_line WHERE id = (SELECT max(id) FROM invoice_line WHERE invoice_id = ?)", (invoice,)
        )
        self._keep_true(connection, invoice)
        self.done["lines deleted"] += 1

    def _delete_invoice(self, connection: sqlite3.Connection, invoice: str) -> None:
        connection.execute("DELETE FROM invoice WHERE id = ?", (invoice,))
        self.done["documents deleted"] += 1

    def _finalise(self, connection: sqlite3.Connection, invoice: str) -> None:
        connection.execute("UPDATE invoice SET status = 'finalised' WHERE id = ?", (invoice,))
        self.done["documents updated"] += 1

    def _enter_stock(self, connection: sqlite3.Connection) -> None:
        values = (self._new_id("stock"), self.store, self._item(connection), f"B{self._number}", self._packs())
        connection.execute(_STOCK, values)
        self.done["documents inserted"] += 1

    def _change_stock(self, connection: sqlite3.Connection) -> None:
        stock = self._ids(connection, "stock_line", "1")
        if stock:
            chosen = self._chance.choice(stock)
            if self._chance.random() < 0.3:
                connection.execute("DELETE FROM stock_line WHERE id = ?", (chosen,))
                self.done["documents deleted"] += 1
            else:
                connection.execute("UPDATE stock_line SET number_of_packs = ? WHERE id = ?", (self._packs(), chosen))
                self.done["documents updated"] += 1

"""What people do meanwhile: plain SQL into the nodes' databases, each transaction of whole documents."""

import random
import sqlite3
from pathlib import Path

from field_lab.simulation.link import Counters


class Workload:
    """Edits of one store at its site, or of the catalogue at the central."""

    def __init__(self, chance: random.Random, counters: Counters) -> None:
        self._chance, self._counters = chance, counters
        self._next = 0

    def edit_site(self, path: Path, store: str) -> None:
        """One transaction of another program at a site. Each invoice carries its line count in its comment."""
        connection = sqlite3.connect(path, timeout=1, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            action = self._chance.choice(
                ("stock", "stock", "invoice", "invoice", "lines", "delete", "finalise", "again", "large")
            )
            self._counters.count(f"edit: {action}")
            getattr(self, f"_{action}")(connection, store)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def edit_central(self, path: Path) -> None:
        """One edit of the catalogue at the central."""
        connection = sqlite3.connect(path, timeout=1, isolation_level=None)
        try:
            item = f"item-{self._chance.randrange(60)}"
            self._counters.count("edit: catalogue")
            connection.execute(
                "INSERT INTO item (id, name, unit_id) VALUES (?, ?, 'each')"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                (item, self._large_text() if self._chance.random() < 0.1 else f"name {self._chance.random()}"),
            )
        finally:
            connection.close()

    def _item(self) -> str:
        return f"item-{self._chance.randrange(60)}"  # some of these exist at the central only later, or never

    def _stock(self, connection: sqlite3.Connection, store: str) -> None:
        for _ in range(self._chance.randrange(1, 6)):
            self._next += 1
            connection.execute(
                "INSERT INTO stock_line (id, store_id, item_id, batch) VALUES (?, ?, ?, ?)",
                (f"{store}-{self._next}", store, self._item(), str(self._chance.random())),
            )
        rows = connection.execute("SELECT id FROM stock_line WHERE store_id = ? ORDER BY id", (store,)).fetchall()
        connection.executemany(
            "UPDATE stock_line SET batch = ?, item_id = ? WHERE id = ?",
            [(str(self._chance.random()), self._item(), self._chance.choice(rows)[0]) for _ in range(2)],
        )

    def _invoice(self, connection: sqlite3.Connection, store: str) -> None:
        self._next += 1
        invoice = f"{store}-invoice-{self._next}"
        connection.execute(
            "INSERT INTO invoice (id, store_id, name_id, status) VALUES (?, ?, 'name', 'new')", (invoice, store)
        )
        self._put_lines(connection, invoice, self._chance.randrange(0, 5))

    def _put_lines(self, connection: sqlite3.Connection, invoice: str, count: int) -> None:
        for _ in range(count):
            self._next += 1
            connection.execute(
                "INSERT INTO invoice_line (id, invoice_id, item_id) VALUES (?, ?, ?)",
                (f"{invoice}-{self._next}", invoice, self._item()),
            )
        connection.execute(
            "UPDATE invoice SET comment = (SELECT count(*) FROM invoice_line WHERE invoice_id = ?) WHERE id = ?",
            (invoice, invoice),
        )

    def _open_invoice(self, connection: sqlite3.Connection, store: str) -> str | None:
        rows = connection.execute(
            "SELECT id FROM invoice WHERE store_id = ? AND status = 'new' ORDER BY id", (store,)
        ).fetchall()
        return self._chance.choice(rows)[0] if rows else None

    def _lines(self, connection: sqlite3.Connection, store: str) -> None:
        invoice = self._open_invoice(connection, store)
        if invoice is not None:
            connection.execute(
                "DELETE FROM invoice_line WHERE id = (SELECT min(id) FROM invoice_line WHERE invoice_id = ?)",
                (invoice,),
            )
            self._put_lines(connection, invoice, self._chance.randrange(0, 3))

    def _large(self, connection: sqlite3.Connection, store: str) -> None:
        """A document that goes in parts, on a bad link or on any."""
        connection.execute(
            "UPDATE invoice SET their_reference = ? WHERE id = ?",
            (self._large_text(), self._open_invoice(connection, store)),
        )

    def _large_text(self) -> str:
        self._counters.count("edit: large document")
        return self._chance.randbytes(self._chance.choice((5_000, 20_000, 200_000))).hex()

    def _delete(self, connection: sqlite3.Connection, store: str) -> None:
        invoice = self._open_invoice(connection, store)
        connection.execute("DELETE FROM invoice WHERE id = ?", (invoice,))
        connection.execute(
            "DELETE FROM stock_line WHERE id = (SELECT min(id) FROM stock_line WHERE store_id = ?)", (store,)
        )

    def _finalise(self, connection: sqlite3.Connection, store: str) -> None:
        connection.execute(
            "UPDATE invoice SET status = 'finalised' WHERE id = ?", (self._open_invoice(connection, store),)
        )

    def _again(self, connection: sqlite3.Connection, store: str) -> None:
        """A record that was deleted comes back under its old id."""
        gone = connection.execute(
            "SELECT id FROM sync_record WHERE table_name = 'stock_line' AND deleted = 1 ORDER BY id LIMIT 1"
        ).fetchone()
        if gone and not connection.execute("SELECT 1 FROM stock_line WHERE id = ?", gone).fetchone():
            connection.execute(
                "INSERT INTO stock_line (id, store_id, item_id, batch) VALUES (?, ?, 'item-1', 'again')",
                (gone[0], store),
            )

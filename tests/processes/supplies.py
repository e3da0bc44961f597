"""What a program at a site does: plain SQL into node.db, with nothing of Packhorse imported."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import field_lab

SAMPLE = Path(field_lab.__file__).parent / "sample_data"
BADILI, LAE = "store-badili-area-medical-store", "store-lae-area-medical-store"
HAGEN = "store-mount-hagen-area-medical-store"


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection as another program would open it."""
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def one(database: Path, query: str, *values: Any) -> Any:
    """The first column of the first row, or None."""
    with opened(database) as connection:
        row = connection.execute(query, values).fetchone()
        return row[0] if row else None


def write_stock(database: Path, store: str, count: int, prefix: str = "stock") -> None:
    """Inserts stock lines in one transaction."""
    with opened(database) as connection:
        items = [row[0] for row in connection.execute("SELECT id FROM item ORDER BY id LIMIT 50")]
        connection.execute("BEGIN IMMEDIATE")
        for number in range(count):
            connection.execute(
                "INSERT INTO stock_line (id, store_id, item_id, batch, pack_size, number_of_packs)"
                " VALUES (?, ?, ?, ?, '1', '10')",
                (f"{prefix}-{number:05}", store, items[number % len(items)], f"B{number}"),
            )
        connection.execute("COMMIT")


def write_invoice(database: Path, store: str, invoice: str, lines: int = 3, item: str = "") -> None:
    """Inserts an invoice with its lines and finalises it last, in one transaction."""
    with opened(database) as connection:
        chosen = item or connection.execute("SELECT id FROM item ORDER BY id").fetchone()[0]
        name = connection.execute("SELECT id FROM name ORDER BY id").fetchone()[0]
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO invoice (id, store_id, name_id, type, status) VALUES (?, ?, ?, 'customer_invoice', 'new')",
            (invoice, store, name),
        )
        for number in range(lines):
            connection.execute(
                "INSERT INTO invoice_line (id, invoice_id, item_id, number_of_packs) VALUES (?, ?, ?, '2')",
                (f"{invoice}-{number}", invoice, chosen),
            )
        connection.execute("UPDATE invoice SET status = 'finalised' WHERE id = ?", (invoice,))
        connection.execute("COMMIT")

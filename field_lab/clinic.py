"""A program at a site that knows nothing of Packhorse: plain SQL through the standard sqlite3 module, nothing else.

Usage: clinic.py NODE_DB STORE_ID SECONDS SEED. Enters stock, issues it by invoices with lines (finalised as the last
statement), changes and deletes some, for that long; prints how many transactions it committed.
"""

import random
import sqlite3
import sys
import time
import uuid


def main() -> None:
    """Works for the given time."""
    database, store, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    chance = random.Random(seed)
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    items = [row[0] for row in connection.execute("SELECT id FROM item ORDER BY id")]
    names = [row[0] for row in connection.execute("SELECT id FROM name ORDER BY id")]
    stock: list[str] = []
    committed = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.execute("BEGIN IMMEDIATE")
        if len(stock) < 20 or chance.random() < 0.4:
            enter(connection, chance, store, items, stock)
        else:
            issue(connection, chance, store, names, stock)
        connection.execute("COMMIT")
        committed += 1
        time.sleep(0.02)
    connection.close()
    print(committed)


def enter(
    connection: sqlite3.Connection, chance: random.Random, store: str, items: list[str], stock: list[str]
) -> None:
    """Receives ten batches."""
    for _ in range(10):
        stock.append(str(uuid.uuid4()))
        connection.execute(
            "INSERT INTO stock_line (id, store_id, item_id, batch, expiry_date, pack_size, number_of_packs,"
            " cost_price_per_pack, sell_price_per_pack) VALUES (?, ?, ?, ?, ?, '100', ?, ?, ?)",
            (
                stock[-1], store, chance.choice(items), f"B{chance.randrange(10**6):06}",
                f"20{chance.randrange(27, 31)}-{chance.randrange(1, 13):02}-15", str(chance.randrange(1, 500)),
                f"{chance.randrange(1, 9000) / 100:.2f}", f"{chance.randrange(1, 9900) / 100:.2f}",
            ),
        )  # fmt: skip


def issue(
    connection: sqlite3.Connection, chance: random.Random, store: str, names: list[str], stock: list[str]
) -> None:
    """Issues some stock with one invoice."""
    invoice = str(uuid.uuid4())
    connection.execute(
        "INSERT INTO invoice (id, store_id, name_id, number, type, status)"
        " VALUES (?, ?, ?, -1, 'customer_invoice', 'new')",
        (invoice, store, chance.choice(names)),
    )
    for line in chance.sample(stock, chance.randrange(1, 8)):
        connection.execute(
            "INSERT INTO invoice_line (id, invoice_id, item_id, stock_line_id, batch, pack_size, number_of_packs)"
            " SELECT ?, ?, item_id, id, batch, pack_size, '1' FROM stock_line WHERE id = ?",
            (str(uuid.uuid4()), invoice, line),
        )
        connection.execute(
            "UPDATE stock_line SET number_of_packs = CAST(number_of_packs - 1 AS TEXT) WHERE id = ?", (line,)
        )
    if chance.random() < 0.1:
        connection.execute("DELETE FROM invoice WHERE id = ?", (invoice,))
    elif chance.random() < 0.8:
        connection.execute(
            "UPDATE invoice SET status = 'finalised', finalised_at = strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
            " WHERE id = ?",
            (invoice,),
        )


if __name__ == "__main__":
    main()

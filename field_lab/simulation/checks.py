"""The invariants I1 to I10, asked of the databases themselves: some at any moment, some once everything has healed."""

import sqlite3
from pathlib import Path

_MODULUS = 1 << 128


class Broken(AssertionError):
    """An invariant does not hold."""


def check_node(path: Path) -> None:
    """What holds at every node at every moment."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("BEGIN")
        _documents_are_whole(connection, path)
        _digests_are_what_they_say(connection, path)
        if connection.execute("SELECT applying FROM sync_flag").fetchone()[0]:
            raise Broken(f"{path.name}: the apply flag was committed")
    finally:
        connection.close()


def _documents_are_whole(connection: sqlite3.Connection, path: Path) -> None:
    torn = connection.execute(
        "SELECT id, comment, (SELECT count(*) FROM invoice_line AS l WHERE l.invoice_id = i.id) AS lines"
        " FROM invoice AS i WHERE CAST(comment AS INTEGER) <> lines"
    ).fetchall()
    if torn:
        raise Broken(f"{path.name}: I5, torn documents {torn[:3]}")
    orphans = connection.execute(
        "SELECT id FROM invoice_line WHERE invoice_id NOT IN (SELECT id FROM invoice) LIMIT 3"
    ).fetchall()
    if orphans:
        raise Broken(f"{path.name}: I5, lines without a document {orphans}")


def _digests_are_what_they_say(connection: sqlite3.Connection, path: Path) -> None:
    sums: dict[tuple[int, str], list[int]] = {}
    for scope, table, record_hash in connection.execute(
        "SELECT m.scope, m.table_name, r.hash FROM sync_membership AS m JOIN sync_record AS r USING (table_name, id)"
        " WHERE m.state = 0 AND r.deleted = 0"
    ):
        entry = sums.setdefault((scope, table), [0, 0])
        entry[0] += 1
        entry[1] += int.from_bytes(record_hash, "big")
    recomputed = {key: (count, (total % _MODULUS).to_bytes(16, "big")) for key, (count, total) in sums.items()}
    stored = {
        (row[0], row[1]): (row[2], row[3])
        for row in connection.execute("SELECT scope, table_name, count, sum FROM sync_digest WHERE count <> 0")
    }
    if recomputed != stored:
        different = sorted(key for key in recomputed.keys() | stored.keys() if recomputed.get(key) != stored.get(key))
        raise Broken(f"{path.name}: I7, stored digests are not those of the records: {different[:5]}")


def check_healed(central: Path, site: Path, store: str) -> None:
    """What holds when nothing is under way any more: both have the same rows, and nothing that is not theirs."""
    one, other = (sqlite3.connect(f"file:{path}?mode=ro", uri=True) for path in (central, site))
    try:
        for table, where in (
            ("unit", "1"), ("item", "1"), ("name", "1"), ("store", f"id = '{store}'"),
            ("stock_line", f"store_id = '{store}'"), ("invoice", f"store_id = '{store}'"),
            ("invoice_line", f"invoice_id IN (SELECT id FROM invoice WHERE store_id = '{store}')"),
        ):  # fmt: skip
            here, there = (set(c.execute(f"SELECT * FROM {table} WHERE {where}")) for c in (one, other))
            if here != there:
                raise Broken(
                    f"I1, I10: {table} differs between the central and {site.name}: {sorted(here ^ there)[:4]}"
                )
        foreign = other.execute("SELECT count(*) FROM stock_line WHERE store_id <> ?", (store,)).fetchone()[0]
        if foreign:
            raise Broken(f"I4: {site.name} has {foreign} stock lines of other stores")
    finally:
        one.close()
        other.close()

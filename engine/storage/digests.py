"""Count and sum of record hashes per (scope, table): kept up to date in the transaction that changes a record.

A record counts in a scope when it has a membership there and is not deleted. The sum is taken modulo 2^128, so that it
does not depend on any order and a record that is taken out leaves no trace (F25).
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_MODULUS = 1 << 128


class TableDigest(NamedTuple):
    """One table in one scope."""

    records: int
    sum: bytes


class DigestLedger:
    """Collects what changes within one transaction, then writes it once."""

    def __init__(self) -> None:
        self._changes: dict[tuple[int, str], list[int]] = {}

    def add(self, scope: int, table: str, record_hash: bytes) -> None:
        """A live record has come into a scope."""
        change = self._changes.setdefault((scope, table), [0, 0])
        change[0] += 1
        change[1] += int.from_bytes(record_hash, "big")

    def add_all(self, scope: int, table: str, hashes: Iterable[bytes]) -> None:
        """Live records have come into a scope."""
        numbers = [int.from_bytes(record_hash, "big") for record_hash in hashes]
        change = self._changes.setdefault((scope, table), [0, 0])
        change[0] += len(numbers)
        change[1] += sum(numbers)

    def remove(self, scope: int, table: str, record_hash: bytes) -> None:
        """A record that was live in a scope is no longer."""
        change = self._changes.setdefault((scope, table), [0, 0])
        change[0] -= 1
        change[1] -= int.from_bytes(record_hash, "big")

    def write(self, connection: sqlite3.Connection) -> None:
        """Adds what was collected to the stored digests."""
        for (scope, table), (count, total) in self._changes.items():
            if not count and not total:
                continue
            row = connection.execute(
                "SELECT count, sum FROM sync_digest WHERE scope = ? AND table_name = ?", (scope, table)
            ).fetchone()
            old_count, old_sum = (row[0], int.from_bytes(row[1], "big")) if row else (0, 0)
            new_sum = ((old_sum + total) % _MODULUS).to_bytes(16, "big")
            connection.execute(
                "INSERT OR REPLACE INTO sync_digest VALUES (?, ?, ?, ?)", (scope, table, old_count + count, new_sum)
            )
        self._changes.clear()


def read_digests(connection: sqlite3.Connection, scope: int) -> Mapping[str, TableDigest]:
    """The digests of the tables that have live records in a scope."""
    rows = connection.execute(
        "SELECT table_name, count, sum FROM sync_digest WHERE scope = ? AND count <> 0 ORDER BY table_name", (scope,)
    )
    return {row[0]: TableDigest(row[1], row[2]) for row in rows}

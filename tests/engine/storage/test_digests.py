"""Count and sum per (scope, table): the same whatever the order, and nothing stays of what was taken out (F25)."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.storage.digests import DigestLedger, read_digests
from tests.engine.storage.nodes import undone

hashes = st.binary(min_size=16, max_size=16)
entries = st.tuples(st.integers(1, 2), st.sampled_from(["item", "unit"]), hashes)
Entry = tuple[int, str, bytes]


@pytest.fixture(scope="module", name="digests")
def digest_table() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(
        "CREATE TABLE sync_digest"
        " (scope INTEGER, table_name TEXT, count INTEGER, sum BLOB, PRIMARY KEY (scope, table_name))"
    )
    yield connection
    connection.close()


def noted(connection: sqlite3.Connection, added: list[Entry], removed: list[Entry], writes: int) -> object:
    """The digests after these changes, written after every so many of them."""
    with undone(connection):
        connection.execute("DELETE FROM sync_digest")
        ledger = DigestLedger()
        changes = [(ledger.add, entry) for entry in added] + [(ledger.remove, entry) for entry in removed]
        for number, (change, entry) in enumerate(changes):
            change(*entry)
            if number % writes == 0:
                ledger.write(connection)
        ledger.write(connection)
        return {scope: dict(read_digests(connection, scope)) for scope in (1, 2)}


@settings(deadline=None)
@given(kept=st.lists(entries, max_size=6), gone=st.lists(entries, max_size=6), writes=st.integers(1, 5), data=st.data())
def test_a_digest_is_that_of_what_is_there(
    digests: sqlite3.Connection, kept: list[Entry], gone: list[Entry], writes: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(kept + gone))
    assert noted(digests, shuffled, gone, writes) == noted(digests, kept, [], 100)


def test_two_equal_hashes_do_not_cancel_each_other(digests: sqlite3.Connection) -> None:
    one = (1, "item", b"\xff" * 16)
    assert noted(digests, [one, one], [], 1) != noted(digests, [], [], 1)


def test_an_empty_table_has_no_digest(digests: sqlite3.Connection) -> None:
    one = (1, "item", b"\x01" * 16)
    assert noted(digests, [one], [one], 1) == {1: {}, 2: {}}

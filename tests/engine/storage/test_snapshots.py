"""A reader is one read transaction: between its statements others commit, and it does not see it (F51)."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.storage.database import snapshot
from engine.storage.sqlite_file import open_reader
from tests.partners import Central, Site, connect, pull


@pytest.fixture(name="site")
def site_with_an_invoice(tmp_path: Path) -> Site:
    central = Central(tmp_path / "node-1.db")
    site = central.add(tmp_path, 2)
    connect(central, site)
    pull(central, site)
    site.put_invoice("i", ["a"], "1 line")
    return site


def reading(site: Site) -> Callable[[sqlite3.Connection], tuple[str, int]]:
    """Reads the header, and then the lines; between the two the invoice gets another line."""

    def read(connection: sqlite3.Connection) -> tuple[str, int]:
        says = connection.execute("SELECT comment FROM invoice WHERE id = 'i'").fetchone()[0]
        site.put_invoice("i", ["a", "b"], "2 lines")
        lines = connection.execute("SELECT count(*) FROM invoice_line WHERE invoice_id = 'i'").fetchone()[0]
        return says, lines

    return read


def test_f51_a_reader_is_one_read_transaction(site: Site) -> None:
    assert snapshot(open_reader(site.path), reading(site)) == ("1 line", 1)
    assert snapshot(open_reader(site.path), reading(site)) == ("2 lines", 2), "the next one sees what was committed"


def test_f51_two_statements_without_a_transaction_are_no_reader(site: Site) -> None:
    """Why it has to be one; no promise covers this."""
    assert reading(site)(open_reader(site.path)) == ("1 line", 2)


def test_f51_a_reader_leaves_no_transaction_open(site: Site) -> None:
    """An open snapshot would keep the log from being copied into the file."""
    reader = open_reader(site.path)
    with pytest.raises(ZeroDivisionError):
        snapshot(reader, lambda _: 1 / 0)
    assert not reader.in_transaction

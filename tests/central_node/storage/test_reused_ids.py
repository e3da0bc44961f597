"""Deleted documents: an id that comes back in another store of its site, what was deleted twice; both ends agree."""

from itertools import product
from pathlib import Path

import pytest

from central_node.storage.steps import refresh_topology
from central_node.storage.topology import assign_store
from engine.rules.topology import CopyType
from engine.storage.configuration import read_topology
from field_lab.core_catalogue import core_catalogue
from tests.partners import Central, Site, connect, push, synchronise

SECOND = "store-2b"


def two_stores_and_a_reader(folder: Path, reads_both: bool) -> tuple[Central, Site, Site]:
    """A central, a site with two stores, and another site that has copies of one or both of them."""
    central = Central(folder / "node-1.db")
    writer, reader = central.add(folder, 2), central.add(folder, 3)
    central.execute(f"INSERT INTO store (id, name, name_id, mode) VALUES ('{SECOND}', 'x', 'name', 'store')")
    central.route()
    central.write(
        lambda c: assign_store(c, core_catalogue(), read_topology(c), SECOND, writer.number, CopyType.COLLECTOR)
    )
    central.topology = central.write(lambda c: refresh_topology(c, core_catalogue()))
    central.route()
    for store in (writer.store, SECOND)[: 1 + reads_both]:
        central.collect(store, reader)
    for site in (writer, reader):
        synchronise(central, site)
    return central, writer, reader


@pytest.mark.parametrize(("reads_both", "hears_in_between", "waited"), [*product([True, False], repeat=3)])
def test_a_deleted_root_may_come_back_in_another_store(
    tmp_path: Path, reads_both: bool, hears_in_between: bool, waited: bool
) -> None:
    central, writer, reader = two_stores_and_a_reader(tmp_path, reads_both)
    writer.put_stock("s", item="late" if waited else "item-0")
    writer.put_invoice("i", ["a", "b"])
    synchronise(central, writer)
    synchronise(central, reader)
    assert central.count("sync_held") == int(waited)
    writer.execute("DELETE FROM stock_line WHERE id = 's'")
    writer.execute("DELETE FROM invoice WHERE id = 'i'")
    connect(central, writer)
    push(central, writer)
    assert not writer.count("sync_outbox"), "the deletes are acknowledged"
    if hears_in_between:
        synchronise(central, writer)
        synchronise(central, reader)
    writer.execute("INSERT INTO stock_line (id, store_id, item_id) VALUES ('s', ?, 'item-1')", SECOND)
    writer.execute("INSERT INTO invoice (id, store_id, name_id, status) VALUES ('i', ?, 'name', 'new')", SECOND)
    for site in (writer, reader):
        assert synchronise(central, site).in_agreement
    for table in ("stock_line", "invoice", "invoice_line"):
        there = central.rows(table)
        assert writer.rows(table) == there
        assert reader.rows(table) == (there if reads_both else set())
    assert central.rows("stock_line") and central.rows("invoice") and not central.rows("invoice_line")
    assert not central.count("sync_held")


def test_a_delete_without_a_right_is_no_conflict_with_the_owners(tmp_path: Path) -> None:
    """A program at a collector gave itself a right; the owner has deleted the same document before. Nobody has to
    compare anything: the collector takes what the central has."""
    central = Central(tmp_path / "node-1.db")
    owner, collector = central.add(tmp_path, 2), central.add(tmp_path, 3)
    central.collect(owner.store, collector)
    synchronise(central, owner)
    owner.put_stock("s")
    for site in (owner, collector, owner, collector):
        synchronise(central, site)
    assert collector.count("stock_line") == 1
    collector.execute("INSERT INTO sync_authority VALUES ('store', ?, 1, 666)", owner.store)
    collector.execute("DELETE FROM stock_line WHERE id = 's'")
    collector.execute("DELETE FROM sync_authority WHERE term_id = 666")
    owner.execute("DELETE FROM stock_line WHERE id = 's'")
    synchronise(central, owner)
    for _ in range(3):
        report = synchronise(central, collector)
    assert central.execute("SELECT code FROM sync_held") == [("NO_AUTHORITY",)]
    assert not collector.count("stock_line") and not collector.count("sync_outbox")
    assert list(report.differing) == []

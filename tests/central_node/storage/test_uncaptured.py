"""Edits that no trigger captured are found at both nodes, kept, and mended (F43)."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from central_node.storage.status import read_status
from engine.errors import Refused
from engine.storage.integrity import Mended, kept_aside
from tests.partners import Central, Node, Site, checkpoint, connect, push, synchronise

TABLES = ("item", "stock_line", "invoice", "invoice_line")
DAMAGE = {
    "a root": ["UPDATE invoice SET comment = 'damaged' WHERE id = 'i'"],
    "a line": ["UPDATE invoice_line SET batch = 'damaged' WHERE id = 'i/a'"],
    "root and line": ["UPDATE invoice SET comment = 'damaged'", "UPDATE invoice_line SET batch = 'damaged'"],
    "a line is gone": ["DELETE FROM invoice_line WHERE id = 'i/a'"],
    "the root is gone": ["DELETE FROM invoice WHERE id = 'i'"],
    "all of it is gone": ["DELETE FROM invoice", "DELETE FROM invoice_line"],
    "a record": ["UPDATE stock_line SET batch = 'damaged' WHERE id = 's'"],
    "a record is gone": ["DELETE FROM stock_line WHERE id = 's'"],
    "a deleted record is back": ["INSERT INTO stock_line (id, store_id) VALUES ('deleted', 'store-2')"],
    "a line too many": ["INSERT INTO invoice_line (id, invoice_id) VALUES ('more', 'i')"],
    "a record too many": ["INSERT INTO stock_line (id, store_id) VALUES ('more', 'store-2')"],
}
"""What may happen, behind the triggers of a node that does not own them, to the documents `i` and `s` of store 2."""


@pytest.fixture(name="nodes")
def agreeing_nodes(tmp_path: Path) -> tuple[Central, Site, Site]:
    """The central, the site that owns the documents, and one that collects them."""
    central = Central(tmp_path / "node-1.db")
    owner, collector = central.add(tmp_path, 2), central.add(tmp_path, 3)
    central.collect(owner.store, collector)
    synchronise(central, owner)
    owner.put_invoice("i", ["a", "b"])
    owner.put_stock("s", "batch")
    owner.put_stock("deleted")
    push(central, owner)
    owner.execute("DELETE FROM stock_line WHERE id = 'deleted'")
    for site in (owner, collector):
        assert synchronise(central, site).in_agreement
    return central, owner, collector


def rows(node: Node) -> dict[str, set[tuple[Any, ...]]]:
    return {table: node.rows(table) for table in TABLES}


def assert_mended(central: Central, *sites: Site) -> None:
    """After a session of each everything is as its owner has it, and nobody waits for anything."""
    for site in sites:
        for _ in range(3):
            report = synchronise(central, site)
        assert report.in_agreement, report
    assert rows(central) == rows(sites[0]) == rows(sites[-1])
    for node in (central, *sites):
        assert node.sweep() == Mended()
        assert not node.count("sync_want") and not node.count("sync_held") and not node.count("sync_outbox")


@pytest.mark.parametrize("damage", DAMAGE)
def test_f43_a_record_of_a_site_comes_back_to_the_central(nodes: tuple[Central, Site, Site], damage: str) -> None:
    central, owner, collector = nodes
    central.behind(*DAMAGE[damage])
    mended = central.sweep()
    assert mended.put_aside and not mended.queued
    assert central.sweep() == Mended(), "what was asked for is not asked for again, nor kept twice"
    told = checkpoint(central, owner)
    connect(central, collector)
    other = checkpoint(central, collector)
    assert told is not None and other is not None
    assert list(told.wanted) == list(other.wanted) and len(told.wanted) == len(mended.wants)
    assert bool(told.wanted) == ("too many" not in damage and "back" not in damage)
    assert collector.queue_for_central(other) == 0, "only the owner sends it"
    assert owner.report(told).in_agreement == collector.report(other).in_agreement == (not told.wanted)
    assert_mended(central, owner, collector)


@pytest.mark.parametrize("damage", DAMAGE)
def test_f43_a_record_of_others_comes_back_to_a_site(nodes: tuple[Central, Site, Site], damage: str) -> None:
    central, owner, collector = nodes
    collector.behind(*DAMAGE[damage])
    mended = collector.sweep()
    assert mended.put_aside and not mended.queued
    assert collector.sweep() == Mended()
    connect(central, collector)
    told = checkpoint(central, collector)
    assert told is not None and collector.report(told).in_agreement == (not mended.wants)
    if mended.wants:
        collector.apply(central.wanted(collector, mended.wants))
    assert_mended(central, owner, collector)


@pytest.mark.parametrize(
    "damage", ["a root", "a line", "root and line", "a line is gone", "a record", "a line too many"]
)
def test_f43_what_the_owner_changed_without_capture_is_a_change(nodes: tuple[Central, Site, Site], damage: str) -> None:
    central, owner, collector = nodes
    owner.behind(*DAMAGE[damage])
    there = rows(owner)
    mended = owner.sweep()
    assert mended.queued and not mended.put_aside and not mended.wants
    assert_mended(central, owner, collector)
    assert rows(central) == there


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE item SET name = 'new' WHERE id = 'item-0'",
        "INSERT INTO item (id, name, unit_id) VALUES ('n', 'n', 'each')",
    ],
)
def test_f43_what_was_changed_of_central_data_goes_to_all(nodes: tuple[Central, Site, Site], statement: str) -> None:
    central, owner, collector = nodes
    central.behind(statement)
    there = rows(central)
    assert central.sweep() == Mended(queued=1)
    assert_mended(central, owner, collector)
    assert rows(owner) == there


def test_f43_central_data_that_are_gone_without_a_delete_are_deleted_nowhere(nodes: tuple[Central, Site, Site]) -> None:
    central, owner, _ = nodes
    central.behind("DELETE FROM item WHERE id = 'item-4'")
    assert central.sweep() == Mended(put_aside=1)
    assert central.sweep() == Mended()
    assert synchronise(central, owner).in_agreement and owner.count("item", "id = 'item-4'") == 1
    (record,) = central.read(kept_aside)["kept_aside_records"]
    assert record["code"] == "UNCAPTURED" and "item item-4 was deleted without being captured" in record["sentence"]


def test_f43_what_is_damaged_is_passed_on_to_nobody(nodes: tuple[Central, Site, Site], tmp_path: Path) -> None:
    central, owner, _ = nodes
    central.behind(*DAMAGE["root and line"])
    central.sweep()
    newcomer = central.add(tmp_path, 4)
    central.collect(owner.store, newcomer)
    assert not synchronise(central, newcomer).in_agreement
    assert newcomer.count("stock_line") == 1 and not newcomer.count("invoice") and not newcomer.count("invoice_line")
    newcomer.apply(central.wanted(newcomer, [("invoice", "i")]))
    assert not newcomer.count("invoice")
    assert_mended(central, owner, newcomer)


@pytest.mark.parametrize("damage", ["a root", "a line", "a line is gone", "the root is gone"])
def test_f43_a_part_of_a_document_does_not_mend_it(nodes: tuple[Central, Site, Site], damage: str) -> None:
    """The owner has changed one line meanwhile; what comes of that is answered with the wish for the whole."""
    central, owner, collector = nodes
    central.behind(*DAMAGE[damage])
    central.sweep()
    owner.execute("UPDATE invoice_line SET batch = 'edited' WHERE id = 'i/b'")
    connect(central, owner)
    assert len(push(central, owner)) == 2
    assert not central.count("sync_want")
    assert_mended(central, owner, collector)


def test_f43_the_owner_may_delete_what_is_damaged(nodes: tuple[Central, Site, Site]) -> None:
    central, owner, collector = nodes
    central.behind(*DAMAGE["root and line"])
    central.sweep()
    owner.execute("DELETE FROM invoice WHERE id = 'i'")
    assert_mended(central, owner, collector)
    assert not central.count("invoice") and not central.count("invoice_line")


def test_f43_status_tells_what_was_found(nodes: tuple[Central, Site, Site]) -> None:
    central, _, _ = nodes
    central.behind(*DAMAGE["a record"])
    central.sweep()
    status = central.read(lambda c: read_status(c, "central", set(), True, None))
    assert (status["kept_aside"], status["asked_for"], status["in_agreement"]) == (1, 1, False)
    assert "stock_line s was changed without being captured" in status["kept_aside_records"][0]["sentence"]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["central", "collector"]), st.sampled_from(sorted(DAMAGE))), max_size=6))
def test_f43_any_damage_is_mended(made: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        build: Callable[[Path], tuple[Central, Site, Site]] = agreeing_nodes.__wrapped__  # type: ignore[attr-defined]
        central, owner, collector = build(Path(folder))
        for node, damage in made:
            try:
                (central if node == "central" else collector).behind(*DAMAGE[damage])
            except Refused as error:  # inserted twice
                assert "PRIMARYKEY" in error.what
        for damaged in (central, collector):
            damaged.sweep()
        assert_mended(central, owner, collector)

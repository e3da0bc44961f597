"""Required references: the central holds a document until they are here; a site applies it as it is (F26)."""

from itertools import permutations
from pathlib import Path

import pytest

from tests.partners import Central, Site, checkpoint, connect, pull, push, synchronise

ITEM = "INSERT INTO item (id, name, unit_id) VALUES ('item-9', 'late', 'each')"
NAME = "INSERT INTO name (id, name) VALUES ('name-9', 'late')"
EVENTS = ("stock", "invoice", "item arrives", "item goes", "name arrives")
ORDERS = [order for order in permutations(EVENTS) if order.index("item arrives") < order.index("item goes")]
WAITS = {"stock": {("item", "item-9")}, "invoice": {("item", "item-9"), ("name", "name-9")}}


def two_nodes(folder: Path) -> tuple[Central, Site]:
    central = Central(folder / "node-1.db")
    site = central.add(folder, 2)
    connect(central, site)
    pull(central, site)
    return central, site


def happen(central: Central, site: Site, event: str) -> None:
    match event:
        case "stock":
            site.put_stock("s", "b", "item-9")
            push(central, site)
        case "invoice":
            site.put_invoice("i", ["a", "b"])
            site.execute("UPDATE invoice SET name_id = 'name-9'")
            site.execute("UPDATE invoice_line SET item_id = 'item-9' WHERE id = 'i/b'")
            push(central, site)
        case "item arrives":
            central.execute(ITEM)
        case "item goes":
            central.execute("DELETE FROM item WHERE id = 'item-9'")
        case "name arrives":
            central.execute(NAME)


@pytest.mark.parametrize("is_routed_between", [True, False], ids=["routed at once", "routed late"])
@pytest.mark.parametrize("order", ORDERS, ids=", ".join)
def test_f26_a_document_waits_for_what_it_requires_and_no_longer(
    tmp_path: Path, order: tuple[str, ...], is_routed_between: bool
) -> None:
    """In every order of the arrivals; an item that was deleted meanwhile counts as present."""
    central, site = two_nodes(tmp_path)
    arrived: set[tuple[str, str]] = set()
    for event in order:
        happen(central, site, event)
        if is_routed_between:
            central.route()
        arrived |= {("item", "item-9")} if event == "item arrives" else set()
        arrived |= {("name", "name-9")} if event == "name arrives" else set()
        for table, record_id, waits_table, waits_id, told in central.execute(
            "SELECT table_name, id, waits_table, waits_id, sentence FROM sync_held"
        ):
            assert (waits_table, waits_id) in WAITS["stock" if table == "stock_line" else "invoice"]
            assert (waits_table, waits_id) not in arrived or not is_routed_between, "it waits for what is here"
            assert f"{table} {record_id}" in told and f"{waits_table} {waits_id}" in told
    central.route()
    assert not central.count("sync_held")
    report = synchronise(central, site)
    assert report.in_agreement, report
    for table in ("stock_line", "invoice", "invoice_line"):
        assert site.rows(table) == central.rows(table) != set()


@pytest.mark.parametrize("deleted", [["name"]], ids=", ".join)
@pytest.mark.parametrize("is_known_there", [True, False], ids=["known before", "never known"])
def test_f26_a_site_applies_what_refers_to_nothing(tmp_path: Path, deleted: list[str], is_known_there: bool) -> None:
    """The referent went at the primary before its use arrived there, so a site that joins later never gets it: the
    documents come as they are. A site that had it keeps it, hidden (F36)."""
    central, site = two_nodes(tmp_path)
    other = central.add(tmp_path, 3)
    if is_known_there:
        synchronise(central, other)
    site.put_stock("s")
    site.put_invoice("i", ["a", "b"])
    for record_id in deleted:
        central.execute(f"DELETE FROM {record_id.partition('-')[0]} WHERE id = ?", record_id)
    central.route()
    push(central, site)
    central.collect(site.store, other)
    report = synchronise(central, other)
    assert report.in_agreement, report
    for table in ("stock_line", "invoice", "invoice_line"):
        assert other.rows(table) == site.rows(table) != set()
    assert not other.count("sync_held")
    for gone in deleted:
        assert other.count(gone.partition("-")[0], f"id = '{gone}'") == is_known_there
        assert other.count("sync_hidden", f"id = '{gone}' AND why = 'not_visible'") == is_known_there


def test_f26_what_was_used_offline_and_deleted_meanwhile_is_taken(tmp_path: Path) -> None:
    """The primary has deleted the item; the site that has not heard of it yet goes on using it, and hears of it."""
    central, site = two_nodes(tmp_path)
    central.execute("DELETE FROM item WHERE id = 'item-1'")
    central.route()
    site.put_stock("s", "b", "item-1")
    assert not [told for told in push(central, site) if told.outcomes]
    pull(central, site)
    site.put_stock("s2", "b", "item-1")
    assert synchronise(central, site).in_agreement
    assert central.count("stock_line", "item_id = 'item-1'") == 2
    assert checkpoint(central, site) is not None


@pytest.mark.parametrize("is_there_before", [True, False], ids=["the note goes first", "they go together"])
def test_f26_what_came_and_went_before_it_was_ever_sent_is_not_waited_for(
    tmp_path: Path, is_there_before: bool
) -> None:
    central, site = two_nodes(tmp_path)
    site.put_invoice("i", ["a"])
    note = "INSERT INTO transaction_note (id, store_id, invoice_id) VALUES ('n', ?, 'i')"
    site.execute(note, site.store)
    site.execute("DELETE FROM invoice WHERE id = 'i'")
    if is_there_before:
        site.execute("UPDATE sync_outbox SET queued_at = 0 WHERE table_name = 'transaction_note'")
        site.cut((1, 1 << 20))
    push(central, site)
    assert central.rows("transaction_note") == site.rows("transaction_note")
    assert (central.count("sync_held"), central.count("invoice"), central.count("invoice_line")) == (0, 0, 0)
    assert synchronise(central, site).in_agreement


def test_f26_what_came_and_went_and_nobody_may_wait_for_is_not_told(tmp_path: Path) -> None:
    _, site = two_nodes(tmp_path)
    site.put_stock("s")
    site.execute("DELETE FROM stock_line WHERE id = 's'")
    assert site.cut() is None

"""Programs with older and newer catalogues work together: fields that one does not know come back whole, records of
tables that one does not know wait, and are there after the upgrade (law 13, F45)."""

import sqlite3
from functools import partial
from pathlib import Path

import pytest
from packhorse.catalogue.v1 import options_pb2

from central_node.storage.copies import administering
from central_node.storage.roster import note_positions
from central_node.storage.steps import refresh_topology
from engine.catalogue.model import Catalogue
from engine.storage.outbox import waiting_for_upgrade
from field_lab.core_catalogue import core_catalogue
from tests.engine.catalogue.dynamic import ID, STORE, central, changed_catalogue, field, message
from tests.partners import Central, Site, checkpoint, connect, pull, push, synchronise

OLD = core_catalogue()
PARENT = options_pb2.TableOptions(name="invoice_note", kind=STORE, parent_column="invoice_id")
OWNED = options_pb2.TableOptions(name="fridge", kind=STORE, store_column="store_id")
TABLES = (
    message("Fridge", OWNED, ID, field("store_id", 2, refers_to="store"), field("name", 3)),
    message("InvoiceNote", PARENT, ID, field("invoice_id", 2, refers_to="invoice", required=True), field("text", 3)),
    message("Vaccine", central("vaccine"), ID, field("name", 2)),
)
NEW = changed_catalogue(added=[field("colour", 1_000)], tables=TABLES)
NEW_TABLES = ("fridge", "invoice_note", "vaccine")
GREEN = ("stock_line", "invoice", "invoice_line")
WRITES, READS = 2, 3


def country(
    folder: Path, of_central: Catalogue, of_writer: Catalogue, of_reader: Catalogue
) -> tuple[Central, Site, Site]:
    """A site that writes and one that collects its store."""
    node = Central(folder / "node-1.db", of_central)
    writer, reader = node.add(folder, WRITES, of_writer), node.add(folder, READS, of_reader)
    node.collect(writer.store, reader)
    for site in (writer, reader):
        agree(node, site)
    return node, writer, reader


def agree(node: Central, *sites: Site) -> None:
    for _ in range(2):
        for site in sites:
            report = synchronise(node, site)
    assert report.in_agreement and report.comparable, report


def write_new(site: Site, name: str) -> None:
    """A document with a line of a new table, and a record of another new one."""
    site.put_invoice(name, ["a"])
    site.execute("INSERT INTO invoice_note (id, invoice_id, text) VALUES (?, ?, 'x')", f"{name}/note", name)
    site.execute("INSERT INTO fridge (id, store_id, name) VALUES (?, ?, 'f')", f"fridge of {name}", site.store)


def have_the_same(
    node: Central, *sites: Site, tables: tuple[str, ...] = (*NEW_TABLES, "invoice", "invoice_line")
) -> None:
    for site in sites:
        for table in tables:
            assert site.rows(table) == node.rows(table), table


# --- tables -----------------------------------------------------------------------------------------------------------


def test_f45_what_the_central_has_no_table_for_waits_and_blocks_nothing(tmp_path: Path) -> None:
    node, writer, reader = country(tmp_path, OLD, NEW, OLD)
    write_new(writer, "i")
    writer.put_stock("s")
    agree(node, writer)
    assert writer.read(waiting_for_upgrade) == 2 and writer.count("sync_outbox") == 2
    assert node.count("invoice") == node.count("invoice_line") == node.count("stock_line") == 1
    writer.execute("UPDATE invoice SET comment = 'edited' WHERE id = 'i'")
    write_new(writer, "gone")
    agree(node, writer)
    writer.execute("DELETE FROM invoice WHERE id = 'gone'")
    agree(node, writer, reader)
    assert node.count("invoice") == reader.count("invoice") == 1 and not node.count("sync_held")
    assert writer.read(waiting_for_upgrade) == 4
    node.upgrade(NEW)
    agree(node, writer)
    assert not writer.count("sync_outbox") and not writer.read(waiting_for_upgrade)
    reader.upgrade(NEW)
    agree(node, writer, reader)
    have_the_same(node, writer, reader)
    assert node.count("fridge") == 2 and node.count("invoice_note") == 1


def upgraded_reader(folder: Path, documents: int) -> tuple[Central, Site, Site]:
    """The reader's program is replaced after it has passed documents with lines that it had no table for."""
    node, writer, reader = country(folder, NEW, NEW, OLD)
    for number in range(documents):
        write_new(writer, f"i{number}")
    node.execute("INSERT INTO vaccine (id, name) VALUES ('v', 'v')")
    agree(node, writer, reader)
    assert reader.count("invoice") == documents
    reader.upgrade(NEW)
    return node, writer, reader


def pages(node: Central, reader: Site, records: int) -> list[tuple[str, int]]:
    """Reads page by page, each in a session of its own; returns (table that was asked for, records) of each."""
    told: list[tuple[str, int]] = []
    while True:
        connect(node, reader)
        body, cursors = node.pull_body(reader, records)
        if not body.sections and not body.subscriptions:
            return told
        reader.apply(body)
        node.write(partial(note_positions, site=READS, cursors=list(cursors.values())))
        told += [(s.table, sum(len(d.records) for d in s.documents)) for s in body.sections]


@pytest.mark.parametrize("records", [1, 3, 500])
def test_f45_after_its_upgrade_a_site_gets_exactly_what_it_has_passed(tmp_path: Path, records: int) -> None:
    node, writer, reader = upgraded_reader(tmp_path, 7)
    told = pages(node, reader, records)
    assert {table for table, _ in told} == set(NEW_TABLES)
    assert sum(count for _, count in told) == 7 + 7 + 1, "and nothing twice, though every page had its own session"
    assert not node.count("central_backfill")
    agree(node, writer, reader)
    have_the_same(node, writer, reader)


def test_f45_there_is_no_checkpoint_before_everything_was_sent_and_then_the_new_tables_are_compared(
    tmp_path: Path,
) -> None:
    node, _, reader = upgraded_reader(tmp_path, 3)
    connect(node, reader)
    assert checkpoint(node, reader) is None
    pull(node, reader)
    told = checkpoint(node, reader)
    assert told is not None
    compared = {digest.table: digest.count for feed in told.feeds for digest in feed.digests}
    assert compared["fridge"] == 3 and compared["vaccine"] == 1
    assert reader.report(told).in_agreement
    reader.execute("UPDATE sync_digest SET count = count + 1 WHERE table_name = 'fridge'")
    assert reader.report(told).differing == [f"store/store-{WRITES}"]


def test_f45_edits_during_a_backfill_arrive_once_and_last(tmp_path: Path) -> None:
    node, writer, reader = upgraded_reader(tmp_path, 6)
    for number in range(6):
        connect(node, reader)
        body, cursors = node.pull_body(reader, 1)
        reader.apply(body)
        node.write(partial(note_positions, site=READS, cursors=list(cursors.values())))
        writer.execute(f"UPDATE fridge SET name = 'edit {number}' WHERE id = 'fridge of i{number}'")
        writer.execute(f"DELETE FROM fridge WHERE id = 'fridge of i{5 - number}'")
        connect(node, writer)
        push(node, writer)
    agree(node, writer, reader)
    have_the_same(node, writer, reader)
    assert not node.count("central_backfill")


def test_f45_a_subscription_that_begins_after_the_upgrade_needs_no_backfill(tmp_path: Path) -> None:
    node, writer, reader = upgraded_reader(tmp_path, 3)
    connect(node, reader)
    assert node.count("central_backfill") == 3
    node.execute("UPDATE central_subscription SET generation = generation + 1000 WHERE site = ?", READS)
    agree(node, writer, reader)
    have_the_same(node, writer, reader)


# --- fields -----------------------------------------------------------------------------------------------------------


def test_f45_fields_that_the_central_does_not_know_go_through_it(tmp_path: Path) -> None:
    node, writer, reader = country(tmp_path, OLD, NEW, NEW)
    writer.put_stock("s")
    writer.execute("UPDATE stock_line SET colour = 'green'")
    agree(node, writer, reader)
    assert (
        reader.rows("stock_line") == writer.rows("stock_line") and reader.count("stock_line", "colour = 'green'") == 1
    )
    node.upgrade(NEW)
    agree(node, writer, reader)
    assert node.rows("stock_line") == writer.rows("stock_line")


def test_f45_an_older_site_that_edits_loses_no_field_of_a_newer_one(tmp_path: Path) -> None:
    """The store moves to a site with an older program."""
    node, writer, reader = country(tmp_path, OLD, NEW, NEW)
    writer.put_stock("s")
    writer.put_invoice("i", ["a"])
    for table in GREEN:
        writer.execute(f"UPDATE {table} SET colour = 'green'")
    older = node.add(tmp_path, 4, OLD)
    agree(node, writer, reader, older)
    node.write(partial(move, store=writer.store, to=4))
    node.topology = node.write(lambda c: refresh_topology(c, OLD))
    node.route()
    agree(node, older)
    older.execute("UPDATE stock_line SET batch = 'older'")
    older.execute(
        "REPLACE INTO invoice (id, store_id, name_id, comment) VALUES ('i', ?, 'name', 'older')", writer.store
    )
    older.execute("UPDATE invoice_line SET note = 'older'")
    agree(node, older, reader)
    for table in GREEN:
        assert reader.count(table, "colour = 'green'") == 1, table
    assert reader.count("stock_line", "batch = 'older'") == reader.count("invoice", "comment = 'older'") == 1
    older.upgrade(NEW)
    agree(node, older)
    for table in GREEN:
        assert older.rows(table) == reader.rows(table)


def move(connection: sqlite3.Connection, store: str, to: int) -> None:
    """Another site has the active copy from now on."""
    with administering(connection):
        connection.execute("DELETE FROM store_copy WHERE store_id = ? AND type = 'active'", (store,))
        connection.execute(
            "INSERT INTO store_copy (id, store_id, site, type, term, term_id) VALUES (?, ?, ?, 'active', 2, 22)",
            (f"{store}@{to}", store, to),
        )

"""A store moves only where the central can know that it has no records: what a site keeps to itself is not here."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.roster import note_report
from central_node.storage.steps import refresh_topology
from central_node.storage.topology import assign_store, include_transactions, set_sync_with
from engine.errors import Code, Refused
from engine.rules.copies import SyncWith
from engine.rules.routing import site_scope
from engine.rules.topology import CENTRAL_SITE, CopyType
from engine.storage.configuration import read_topology
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import NOW, serving_central
from tests.partners import central_and_two_sites, connect, push, synchronise

STORE = "new"


@pytest.fixture(name="central")
def central_with_an_empty_store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Its two sites have said that they agree and that nothing waits."""
    connection = serving_central(tmp_path / "node.db")
    for site in (2, 3):
        note_report(connection, site, session_pb2.CheckpointReport(in_agreement=True), NOW)
    connection.execute("INSERT INTO store (id, name, mode) VALUES (?, ?, 'dispensary')", (STORE, STORE))
    yield connection
    connection.close()


def assign(connection: sqlite3.Connection, site: int, central: CopyType) -> None:
    assign_store(connection, core_catalogue(), read_topology(connection), STORE, site, central)


def test_a_store_that_is_collected_moves(central: sqlite3.Connection) -> None:
    assign(central, 2, CopyType.COLLECTOR)
    assign(central, 3, CopyType.COLLECTOR)
    assert read_topology(central).active_copies[STORE].site == 3


@pytest.mark.parametrize("kept", ["everything", "transactions"])
def test_a_store_of_which_a_site_keeps_something_to_itself_does_not_move(
    central: sqlite3.Connection, kept: str
) -> None:
    assign(central, 2, CopyType.TRANSFER if kept == "everything" else CopyType.COLLECTOR)
    if kept == "transactions":
        include_transactions(central, STORE, included=False)
    with pytest.raises(Refused, match="may have records of it that are not here yet") as refused:
        assign(central, 3, CopyType.COLLECTOR)
    assert refused.value.code is Code.STORE_HAS_RECORDS
    assert read_topology(central).active_copies[STORE].site == 2


def test_a_store_does_not_move_while_documents_of_its_site_are_held(tmp_path: Path) -> None:
    """They may be its own: taken later, they would find that another site has the right to them."""
    central, site, other = central_and_two_sites(tmp_path)
    for node in (site, other):
        synchronise(central, node)
    site.put_stock("s", item="not there yet")
    push(central, site)
    central.execute("UPDATE central_site SET agreed = 1, waiting_to_push = 0")  # as its last report had it

    def move() -> None:
        central.write(
            lambda c: assign_store(c, core_catalogue(), read_topology(c), site.store, other.number, CopyType.COLLECTOR)
        )

    with pytest.raises(Refused, match="documents are held here") as refused:
        move()
    assert refused.value.code is Code.STORE_HAS_RECORDS
    site.execute("DELETE FROM stock_line")
    push(central, site)
    assert central.count("sync_held") == 0
    move()


@pytest.mark.parametrize(
    "stop",
    [
        lambda c, store: set_sync_with(c, core_catalogue(), store, CENTRAL_SITE, SyncWith.TRANSFER),
        lambda c, store: assign_store(c, core_catalogue(), read_topology(c), store, 2, CopyType.TRANSFER),
    ],
    ids=["sync-with", "assign"],
)
def test_the_central_goes_on_collecting_what_it_has_begun_to_collect(
    central: sqlite3.Connection, stop: Callable[[sqlite3.Connection, str], object]
) -> None:
    """Otherwise it would show, and send to collectors, what grows older and older, with everybody in agreement."""
    assign(central, 2, CopyType.COLLECTOR)
    collected = next(store for store, copy in read_topology(central).active_copies.items() if copy.site == 2)
    assert central.execute("SELECT 1 FROM stock_line WHERE store_id = ?", (collected,)).fetchone()
    before = list(central.iterdump())
    with pytest.raises(Refused, match=r"has records of store .* would not be kept up to date") as refused:
        stop(central, collected)
    assert refused.value.code is Code.COPY_REQUIRED and list(central.iterdump()) == before
    stop(central, STORE)
    assert read_topology(central).copy_type(STORE, CENTRAL_SITE) is CopyType.TRANSFER


def test_f07_what_was_written_before_the_scopes_of_a_store_came_goes_when_it_moves(tmp_path: Path) -> None:
    """The right to a store comes with Welcome, its scopes with the first pages: between the two a link may be cut."""
    central, site, other = central_and_two_sites(tmp_path)

    def assign_to(number: int) -> None:
        topology = central.read(read_topology)
        central.write(lambda c: assign_store(c, core_catalogue(), topology, STORE, number, CopyType.COLLECTOR))
        central.write(lambda c: refresh_topology(c, core_catalogue()))
        central.route()

    central.execute("INSERT INTO store (id, name, name_id, mode) VALUES (?, ?, 'name', 'store')", STORE, STORE)
    assign_to(2)
    connect(central, site)
    sections = [section for section in central.pull_body(site)[0].sections if section.scope == site_scope(2)]
    site.apply(document_pb2.PullBody(sections=sections))
    site.execute("INSERT INTO patient (id, home_store_id) VALUES ('one', ?)", STORE)
    push(central, site)
    for node in (site, other):
        told = session_pb2.CheckpointReport(in_agreement=True)
        central.write(lambda c, node=node, told=told: note_report(c, node.number, told, NOW))  # type: ignore[misc]
    assign_to(3)
    for node in (site, other):
        report = synchronise(central, node)
        assert report.in_agreement
        assert node.count("patient") == (1 if node is other else 0)
        assert not node.count("sync_left") and not node.count("sync_hidden")
        assert not node.count("sync_scope", "generation < 0")

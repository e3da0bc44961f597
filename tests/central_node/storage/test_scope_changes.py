"""What a site gets and lets go when it becomes more or less than it was, and where records go that follow others."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from packhorse.sync.v1 import document_pb2

from central_node.storage.steps import refresh_topology
from central_node.storage.stores import add_store, add_visibility
from central_node.storage.topology import assign_store
from engine.catalogue.descriptors import catalogue
from engine.rules.topology import CENTRAL_SITE, CopyType
from engine.storage.configuration import read_topology
from engine.storage.eviction import Place, evict_some, reach_checkpoint
from field_lab.core_catalogue import core_catalogue
from site_node.storage.scope_changes import scope_changes
from tests.partners import NOW, Central, Site, central_and_two_sites, connect, push, synchronise

STORE = "store-2"
INSERT_STOCK = "INSERT INTO stock_line (id, store_id) VALUES (?, ?)"


@pytest.fixture(name="nodes")
def nodes_of_a_test(tmp_path: Path) -> tuple[Central, Site, Site]:
    return central_and_two_sites(tmp_path)


def merges(node: Central | Site) -> set[str]:
    return {row[0] for row in node.execute("SELECT id FROM patient_merge")}


def test_the_merging_of_two_patients_goes_wherever_one_of_them_does(tmp_path: Path) -> None:
    """Specification, "Merging of patients and prescribers": to every site where the patient is visible."""
    central = Central(tmp_path / "node-1.db", catalogue())
    home, visiting, other, nobody = (central.add(tmp_path, number, catalogue()) for number in (2, 3, 4, 5))
    sites = (home, visiting, other, nobody)

    def agree() -> None:
        for _ in range(2):
            reports = [synchronise(central, site) for site in sites]
            central.route()
        assert all(report.in_agreement for report in reports)

    agree()
    for name in ("stays", "goes"):
        home.execute("INSERT INTO patient (id, home_store_id) VALUES (?, ?)", name, home.store)
    for merge, gone in (("at-home", "goes"), ("of-another", "elsewhere")):
        values = (merge, home.store, "stays", gone)
        home.execute(
            "INSERT INTO patient_merge (id, home_store_id, kept_patient_id, merged_patient_id) VALUES (?, ?, ?, ?)",
            *values,
        )
    agree()
    assert [merges(site) for site in sites] == [{"at-home", "of-another"}, set(), set(), set()]
    # The other patient arrives later, from a store of another site.
    other.execute("INSERT INTO patient (id, home_store_id) VALUES ('elsewhere', ?)", other.store)
    agree()
    assert [merges(site) for site in sites] == [{"at-home", "of-another"}, set(), {"of-another"}, set()]
    central.write(lambda c: add_visibility(c, central.catalogue, "patient", "goes", visiting.store))
    central.route()
    agree()
    assert [merges(site) for site in sites] == [{"at-home", "of-another"}, {"at-home"}, {"of-another"}, set()]
    central.execute("DELETE FROM patient_visibility WHERE patient_id = 'goes'")
    central.route()
    agree()
    assert [merges(site) for site in sites] == [{"at-home", "of-another"}, set(), {"of-another"}, set()]


def test_a_merging_follows_a_patient_that_the_central_enters_later(tmp_path: Path) -> None:
    central = Central(tmp_path / "node-1.db", catalogue())
    home, reader = (central.add(tmp_path, number, catalogue()) for number in (2, 3))
    central.write(lambda c: add_store(c, "clinic of the central", "", "dispensary", "clinic"))
    central.write(
        lambda c: assign_store(c, central.catalogue, read_topology(c), "clinic", CENTRAL_SITE, CopyType.COLLECTOR)
    )
    central.topology = central.write(lambda c: refresh_topology(c, central.catalogue))
    central.route()
    central.collect("clinic", reader)
    synchronise(central, home)
    home.execute("INSERT INTO patient (id, home_store_id) VALUES ('stays', ?)", home.store)
    merge = "INSERT INTO patient_merge (id, home_store_id, kept_patient_id, merged_patient_id) VALUES (?, ?, ?, ?)"
    home.execute(merge, "m", home.store, "stays", "x")
    for node in (home, reader):
        assert synchronise(central, node).in_agreement
    assert merges(reader) == set()
    central.execute("INSERT INTO patient (id, home_store_id) VALUES ('x', 'clinic')")
    central.route()
    assert synchronise(central, reader).in_agreement
    assert merges(reader) == {"m"} and reader.count("patient") == 1


def test_a_report_of_a_dashboard_goes_to_the_site_that_shows_it(tmp_path: Path) -> None:
    central = Central(tmp_path / "node-1.db", catalogue())
    shows, other = central.add(tmp_path, 2, catalogue()), central.add(tmp_path, 3, catalogue())
    central.execute("INSERT INTO dashboard_report (id, site, title) VALUES ('d', 2, 'Stock')")
    central.route()
    assert all(synchronise(central, site).in_agreement for site in (shows, other))
    assert (shows.count("dashboard_report"), other.count("dashboard_report")) == (1, 0)
    central.execute("DELETE FROM dashboard_report")
    central.route()
    assert all(synchronise(central, site).in_agreement for site in (shows, other))
    assert shows.count("dashboard_report") == 0


def known_of(site: Site) -> set[tuple[str, str]]:
    return set(site.execute("SELECT table_name, id FROM sync_membership WHERE state = 0"))


def content_of(site: Site) -> dict[str, set[Any]]:
    return {table.name: site.rows(table.name) for table in core_catalogue().synchronised}


def pages(central: Central, site: Site, records: int = 500) -> Iterator[document_pb2.PullBody]:
    """Fetches what is in the feeds of a site, page by page; nothing of what follows a checkpoint."""
    while True:
        body, cursors = central.pull_body(site, records)
        if not body.sections and not body.subscriptions:
            return
        site.apply(body)
        central.cursors[site.number], central.changes[site.number] = cursors, []
        yield body


def fetched(central: Central, site: Site) -> list[tuple[str, str]]:
    """The records that a session brings."""
    connect(central, site)
    central.route()
    return [
        (record.table or document.table, record.id or document.id)
        for body in pages(central, site)
        for section in body.sections
        for document in section.documents
        for record in document.records
    ]


@pytest.mark.parametrize("what", ["a collector copy", "the primary"])
def test_a_site_gets_exactly_what_it_lacks_and_lets_go_what_it_loses(
    nodes: tuple[Central, Site, Site], what: str
) -> None:
    central, site, other = nodes
    site.put_stock("s")
    site.put_invoice("i", ["a", "b"])
    site.execute("INSERT INTO patient (id, home_store_id) VALUES ('p', ?)", STORE)
    central.execute("INSERT INTO diagnosis (id, code) VALUES ('d', 'A00')")
    central.execute("INSERT INTO item_visibility (id, store_id, item_id) VALUES ('v', ?, 'item-1')", STORE)
    central.route()
    for _ in range(2):
        for node in (site, other):
            assert synchronise(central, node).in_agreement
    before, rows = known_of(other), content_of(other)
    if what == "the primary":
        central.make_primary(other.number, term=2)
        expected = {("patient", "p"), ("diagnosis", "d"), ("item_visibility", "v")}
    else:
        central.collect(STORE, other)
        expected = {
            ("stock_line", "s"),
            ("invoice", "i"),
            ("invoice_line", "i/a"),
            ("invoice_line", "i/b"),
            ("patient", "p"),
        }
    brought = fetched(central, other)
    configuration = {"site", "store_copy", "store", "name_visibility"}
    assert {key for key in brought if key[0] not in configuration} == expected
    assert len(brought) == len(set(brought)) and not set(brought) & (before - {("site", "3")})
    assert known_of(other) == before | set(brought)
    if what == "the primary":
        central.make_primary(CENTRAL_SITE, term=3)
    else:
        central.execute("DELETE FROM name_visibility WHERE store_id = ?", other.store)
        central.route()
    for _ in range(2):
        for node in (site, other):
            assert synchronise(central, node).in_agreement
    assert known_of(other) == before and content_of(other) == rows


# --- progress ---------------------------------------------------------------------------------------------------------

RECORDS, EDITS = 2_400, 3


def told(site: Site) -> tuple[list[str], int, int]:
    """(what `status` says is being fetched, records still to be let go, stock lines that are there)."""
    said = site.read(lambda c: scope_changes(c, site.catalogue))
    return said["fetching"], said["evicting"], site.count("stock_line", f"store_id = '{STORE}'")


def test_progress_is_told_while_a_store_comes_and_goes_and_people_go_on_editing(
    nodes: tuple[Central, Site, Site],
) -> None:
    central, site, other = nodes
    site.write(lambda c: c.executemany(INSERT_STOCK, [(f"s{number}", STORE) for number in range(RECORDS)]))
    for node in (site, other):
        assert synchronise(central, node).in_agreement
    central.collect(STORE, other)
    connect(central, other)
    seen = [told(other)]
    for turn, _ in enumerate(pages(central, other)):
        seen.append(told(other))
        if turn < EDITS:  # what is edited meanwhile comes behind the rest
            site.execute("UPDATE stock_line SET batch = 'edited' WHERE id = ?", f"s{turn}")
            site.put_stock(f"new-{turn}")
            push(central, site)
    there = [records for _, _, records in seen]
    assert there[0] == 0 and there[-1] == RECORDS + EDITS and there == sorted(there) and len(set(there)) > EDITS
    assert all(f"store/{STORE}" in fetching for fetching, _, _ in seen[1:]), "until a checkpoint shows that it is whole"
    assert synchronise(central, other).in_agreement
    assert told(other) == ([], 0, RECORDS + EDITS)

    central.execute("DELETE FROM name_visibility WHERE store_id = ?", other.store)
    central.route()
    connect(central, other)
    goes = [told(other)[1:] for _ in pages(central, other)]
    assert goes == [(RECORDS + EDITS + 1, RECORDS + EDITS)], "with the store's record; nothing goes before a checkpoint"
    going = []
    assert other.write(lambda c: reach_checkpoint(c, looks_at_hidden=True))
    place: Place | None = Place()
    while place is not None:
        place = other.write(partial(evict_some, catalogue=other.catalogue, place=place, now=NOW))
        going.append(told(other)[1:])
        if len(going) == EDITS:
            other.put_stock("own", "edited meanwhile")
    assert len({evicting for evicting, _ in going}) > EDITS and going[-1] == (0, 0)
    assert other.count("stock_line", "id = 'own'") == 1
    assert synchronise(central, other).in_agreement

"""What a site gets and lets go when it becomes more or less than it was, and where records go that follow others."""

from pathlib import Path
from typing import Any

import pytest

from central_node.storage.stores import add_visibility
from engine.catalogue.descriptors import catalogue
from engine.rules.topology import CENTRAL_SITE
from field_lab.core_catalogue import core_catalogue
from tests.partners import Central, Site, central_and_two_sites, connect, synchronise

STORE = "store-2"


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


def fetched(central: Central, site: Site) -> list[tuple[str, str]]:
    """The records that a session brings."""
    connect(central, site)
    central.route()
    found: list[tuple[str, str]] = []
    while True:
        body, cursors = central.pull_body(site)
        if not body.sections and not body.subscriptions:
            return found
        for document in (document for section in body.sections for document in section.documents):
            found += [(record.table or document.table, record.id or document.id) for record in document.records]
        site.apply(body)
        central.cursors[site.number], central.changes[site.number] = cursors, []


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

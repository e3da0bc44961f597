"""Records whose ids are written again, stores that are in use, messages without a scope: who has what afterwards."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from central_node.storage.effects import change_topology
from central_node.storage.steps import refresh_topology
from central_node.storage.stores import STORE_AS_SUBJECT, add_visibility, remove_visibility
from central_node.storage.topology import assign_store, include_transactions
from engine.limits import ID_BYTES_MAX
from engine.rules.topology import CENTRAL_SITE, CopyType
from engine.storage.configuration import read_topology
from engine.storage.work import Processor
from tests.partners import Central, Site, push, synchronise

HOME, OTHER, VISITING = 2, 3, 4
STORE = f"store-{HOME}"


@pytest.fixture(name="country")
def country_of_a_test(tmp_path: Path) -> tuple[Central, Site, Site, Site]:
    central = Central(tmp_path / "node-1.db")
    sites = [central.add(tmp_path, number) for number in (HOME, OTHER, VISITING)]
    for site in sites:
        synchronise(central, site)
    return (central, *sites)  # type: ignore[return-value]


def agree(central: Central, *sites: Site) -> None:
    for _ in range(2):
        reports = [synchronise(central, site) for site in sites]
        central.topology = central.read(read_topology)
        central.route()
    assert all(report.in_agreement for report in reports)


def administer(central: Central, change: Any) -> None:
    central.write(lambda c: change_topology(c, central.catalogue, change, dry_run=False))
    central.topology = central.write(lambda c: refresh_topology(c, central.catalogue))
    central.route()


@pytest.mark.parametrize("is_known", [False, True], ids=["never sent", "synchronised"])
def test_a_patient_that_waits_to_be_sent_does_not_come_back_under_another_home(
    country: tuple[Central, Site, Site, Site], is_known: bool
) -> None:
    """The central could not tell under which right which of the two was written. Once the delete is acknowledged it
    may."""
    central, home, *_ = country
    central.execute("INSERT INTO name (id, name, type) VALUES ('second', 'second', 'store')")
    central.execute("INSERT INTO store (id, name, name_id, mode) VALUES ('second', 'second', 'second', 'store')")
    central.route()
    administer(
        central,
        lambda c: assign_store(c, central.catalogue, read_topology(c), "second", HOME, CopyType.COLLECTOR),
    )
    agree(central, home)
    insert = "INSERT INTO patient (id, home_store_id) VALUES ('p', ?)"
    home.execute(insert, STORE)
    if is_known:
        agree(central, home)
    home.execute("DELETE FROM patient")
    with pytest.raises(sqlite3.IntegrityError, match="rule ID_USED"):
        home.execute(insert, "second")
    agree(central, home)
    home.execute(insert, "second")
    agree(central, home)
    assert central.execute("SELECT id, home_store_id FROM patient") == [("p", "second")]
    assert central.count("sync_held") == 0


@pytest.mark.parametrize("primary", [CENTRAL_SITE, OTHER])
def test_visibility_written_again_for_another_patient_takes_the_first_one_away(
    country: tuple[Central, Site, Site, Site], primary: int
) -> None:
    central, home, other, visiting = country
    home.execute("INSERT INTO patient (id, home_store_id) VALUES ('p', ?), ('q', ?)", STORE, STORE)
    agree(central, home)
    if primary != CENTRAL_SITE:
        central.make_primary(primary, term=2)
    agree(central, *country[1:])
    editor = central if primary == CENTRAL_SITE else other
    visible = "INSERT INTO patient_visibility (id, store_id, patient_id) VALUES ('v', ?, ?)"
    editor.execute(visible, f"store-{VISITING}", "p")
    central.route()
    agree(central, *country[1:])
    assert visiting.rows("patient") and {row[0] for row in visiting.rows("patient")} == {"p"}
    for store, patients in ((f"store-{VISITING}", {"q"}), (STORE, set[str]())):

        def again(connection: sqlite3.Connection, store: str = store) -> None:
            connection.execute("DELETE FROM patient_visibility")
            connection.execute(visible, (store, "q"))

        editor.write(again)
        central.route()
        agree(central, *country[1:])
        assert {row[0] for row in visiting.rows("patient")} == patients
        assert central.count("sync_held") == 0


def test_a_store_that_has_copies_or_data_is_not_deleted(country: tuple[Central, Site, Site, Site]) -> None:
    central, home, other, _ = country
    home.put_stock("s")
    agree(central, home)
    with pytest.raises(sqlite3.IntegrityError, match="rule STORE_STAYS"):
        central.execute("DELETE FROM store WHERE id = ?", STORE)
    central.make_primary(OTHER, term=2)
    agree(central, *country[1:])
    other.behind(f"DELETE FROM store_copy WHERE store_id = '{STORE}'")  # so that the primary does not see the use
    other.execute("DELETE FROM store WHERE id = ?", STORE)
    push(central, other)
    assert central.count("store", f"id = '{STORE}'") == 1
    agree(central, home, other)
    assert other.count("store", f"id = '{STORE}'") == 1 and home.count("store", f"id = '{STORE}'") == 1


def test_a_message_that_goes_nowhere_stays_with_its_writer_whatever_else_leaves(
    country: tuple[Central, Site, Site, Site],
) -> None:
    central, home, other, _ = country
    home.execute("INSERT INTO message (id, type, to_store_id) VALUES ('to another', 'x', ?)", other.store)
    home.execute("INSERT INTO message (id, type) VALUES ('to nobody', 'x')")
    home.execute("INSERT INTO message (id, type, from_store_id) VALUES ('of the store', 'x', ?)", STORE)
    agree(central, home, other)
    for change in (add_visibility, remove_visibility):
        administer(central, lambda c, do=change: do(c, central.catalogue, STORE_AS_SUBJECT, other.store, STORE))
        agree(central, home, other)
    assert {row[0] for row in home.rows("message")} == {"to another", "to nobody", "of the store"}


def test_what_was_not_collected_is_taken_when_a_primary_at_a_site_changes_the_mode(
    country: tuple[Central, Site, Site, Site],
) -> None:
    central, home, other, _ = country
    administer(central, lambda c: include_transactions(c, STORE, included=False))
    agree(central, home)
    central.make_primary(OTHER, term=2)
    agree(central, *country[1:])

    def becomes(mode: str) -> None:
        other.execute("UPDATE store SET mode = ? WHERE id = ?", mode, STORE)
        for frame in iter(other.cut, None):
            taken = central.take([central.submitted(other, frame)])
            central.topology = taken.topology or central.topology
            other.settle(taken.acknowledgements[0])  # type: ignore[arg-type]
        central.route()

    synchronise(central, other)
    becomes("dispensary")
    home.put_stock("s")
    synchronise(central, home)
    assert central.execute("SELECT code FROM sync_held") == [("NOT_COLLECTED",)]
    synchronise(central, other)
    becomes("store")
    agree(central, other, home)
    assert central.count("stock_line") == 1 and central.count("sync_held") == 0


def test_a_store_with_the_longest_id_has_copies_and_is_visible(country: tuple[Central, Site, Site, Site]) -> None:
    central, home, *_ = country
    long = "s" * ID_BYTES_MAX
    central.execute("INSERT INTO name (id, name, type) VALUES (?1, 'long', 'store')", long)
    central.execute("INSERT INTO store (id, name, name_id, mode) VALUES (?1, 'long', ?1, 'store')", long)
    central.route()
    administer(central, lambda c: add_visibility(c, central.catalogue, STORE_AS_SUBJECT, long, STORE))
    assert central.count("sync_work", f"processor = '{Processor.COPIES}'") == 0
    assert central.topology.copy_type(long, CENTRAL_SITE) is CopyType.TRANSFER
    assert central.topology.copy_type(long, HOME) is CopyType.TRANSFER
    agree(central, home)
    assert home.count("store", "name = 'long'") == 1

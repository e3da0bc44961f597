"""Who edits and who receives when stores move and copies change: F6, F18, F34, F35, driven directly."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from central_node.storage.copies import administering
from central_node.storage.effects import change_topology
from central_node.storage.follow_up import do_follow_up
from central_node.storage.roster import note_positions
from central_node.storage.status import read_status
from central_node.storage.steps import refresh_topology, route_own
from central_node.storage.stores import add_visibility
from central_node.storage.topology import assign_store
from engine.errors import Code
from engine.rules.topology import CENTRAL_SITE, CopyType
from engine.storage.configuration import read_topology
from engine.storage.work import Processor
from tests.partners import (
    Central,
    Site,
    central_and_two_sites,
    checkpoint,
    connect,
    push,
    read_feeds,
    synchronise,
)

STORE = "store-2"


@pytest.fixture(name="nodes")
def nodes_of_a_test(tmp_path: Path) -> tuple[Central, Site, Site]:
    return central_and_two_sites(tmp_path)


def move(central: Central, store: str, number: int) -> None:
    """The right to edit a store goes to another site by force, under the next term: what a command does that moves a
    store with its data."""
    (term,) = central.execute("SELECT max(term) FROM store_copy WHERE store_id = ?", store)[0]

    def change(connection: Any) -> None:
        with administering(connection):
            connection.execute(
                "UPDATE store_copy SET type = 'collector', term = 0, term_id = 0"
                " WHERE store_id = ? AND type = 'active'",
                (store,),
            )
            connection.execute(
                "INSERT OR REPLACE INTO store_copy (id, store_id, site, type, term, term_id)"
                " VALUES (?, ?, ?, 'active', ?, 7)",
                (f"{store}@{number}", store, number, term + 1),
            )

    central.write(change)
    central.topology = central.write(lambda c: refresh_topology(c, central.catalogue))
    central.route()


@contextmanager
def administered(central: Central) -> Iterator[None]:
    """What the commands of the central may write."""
    central.execute("UPDATE sync_flag SET administering = 1")
    yield
    central.execute("UPDATE sync_flag SET administering = 0")


def stock(node: Central | Site) -> dict[str, str]:
    return dict(node.execute("SELECT id, batch FROM stock_line"))


def test_f06_an_edit_keeps_the_term_that_was_in_force_when_it_was_made(nodes: tuple[Central, Site, Site]) -> None:
    """Site 2 edits offline; its store goes to site 3, which edits too, and comes back before site 2 is heard of."""
    central, site, other = nodes
    site.put_stock("s", "agreed")
    for _ in range(2):
        synchronise(central, site)
    site.put_stock("s", "edited in the old term")
    site.put_stock("new", "edited in the old term")
    move(central, STORE, other.number)
    synchronise(central, other)
    assert stock(other) == {"s": "agreed"}
    other.execute("UPDATE stock_line SET batch = 'of site 3' WHERE id = 's'")
    synchronise(central, other)
    move(central, STORE, site.number)
    synchronise(central, site)
    assert stock(central) == {"s": "of site 3"}, "what was edited under the old right overwrites nothing"
    held = central.execute("SELECT id, code FROM sync_held ORDER BY id")
    assert held == [("new", Code.STALE_TERM), ("s", Code.STALE_TERM)]
    assert stock(site) == {"s": "edited in the old term", "new": "edited in the old term"}, "nothing is lost"
    site.put_stock("later", "under the new right")
    push(central, site)
    assert stock(central) == {"s": "of site 3", "later": "under the new right"}


def test_f06_the_lowest_term_of_a_change_that_waits_counts(nodes: tuple[Central, Site, Site]) -> None:
    """An edit under the new right on top of one under the old right does not wash it clean."""
    central, site, other = nodes
    site.put_stock("s", "old right")
    before = site.execute("SELECT term FROM sync_outbox")
    move(central, STORE, other.number)
    move(central, STORE, site.number)
    site.execute("UPDATE sync_authority SET term = term + 2, term_id = 7 WHERE key = ?", STORE)
    site.put_stock("s", "new right")
    assert site.execute("SELECT term FROM sync_outbox") == before


@pytest.mark.parametrize("edit", ["UPDATE patient SET last_name = 'of site 2'", "DELETE FROM patient"])
def test_f06_a_new_owner_goes_on_from_what_its_predecessor_wrote_last(
    nodes: tuple[Central, Site, Site], edit: str
) -> None:
    """It had the patient before, hears of its right first, and has changed nothing: its older version is no answer."""
    central, site, other = nodes
    site.execute("INSERT INTO patient (id, home_store_id, last_name) VALUES ('p', ?, 'agreed')", STORE)
    synchronise(central, site)
    central.execute("INSERT INTO patient_visibility (id, store_id, patient_id) VALUES ('v', ?, 'p')", other.store)
    central.route()
    synchronise(central, other)
    site.execute(edit)
    synchronise(central, site)
    move(central, STORE, other.number)
    synchronise(central, other)
    assert synchronise(central, other).in_agreement
    shown = other.execute("SELECT * FROM patient WHERE id NOT IN (SELECT id FROM sync_hidden)")
    assert site.rows("patient") == central.rows("patient") == set(shown)
    assert other.count("sync_outbox") == 0


def test_f18_a_transfer_copy_receives_the_record_of_the_store_and_nothing_of_its_data(
    nodes: tuple[Central, Site, Site],
) -> None:
    central, site, other = nodes
    site.put_stock("s", "b")
    site.put_invoice("i", ["a", "b"])
    push(central, site)
    central.write(
        lambda c: change_topology(
            c, central.catalogue, lambda d: add_visibility(d, central.catalogue, "store", STORE, other.store), False
        )
    )
    central.topology = central.write(lambda c: refresh_topology(c, central.catalogue))
    central.route()
    assert central.topology.copy_type(STORE, other.number) is CopyType.TRANSFER
    assert synchronise(central, other).in_agreement
    assert other.count("store", f"id = '{STORE}'") == 1
    assert [other.count(table) for table in ("stock_line", "invoice", "invoice_line")] == [0, 0, 0]
    assert other.count("sync_scope", f"name = 'store/{STORE}'") == 0


def test_f18_a_third_site_with_copies_of_two_stores_receives_nothing_of_what_they_trade(
    nodes: tuple[Central, Site, Site], tmp_path: Path
) -> None:
    central, site, other = nodes
    third = central.add(tmp_path, 4)
    for trading in (site, other):
        trading.put_invoice(f"i{trading.number}", ["a"])
        push(central, trading)

    def see_both(connection: Any) -> dict[str, Any]:
        for trading in (site, other):
            add_visibility(connection, central.catalogue, "store", trading.store, third.store)
        return {}

    central.write(lambda c: change_topology(c, central.catalogue, see_both, False))
    central.topology = central.write(lambda c: refresh_topology(c, central.catalogue))
    central.route()
    assert {central.topology.copy_type(node.store, third.number) for node in (site, other)} == {CopyType.TRANSFER}
    assert synchronise(central, third).in_agreement
    assert central.count("invoice") == 2 and third.count("store") == 3
    assert [third.count(table) for table in ("invoice", "invoice_line")] == [0, 0]


def test_f34_a_hello_does_not_grow_with_what_a_site_follows(tmp_path: Path) -> None:
    central = Central(tmp_path / "node-1.db")
    site = central.add(tmp_path, 2)
    synchronise(central, site)
    small = len(site.hello().SerializeToString())

    def more(connection: Any) -> None:
        for number in range(400):
            connection.execute("INSERT INTO store (id, name) VALUES (?, 'x')", (f"more-{number}",))
            add_visibility(connection, central.catalogue, "item", "item-0", site.store)
        for number in range(400):
            topology = read_topology(connection)
            assign_store(
                connection, central.catalogue, topology, f"more-{number}", site.number, CopyType.COLLECTOR
            )  # fmt: skip

    central.write(more)
    central.topology = central.write(lambda c: refresh_topology(c, central.catalogue))
    central.route()
    assert synchronise(central, site).in_agreement
    assert site.hello().position_count > 1_200
    assert len(site.hello().SerializeToString()) <= small + 8
    assert not connect(central, site).send_positions, "the central remembers what it was told"


def test_what_is_routed_to_nobody_is_counted(nodes: tuple[Central, Site, Site]) -> None:
    central, site, _ = nodes

    def counted() -> int:
        return int(central.read(lambda c: read_status(c, "central", set(), True, None))["routed_to_nobody"])

    site.put_stock("s", "b")
    site.execute("INSERT INTO message (id, type) VALUES ('to nobody', 'x'), ('nor that', 'x')")
    site.execute("INSERT INTO message (id, type, to_store_id) VALUES ('to somebody', 'x', 'store-3')")
    push(central, site)
    assert counted() == 2
    move(central, STORE, CENTRAL_SITE)
    central.execute("UPDATE store SET mode = 'dispensary' WHERE id = ?", STORE)
    with administered(central):
        central.execute("UPDATE store_copy SET excludes_transactions = 1 WHERE id = ?", f"{STORE}@{CENTRAL_SITE}")
    central.route()
    assert counted() == 3, "the stock line stays at the central"
    with administered(central):
        central.execute("UPDATE store_copy SET excludes_transactions = 0 WHERE id = ?", f"{STORE}@{CENTRAL_SITE}")
    central.route()
    assert counted() == 2


# --- F35: membership is found again from the present state, in pieces; order does not matter -------------------------

PATIENTS = 450
FEWER = 120


def scopes_of_patients(central: Central) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record_id, scope in central.execute(
        "SELECT m.id, s.name FROM sync_membership AS m JOIN sync_scope AS s USING (scope)"
        " WHERE m.table_name = 'patient' AND m.state = 0"
    ):
        found.setdefault(record_id, set()).add(scope)
    return found


def admit(central: Central, site: Site, patients: int) -> None:
    def insert(connection: Any) -> None:
        connection.executemany(
            "INSERT INTO patient (id, home_store_id) VALUES (?, ?)", [(f"p{n}", STORE) for n in range(patients)]
        )

    site.write(insert)
    push(central, site)


def see(central: Central, other: Site, patients: range) -> None:
    def add(connection: Any) -> None:
        for number in patients:
            add_visibility(connection, central.catalogue, "patient", f"p{number}", other.store)

    central.write(add)


def test_f35_many_that_become_visible_are_routed_in_bounded_pieces(nodes: tuple[Central, Site, Site]) -> None:
    central, site, other = nodes
    admit(central, site, PATIENTS)
    see(central, other, range(PATIENTS))
    while central.count("sync_outbox", "token <> framed_token"):
        central.write(lambda c: route_own(c, central.catalogue, central.topology, central.now))
    waiting = [central.count("sync_work", f"processor = '{Processor.ROUTE}'")]
    connect(central, other)
    while central.write(lambda c: do_follow_up(c, central.catalogue, central.topology))[1]:
        waiting.append(central.count("sync_work", f"processor = '{Processor.ROUTE}'"))
        read_feeds(central, other)
        assert (checkpoint(central, other) is None) is (waiting[-1] > 0), "nobody is in agreement before the end"
    assert waiting[0] == PATIENTS and waiting[-1] == 0
    assert all(0 < before - after <= 200 for before, after in pairwise(waiting) if before)
    expected = {f"p{n}": {f"patients/{STORE}", f"patients/{other.store}"} for n in range(PATIENTS)}
    assert scopes_of_patients(central) == expected


@pytest.mark.parametrize("seed", range(5))
def test_f35_whatever_comes_between_everybody_has_what_is_visible_there(
    nodes: tuple[Central, Site, Site], seed: int
) -> None:
    """Edits and visibility come and go while the work is half done; a site that reads meanwhile agrees in the end."""
    central, site, other = nodes
    admit(central, site, FEWER)
    chance, visible = random.Random(seed), set(range(0))
    for _ in range(12):
        match chance.randrange(4):
            case 0:
                begin = chance.randrange(FEWER - 30)
                see(central, other, range(begin, begin + 30))
                visible |= set(range(begin, begin + 30))
            case 1:
                gone = chance.sample(sorted(visible), min(len(visible), 15))
                for number in gone:
                    central.execute("DELETE FROM patient_visibility WHERE patient_id = ?", f"p{number}")
                visible -= set(gone)
            case 2:
                site.execute("UPDATE patient SET phone = ? WHERE id = ?", str(seed), f"p{chance.randrange(FEWER)}")
                push(central, site)
            case 3:
                central.write(lambda c: do_follow_up(c, central.catalogue, central.topology))
                synchronise(central, other)
    central.route()
    for _ in range(3):
        reports = [synchronise(central, node) for node in (site, other)]
    assert all(report.in_agreement for report in reports)
    assert other.rows("patient") == {row for row in site.rows("patient") if int(row[0][1:]) in visible}
    assert central.rows("patient") == site.rows("patient")
    again = scopes_of_patients(central)
    central.execute("UPDATE patient_visibility SET comment = 'said twice'")
    central.route()
    assert scopes_of_patients(central) == again


def test_what_is_acknowledged_of_a_subscription_that_has_ended_is_not_noted(
    nodes: tuple[Central, Site, Site],
) -> None:
    """An acknowledgement may come when the central has closed the subscription, or begun it again."""
    central, site, _ = nodes
    scope = f"store/{site.store}"
    late = central.cursors[site.number][scope]._replace(position=5)
    query = "SELECT generation, position FROM central_subscription WHERE scope = ?"
    (before,) = central.execute(query, scope)
    central.execute("UPDATE central_subscription SET generation = generation + 1, position = 0 WHERE scope = ?", scope)
    central.write(lambda c: note_positions(c, site.number, [late]))
    assert central.execute(query, scope) == [(before[0] + 1, 0)]
    central.execute("DELETE FROM central_subscription WHERE scope = ?", scope)
    central.write(lambda c: note_positions(c, site.number, [late]))
    assert central.execute(query, scope) == []

"""Visibility is given and taken by records; copies of stores come and go with it, whoever writes the records."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from central_node.storage.copies import administering, put_copy
from central_node.storage.effects import change_topology
from central_node.storage.steps import refresh_topology
from central_node.storage.stores import add_store, add_visibility, edit_store, list_visibility, remove_visibility
from central_node.storage.topology import assign_store, include_transactions, set_sync_with
from engine.errors import Code, Refused
from engine.rules.copies import SyncWith
from engine.rules.topology import CENTRAL_SITE, CopyType
from engine.rules.versions import Term
from engine.storage.configuration import read_topology
from engine.storage.records import applying
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import flaws, serving_central, settle
from tests.engine.storage.nodes import undone
from tests.partners import Central, synchronise

ELSEWHERE, THERE = CENTRAL_SITE, 3
"""The site that is examined is 3, where `third` is active; `far` is active at site 2."""
SECOND = "second-store-of-the-site"
Change = Callable[[sqlite3.Connection], dict[str, Any]]


@pytest.fixture(name="serving", scope="module")
def central_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = serving_central(tmp_path_factory.mktemp("visibility") / "node.db")
    yield connection
    connection.close()


@pytest.fixture(name="central")
def central_with_a_second_store(serving: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    with undone(serving):
        add_store(serving, "second", "2", "store", SECOND)
        serving.execute("UPDATE central_site SET agreed = 1, waiting_to_push = 0")  # so that stores may move
        settle(serving)
        yield serving
        settle(serving)
        assert flaws(serving) == []


def by_command(connection: sqlite3.Connection, change: Change) -> dict[str, Any]:
    """As the central's commands do it: copies follow in the same transaction."""
    return change_topology(connection, core_catalogue(), change, dry_run=False)


def by_plain_sql(connection: sqlite3.Connection, change: Change) -> dict[str, Any]:
    """As any program may edit records where the primary is: copies follow as soon as the change is routed."""
    told = change(connection)
    settle(connection)
    return told


def sees(record: str, store: str, table: str = "store") -> Change:
    return lambda c: add_visibility(c, core_catalogue(), table, record, store)


def sees_no_more(record: str, store: str, table: str = "store") -> Change:
    return lambda c: remove_visibility(c, core_catalogue(), table, record, store)


def moves(store: str, site: int) -> Change:
    return lambda c: assign_store(c, core_catalogue(), read_topology(c), store, site, CopyType.COLLECTOR)


def collects(store: str, site: int) -> Change:
    return lambda c: set_sync_with(c, core_catalogue(), store, site, SyncWith.ACTIVE_COLLECTOR)


AUTOMATIC = {
    # copy at the site, what happens to its being visible there -> what becomes of it
    (CopyType.ACTIVE, "gains"): CopyType.ACTIVE,
    (CopyType.COLLECTOR, "gains"): CopyType.COLLECTOR,
    (CopyType.TRANSFER, "gains"): CopyType.TRANSFER,
    (CopyType.NONE, "gains"): CopyType.TRANSFER,
    (CopyType.ACTIVE, "loses"): CopyType.ACTIVE,
    (CopyType.COLLECTOR, "loses"): CopyType.NONE,
    (CopyType.TRANSFER, "loses"): CopyType.NONE,
    (CopyType.NONE, "loses"): CopyType.NONE,
}


@pytest.mark.parametrize("changed", ["visibility", "activity"])
@pytest.mark.parametrize(("before", "event"), AUTOMATIC, ids=str)
@pytest.mark.parametrize("make", [by_command, by_plain_sql])
def test_copies_follow_what_is_visible_where(
    central: sqlite3.Connection, before: CopyType, event: str, changed: str, make: Callable[..., Any]
) -> None:
    """The second store begins or ceases to see it at the site; a copy that is there before it gains was seen by the
    store that is active there already."""
    subject = "third" if before is CopyType.ACTIVE else "far"
    holds_by_another = event == "gains" and before in (CopyType.COLLECTOR, CopyType.TRANSFER)
    if holds_by_another:
        by_command(central, sees(subject, "third"))
    is_there = before is not CopyType.NONE if event == "loses" else changed == "visibility"
    by_command(central, moves(SECOND, THERE if is_there else ELSEWHERE))
    if event == "loses" or changed == "activity":
        by_command(central, sees(subject, SECOND))
    if before is CopyType.COLLECTOR:
        by_command(central, collects(subject, THERE))
    assert read_topology(central).copy_type(subject, THERE) is before
    if changed == "visibility":
        make(central, sees(subject, SECOND) if event == "gains" else sees_no_more(subject, SECOND))
    else:
        make(central, moves(SECOND, THERE if event == "gains" else ELSEWHERE))
    topology = read_topology(central)
    assert topology.copy_type(subject, THERE) is AUTOMATIC[before, event]
    assert topology.copy_type(subject, CENTRAL_SITE) is CopyType.COLLECTOR, "the central keeps its copy"


def test_the_copy_that_was_active_stays_only_where_something_sees_it(central: sqlite3.Connection) -> None:
    by_command(central, moves(SECOND, THERE))
    by_command(central, moves(SECOND, 2))
    assert read_topology(central).copy_type(SECOND, THERE) is CopyType.NONE
    by_command(central, sees(SECOND, "far"))
    by_command(central, moves(SECOND, THERE))
    assert read_topology(central).copy_type(SECOND, 2) is CopyType.TRANSFER


def test_visibility_is_listed_and_may_be_said_twice(central: sqlite3.Connection) -> None:
    for table, record in (("item", "item-1"), ("name", "name-far"), ("store", "own")):
        assert [sees(record, "third", table)(central)["changed"] for _ in range(2)] == [True, False]
    assert list_visibility(central, core_catalogue(), "item", "third") == [{"table": "item", "id": "item-1"}]
    names = [{"table": "name", "id": "name-far"}, {"table": "name", "id": "name-own"}]
    for table in ("name", "store"):  # a store is visible by its name
        assert list_visibility(central, core_catalogue(), table, "third") == names
        assert list_visibility(central, core_catalogue(), table, "far") == []
    for table, record in (("item", "item-1"), ("name", "name-far"), ("store", "own")):
        assert [sees_no_more(record, "third", table)(central)["changed"] for _ in range(2)] == [True, False]
    assert central.execute("SELECT count(*) FROM name_visibility, item_visibility").fetchone() == (0,)


@pytest.mark.parametrize(
    ("table", "record", "store", "code"),
    [
        ("unit", "unit-1", "third", Code.TABLE_WRONG),
        ("item", "no-such", "third", Code.RECORD_UNKNOWN),
        ("store", "no-such", "third", Code.STORE_UNKNOWN),
        ("item", "item-1", "no-such", Code.STORE_UNKNOWN),
    ],
)
def test_what_there_is_not_cannot_be_visible(
    central: sqlite3.Connection, table: str, record: str, store: str, code: Code
) -> None:
    for change in (sees, sees_no_more):
        with pytest.raises(Refused) as refused:
            change(record, store, table)(central)
        assert refused.value.code is code


def test_visibility_of_what_was_deleted_since_can_be_taken_away(central: sqlite3.Connection) -> None:
    sees("item-1", "third", "item")(central)
    central.execute("SAVEPOINT deleted")
    with applying(central):
        central.execute("DELETE FROM item WHERE id = 'item-1'")
    assert [row["id"] for row in list_visibility(central, core_catalogue(), "item", "third")] == ["item-1"]
    assert sees_no_more("item-1", "third", "item")(central)["changed"]
    with pytest.raises(Refused) as refused:
        sees_no_more("item-1", "third", "item")(central)
    assert refused.value.code is Code.RECORD_UNKNOWN
    central.execute("ROLLBACK TO deleted")


def test_visibility_and_store_records_are_edited_on_the_primary_only(central: sqlite3.Connection) -> None:
    sees("item-1", "third", "item")(central)
    with administering(central):
        central.execute("UPDATE site SET is_primary = (id = '2')")
    refresh_topology(central, core_catalogue())
    for change in (
        sees("far", "third"),
        sees_no_more("item-1", "third", "item"),
        lambda c: add_store(c, "new", "n", "store", "new"),
        lambda c: edit_store(c, "far", {"name": "another"}),
    ):
        with pytest.raises(Refused) as refused:
            change(central)
        assert refused.value.code is Code.EDIT_REFUSED and "on the primary only" in str(refused.value)


def test_a_rehearsal_tells_what_would_happen_and_changes_nothing(central: sqlite3.Connection) -> None:
    before = list(central.iterdump())
    rehearse = partial(change_topology, central, core_catalogue(), sees("far", "third"))
    told = rehearse(dry_run=True)
    assert list(central.iterdump()) == before
    assert told["copies"] == [{"store": "far", "site": THERE, "before": "none", "after": "transfer"}]
    gained = [scope["scope"] for site in told["sites"] for scope in site["gains"]]
    assert gained == ["store-record/far"] and not any(site["loses"] for site in told["sites"])
    assert {key: value for key, value in rehearse(dry_run=False).items() if key != "dry_run"} == {
        key: value for key, value in told.items() if key != "dry_run"
    }


def test_a_rehearsal_counts_what_a_site_gains_and_loses(central: sqlite3.Connection) -> None:
    by_command(central, sees("far", "third"))
    expected = central.execute(
        "SELECT count(*) FROM sync_membership JOIN sync_scope USING (scope) WHERE name = 'store/far' AND state = 0"
    ).fetchone()[0]
    gained = by_rehearsal(central, collects("far", THERE))
    assert {scope["scope"]: scope["records"] for scope in gained["gains"]} == {
        "store/far": expected, "patients/far": 0, "prescribers/far": 0,
    }  # fmt: skip
    by_command(central, collects("far", THERE))
    lost = by_rehearsal(central, sees_no_more("far", "third"))
    assert {scope["scope"]: scope["records"] for scope in lost["loses"]} == {
        "store-record/far": 1, "store/far": expected, "patients/far": 0, "prescribers/far": 0,
    }  # fmt: skip


def by_rehearsal(connection: sqlite3.Connection, change: Change) -> dict[str, Any]:
    """What the site that is examined would gain and lose; nothing is changed."""
    before = list(connection.iterdump())
    told = change_topology(connection, core_catalogue(), change, dry_run=True)
    assert list(connection.iterdump()) == before
    return next(site for site in told["sites"] if site["site"] == THERE)


def test_a_change_that_breaks_a_rule_of_the_whole_is_refused_and_changes_nothing(central: sqlite3.Connection) -> None:
    """Two active copies. A missing copy at the central or the primary comes by itself before the whole is judged. The
    transaction is the caller's to take back."""

    def make_active(connection: sqlite3.Connection) -> dict[str, Any]:
        with administering(connection):
            put_copy(connection, "far", THERE, CopyType.ACTIVE, Term(9, 9))
        return {}

    central.execute("SAVEPOINT refused")
    with pytest.raises(Refused) as refused:
        by_command(central, make_active)
    central.execute("ROLLBACK TO refused")
    assert refused.value.code is Code.STORE_ACTIVE_THERE


@pytest.mark.parametrize("stays_visible", [True, False])
def test_a_collector_stays_when_the_store_moves_as_long_as_it_is_visible_there(
    central: sqlite3.Connection, stays_visible: bool
) -> None:
    by_command(central, moves(SECOND, 2))
    by_command(central, sees(SECOND, "third"))
    by_command(central, collects(SECOND, THERE))
    by_command(central, moves(SECOND, ELSEWHERE))
    assert read_topology(central).copy_type(SECOND, THERE) is CopyType.COLLECTOR
    if not stays_visible:
        by_command(central, sees_no_more(SECOND, "third"))
    expected = CopyType.COLLECTOR if stays_visible else CopyType.NONE
    assert read_topology(central).copy_type(SECOND, THERE) is expected
    assert read_topology(central).active_copies[SECOND].site == ELSEWHERE


def test_a_subject_cannot_be_exchanged_for_another(central: sqlite3.Connection) -> None:
    sees("item-1", "third", "item")(central)
    with pytest.raises(sqlite3.IntegrityError, match="SUBJECT_IMMUTABLE"):
        central.execute("UPDATE item_visibility SET item_id = 'item-2'")


def test_visibility_goes_to_the_site_where_its_store_is_active_and_nowhere_else(tmp_path: Path) -> None:
    """Neither to who collects the store, nor to whom it is visible; the store's record goes with each copy."""
    central = Central(tmp_path / "node-1.db")
    owner, reader, stranger = (central.add(tmp_path, number) for number in (2, 3, 4))
    central.collect(owner.store, reader)
    for site, (table, record) in product((owner, stranger), (("item", "item-1"), ("name", "name"))):
        central.write(lambda c, s=site.store, t=table, r=record: add_visibility(c, core_catalogue(), t, r, s))  # type: ignore[misc]
    for site in (owner, reader, stranger):
        assert synchronise(central, site).in_agreement
    seen = {
        site.number: {row[0] for table in ("item_visibility", "name_visibility") for row in site.rows(table)}
        for site in (owner, reader, stranger)
    }
    assert seen == {
        2: {"item-1@store-2", "name@store-2"},
        3: {"store-2@store-3"},
        4: {"item-1@store-4", "name@store-4"},
    }
    stores = [{row[0] for row in site.rows("store")} for site in (owner, reader, stranger)]
    assert stores == [{"store-2"}, {"store-2", "store-3"}, {"store-4"}]


def test_a_rehearsal_counts_records_that_move_within_what_a_site_follows(tmp_path: Path) -> None:
    """A patient becomes visible; a store of the central leaves its transactions out."""
    central = Central(tmp_path / "node-1.db")
    home, visiting = (central.add(tmp_path, number) for number in (2, 3))
    for site in (home, visiting):
        synchronise(central, site)
    home.execute("INSERT INTO patient (id, home_store_id) VALUES ('p', ?)", home.store)
    synchronise(central, home)

    def told(change: Change, dry_run: bool = True) -> list[tuple[int, str, str, int]]:
        sites = central.write(lambda c: change_topology(c, central.catalogue, change, dry_run))["sites"]
        central.topology = central.write(lambda c: refresh_topology(c, central.catalogue))
        central.route()
        return [
            (site["site"], word, scope["scope"], scope["records"])
            for site in sites
            for word in ("gains", "loses")
            for scope in site[word]
        ]

    visible = sees("p", visiting.store, "patient")
    assert told(visible) == [(3, "gains", "patients/store-3", 1)] == told(visible, dry_run=False)
    gone = sees_no_more("p", visiting.store, "patient")
    assert told(gone) == [(3, "loses", "patients/store-3", 1)]
    told(lambda c: add_store(c, "clinic", "", "dispensary", "clinic"), dry_run=False)
    told(moves("clinic", CENTRAL_SITE), dry_run=False)
    told(sees("clinic", visiting.store), dry_run=False)
    told(collects("clinic", 3), dry_run=False)
    central.execute("INSERT INTO stock_line (id, store_id) VALUES ('s', 'clinic')")
    central.execute("INSERT INTO invoice (id, store_id) VALUES ('i', 'clinic')")
    central.execute("INSERT INTO invoice_line (id, invoice_id) VALUES ('l', 'i')")
    central.route()
    left_out: Change = partial(include_transactions, store_id="clinic", included=False)
    assert told(left_out) == [(3, "loses", "store/clinic", 3)]
    assert synchronise(central, visiting).in_agreement and visiting.count("invoice_line") == 1
    assert told(left_out, dry_run=False) == [(3, "loses", "store/clinic", 3)]
    assert synchronise(central, visiting).in_agreement and visiting.count("invoice_line") == 0

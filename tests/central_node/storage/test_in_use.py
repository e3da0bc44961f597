"""Central records that are in use are switched off, or stay, and are not deleted: where the use is seen, and where only
the central sees it (F55)."""

import sqlite3
from pathlib import Path

import pytest

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Kind, Table
from tests.partners import Central, Site, synchronise


def agree(central: Central, *sites: Site) -> None:
    """Sessions until everybody agrees."""
    for _ in range(3):
        reports = [synchronise(central, site) for site in sites]
    assert all(report.in_agreement for report in reports), reports


def items(node: Central | Site) -> dict[str, int]:
    return dict(node.execute("SELECT id, is_active FROM item WHERE id IN ('item-1', 'item-2')"))


@pytest.fixture(name="nodes")
def central_and_two_sites(tmp_path: Path) -> tuple[Central, Site, Site]:
    """Item 1 is in use at site 2, item 2 nowhere."""
    central = Central(tmp_path / "node-1.db")
    site, other = central.add(tmp_path, 2), central.add(tmp_path, 3)
    central.execute("UPDATE item SET is_active = 1")
    central.route()
    agree(central, site, other)
    site.put_stock("s", "b", "item-1")
    agree(central, site, other)
    return central, site, other


def test_f55_at_the_primary_a_record_in_use_is_switched_off(nodes: tuple[Central, Site, Site]) -> None:
    central, site, other = nodes
    central.execute("DELETE FROM item WHERE id IN ('item-1', 'item-2')")
    central.route()
    agree(central, site, other)
    assert items(central) == items(site) == items(other) == {"item-1": 0}


def test_f55_what_is_not_used_any_more_can_be_deleted(nodes: tuple[Central, Site, Site]) -> None:
    central, site, other = nodes
    site.execute("DELETE FROM stock_line WHERE id = 's'")
    agree(central, site, other)
    central.execute("DELETE FROM item WHERE id = 'item-1'")
    central.route()
    agree(central, site, other)
    assert items(central) == items(site) == items(other) == {"item-2": 1}


def make_primary(central: Central, site: Site, *others: Site) -> None:
    """The right to edit central data goes to a site."""
    central.make_primary(site.number, term=9)
    agree(central, site, *others)


def test_f55_a_use_that_only_the_central_sees_counts(nodes: tuple[Central, Site, Site]) -> None:
    central, site, primary = nodes
    make_primary(central, primary, site)
    assert primary.count("stock_line") == 0, "the primary does not see the use"
    primary.execute("DELETE FROM item WHERE id IN ('item-1', 'item-2')")
    assert items(primary) == {}
    agree(central, primary, site)
    assert items(central) == items(site) == items(primary) == {"item-1": 0}
    assert not primary.count("sync_outbox") and not central.count("sync_held")


def test_f55_what_only_the_central_sees_used_comes_back_where_it_cannot_be_switched_off(
    nodes: tuple[Central, Site, Site],
) -> None:
    central, site, primary = nodes
    make_primary(central, primary, site)
    primary.execute("INSERT INTO location_type (id, name) VALUES ('cold', 'Cold room'), ('dry', 'Dry store')")
    agree(central, primary, site)
    site.execute("INSERT INTO location (id, store_id, location_type_id) VALUES ('l', ?, 'cold')", site.store)
    agree(central, primary, site)
    primary.execute("DELETE FROM location_type")
    agree(central, primary, site)
    for node in (central, primary, site):
        assert node.execute("SELECT id, name FROM location_type") == [("cold", "Cold room")]


def test_f55_the_lines_of_a_list_come_back_with_it(nodes: tuple[Central, Site, Site]) -> None:
    """The list is deleted together with its last use, of which the central knows longer than the primary."""
    central, site, primary = nodes
    make_primary(central, primary, site)
    primary.execute("INSERT INTO name (id, name) VALUES ('clinic', 'Clinic')")
    primary.execute("INSERT INTO master_list (id, name, is_active) VALUES ('list', 'Essential', 1)")
    primary.execute("INSERT INTO master_list_line (id, master_list_id, item_id) VALUES ('line', 'list', 'item-1')")
    primary.execute("INSERT INTO master_list_name_link (id, master_list_id, name_id) VALUES ('use', 'list', 'clinic')")
    agree(central, primary, site)
    primary.execute("DELETE FROM master_list_name_link WHERE id = 'use'")
    primary.execute("DELETE FROM master_list WHERE id = 'list'")
    assert not primary.count("master_list_line")
    agree(central, primary, site)
    for node in (central, primary, site):
        assert node.execute("SELECT id, is_active FROM master_list") == [("list", 0)]
        assert node.execute("SELECT id, item_id FROM master_list_line") == [("line", "item-1")]
    assert not primary.count("sync_outbox") and not central.count("sync_held")


def test_f55_the_primary_may_go_on_with_what_came_back(nodes: tuple[Central, Site, Site]) -> None:
    central, site, primary = nodes
    make_primary(central, primary, site)
    primary.execute("DELETE FROM item WHERE id = 'item-1'")
    agree(central, primary, site)
    primary.execute("UPDATE item SET is_active = 1, name = 'again' WHERE id = 'item-1'")
    agree(central, primary, site)
    assert items(central) == items(site) == items(primary) == {"item-1": 1, "item-2": 1}


@pytest.mark.parametrize("recursive", [0, 1])
def test_a_record_in_use_may_be_replaced(nodes: tuple[Central, Site, Site], recursive: int) -> None:
    central, site, other = nodes
    central.execute(f"PRAGMA recursive_triggers = {recursive}")
    central.execute("INSERT OR REPLACE INTO item (id, name, unit_id, is_active) VALUES ('item-1', 'new', 'each', 1)")
    central.route()
    agree(central, site, other)
    assert items(site) == {"item-1": 1, "item-2": 1}
    assert site.execute("SELECT name FROM item WHERE id = 'item-1'") == [("new",)]


KEPT = [table for table in catalogue() if catalogue().stays_while_used(table) and not table.active_column]
"""What is in use and has no column to be switched off by."""


def test_every_central_record_that_others_refer_to_stays_while_it_is_in_use() -> None:
    central = [table for table in catalogue() if table.kind is Kind.CENTRAL and not table.parent]
    central.append(catalogue()["store"])
    referred = {table.name for table in central if catalogue().referring_to(table.name)}
    assert {table.name for table in central if catalogue().stays_while_used(table)} == referred
    assert {table.name for table in KEPT} < referred


@pytest.mark.parametrize("recursive", [0, 1])
@pytest.mark.parametrize("table", KEPT, ids=lambda table: table.name)
def test_f55_what_cannot_be_switched_off_is_deleted_only_when_nothing_refers_to_it(
    tmp_path: Path, table: Table, recursive: int
) -> None:
    central = Central(tmp_path / "node-1.db", catalogue())
    central.execute(f"PRAGMA recursive_triggers = {recursive}")
    for name in ("used", "unused"):
        central.execute(f"INSERT INTO {table.name} (id) VALUES (?)", name)
    referring, column = catalogue().referring_to(table.name)[0]
    central.behind(f"INSERT INTO {referring.name} (id, {column}) VALUES ('use', 'used')")
    with pytest.raises(sqlite3.IntegrityError, match=r"rule (IN_USE|STORE_STAYS)"):
        central.execute(f"DELETE FROM {table.name} WHERE id = 'used'")
    central.execute(f"INSERT OR REPLACE INTO {table.name} (id) VALUES ('used')")
    central.execute(f"DELETE FROM {table.name} WHERE id = 'unused'")
    assert central.execute(f"SELECT id FROM {table.name} WHERE id IN ('used', 'unused')") == [("used",)]
    central.behind(f"DELETE FROM {referring.name} WHERE id = 'use'")
    central.execute(f"DELETE FROM {table.name} WHERE id = 'used'")

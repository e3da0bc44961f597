"""The real catalogue of a country: 10,233 items and 2,734 facilities at the central and five sites."""

import asyncio
import os
from pathlib import Path

import pytest

from engine.catalogue.descriptors import catalogue
from field_lab.comparison import differences, rows
from field_lab.country import Country, Node, SiteNode
from tests.processes.supplies import one, opened

pytestmark = [pytest.mark.processes, pytest.mark.reference_data]
FOLDER = Path(os.environ.get("PACKHORSE_REFERENCE_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
OPENLMIS = FOLDER / "openlmis"
ONE_STORE_EACH, SHARED_WITH = 3, 5


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the reference data are not on this machine")
@pytest.mark.timeout(300)
async def test_a_country_initialises_and_every_row_is_equal_at_all_six_databases(tmp_path: Path) -> None:
    async with Country(tmp_path) as country:
        await import_country(country, tmp_path)
        stores = sorted(row[0] for row in rows(country.central.database, "store"))
        await enter_what_is_nobody_elses(country, stores[-1])
        expected = [await country.expect(f"site {number}") for number in range(5)]
        assigned: dict[int, list[str]] = {}
        for place, (site, _) in enumerate(expected):
            assigned[site.number] = stores[place * ONE_STORE_EACH : (place + 1) * ONE_STORE_EACH]
            for store in assigned[site.number]:
                await country.assign(store, site.number)
        done = await asyncio.gather(*(country.join(site, token) for site, token in expected))
        assert [d.exit_code for d in done] == [0] * 5, [d.stderr for d in done]
        for site, _ in expected:
            assert not differences(country.central.database, site.database, ("unit", "item", "name"))
            there = {row[0] for row in rows(site.database, "store")}
            assert there == set(assigned[site.number]), "a store is where its copy is not none, and nowhere else"
            check_stores(country, site, assigned[site.number])
        exist = records(country.central)
        assert {"stock_line", "patient", "diagnosis", "item_visibility"} < exist.keys()
        for (site, _), told in zip(expected, done, strict=True):
            here = records(site)
            # Its own record; its copies, and those of the central of the stores that are active here. They come before
            # any frame, with the Welcome.
            copies = one(site.database, "SELECT count(*) FROM store_copy WHERE site IN (1, ?)", site.number)
            assert (here.pop("site"), here.pop("store_copy")) == (1, copies)
            assert told.json["pulled"] == sum(here.values()), "no record was sent that no scope of the site contains"
            assert here == {"unit": 1, "item": 10_233, "name": 2_734, "store": ONE_STORE_EACH}
            print(f"site {site.number} was sent {told.json['pulled']} of the {sum(exist.values())} records that exist")
        assert (await country.central.status())["in_agreement"]


async def enter_what_is_nobody_elses(country: Country, store: str) -> None:
    """Records of every sort that goes to some sites only, about a store that is active at the central."""
    await country.assign(store, 1)
    with opened(country.central.database) as connection:
        (item,) = connection.execute("SELECT min(id) FROM item").fetchone()
        lines = [(f"line-{number}", store, item) for number in range(100)]
        connection.executemany("INSERT INTO stock_line (id, store_id, item_id) VALUES (?, ?, ?)", lines)
        connection.execute("INSERT INTO patient (id, home_store_id) VALUES ('patient', ?)", (store,))
        connection.execute("INSERT INTO diagnosis (id, code) VALUES ('diagnosis', 'A00')")
        connection.execute(
            "INSERT INTO item_visibility (id, store_id, item_id) VALUES ('visibility', ?, ?)", (store, item)
        )


def records(node: Node) -> dict[str, int]:
    """Table -> how many records of it there are, for every synchronised table that is not empty."""
    with opened(node.database) as connection:
        tables = [table.name for table in catalogue().synchronised]
        counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    return {name: count for name, count in counts.items() if count}


def check_stores(country: Country, site: SiteNode, assigned: list[str]) -> None:
    """The store records at a site are those of the central."""
    marks = ", ".join("?" * len(assigned))
    where = f"id IN ({marks})"
    assert rows(site.database, "store") == rows(country.central.database, "store", where, tuple(assigned))


async def import_country(country: Country, folder: Path) -> None:
    """Imports the reference data as the specification's domain needs them."""
    unit = folder / "unit.csv"
    unit.write_text("id,code,name\neach,EA,each\n")
    await country.import_file("unit", unit)
    items = await country.import_file(
        "item", OPENLMIS / "orderables.csv", "--map", "name=fullproductname", "--map", "default_pack_size=netcontent",
        "--set", "unit_id=each", "--set", "is_active=1", "--last-wins", "versionnumber",
    )  # fmt: skip
    assert (items["rows_read"], items["imported"]) == (10_234, 10_233)
    assert "packroundingthreshold" in items["ignored_columns"]
    facilities = OPENLMIS / "facilities.csv"
    names = await country.import_file(
        "name", facilities, "--set", "type=facility", "--set", "is_customer=1", "--set", "is_supplier=0"
    )
    stores = await country.import_file("store", facilities, "--map", "name_id=id", "--set", "mode=store")
    assert names["imported"] == stores["imported"] == 2_734
    assert one(country.central.database, "SELECT count(*) FROM item") == 10_233
    assert one(country.central.database, "SELECT count(*) FROM store WHERE name_id = id") == 2_734

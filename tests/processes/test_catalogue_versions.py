"""A table is added by one message file and nothing else; programs of the version before and of the one after work
together with the central, and after the upgrade everybody has everything (law 13)."""

from pathlib import Path

import pytest

from field_lab.country import Country, Node, SiteNode
from tests.processes.contracts import COLD_BOX, contract
from tests.processes.supplies import BADILI, HAGEN, LAE, SAMPLE, one, opened, write_invoice

pytestmark = pytest.mark.processes
COLOUR = "  // Colour of the paper.\n  string colour = 1000;"


async def joined(country: Country, name: str, store: str, more: dict[str, str]) -> SiteNode:
    site, token = await country.expect(name)
    site.environment = country.environment | more
    await country.assign(store, site.number)
    assert (await country.join(site, token)).exit_code == 0
    return site


async def import_samples(country: Country) -> None:
    for table in ("unit", "item", "name", "store"):
        await country.import_file(table, SAMPLE / f"{table}.csv")


async def synced(*sites: SiteNode) -> None:
    for site in (*sites, *sites):
        assert (await site.sync()).exit_code == 0, site.log


def write_cold_box(site: SiteNode, store: str) -> None:
    with opened(site.database) as connection:
        connection.execute(
            "INSERT INTO cold_box (id, store_id, label, hours_cold) VALUES ('box', ?, 'B7', 48)", (store,)
        )


def cold_boxes(node: Node) -> list[tuple[str, int]]:
    with opened(node.database) as connection:
        return connection.execute("SELECT label, hours_cold FROM cold_box").fetchall()


async def test_a_record_type_is_added_by_one_message_file(tmp_path: Path) -> None:
    newer = contract(tmp_path / "contract", added={"cold_box": COLD_BOX})
    country = Country(tmp_path / "country")
    country.environment |= newer
    country.central.environment = country.environment
    async with country:
        await import_samples(country)
        writer = await joined(country, "Badili", BADILI, newer)
        reader = await joined(country, "Lae", LAE, newer)
        await country.collect(BADILI, LAE, reader.number)
        write_cold_box(writer, BADILI)
        await synced(writer, reader)
        assert cold_boxes(country.central) == cold_boxes(reader) == [("B7", 48)]
        assert (await country.central.status())["in_agreement"]
        refused = "data of a store are edited only at the site where the store is active"
        with opened(reader.database) as connection, pytest.raises(Exception, match=refused):
            connection.execute("UPDATE cold_box SET label = 'mine'")
        file = tmp_path / "cold_box.csv"
        file.write_text("id,store_id,label,hours_cold\nsecond,x,B8,never\n")
        told = await writer.command("import", "DIR", "cold_box", str(file), "--json")
        assert told.exit_code == 1 and "hours_cold" in told.stdout + told.stderr


async def test_an_older_and_a_newer_site_work_with_the_central_and_upgrades_bring_the_rest(tmp_path: Path) -> None:
    older = contract(tmp_path / "older", removed=("equipment",))
    newer = contract(tmp_path / "newer", added={"cold_box": COLD_BOX}, more={"invoice": COLOUR})
    async with Country(tmp_path / "country") as country:
        await import_samples(country)
        writer = await joined(country, "Badili", BADILI, newer)
        reader = await joined(country, "Lae", LAE, newer)
        old = await joined(country, "Mount Hagen", HAGEN, older)
        await country.collect(BADILI, LAE, reader.number)
        await country.collect(BADILI, HAGEN, old.number)
        write_invoice(writer.database, BADILI, "inv-1")
        with opened(writer.database) as connection:
            connection.execute("UPDATE invoice SET colour = 'blue', comment = 'c' WHERE id = 'inv-1'")
            connection.execute("INSERT INTO sensor (id, store_id, serial) VALUES ('s', ?, 'B0:0B')", (BADILI,))
        write_cold_box(writer, BADILI)
        await synced(writer, reader, old)

        colour = "SELECT colour FROM invoice WHERE id = 'inv-1'"
        assert one(reader.database, colour) == "blue", "a field that the central does not know went through it"
        assert one(old.database, "SELECT comment FROM invoice WHERE id = 'inv-1'") == "c"
        assert one(country.central.database, "SELECT serial FROM sensor") == "B0:0B"
        assert one(old.database, "SELECT count(*) FROM sqlite_schema WHERE name IN ('sensor', 'cold_box')") == 0
        assert (await writer.status())["waiting_for_upgrade"] == 1, "the central has no place for the cold box yet"
        assert (await country.central.status())["in_agreement"]

        await country.central.stop()
        country.central.environment = country.environment | newer
        await country.central.start()
        await synced(writer, reader, old)
        assert cold_boxes(country.central) == cold_boxes(reader) == [("B7", 48)]
        assert one(country.central.database, colour) == "blue", "what was kept beside the row is a column now"

        old.environment = country.environment | newer
        await synced(old)
        assert cold_boxes(old) == [("B7", 48)]
        assert (one(old.database, "SELECT serial FROM sensor"), one(old.database, colour)) == ("B0:0B", "blue")
        assert (await country.central.status())["in_agreement"]

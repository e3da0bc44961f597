"""Sites and a central node come into agreement: the main job, on real daemons over TLS."""

import asyncio
import time

import pytest

from field_lab.comparison import differences, rows
from field_lab.country import Country, SiteNode
from field_lab.link import LinkConditions
from tests.processes.supplies import BADILI, LAE, one, opened, write_invoice, write_stock

pytestmark = pytest.mark.processes
CENTRAL_TABLES = ("unit", "item", "name")
STORE_TABLES = ("location", "stock_line", "invoice", "stocktake")


async def joined(country: Country, name: str, store: str, conditions: LinkConditions | None = None) -> SiteNode:
    """A site that has joined and is in agreement, with a store of its own."""
    site, token = await country.expect(name, conditions)
    await country.assign(store, site.number)
    done = await country.join(site, token)
    assert done.exit_code == 0, done.stderr + done.stdout
    assert done.json["in_agreement"]
    return site


async def test_two_sites_join_edit_and_agree(country: Country) -> None:
    badili, lae = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    write_stock(badili.database, BADILI, 700)
    write_invoice(badili.database, BADILI, "invoice-1")
    write_stock(lae.database, LAE, 20, "lae")
    for site in (badili, lae):
        done = await site.sync()
        assert done.exit_code == 0, done.stdout
        assert done.json["in_agreement"]
        assert done.json["pushed"] > 0
        assert not differences(country.central.database, site.database, CENTRAL_TABLES)
    for site, store, other in ((badili, BADILI, LAE), (lae, LAE, BADILI)):
        for table in STORE_TABLES:
            mine = rows(site.database, table, "store_id = ?", (store,))
            assert mine == rows(country.central.database, table, "store_id = ?", (store,))
            assert not rows(site.database, table, "store_id = ?", (other,)), "another site's data never come here"
        assert one(site.database, "SELECT group_concat(id) FROM store") == store
    assert one(country.central.database, "SELECT count(*) FROM invoice_line") == 3
    status = await country.central.status()
    assert status["state"] == "in_agreement"


async def test_an_invoice_arrives_with_no_further_command_when_live(country: Country) -> None:
    badili = await joined(country, "Badili", BADILI)
    await badili.start()
    write_invoice(badili.database, BADILI, "live-1")
    begun = time.monotonic()
    while one(country.central.database, "SELECT count(*) FROM invoice_line WHERE invoice_id = 'live-1'") != 3:
        assert time.monotonic() - begun < 20, badili.log.read_text()[-1000:]
        await asyncio.sleep(0.01)
    print(f"the invoice arrived after {time.monotonic() - begun:.3f} s")
    with opened(country.central.database) as connection:
        connection.execute("UPDATE item SET code = 'changed at the central' WHERE id = (SELECT min(id) FROM item)")
    while one(badili.database, "SELECT count(*) FROM item WHERE code = 'changed at the central'") != 1:
        assert time.monotonic() - begun < 40
        await asyncio.sleep(0.01)
    assert (await badili.sync()).json["in_agreement"]


async def test_a_store_whose_central_copy_is_transfer_keeps_its_documents_until_it_is_collected(
    country: Country,
) -> None:
    site, token = await country.expect("Badili")
    await country.assign(BADILI, site.number, "transfer")
    assert (await country.join(site, token)).exit_code == 0
    write_stock(site.database, BADILI, 30)
    done = await site.sync()
    assert done.exit_code == 0
    assert done.json["waiting_to_push"] == 0
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 0
    await country.assign(BADILI, site.number, "collector")
    done = await site.sync()
    assert done.exit_code == 0, done.stdout
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 30


async def test_a_scheduled_site_synchronises_and_says_goodbye(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    write_stock(site.database, BADILI, 10)
    await site.start("--every", "0.03")
    begun = time.monotonic()
    while one(country.central.database, "SELECT count(*) FROM stock_line") != 10:
        assert time.monotonic() - begun < 20
        await asyncio.sleep(0.02)
    write_stock(site.database, BADILI, 10, "later")
    while one(country.central.database, "SELECT count(*) FROM stock_line") != 20:
        assert time.monotonic() - begun < 30
        await asyncio.sleep(0.02)
    assert '"what": "goodbye"' in country.central.log.read_text()


async def test_deletes_of_documents_and_of_single_lines_arrive(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    with opened(site.database) as connection:
        item = connection.execute("SELECT id FROM item").fetchone()[0]
        connection.execute("BEGIN")
        for invoice in ("keep", "drop"):
            connection.execute("INSERT INTO invoice (id, store_id, status) VALUES (?, ?, 'new')", (invoice, BADILI))
            for line in "abc":
                connection.execute(
                    "INSERT INTO invoice_line (id, invoice_id, item_id) VALUES (?, ?, ?)",
                    (f"{invoice}-{line}", invoice, item),
                )
        connection.execute("COMMIT")
    assert (await site.sync()).exit_code == 0
    with opened(site.database) as connection:
        connection.execute("DELETE FROM invoice WHERE id = 'drop'")
        connection.execute("DELETE FROM invoice_line WHERE id = 'keep-b'")
    done = await site.sync()
    assert done.exit_code == 0, done.stdout
    assert rows(country.central.database, "invoice_line") == rows(site.database, "invoice_line")
    assert {row[0] for row in rows(country.central.database, "invoice_line")} == {"keep-a", "keep-c"}
    with opened(site.database) as connection:
        connection.execute("INSERT INTO invoice (id, store_id, status) VALUES ('drop', ?, 'new')", (BADILI,))
    assert (await site.sync()).exit_code == 0
    assert rows(country.central.database, "invoice") == rows(site.database, "invoice")

"""A site gains and loses stores while its daemon runs: it fetches what it lacks, lets the rest go, and works on."""

import asyncio
import time
from pathlib import Path

import pytest

from field_lab.comparison import rows
from field_lab.country import Country, SiteNode
from tests.processes.supplies import BADILI, HAGEN, LAE, one, opened, write_stock
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes


async def until(database: Path, query: str, expected: object, seconds: float = 30.0) -> None:
    """Waits until a query of another program gives a value."""
    deadline = time.monotonic() + seconds
    while (found := one(database, query)) != expected:
        assert time.monotonic() < deadline, f"{query} gave {found!r}, not {expected!r}"
        await asyncio.sleep(0.02)


def put_copy(country: Country, store: str, site: SiteNode, kind: str, term: int = 0) -> None:
    """What the commands of the central write, without their rules."""
    with opened(country.central.database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE sync_flag SET administering = 1")
        connection.execute(
            "INSERT INTO store_copy (id, store_id, site, type, term, term_id) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET type = excluded.type, term = excluded.term, term_id = excluded.term_id",
            (f"{store}@{site.number}", store, site.number, kind, term, term),
        )
        connection.execute("UPDATE sync_flag SET administering = 0")
        connection.execute("COMMIT")


async def test_f07_a_collector_comes_and_goes_while_both_sites_work(country: Country) -> None:
    badili, lae = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    write_stock(badili.database, BADILI, 3_000)
    for site in (badili, lae):
        await site.start()
    await until(country.central.database, "SELECT count(*) FROM stock_line", 3_000)
    await country.central.must("visibility", "add", "DIR", "store", BADILI, "--in", LAE)
    store_of_badili = f"SELECT count(*) FROM stock_line WHERE store_id = '{BADILI}'"
    for turn in range(2):
        put_copy(country, BADILI, lae, "collector")
        write_stock(lae.database, LAE, 50, f"lae-{turn}")
        await until(lae.database, store_of_badili, 3_000 + turn * 50)
        put_copy(country, BADILI, lae, "transfer")
        write_stock(badili.database, BADILI, 50, f"more-{turn}")
        if turn:
            await until(lae.database, "SELECT count(*) < 3000 FROM stock_line", 1)
            await lae.kill()  # in the middle of letting go
            await lae.start()
        await until(lae.database, store_of_badili, 0)
    assert await country.until_agreed(30)
    mine = rows(lae.database, "stock_line", "store_id = ?", (LAE,))
    assert len(mine) == 100 and mine == rows(country.central.database, "stock_line", "store_id = ?", (LAE,))
    await until(lae.database, "SELECT count(*) FROM sync_left", 0)
    status = await lae.status()
    assert (status["fetching"], status["evicting"], status["left_behind"], status["hidden"]) == ([], 0, 0, 0)
    with opened(lae.database) as connection:
        known = connection.execute("SELECT count(*) FROM sync_record WHERE table_name = 'stock_line'").fetchone()
        assert known == (100,), "nothing is remembered of it either"


@pytest.mark.parametrize("keeps", ["collector", "transfer"])
async def test_what_a_store_was_lost_over_moves_aside(country: Country, keeps: str) -> None:
    """A site works offline for a store that is given to another one meanwhile; the other one works too. It sees the
    store from a second one of its own."""
    badili, lae = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    await country.assign(HAGEN, badili.number)
    await country.central.must("visibility", "add", "DIR", "store", BADILI, "--in", HAGEN)
    write_stock(badili.database, BADILI, 20)
    assert (await badili.sync()).exit_code == 0
    with opened(badili.database) as connection:
        connection.execute("UPDATE stock_line SET batch = 'offline' WHERE id = 'stock-00003'")
        connection.execute("DELETE FROM stock_line WHERE id = 'stock-00004'")
    write_stock(badili.database, BADILI, 2, "new")
    put_copy(country, BADILI, badili, keeps)
    put_copy(country, BADILI, lae, "active", 2)
    assert (await lae.sync()).exit_code == 0
    with opened(lae.database) as connection:
        connection.execute("UPDATE stock_line SET batch = 'at Lae' WHERE id = 'stock-00003'")
    assert (await lae.sync()).exit_code == 0
    done = await badili.sync()
    assert done.exit_code == 1, "the central holds what it refused, until a person there has seen it"
    assert (done.json["pushed"], done.json["waiting_to_push"], done.json["differing"]) == (0, 0, [])
    agreed = rows(lae.database, "stock_line")
    assert len(agreed) == 20 and agreed == rows(country.central.database, "stock_line")
    assert rows(badili.database, "stock_line") == (agreed if keeps == "collector" else set())
    status = await badili.status()
    assert (status["kept_aside"], status["left_behind"], status["held"]) == (4, 0, 0)
    assert {told["code"] for told in status["kept_aside_records"]} == {"NO_AUTHORITY"}
    central = await country.central.status()
    assert {(told["id"], told["code"]) for told in central["held_documents"]} == {
        (record, "NO_AUTHORITY") for record in ("stock-00003", "stock-00004", "new-00000", "new-00001")
    }
    assert (await lae.sync()).exit_code == 0, "the other site is not concerned"

"""A site gains and loses stores while its daemon runs: it fetches what it lacks, lets the rest go, and works on."""

import asyncio
import time
from pathlib import Path

import pytest

from field_lab.comparison import rows
from field_lab.country import Country, SiteNode
from tests.processes.supplies import BADILI, LAE, one, opened, write_stock
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes


async def until(database: Path, query: str, expected: object, seconds: float = 30.0) -> None:
    """Waits until a query of another program gives a value."""
    deadline = time.monotonic() + seconds
    while (found := one(database, query)) != expected:
        assert time.monotonic() < deadline, f"{query} gave {found!r}, not {expected!r}"
        await asyncio.sleep(0.02)


def put_copy(country: Country, store: str, site: SiteNode, kind: str) -> None:
    """What the commands of the central write, without their rules."""
    with opened(country.central.database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE sync_flag SET administering = 1")
        connection.execute(
            "INSERT INTO store_copy (id, store_id, site, type) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET type = excluded.type",
            (f"{store}@{site.number}", store, site.number, kind),
        )
        connection.execute("UPDATE sync_flag SET administering = 0")
        connection.execute("COMMIT")


async def test_f07_a_collector_comes_and_goes_while_both_sites_work(country: Country) -> None:
    badili, lae = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    write_stock(badili.database, BADILI, 3_000)
    for site in (badili, lae):
        await site.start()
    await until(country.central.database, "SELECT count(*) FROM stock_line", 3_000)
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

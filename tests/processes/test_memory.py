"""The daemons' memory does not grow with the data: initialising (pull) and push, a document of 5,000 lines among it.

`make memory` measures with 100,000 and 400,000 records, and then also how much the second has grown; the figure is
VmHWM, the most that a process ever had.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from field_lab.comparison import differences
from field_lab.country import Country, Node, SiteNode
from tests.processes.crashes import Pair, expect_pair, found_store_of_the_central
from tests.processes.paperwork import Paperwork
from tests.processes.supplies import BADILI, one, opened
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes
RECORDS = [int(number) for number in os.environ.get("PACKHORSE_MEMORY_RECORDS", "5000").split()]
"""From few to many, in countries of their own."""
LINES = 5_000
LIMIT_KIB, GROWTH_KIB = 150 * 1024, 10 * 1024
SECONDS = 1_200
PER_TRANSACTION = 5_000


class Peaks(NamedTuple):
    """VmHWM of a daemon in KiB, by what was done."""

    central_initialise: int
    site_initialise: int
    central_push: int
    site_push: int


def most_memory_kib(node: Node) -> int:
    """The most memory that the node's daemon ever had."""
    status = Path(f"/proc/{node.process_id}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def write_items(database: Path, count: int) -> None:
    """What another program would enter at the central."""
    with opened(database) as connection:
        for first in range(0, count, PER_TRANSACTION):
            numbers = range(first, min(first + PER_TRANSACTION, count))
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR IGNORE INTO item (id, code, name) VALUES (?, ?, ?)",
                [(f"item-{number:07}", f"C{number}", f"Item number {number} 500 mg tablet") for number in numbers],
            )
            connection.execute("COMMIT")


async def everything(database: Path, table: str, count: int) -> None:
    """Waits until a table has so many rows."""
    deadline = time.monotonic() + SECONDS
    while (found := one(database, f"SELECT count(*) FROM {table}")) < count:
        assert time.monotonic() < deadline, f"{found} of {count} records of {table} arrived"
        await asyncio.sleep(0.5)


async def agreed(site: SiteNode) -> None:
    """Both ends say that they agree."""
    done = await site.sync()
    assert done.json["in_agreement"], done.stdout


async def initialise(country: Country, pair: Pair, token: str, records: int) -> tuple[int, int]:
    """(central's, site's) peak while a site initialises with so many records of central data."""
    await country.central.stop()
    await asyncio.to_thread(write_items, country.central.database, records)
    await country.central.start()
    await country.join_and_kill(pair.site, token)
    await pair.site.start()
    await everything(pair.site.database, "item", records)
    await agreed(pair.site)
    return most_memory_kib(country.central), most_memory_kib(pair.site)


async def push(country: Country, pair: Pair, records: int) -> tuple[int, int]:
    """(central's, site's) peak while a site pushes so many records."""
    for node in (pair.site, country.central):
        await node.stop()
    for _ in range(0, records, PER_TRANSACTION):
        await asyncio.to_thread(pair.paperwork.burst, 0, 0, min(records, PER_TRANSACTION))
    await asyncio.to_thread(pair.paperwork.burst, 1, LINES, 0)
    for node in (country.central, pair.site):
        await node.start()
    await everything(country.central.database, "stock_line", records)
    await agreed(pair.site)
    assert one(country.central.database, "SELECT count(*) FROM invoice_line") == 2 * LINES
    return most_memory_kib(country.central), most_memory_kib(pair.site)


async def peaks(folder: Path, records: int) -> Peaks:
    """A country of its own with so many records each way."""
    async with Country(folder) as country:
        write_items(country.central.database, 300)
        of_the_central: Paperwork = await found_store_of_the_central(country, seed=1)
        of_the_central.burst(invoices=1, lines=LINES, stock=0)
        pair, token = await expect_pair(country, 1, seed=2)
        begun = time.monotonic()
        initialised = await initialise(country, pair, token, records)
        between = time.monotonic()
        pushed = await push(country, pair, records)
        found = Peaks(*initialised, *pushed)
        seconds = f"{between - begun:.0f} s and {time.monotonic() - between:.0f} s"
        print(f"{records} records each way, in {seconds}: {found}")
        return found


async def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    found = [await peaks(tmp_path / str(records), records) for records in RECORDS]
    grown = [large - small for small, large in zip(found[0], found[-1], strict=True)]
    print(f"grown by {grown} KiB from {RECORDS[0]} to {RECORDS[-1]} records")
    assert max(peak for each in found for peak in each) < LIMIT_KIB
    assert max(grown) < GROWTH_KIB


async def test_a_page_of_long_texts_is_no_larger_than_a_frame_may_be(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    with opened(country.central.database) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM item ORDER BY id LIMIT 40")]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("UPDATE item SET name = ? WHERE id = ?", [("x" * 1_000_000, item) for item in ids])
        connection.execute("COMMIT")
    done = await site.sync()
    assert done.json["in_agreement"], done.stdout
    assert not differences(country.central.database, site.database, ("item",))

"""The demonstration: a central node and two sites come into agreement over a link that keeps breaking.

Everything is real: processes, TLS, SQLite files, SIGKILL. It ends with a verdict from the digests and, independently,
from comparing the databases row by row.
"""

import asyncio
import csv
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from field_lab.comparison import differences, rows
from field_lab.country import Country, SiteNode
from field_lab.link import LinkConditions

SAMPLE = Path(__file__).parent / "sample_data"
CLINIC = Path(__file__).parent / "clinic.py"
CENTRAL_TABLES = ("unit", "item", "name")
STORE_TABLES = ("location", "stock_line", "invoice", "stocktake")
LINE_TABLES = ("invoice_line", "stocktake_line")
WORK_SECONDS = 16.0
BAD_LINK = LinkConditions(latency_ms=40, jitter_ms=20, rate_bytes_per_second=100_000, cut_every_seconds=1.0, seed=7)
POOR_LINK = LinkConditions(latency_ms=150, jitter_ms=50, rate_bytes_per_second=120_000, seed=8)

Say = Callable[[str], None]


async def demonstrate(say: Say) -> bool:
    """Runs the demonstration; returns whether everything held."""
    with tempfile.TemporaryDirectory(prefix="packhorse-demo-") as folder:
        begun = time.monotonic()
        async with Country(Path(folder)) as country:
            held = await _run(country, say)
        verdict = "Everything held" if held else "SOMETHING DID NOT HOLD"
        say(f"[bold]{verdict}[/] after {time.monotonic() - begun:.0f} s.")
        return held


async def _run(country: Country, say: Say) -> bool:
    say("A central node serves with TLS; its catalogue is imported.")
    for table in ("unit", "item", "name", "store"):
        done = await country.import_file(table, SAMPLE / f"{table}.csv")
        say(f"  {done['imported']} records of {table}")
    stores = _stores()
    sites = [await _join(country, "Badili", stores[:3], say), await _join(country, "Lae", stores[3:6], say)]
    for site in sites:
        await site.start()
    held = _refused(sites[0], say)
    sites[0].link.change(BAD_LINK)
    sites[1].link.change(POOR_LINK)
    say(f"Now site 2 is worked at for {WORK_SECONDS:.0f} s by a program that knows only sqlite3,")
    say("while its link (100 kB/s) is cut every second; site 3 is worked at over 150 ms of latency.")
    await asyncio.gather(_work(sites[0], stores[0], 1), _work(sites[1], stores[3], 2), _disturb(country, sites, say))
    say(f"The link of site 2 was cut {sites[0].link.counters.cuts} times; it goes on being cut until all agree.")
    agreed = await country.until_agreed(120)
    say(f"Both sites in agreement by digests: {'yes' if agreed else 'NO'}.")
    equal = _compare(country, sites, stores, say)
    await _table(sites)
    return held and agreed and equal


def _stores() -> list[str]:
    with (SAMPLE / "store.csv").open(newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


async def _join(country: Country, name: str, stores: list[str], say: Say) -> SiteNode:
    site, token = await country.expect(name)
    for store in stores:
        await country.assign(store, site.number)
    done = await country.join(site, token)
    if done.exit_code:
        raise RuntimeError(done.stdout + done.stderr)
    say(f"Site {site.number} ({name}) joined and initialised: {done.json['pulled']} records.")
    return site


def _refused(site: SiteNode, say: Say) -> bool:
    """A site may not edit the catalogue, whatever program tries."""
    connection = sqlite3.connect(site.database, timeout=30)
    try:
        connection.execute("UPDATE item SET name = 'edited at a site'")
    except sqlite3.IntegrityError as error:
        say(f"Site {site.number} tries to edit an item with sqlite3 and is refused: {error}")
        return "CENTRAL_DATA_ON_PRIMARY" in str(error)
    finally:
        connection.close()
    say("A site could edit an item: that must not be.")
    return False


async def _work(site: SiteNode, store: str, seed: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(CLINIC), str(site.database), store, str(WORK_SECONDS), str(seed),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, stderr = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the clinic's program failed: {stderr.decode()}")


async def _disturb(country: Country, sites: list[SiteNode], say: Say) -> None:
    """Kills a site and the central in the middle, and edits the catalogue meanwhile."""
    await asyncio.sleep(4)
    await sites[0].kill()
    say("  the daemon of site 2 is killed (SIGKILL) ...")
    await asyncio.sleep(1)
    await sites[0].start()
    say("  ... and started again")
    await asyncio.sleep(3)
    await country.central.kill()
    say("  the central node is killed (SIGKILL) ...")
    await asyncio.sleep(1)
    await country.central.start()
    say("  ... and started again")
    connection = sqlite3.connect(country.central.database, timeout=30)
    with connection:
        connection.execute("UPDATE item SET is_active = 0 WHERE id IN (SELECT id FROM item ORDER BY id LIMIT 25)")
    connection.close()
    say("  25 items are deactivated at the central, with sqlite3")


def _compare(country: Country, sites: list[SiteNode], stores: list[str], say: Say) -> bool:
    """The same question, asked of the rows themselves."""
    equal = True
    for place, site in enumerate(sites):
        own = stores[place * 3 : place * 3 + 3]
        marks = ", ".join(f"'{store}'" for store in own)
        found = differences(country.central.database, site.database, CENTRAL_TABLES)
        found |= differences(country.central.database, site.database, ("store",), f"id IN ({marks})")
        found |= differences(country.central.database, site.database, STORE_TABLES, f"store_id IN ({marks})")
        for table in LINE_TABLES:
            root = table.removesuffix("_line")
            where = f"{root}_id IN (SELECT id FROM {root} WHERE store_id IN ({marks}))"
            found |= differences(country.central.database, site.database, (table,), where)
        foreign = rows(site.database, "stock_line", f"store_id NOT IN ({marks})")
        counted = sum(len(rows(site.database, t)) for t in (*CENTRAL_TABLES, *STORE_TABLES, *LINE_TABLES, "store"))
        verdict = f"DIFFERENT {found}" if found else "DATA OF OTHERS" if foreign else "equal"
        say(f"Site {site.number} and central compared row by row ({counted} rows): {verdict}.")
        equal = equal and not found and not foreign
    return equal


async def _table(sites: list[SiteNode]) -> None:
    table = Table("site", "state", "pushed", "pulled", "held", "resumed frames", "link cuts", "bytes per record")
    for site in sites:
        status = await site.status()
        totals, counters = status["totals"], site.link.counters
        moved = totals.get("pushed", 0) + totals.get("pulled", 0)
        carried = counters.bytes_to_target + counters.bytes_to_client
        cells = (
            f"{site.number} {status['name']}", status["state"], totals.get("pushed", 0), totals.get("pulled", 0),
            status["held"], totals.get("resumed_frames", 0), counters.cuts, round(carried / max(moved, 1)),
        )  # fmt: skip
        table.add_row(*(str(cell) for cell in cells))
    Console(width=110).print(table)

"""Clocks hours apart: both ends warn of it, and nothing else is different."""

import asyncio
import sys

import pytest

from field_lab.comparison import differences
from field_lab.country import Country, Done, SiteNode
from tests.processes.supplies import BADILI, LAE, one, opened, write_invoice, write_stock
from tests.processes.test_main_job import CENTRAL_TABLES, joined

pytestmark = pytest.mark.processes
STORE_TABLES = ("stock_line", "invoice", "invoice_line")
ANOTHER_CLOCK = """
import sys, time, types
from site_node.cli import main
import site_node.commands, site_node.serve
from engine.command_line import start
hours = float(sys.argv.pop(1))
another = types.SimpleNamespace(**vars(time))
another.time = lambda: time.time() + hours * 3600
ours = [module for name, module in sys.modules.items() if name.startswith(("site_node.", "engine."))]
changed = [module for module in ours if getattr(module, "time", None) is time]
assert len(changed) >= 2, "the clock of the session and that of the node"
for module in changed:
    module.time = another
start(main)
"""
"""gRPC keeps the right clock: it compares what Python tells it with what its own core reads."""


async def at_another_hour(site: SiteNode, hours: float, *words: str) -> Done:
    """Runs a command of a site in a process whose clock is so many hours ahead."""
    arguments = [str(site.directory) if word == "DIR" else word for word in words]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ANOTHER_CLOCK, str(hours), *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=site.environment,
    )  # fmt: skip
    stdout, stderr = await asyncio.wait_for(process.communicate(), 120)
    return Done(process.returncode or 0, stdout.decode(), stderr.decode())


@pytest.mark.parametrize("hours", [-9.0, 24.0 * 365 * 20])
async def test_clocks_hours_apart_are_warned_of_and_nothing_else(country: Country, hours: float) -> None:
    other = await joined(country, "Lae", LAE)
    site, token = await country.expect("Badili")
    central = f"127.0.0.1:{site.link.port}"
    done = await at_another_hour(site, hours, "join", "DIR", "--central", central, "--token", token, "--json")
    assert done.exit_code == 0, done.stderr
    await country.assign(BADILI, site.number)
    for run in ("first", "second"):
        done = await at_another_hour(site, hours, "sync", "DIR", "--json")
        assert done.json["in_agreement"], done.stdout
        write_stock(site.database, BADILI, 20, run)
        write_invoice(site.database, BADILI, f"invoice-{run}")
        write_stock(other.database, LAE, 20, f"other-{run}")
    with opened(site.database) as connection:
        connection.execute("UPDATE stock_line SET batch = 'edited' WHERE id LIKE 'first-%'")
        connection.execute("DELETE FROM stock_line WHERE id LIKE 'second-%'")
    done = await at_another_hour(site, hours, "sync", "DIR", "--json")
    assert done.json["in_agreement"] and done.json["held"] == 0, done.stdout
    assert (await other.sync()).json["in_agreement"]
    assert not differences(country.central.database, site.database, CENTRAL_TABLES)
    for table in STORE_TABLES:
        query = f"SELECT * FROM {table} ORDER BY id" if table != "stock_line" else (
            f"SELECT * FROM stock_line WHERE store_id = '{BADILI}' ORDER BY id"
        )  # fmt: skip
        with opened(country.central.database) as at_central, opened(site.database) as at_site:
            assert at_central.execute(query).fetchall() == at_site.execute(query).fetchall(), table
    assert one(country.central.database, "SELECT count(*) FROM stock_line WHERE batch = 'edited'") == 20
    told = (await country.central.must("site", "show", "DIR", str(site.number), "--json")).json
    for status in (await site.status(), told):
        assert status["clock_warning"] is True, status
        assert abs(status["clock_difference_seconds"] - hours * 3600) < 60
    told = (await country.central.must("site", "show", "DIR", str(other.number), "--json")).json
    for status in (await other.status(), told):
        assert status["clock_warning"] is False, "a site whose clock is right is not warned of"
    spoken = (await site.command("status", "DIR")).stdout
    assert "clock" in spoken.lower(), spoken

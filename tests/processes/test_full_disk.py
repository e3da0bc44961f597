"""A disk that fills up under a running daemon: it says so, goes on when there is room again, and has lost nothing.

The disk is a small tmpfs, which takes root (or a user namespace) to mount; where that is not allowed, this is skipped.
"""

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Code
from field_lab.comparison import differences
from field_lab.country import Country, Node
from tests.processes.supplies import BADILI, SAMPLE, one, opened, write_stock
from tests.processes.test_bad_input import assert_refused
from tests.processes.test_main_job import CENTRAL_TABLES, joined

pytestmark = pytest.mark.processes


@pytest.fixture(name="disk")
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 40 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(name="country")
async def country_on_a_small_disk(disk: Path) -> AsyncIterator[Country]:
    """As `country` in conftest.py; the directories lie on the small disk, the daemons' logs with them."""
    async with Country(disk) as made:
        for table in ("unit", "item", "name", "store"):
            await made.import_file(table, SAMPLE / f"{table}.csv")
        yield made


def fill(disk: Path) -> Path:
    """Writes until nothing fits any more, again where room was made meanwhile; deleting the file makes room."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass  # that is the point
    return filler


async def until(is_so: Callable[[], Awaitable[Any]], what: str, seconds: float = 40.0) -> Any:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not (found := await is_so()):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.2)
    return found


def dump(node: Node) -> list[str]:
    """Every row of a node's database."""
    with opened(node.database) as connection:
        return list(connection.iterdump())


async def test_a_full_disk_at_the_central(country: Country, disk: Path, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    own = [site.directory, disk / "state"]  # the site's own disk is not full
    for folder in own:
        shutil.copytree(folder, tmp_path / folder.name)
        subprocess.run(["mount", "--bind", str(tmp_path / folder.name), str(folder)], check=True)
    try:
        await site.start()
        file = tmp_path / "items.csv"
        file.write_text("id,name\n" + "".join(f"new-{number},{'x' * 900}\n" for number in range(4_000)))
        filler = fill(disk)
        before = dump(country.central)
        assert_refused(await country.central.command("import", "DIR", "item", str(file)), Code.DISK_FULL)
        assert dump(country.central) == before, "all of a file or nothing"
        write_stock(site.database, BADILI, 3_000)

        async def says() -> bool:
            fill(disk)  # a log that begins again is cut, which makes room
            with opened(site.database) as connection:
                connection.execute("UPDATE stock_line SET batch = printf('%.*c', 900, 'x') || random()")
            return bool((await country.central.status())["trouble"] == "DISK_FULL")

        await until(says, "status says that the disk is full")
        status = await country.central.status()
        assert "full" in status["last_error"] and "Free some space" in status["last_error"]
        assert country.central.is_running and site.is_running
        filler.unlink()
        await country.import_file("item", file)
        assert (await site.sync()).exit_code == 0, "it goes on by itself"
        assert one(country.central.database, "SELECT count(*) FROM stock_line") == 3_000
        assert not differences(country.central.database, site.database, CENTRAL_TABLES)
        assert (await country.central.status())["trouble"] is None
    finally:
        await site.stop()
        for folder in own:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_at_a_site(country: Country, disk: Path, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    own = disk.with_name("central's own")
    await country.central.stop()
    shutil.copytree(country.central.directory, own)
    subprocess.run(["mount", "--bind", str(own), str(country.central.directory)], check=True)
    try:
        await country.central.start()
        write_stock(site.database, BADILI, 50)
        assert (await site.sync()).exit_code == 0
        await site.start()
        filler = fill(disk)
        file = tmp_path / "items.csv"
        file.write_text("id,name\n" + "".join(f"new-{number},{'x' * 900}\n" for number in range(4_000)))
        await country.import_file("item", file)

        async def says() -> bool:
            return bool((await site.status())["last_error_code"] == "DISK_FULL")

        await until(says, "status says that the disk is full")
        assert "Free some space" in (await site.status())["last_error"]
        assert site.is_running
        filler.unlink()
        done = await site.sync()
        assert done.exit_code == 0, "it goes on by itself"
        assert one(site.database, "SELECT count(*) FROM stock_line") == 50
        assert not differences(country.central.database, site.database, CENTRAL_TABLES)
        assert (await site.status())["last_error_code"] is None
    finally:
        await country.central.stop()
        subprocess.run(["umount", "--lazy", str(country.central.directory)], check=True)

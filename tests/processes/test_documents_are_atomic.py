"""Nobody ever reads half a document: a program polls the receiver while documents with their lines are applied (law 5).

Each invoice says how many lines it has and how many packs they make; a reader is one read transaction (F51).
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from field_lab.country import Country
from tests.processes.crashes import expect_pair, found_store_of_the_central
from tests.processes.paperwork import TORN, Paperwork
from tests.processes.supplies import one, opened
from tests.processes.traces import Line

pytestmark = pytest.mark.processes
READS, READS_WHILE_APPLYING, STATES = 10_000, 100, 20
SECONDS = 60


class Read(NamedTuple):
    """One poll; see reader.py."""

    begin: int
    end: int
    torn: int
    state: str


def read_back(file: Path) -> list[Read]:
    """What the reader has told so far."""
    text = file.read_text() if file.exists() else ""
    words = (line.split() for line in text[: text.rfind("\n") + 1].splitlines())
    return [Read(int(begin), int(end), int(torn), state) for begin, end, torn, state in words]


def applies(lines: list[Line], direction: str) -> list[tuple[int, int]]:
    """(begin, commit) of each apply of a frame, from the applying process's trace."""
    begun: dict[int, int] = {}
    found = []
    for line in lines:
        if line.direction == direction and line.word == "apply_begin":
            begun[line.number] = line.at
        elif line.direction == direction and line.word == "apply_commit":
            found.append((begun.pop(line.number), line.at))
    return found


def test_a_header_that_its_lines_do_not_bear_out_is_noticed(tmp_path: Path) -> None:
    database = tmp_path / "torn.db"
    with opened(database) as connection:
        connection.execute("CREATE TABLE invoice (id, comment)")
        connection.execute("CREATE TABLE invoice_line (invoice_id, number_of_packs)")
        connection.execute("INSERT INTO invoice VALUES ('whole', '1 lines, 7 packs'), ('half', '2 lines, 7 packs')")
        connection.execute("INSERT INTO invoice_line VALUES ('whole', '7'), ('half', '7')")
    assert one(database, TORN) == 1


@pytest.mark.parametrize("direction", ["push", "pull"])
async def test_no_reader_sees_a_header_without_its_lines(country: Country, tmp_path: Path, direction: str) -> None:
    of_the_central = await found_store_of_the_central(country, seed=3)
    pair, token = await expect_pair(country, 1, seed=4)
    assert (await country.join(pair.site, token)).exit_code == 0
    await pair.site.start()
    paperwork: Paperwork = pair.paperwork if direction == "push" else of_the_central
    receiver = country.central if direction == "push" else pair.site
    paperwork.burst(invoices=100, lines=6, stock=0)
    file = tmp_path / "reads"
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.processes.reader", str(receiver.database), str(READS), str(file),
        stdin=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    paperwork.start(pause_seconds=0.05)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        await asyncio.to_thread(paperwork.revise)
        await asyncio.sleep(0.3)
        reads = read_back(file)
        if len(reads) >= READS and len({read.state for read in reads}) >= STATES:
            break
    paperwork.stop()
    assert reader.stdin is not None
    reader.stdin.close()
    assert await reader.wait() == 0
    reads = read_back(file)
    spans = applies(pair.lines(1 if direction == "push" else 0), direction)
    within = sum(1 for read in reads if any(begin < read.begin and read.end < end for begin, end in spans))
    states = len({read.state for read in reads})
    print(f"{direction}: {len(reads)} reads, {within} of them while a frame was applied, {states} states seen")
    assert sum(read.torn for read in reads) == 0
    assert (len(reads) >= READS, within >= READS_WHILE_APPLYING, states >= STATES) == (True, True, True)

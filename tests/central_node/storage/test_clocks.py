"""Time orders nothing: the same history under clocks that jump ends in the same data and versions (law 14)."""

import random
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine.limits import TOMBSTONE_DAYS
from tests.partners import NOW, Central, Node, Site, connect, pull, push, synchronise

HOUR = 3_600
JUMPS = {
    "back at the central": ([-HOUR], [0]),
    "back at the site": ([0], [-HOUR]),
    "apart": ([10 * HOUR], [-10 * HOUR]),
    "back and forth": ([-24 * HOUR, 48 * HOUR], [48 * HOUR, -24 * HOUR]),
    "for years": ([-2 * TOMBSTONE_DAYS * 24 * HOUR, 0], [0, 2 * TOMBSTONE_DAYS * 24 * HOUR]),
}
"""By how much the clocks of the central and of the site have moved at each step, again and again."""


def history(folder: Path, jumps: tuple[list[int], list[int]]) -> tuple[Central, Site]:
    """Edits, held documents and deletes at both ends, each followed by whatever the clocks do."""
    folder.mkdir()
    central = Central(folder / "node-1.db")
    site = central.add(folder, 2)
    assert synchronise(central, site).in_agreement
    chance, steps = random.Random(14), count()

    def tick() -> None:
        place = next(steps)
        for node, moves in zip((central, site), jumps, strict=True):
            node.now = max(node.now + moves[place % len(moves)], 1)

    for number in range(12):
        tick()
        site.put_stock(f"s{number % 4}", str(number), "item-9" if number % 3 == 0 else "item-0")
        site.put_invoice("i", [str(number)], str(number))
        tick()
        match chance.randrange(4):
            case 0:
                push(central, site, (2, 1 << 20))
            case 1:
                site.execute("DELETE FROM stock_line WHERE id = (SELECT max(id) FROM stock_line)")
            case 2:
                connect(central, site)
                push(central, site)
            case _:
                central.execute("UPDATE item SET name = ? WHERE id = 'item-1'", str(number))
                pull(central, site)
    tick()
    central.execute("INSERT INTO item (id, name, unit_id) VALUES ('item-9', 'late', 'each')")
    for _ in range(3):
        tick()
        report = synchronise(central, site)
    assert report.in_agreement
    return central, site


def data(node: Node) -> list[set[tuple[Any, ...]]]:
    rows = [node.rows(table) for table in ("item", "stock_line", "invoice", "invoice_line")]
    versions = node.execute(
        "SELECT table_name, id, counter, deleted FROM sync_record WHERE table_name NOT IN ('site', 'store_copy')"
    )
    return [*rows, set(versions)]


@pytest.mark.parametrize("jumps", JUMPS)
def test_law14_clocks_that_jump_change_nothing(tmp_path: Path, jumps: str) -> None:
    steady = history(tmp_path / "steady", ([1], [1]))
    jumping = history(tmp_path / "jumping", JUMPS[jumps])
    assert [node.now for node in jumping] != [node.now for node in steady] and steady[0].now > NOW
    for one, other in zip(steady, jumping, strict=True):
        assert data(one) == data(other)

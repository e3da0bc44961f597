"""What the bench moves: stock lines of about 300 bytes as JSON, made from a seed.

Ids are UUIDv7, one per millisecond, so they sort in the order of insertion. The item is drawn evenly from ITEMS items,
batch and expiry date are random; the same seed makes the same rows.
"""

import csv
import random
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

ITEMS = 10_000
_FIRST_MILLISECOND = 1_780_000_000_000

Row = tuple[str, ...]
"""A stock line in the order of COLUMNS."""

COLUMNS = (
    "id", "store_id", "item_id", "batch", "expiry_date", "pack_size", "number_of_packs", "cost_price_per_pack",
    "sell_price_per_pack",
)  # fmt: skip


class Supplies:
    """Makes items, stores and stock lines; everything random comes from the seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._ids = self._every_id()
        self.items = [next(self._ids) for _ in range(ITEMS)]

    def stock_lines(self, store: str, count: int) -> list[Row]:
        """New stock lines of a store, in the order of their ids."""
        return [self._stock_line(store) for _ in range(count)]

    def stores(self, count: int) -> list[str]:
        """Ids for new stores."""
        return [next(self._ids) for _ in range(count)]

    def write_catalogue(self, folder: Path, stores: Iterable[str]) -> dict[str, Path]:
        """Writes unit, item, name and store as CSV files; returns table -> file, in the order of import."""
        named = [(store, f"S{number}", f"Store {number}", next(self._ids)) for number, store in enumerate(stores)]
        items = [(item, f"I{number:05}", f"Item {number}", "unit-tablet") for number, item in enumerate(self.items)]
        return {
            "unit": _write(folder / "unit.csv", "id code name", [("unit-tablet", "TAB", "tablet")]),
            "item": _write(folder / "item.csv", "id code name unit_id", items),
            "name": _write(folder / "name.csv", "id code name", [(s[3], s[1], s[2]) for s in named]),
            "store": _write(folder / "store.csv", "id code name name_id", named),
        }

    def _stock_line(self, store: str) -> Row:
        chance = self._chance
        expiry = f"20{chance.randrange(27, 32)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
        packs, price = str(chance.randrange(1, 500)), chance.randrange(100, 9900)
        return (
            next(self._ids), store, chance.choice(self.items), f"B{chance.randrange(10**6):06}", expiry, "100", packs,
            _decimal(price), _decimal(price * 5 // 4),
        )  # fmt: skip

    def _every_id(self) -> Iterator[str]:
        millisecond = _FIRST_MILLISECOND
        while True:
            high = millisecond << 16 | 0x7 << 12 | self._chance.getrandbits(12)
            yield str(uuid.UUID(int=high << 64 | 0b10 << 62 | self._chance.getrandbits(62)))
            millisecond += 1


def _decimal(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _write(file: Path, columns: str, rows: Iterable[Row]) -> Path:
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns.split())
        writer.writerows(rows)
    return file

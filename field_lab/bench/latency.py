"""From COMMIT by plain sqlite3 at one site until the edit can be read at another, through the central.

Both sites are live. Edits come one at a time, a random 20 to 200 ms after the one before was seen.
"""

import asyncio
import random
import time
from pathlib import Path

from field_lab.bench.scene import Scene
from field_lab.bench.storage.site_program import Edits
from field_lab.bench.supplies import Row

_LOOK_SECONDS = 0.0005
_PATIENCE_SECONDS = 30.0


async def measure_latency(scene: Scene, lines: list[Row], edits: int) -> list[float]:
    """Milliseconds of each edit of these rows, from site A to the newest reader."""
    here, there = scene.pushing, scene.readers[-1]
    await here.stop()
    for site in (here, there):
        await site.start()
    await scene.country.until_agreed(_PATIENCE_SECONDS)
    return await asyncio.to_thread(_edit, here.database, there.database, [row[0] for row in lines], edits)


def _edit(here: Path, there: Path, stock_lines: list[str], count: int) -> list[float]:
    edits, chance, milliseconds = Edits(here, there, stock_lines), random.Random(0), []
    for _ in range(count):
        time.sleep(chance.uniform(0.02, 0.2))
        edits.commit_one()
        committed = time.monotonic()
        while not edits.is_visible():
            if time.monotonic() - committed > _PATIENCE_SECONDS:
                raise RuntimeError("an edit did not arrive")
            time.sleep(_LOOK_SECONDS)
        milliseconds.append((time.monotonic() - committed) * 1000)
    edits.close()
    return milliseconds

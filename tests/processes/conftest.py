"""Real daemons for every test of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from field_lab.country import Country
from tests.processes.supplies import SAMPLE


@pytest.fixture
async def country(tmp_path: Path) -> AsyncIterator[Country]:
    """A central node that serves, with the sample catalogue imported."""
    async with Country(tmp_path) as made:
        for table in ("unit", "item", "name", "store"):
            await made.import_file(table, SAMPLE / f"{table}.csv")
        yield made

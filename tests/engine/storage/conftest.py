"""Databases for the tests of this folder. Tests leave them as they found them (see `nodes.undone`)."""

import sqlite3
from collections.abc import Iterator

import pytest

from tests.engine.storage.nodes import central_database, site_database


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The database of site 2."""
    connection = site_database(tmp_path_factory.mktemp("site") / "node.db")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The database of the central node."""
    connection = central_database(tmp_path_factory.mktemp("central") / "node.db")
    yield connection
    connection.close()


@pytest.fixture(params=["site", "central"])
def node(request: pytest.FixtureRequest) -> sqlite3.Connection:
    """Each of the two in turn."""
    connection: sqlite3.Connection = request.getfixturevalue(request.param)
    return connection

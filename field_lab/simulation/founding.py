"""The databases with which every world begins: a central with its catalogue, and sites that have enrolled.

They are made once in a process for each number of sites, and copied. What is drawn at random in them is the same in
every process.
"""

import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from central_node.storage.roster import enrol, expect_site
from central_node.storage.steps import refresh_topology
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, assign_store, found_central
from engine.rules.topology import CopyType
from engine.storage.configuration import read_topology
from engine.storage.database import transact
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from field_lab.core_catalogue import core_catalogue
from field_lab.simulation.virtual_loop import EPOCH_SECONDS, VirtualTimeLoop, virtual_world
from field_lab.simulation.workload import ITEMS_AT_FIRST
from site_node.storage.notes import found_site

FAST_FOLDER = Path("/dev/shm")  # noqa: S108 - a file system in memory; folders below it have names of their own


class Founded(NamedTuple):
    """What a world begins with."""

    databases: dict[int, bytes]
    """The file of each node by its number, 1 for the central."""
    epochs: dict[int, bytes]


def store_of(number: int) -> str:
    """The store that is active at a site."""
    return f"store-{number}"


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A temporary folder, in memory where that is possible: no real disk has to hear of simulated power cuts."""
    parent = FAST_FOLDER if FAST_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="packhorse-simulation-", dir=parent) as folder:
        yield Path(folder)


@cache
def found(sites: int) -> Founded:
    """The databases of a central with that many sites, numbered from 2 on."""
    loop = VirtualTimeLoop()
    try:
        with virtual_world(loop, sites), fast_folder() as folder:
            return _found(folder, range(2, 2 + sites))
    finally:
        loop.close()


def _found(folder: Path, numbers: range) -> Founded:
    central, epochs = open_writer(folder / "1"), dict[int, bytes]()
    prepare(central, core_catalogue(), CENTRAL_TABLES)
    transact(central, lambda connection: found_central(connection, core_catalogue(), "central"))
    transact(central, lambda connection: _fill(connection, numbers))
    for number in numbers:
        epochs[number] = enrol_site(folder, central, number)
        transact(central, partial(_assign, number=number))
    central.close()
    return Founded({number: (folder / str(number)).read_bytes() for number in (1, *numbers)}, epochs)


def _fill(connection: sqlite3.Connection, numbers: range) -> None:
    connection.execute("INSERT INTO unit (id, name) VALUES ('each', 'each')")
    for number in range(ITEMS_AT_FIRST):
        connection.execute("INSERT INTO item (id, name, unit_id) VALUES (?, ?, 'each')", (f"item-{number}", "x"))
    connection.execute("INSERT INTO name (id, name) VALUES ('name', 'name')")
    for number in numbers:
        store = store_of(number)
        connection.execute("INSERT INTO store (id, name, name_id, mode) VALUES (?, ?, 'name', 'store')", (store, store))


def _assign(connection: sqlite3.Connection, number: int) -> None:
    topology = read_topology(connection)
    assign_store(connection, core_catalogue(), topology, store_of(number), number, CopyType.COLLECTOR)
    refresh_topology(connection, core_catalogue())


def enrol_site(folder: Path, central: sqlite3.Connection, number: int) -> bytes:
    """Has a site join that holds no store yet, with a database of its own in the folder; returns its epoch."""
    secret, epoch, installation = secrets.token_bytes(32), secrets.token_bytes(16), secrets.token_hex(16)
    now = int(EPOCH_SECONDS)

    def enrolled(connection: sqlite3.Connection) -> None:
        assert expect_site(connection, f"site {number}", secret, now) == number
        add_site(connection, number, f"site {number}")
        enrol(connection, secret, installation, bytes(32), epoch, now)

    transact(central, enrolled)
    site = open_writer(folder / str(number))
    prepare(site, core_catalogue())
    transact(site, lambda connection: found_site(connection, number, f"site {number}", installation, epoch))
    site.close()
    return epoch

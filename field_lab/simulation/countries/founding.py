"""The databases with which a country begins: sites that have enrolled, four stores, and a primary."""

import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

from central_node.storage.copies import administering, random_term_part
from central_node.storage.effects import change_topology
from central_node.storage.steps import refresh_topology
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import assign_store, found_central, include_transactions
from engine.rules.topology import CopyType
from engine.storage.configuration import read_topology
from engine.storage.database import transact
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from field_lab.core_catalogue import core_catalogue
from field_lab.simulation.founding import Founded, enrol_site, fast_folder
from field_lab.simulation.virtual_loop import VirtualTimeLoop, virtual_world

MIRRORED_PRIMARY = 2
"""The site that is the primary where the central is not."""
STORES_AT_FIRST = 4
_ACTIVE_AT = {"store-1": 1, "store-2": 2, "store-3": 3, "store-4": 2}
_DISPENSARIES = ("store-3", "store-4")
WITHHOLDING = "store-4"
"""A dispensary that leaves its transactions out from the beginning."""
_ROWS = (
    ("unit", "name", 3),
    ("name", "name", 4),
    ("location_type", "name", 2),
    ("transaction_category", "name", 2),
    ("diagnosis", "description", 3),
)


@cache
def found_country(sites: int, is_mirrored: bool) -> Founded:
    """The databases of a central with that many sites, numbered from 2 on."""
    loop = VirtualTimeLoop()
    try:
        with virtual_world(loop, sites), fast_folder() as folder:
            return _found(folder, range(2, 2 + sites), is_mirrored)
    finally:
        loop.close()


def _found(folder: Path, numbers: range, is_mirrored: bool) -> Founded:
    central, epochs = open_writer(folder / "1"), dict[int, bytes]()
    prepare(central, core_catalogue(), CENTRAL_TABLES)
    transact(central, lambda connection: found_central(connection, core_catalogue(), "central"))
    transact(central, _fill)
    for number in numbers:
        epochs[number] = enrol_site(folder, central, number)
    transact(central, lambda c: change_topology(c, core_catalogue(), lambda d: _arrange(d, is_mirrored), False))
    transact(central, lambda c: refresh_topology(c, core_catalogue()))
    central.close()
    return Founded({number: (folder / str(number)).read_bytes() for number in (1, *numbers)}, epochs)


def _fill(connection: sqlite3.Connection) -> None:
    for table, column, count in _ROWS:
        for number in range(count):
            connection.execute(f"INSERT INTO {table} (id, {column}) VALUES (?, 'first')", (f"{table}-{number}",))
    for number in range(8):
        values = (f"item-{number}", f"unit-{number % 3}")
        connection.execute("INSERT INTO item (id, name, unit_id) VALUES (?, 'first', ?)", values)
    for store in _ACTIVE_AT:
        mode = "dispensary" if store in _DISPENSARIES else "store"
        connection.execute("INSERT INTO name (id, name, type) VALUES (?, ?, 'store')", (store, store))
        connection.execute(
            "INSERT INTO store (id, name, name_id, mode) VALUES (?, ?, ?, ?)", (store, store, store, mode)
        )


def _arrange(connection: sqlite3.Connection, is_mirrored: bool) -> dict[str, Any]:
    for store, site in _ACTIVE_AT.items():
        assign_store(connection, core_catalogue(), read_topology(connection), store, site, CopyType.COLLECTOR)
    include_transactions(connection, WITHHOLDING, included=False)
    if is_mirrored:
        with administering(connection):
            connection.execute("UPDATE site SET is_primary = 0, term = 0, term_id = 0 WHERE is_primary")
            connection.execute(
                "UPDATE site SET is_primary = 1, term = 2, term_id = ? WHERE id = ?",
                (random_term_part(), str(MIRRORED_PRIMARY)),
            )
    return {}

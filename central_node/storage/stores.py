"""Store records and visibility: central store data, edited where the primary is. The triggers judge who may."""

import secrets
import sqlite3
import time
import uuid
from collections.abc import Mapping
from typing import Any

from central_node.storage.copies import joined_id
from central_node.storage.topology import store_name
from engine.catalogue.model import Catalogue, Table
from engine.errors import Code, Refused
from engine.rules.copies import SyncWith
from engine.rules.topology import Topology

STORE_AS_SUBJECT = "store"
"""A store is made visible by its name; people may say the store."""


def add_store(connection: sqlite3.Connection, name: str, code: str, mode: str, store_id: str) -> dict[str, Any]:
    """Adds a store with the name under which others trade with it. An empty id lets one be made.

    Raises:
        Refused: ID_TAKEN where a store or name has that id, EDIT_REFUSED where the primary is another node.
    """
    record_id = store_id or _new_id()
    for table in ("store", "name"):
        if connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (record_id,)).fetchone():
            raise Refused(Code.ID_TAKEN, f"There is a {table} with the id {record_id!r} already.")
    _edit(
        connection,
        "INSERT INTO name (id, code, name, type, is_customer, is_supplier) VALUES (?, ?, ?, 'store', 1, 1)",
        (record_id, code, name),
    )
    _edit(
        connection,
        "INSERT INTO store (id, code, name, name_id, mode) VALUES (?, ?, ?, ?, ?)",
        (record_id, code, name, record_id, mode),
    )
    return {"store": record_id, "name": name, "code": code, "mode": mode}


def edit_store(connection: sqlite3.Connection, store_id: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Changes columns of a store record: name, code, mode.

    Raises:
        Refused: STORE_UNKNOWN, EDIT_REFUSED.
    """
    store_name(connection, store_id)
    columns = ", ".join(f"{column} = ?" for column in settings)
    if settings:
        _edit(connection, f"UPDATE store SET {columns} WHERE id = ?", (*settings.values(), store_id))
    row = connection.execute("SELECT id, name, code, mode FROM store WHERE id = ?", (store_id,)).fetchone()
    return dict(zip(("store", "name", "code", "mode"), row, strict=True))


def list_stores(connection: sqlite3.Connection, topology: Topology) -> list[dict[str, Any]]:
    """Every store with where it is active."""
    rows = connection.execute("SELECT id, code, name, mode FROM store ORDER BY name, id")
    return [
        {
            "store": row[0], "code": row[1], "name": row[2], "mode": row[3],
            "site": topology.active_copies[row[0]].site if row[0] in topology.active_copies else None,
        }
        for row in rows
    ]  # fmt: skip


def show_store(connection: sqlite3.Connection, topology: Topology, store_id: str) -> dict[str, Any]:
    """A store with its copies at every site that has one. Raises Refused with STORE_UNKNOWN."""
    store_name(connection, store_id)
    row = connection.execute("SELECT id, name, code, mode, name_id FROM store WHERE id = ?", (store_id,)).fetchone()
    active = topology.active_copies.get(store_id)
    copies = [
        {
            "site": copy.site,
            "site_name": topology.sites[copy.site].name if copy.site in topology.sites else "",
            "type": copy.type.value,
            "sync_with": SyncWith.of(copy.type).value,
        }
        for (store, _), copy in sorted(topology.copies.items())
        if store == store_id
    ]
    return {
        **dict(zip(("store", "name", "code", "mode", "name_id"), row, strict=True)),
        "site": active.site if active else None,
        "include_transactions": not active.excludes_transactions if active else True,
        "copies": copies,
    }


# --- visibility -------------------------------------------------------------------------------------------------------


def add_visibility(
    connection: sqlite3.Connection, catalogue: Catalogue, table: str, record_id: str, store_id: str
) -> dict[str, Any]:
    """Makes a record visible in a store; harmless where it is.

    Raises:
        Refused: TABLE_WRONG for a table without visibility, RECORD_UNKNOWN, STORE_UNKNOWN, EDIT_REFUSED.
    """
    subject, subject_id = _subject(connection, catalogue, table, record_id)
    _require_there(connection, subject, subject_id)
    store_name(connection, store_id)
    visibility, column = catalogue.visibility_of(subject)
    there = f"SELECT 1 FROM {visibility.name} WHERE {column} = ? AND {visibility.store_column} = ?"
    is_new = connection.execute(there, (subject_id, store_id)).fetchone() is None
    if is_new:
        _edit(
            connection,
            f"INSERT INTO {visibility.name} (id, {visibility.store_column}, {column}) VALUES (?, ?, ?)",
            (joined_id(subject_id, store_id), store_id, subject_id),
        )
    return {"table": subject.name, "id": subject_id, "store": store_id, "visible": True, "changed": is_new}


def remove_visibility(
    connection: sqlite3.Connection, catalogue: Catalogue, table: str, record_id: str, store_id: str
) -> dict[str, Any]:
    """Takes the visibility of a record in a store away; harmless where it is not visible. What is visible may be
    deleted meanwhile.

    Raises:
        Refused: as `add_visibility`.
    """
    subject, subject_id = _subject(connection, catalogue, table, record_id)
    store_name(connection, store_id)
    visibility, column = catalogue.visibility_of(subject)
    gone = _edit(
        connection,
        f"DELETE FROM {visibility.name} WHERE {column} = ? AND {visibility.store_column} = ?",
        (subject_id, store_id),
    )
    if not gone:
        _require_there(connection, subject, subject_id)
    return {"table": subject.name, "id": subject_id, "store": store_id, "visible": False, "changed": gone > 0}


def list_visibility(
    connection: sqlite3.Connection, catalogue: Catalogue, table: str, store_id: str
) -> list[dict[str, Any]]:
    """The records of a table that are visible in a store. Raises Refused with TABLE_WRONG, STORE_UNKNOWN."""
    store_name(connection, store_id)
    subject = _subject_table(catalogue, table)
    visibility, column = catalogue.visibility_of(subject)
    rows = connection.execute(
        f"SELECT {column} FROM {visibility.name} WHERE {visibility.store_column} = ? ORDER BY 1", (store_id,)
    )
    return [{"table": subject.name, "id": row[0]} for row in rows]


def visibility_tables(catalogue: Catalogue) -> list[str]:
    """The tables whose records can be made visible, and "store"."""
    return [STORE_AS_SUBJECT, *sorted(subject.name for subject, _ in catalogue.subjects.values())]


def _subject_table(catalogue: Catalogue, table: str) -> Table:
    name = "name" if table == STORE_AS_SUBJECT else table
    if name not in catalogue or not catalogue[name].visibility_table:
        known = ", ".join(visibility_tables(catalogue))
        raise Refused(Code.TABLE_WRONG, f"Visibility is recorded for {known}, not for {table[:60]!r}.")
    return catalogue[name]


def _subject(connection: sqlite3.Connection, catalogue: Catalogue, table: str, record_id: str) -> tuple[Table, str]:
    subject = _subject_table(catalogue, table)
    if table == STORE_AS_SUBJECT:
        name = store_name(connection, record_id)
        record_id = str(connection.execute("SELECT name_id FROM store WHERE id = ?", (record_id,)).fetchone()[0])
        if not record_id:
            raise Refused(Code.RECORD_UNKNOWN, f"Store {name} has no name under which it can be visible.")
    return subject, record_id


def _require_there(connection: sqlite3.Connection, subject: Table, record_id: str) -> None:
    if connection.execute(f"SELECT 1 FROM {subject.name} WHERE id = ?", (record_id,)).fetchone() is None:
        raise Refused(Code.RECORD_UNKNOWN, f"There is no {subject.name} with the id {record_id!r}.")


def _edit(connection: sqlite3.Connection, statement: str, values: tuple[str, ...]) -> int:
    """Does an ordinary edit, which triggers judge; returns the number of rows."""
    try:
        return connection.execute(statement, values).rowcount
    except sqlite3.IntegrityError as error:
        raise Refused(Code.EDIT_REFUSED, str(error).removeprefix("Packhorse: ")) from error


def _new_id() -> str:
    """A UUIDv7: ids in the order of insertion keep the tables compact."""
    high = int(time.time() * 1000) << 16 | 0x7000 | secrets.randbits(12)
    return str(uuid.UUID(int=high << 64 | 0b10 << 62 | secrets.randbits(62)))

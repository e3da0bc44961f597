"""Whether anything here refers to a record: central records that are in use are switched off, not deleted (F55)."""

import sqlite3
from collections.abc import Sequence

from engine.catalogue.codec import codec, record_hash
from engine.catalogue.model import Catalogue, Row, Table
from engine.storage.records import Change


def used(catalogue: Catalogue, table: Table, record_id: str) -> str:
    """SQL that is true when any record of this database refers to a record of `table`, its own document apart.

    Args:
        catalogue: the tables.
        table: of the record that may be referred to.
        record_id: SQL for its id.
    """
    places = [
        f"EXISTS (SELECT 1 FROM {referring.name} WHERE {column} = {record_id})"
        for referring, column in catalogue.referring_to(table.name)
        if referring.parent != table.name
    ]
    return f"({' OR '.join(places) or 'false'})"


def switched_off(
    connection: sqlite3.Connection, catalogue: Catalogue, changes: Sequence[Change], stored: Row | None
) -> list[Change]:
    """What a document's changes come to: the delete of a central record that is in use here becomes its being switched
    off, at the version of the delete, and its lines stay. Whoever deleted it cannot see every use.

    Args:
        connection: to the central's database.
        catalogue: its tables.
        changes: of one document, the root first.
        stored: the root as it is here; None where it is not.
    """
    root = changes[0]
    if root.row is not None or stored is None or not root.table.active_column:
        return list(changes)
    is_used = f"SELECT {used(catalogue, root.table, '?1')}"
    if not connection.execute(is_used, (root.id,)).fetchone()[0]:
        return list(changes)
    place = root.table.index[root.table.active_column]
    row = (*stored[:place], 0, *stored[place + 1 :])
    kept = connection.execute(
        "SELECT fields FROM sync_unknown WHERE table_name = ? AND id = ?", (root.table.name, root.id)
    ).fetchone()
    unknown = bytes(kept[0]) if kept else b""
    hashed = record_hash(root.table.name, root.id, *root.version, codec(root.table).canonical(row, unknown))
    return [root._replace(row=row, unknown=unknown, hash=hashed)]

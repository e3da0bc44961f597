"""Whether anything here refers to a record: central records that are in use are not deleted (F55).

They are switched off where their table has a column for that, and stay as they are elsewhere."""

import sqlite3
from collections.abc import Sequence

from engine.catalogue.codec import codec, record_hash
from engine.catalogue.model import Catalogue, Row, Table
from engine.storage.records import Change, members_of, read_rows, read_unknown


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


def kept_in_use(
    connection: sqlite3.Connection, catalogue: Catalogue, changes: Sequence[Change], stored: Row | None
) -> list[Change]:
    """What a document's changes come to: a central record that is in use here stays when it is deleted, switched off
    where that is possible, and so do its lines. They get the version of the delete: whoever deleted the record, because
    the use cannot be seen there, gets all of it back.

    Args:
        connection: to the central's database.
        catalogue: its tables.
        changes: of one document, the root first.
        stored: the root as it is here; None where it is not.
    """
    root = changes[0]
    if root.row is not None or stored is None or not catalogue.stays_while_used(root.table):
        return list(changes)
    is_used = f"SELECT {used(catalogue, root.table, '?1')}"
    if not connection.execute(is_used, (root.id,)).fetchone()[0]:
        return list(changes)
    row = list(stored)
    if root.table.active_column:
        row[root.table.index[root.table.active_column]] = 0
    present = [(root.table, root.id, tuple(row))]
    for member in catalogue.members_of(root.table.name):
        lines = read_rows(connection, member, members_of(connection, member, root.id))
        present += [(member, line_id, line) for line_id, line in lines.items()]
    return [_as_it_is(connection, root, *record) for record in present]


def _as_it_is(connection: sqlite3.Connection, root: Change, table: Table, record_id: str, row: Row) -> Change:
    """A record of the root's document at the root's version."""
    unknown = read_unknown(connection, table, [record_id]).get(record_id, b"")
    hashed = record_hash(table.name, record_id, *root.version, codec(table).canonical(row, unknown))
    return Change(table, record_id, root.root_id, root.version, row, unknown, hashed)

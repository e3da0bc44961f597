"""Required references of pushed documents: which of them are not here (F26)."""

import sqlite3
from collections.abc import Collection, Sequence

from engine.catalogue.model import Catalogue
from engine.storage.records import Change, Key, exists


def doubtful_references(
    connection: sqlite3.Connection, catalogue: Catalogue, known: Collection[Key], changes: Sequence[Change]
) -> set[Key]:
    """The required references that are not here: they are missing, or arrive with these changes if those are accepted.

    Args:
        connection: to the node's database.
        catalogue: its tables.
        known: the keys of changes whose records are here already, deleted or not.
        changes: what came together.
    """
    wanted: dict[str, set[str]] = {}
    for change in changes:
        if change.row is None:
            continue
        for place, table in change.table.required:
            if target := change.row[place]:
                wanted.setdefault(table, set()).add(str(target))
    arriving = {(change.table.name, change.id) for change in changes if change.table.name in wanted}
    doubtful: set[Key] = set()
    for table, ids in wanted.items():
        elsewhere = sorted(record_id for record_id in ids if (table, record_id) not in arriving)
        there = exists(connection, catalogue[table], elsewhere)
        for record_id in ids:
            key = (table, record_id)
            if key not in known if key in arriving else record_id not in there:
                doubtful.add(key)
    return doubtful


def first_missing(
    connection: sqlite3.Connection, changes: Sequence[Change], doubtful: Collection[Key], accepted: Collection[Key]
) -> Key | None:
    """The first required reference of a document that is doubtful, was not accepted and is not part of it itself. A
    reference that the record has here already was taken once: what it refers to was deleted so long ago since that it
    is forgotten (F38)."""
    own = {(change.table.name, change.id) for change in changes}
    for change in changes:
        for key in change.required():
            if key in doubtful and key not in accepted and key not in own and not _has_already(connection, change, key):
                return key
    return None


def _has_already(connection: sqlite3.Connection, change: Change, target: Key) -> bool:
    columns = [change.table.columns[place].name for place, table in change.table.required if table == target[0]]
    these = " OR ".join(f"{column} = ?2" for column in columns)
    query = f"SELECT 1 FROM {change.table.name} WHERE id = ?1 AND ({these})"
    return connection.execute(query, (change.id, target[1])).fetchone() is not None

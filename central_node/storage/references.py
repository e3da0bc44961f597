"""Required references of pushed documents: which of them are not here (F26)."""

import sqlite3
from collections import defaultdict
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
    wanted, arriving = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for change in changes:
        arriving[change.table.name].add(change.id)
        if change.row is not None:
            for place, table in change.table.required:
                if target := change.row[place]:
                    wanted[table].add(str(target))
    doubtful: set[Key] = set()
    for table, ids in wanted.items():
        coming = ids & arriving.get(table, set())
        elsewhere = ids - coming
        missing = elsewhere - exists(connection, catalogue[table], sorted(elsewhere))
        doubtful.update((table, record_id) for record_id in missing)
        doubtful.update((table, record_id) for record_id in coming if (table, record_id) not in known)
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

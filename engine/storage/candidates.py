"""Documents that have left a scope, with all that decides what becomes of them (engine/rules/eviction.py)."""

import sqlite3
from collections.abc import Iterable, Sequence

from engine.catalogue.model import Catalogue
from engine.rules.authority import owner_of
from engine.rules.eviction import RIGHTS_THAT_KEEP, Fate, fate_of
from engine.storage.configuration import read_rights
from engine.storage.hidden import hide, show
from engine.storage.records import Key, applying, by_table, chunks, read_rows, read_states


class Documents:
    """The documents of candidates, with all that decides about them, read at once. A line that was deleted while its
    document stays is judged apart from it, as a document of its own.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        candidates: (table, id, root id).
        token: what was edited after this token may refer to candidates that are not marked.
    """

    def __init__(
        self, connection: sqlite3.Connection, catalogue: Catalogue, candidates: Iterable[tuple[str, str, str]],
        token: int | None = None,
    ) -> None:  # fmt: skip
        self._connection, self._catalogue = connection, catalogue
        self.roots: dict[Key, dict[Key, None]] = {}
        """Root -> every record of the document that is here or is known; a line apart -> itself."""
        self._document_of: dict[Key, Key] = {}
        """Line apart -> the root of its document."""
        found = self._with_members(list(candidates))
        self._deleted = deleted = _deleted_among(connection, (key for pair in found for key in pair))
        for root, record in found:
            if record in deleted and root not in deleted:
                self.roots[record] = {record: None}
                self._document_of[record] = root
            else:
                self.roots.setdefault(root, {root: None})[record] = None
        records = [record for every in self.roots.values() for record in every]
        documents = [self._document_of.get(root, root) for root in self.roots]
        self._in_scope = _there(connection, "sync_membership", "table_name", "id", records)
        self._unsent = _there(connection, "sync_outbox", "root_table", "root_id", documents)
        self._unsent |= _there(connection, "sync_in_flight", "table_name", "id", documents)
        self._unsent |= _there(connection, "sync_outcome", "root_table", "root_id", documents)
        self._own = _own(connection, catalogue, documents)
        self._referred = set[Key]() if token is None else _referred(connection, catalogue, records, token)

    def _with_members(self, candidates: list[tuple[str, str, str]]) -> list[tuple[Key, Key]]:
        """(root, record) of the candidates and of all that is in documents of which a root is among them."""
        catalogue, found = self._catalogue, list[tuple[Key, Key]]()
        for table, record_id, root_id in candidates:
            is_line = table in catalogue and bool(catalogue[table].parent)
            found.append(((catalogue[table].parent, root_id) if is_line else (table, record_id), (table, record_id)))
        deleted = _deleted_among(self._connection, (key for pair in found for key in pair))
        roots = dict.fromkeys(root for root, record in found if record not in deleted or root in deleted)
        return [*found, *members_known(self._connection, catalogue, roots)]

    def fate(self, root: Key) -> Fate:
        """What becomes of a document now."""
        records, document = self.roots[root].keys(), self._document_of.get(root, root)
        is_unsent = document in self._unsent
        # What its owner has deleted is not kept because the right to it came here since, unless it was entered again.
        is_own = document in self._own and (root not in self._deleted or is_unsent)
        return fate_of(
            not self._in_scope.isdisjoint(records),
            is_own,
            is_unsent,
            not self._referred.isdisjoint(records),
        )

    def settle(self, root: Key, fate: Fate, now: int) -> None:
        """Does with a document what its fate says; it is no candidate any more."""
        connection, records = self._connection, list(self.roots[root])
        connection.executemany("DELETE FROM sync_left WHERE table_name = ? AND id = ?", records)
        match fate:
            case Fate.STAYS:
                show(connection, records)
            case Fate.LEFT_BEHIND | Fate.NOT_VISIBLE:
                document = self._document_of.get(root, root)
                has_members = document[0] in self._catalogue and bool(self._catalogue.members_of(document[0]))
                root_id = document[1] if has_members else ""
                hide(connection, [(*record, root_id) for record in records], fate, now)
            case Fate.GOES:
                remove(connection, self._catalogue, records)


def remove(connection: sqlite3.Connection, catalogue: Catalogue, records: Sequence[Key]) -> None:
    """Deletes records of this node, with what is known of them but their tombstones; they are not deleted elsewhere."""
    with applying(connection):
        for table, ids in by_table(records).items():
            if table in catalogue:
                connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(record_id,) for record_id in ids])
    connection.executemany("DELETE FROM sync_record WHERE table_name = ? AND id = ? AND deleted = 0", records)
    for bookkeeping in ("sync_unknown", "sync_want", "sync_held", "sync_hidden"):
        connection.executemany(f"DELETE FROM {bookkeeping} WHERE table_name = ? AND id = ?", records)


def members_known(
    connection: sqlite3.Connection, catalogue: Catalogue, roots: Iterable[Key]
) -> Iterable[tuple[Key, Key]]:
    """(root, member) of these documents: of rows that are here, and of records that are known."""
    for table, ids in by_table(roots).items():
        members = {member.name: member for member in catalogue.members_of(table)}
        if not members:
            continue
        for marks, part in chunks(ids):
            for name, member in members.items():
                parent = member.parent_column
                query = f"SELECT {parent}, id FROM {name} WHERE {parent} IN ({marks})"
                yield from (((table, row[0]), (name, row[1])) for row in connection.execute(query, part))
            query = f"SELECT root_id, table_name, id FROM sync_record WHERE root_id IN ({marks}) AND root_id <> ''"
            rows = connection.execute(query, part)
            yield from (((table, row[0]), (row[1], row[2])) for row in rows if row[1] in members)


def _there(
    connection: sqlite3.Connection, place: str, table_column: str, id_column: str, keys: Iterable[Key]
) -> set[Key]:
    """Which of these keys are in one of the engine's tables."""
    found: set[Key] = set()
    for table, ids in by_table(keys).items():
        for marks, part in chunks(ids):
            query = f"SELECT DISTINCT {id_column} FROM {place} WHERE {table_column} = ? AND {id_column} IN ({marks})"
            found.update((table, row[0]) for row in connection.execute(query, (table, *part)))
    return found


def _deleted_among(connection: sqlite3.Connection, keys: Iterable[Key]) -> set[Key]:
    """Which of these records are known to be deleted."""
    return {key for key, state in read_states(connection, keys).items() if state.deleted}


def _own(connection: sqlite3.Connection, catalogue: Catalogue, roots: Iterable[Key]) -> set[Key]:
    rights = {owner for owner in read_rights(connection) if owner.right in RIGHTS_THAT_KEEP}
    found: set[Key] = set()
    for name, ids in by_table(roots).items():
        if name in catalogue:
            table = catalogue[name]
            rows = read_rows(connection, table, ids).items()
            found.update((name, record_id) for record_id, row in rows if owner_of(table, row) in rights)
    return found


def _referred(connection: sqlite3.Connection, catalogue: Catalogue, records: Iterable[Key], token: int) -> set[Key]:
    """Which of these records were marked, or are referred to by what was edited since."""
    keys, marked = list(records), "SELECT 1 FROM sync_left WHERE table_name = ? AND id = ? AND referred_to = 1"
    found = {key for key in keys if connection.execute(marked, key).fetchone() is not None}
    edited = connection.execute("SELECT table_name, id FROM sync_outbox WHERE token > ?", (token,)).fetchall()
    for name, ids in by_table((row[0], row[1]) for row in edited).items():
        table = catalogue[name]
        for row in read_rows(connection, table, ids).values():
            found.update((column.refers_to, str(table.value(row, column.name))) for column in table.references)
    return found.intersection(keys)

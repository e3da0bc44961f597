"""Which scopes a document is in now: the pure rule, with what it must know of the database read for many at once."""

import sqlite3
from collections.abc import Collection, Iterable

from engine.catalogue.model import Catalogue, Kind, Row, Table
from engine.rules.routing import scopes_of
from engine.rules.topology import Topology
from engine.storage.records import Key, by_table, chunks


class Router:
    """Tells the scopes of documents. What `read` was not told of counts as visible in no other store."""

    def __init__(self, connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology) -> None:
        self._connection, self._catalogue, self._topology = connection, catalogue, topology
        self._visible_in: dict[Key, list[str]] = {}
        self._scopes: dict[tuple[str, str], tuple[str, ...]] = {}
        """Those of store data, which depend on the store alone: (table, store) -> scopes."""

    def read(self, roots: Iterable[Key]) -> None:
        """Finds out in which stores these documents are visible; only those of kind patient ask for it."""
        asking = [
            key
            for key in roots
            if self._catalogue[key[0]].kind is Kind.PATIENT and self._catalogue[key[0]].visibility_table
        ]
        for name, ids in by_table(asking).items():
            visibility, subject = self._catalogue.visibility_of(self._catalogue[name])
            for marks, part in chunks(ids):
                for record_id, store in self._connection.execute(
                    f"SELECT {subject}, {visibility.store_column} FROM {visibility.name} WHERE {subject} IN ({marks})",
                    part,
                ):
                    self._visible_in.setdefault((name, record_id), []).append(store)

    def scopes(self, root: Table, row: Row) -> tuple[str, ...]:
        """The scopes of a document by its root record. See `engine.rules.routing.scopes_of`."""
        if root.kind is not Kind.STORE:
            visible_in = self._visible_in.get((root.name, str(row[0])), ()) or self._visible_with(root, row)
            return scopes_of(root, row, self._topology, visible_in)
        case = (root.name, str(row[root.index[root.store_column]]))
        found = self._scopes.get(case)
        if found is None:
            found = self._scopes[case] = scopes_of(root, row, self._topology)
        return found

    def _visible_with(self, root: Table, row: Row) -> Collection[str]:
        """The stores in which the records are, at home or visible, with which this one is visible."""
        stores = set[str]()
        for column, subject in self._catalogue.visible_with(root):
            visibility, name = self._catalogue.visibility_of(subject)
            found = self._connection.execute(
                f"SELECT {subject.store_column} FROM {subject.name} WHERE id = ?1"
                f" UNION SELECT {visibility.store_column} FROM {visibility.name} WHERE {name} = ?1",
                (root.value(row, column),),
            )
            stores |= {str(store) for (store,) in found}
        return stores

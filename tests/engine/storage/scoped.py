"""A site whose feeds are written by the test: any scope, with any records, comes and goes as a page says."""

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from packhorse.sync.v1 import document_pb2

from engine.catalogue.model import RowValue
from engine.rules.versions import Version
from engine.storage.eviction import Place, evict_some, reach_checkpoint
from engine.storage.records import Key, applying
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from field_lab.core_catalogue import core_catalogue
from site_node.storage.notes import found_site
from tests.engine.storage.documents import document, gone, record
from tests.engine.storage.site_end import NOW, SiteEnd

SITE = 2
V1, V2 = Version(1, 1, 1), Version(1, 1, 2)


class ScopedSite(SiteEnd):
    """The site. `head` is the position of every feed that it follows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SITE)
        self.head: dict[str, int] = {}
        self._generation = 0

    def page(
        self,
        scope: str,
        *documents: document_pb2.Document,
        left: Sequence[Key] = (),
        closed: Sequence[str] = (),
    ) -> document_pb2.PullBody:
        """The next page of a feed, which is opened where it is not followed yet."""
        body = document_pb2.PullBody()
        for name in closed:
            body.subscriptions.add(scope=name, closed=True)
            del self.head[name]
        if scope and scope not in self.head:
            self._generation += 1
            self.head[scope] = 0
            body.subscriptions.add(scope=scope, generation=self._generation)
        if scope:
            query = "SELECT generation FROM sync_scope WHERE name = ?"
            generation = self.one(query, scope) if not body.subscriptions else self._generation
            head = self.head[scope]
            section = body.sections.add(scope=scope, generation=int(str(generation)), from_position=head)
            self.head[scope] = section.to_position = head + len(documents) + len(left)
            section.documents.extend(documents)
            section.left.extend(document_pb2.RecordKey(table=table, id=record_id) for table, record_id in left)
        return body

    def put(self, scope: str, *keys: Key, version: Version = V1, **columns: RowValue) -> None:
        """Records without lines come in a scope."""
        self.apply(self.page(scope, *(document(version, record(key[0], id=key[1], **columns)) for key in keys)))

    def delete(self, scope: str, *keys: Key) -> None:
        """Tombstones come in a scope."""
        self.apply(self.page(scope, *(document(V2, gone(*key)) for key in keys)))

    def leave(self, scope: str, *keys: Key) -> None:
        """Records leave a scope."""
        self.apply(self.page(scope, left=keys))

    def close(self, *scopes: str) -> None:
        """Scopes are lost."""
        self.apply(self.page("", closed=scopes))

    def pieces(self) -> Iterator[Place]:
        """A checkpoint, and what it lets go; the test may do anything between two pieces."""
        place = Place() if self.write(lambda c: reach_checkpoint(c, looks_at_hidden=True)) else None
        while place is not None:
            yield place
            place = self.write(partial(evict_some, catalogue=core_catalogue(), place=place, now=NOW))

    def write_row(self, table: str, record_id: str, **columns: RowValue) -> None:
        """A row that no feed has brought, and that no trigger is asked about."""

        def write(connection: sqlite3.Connection) -> None:
            with applying(connection):
                names = ", ".join(("id", *columns))
                marks = ", ".join("?" * (1 + len(columns)))
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", (record_id, *columns.values()))

        self.write(write)

    def hidden(self) -> dict[Key, str]:
        """What is hidden, with the reason."""
        rows = self.connection.execute("SELECT table_name, id, why FROM sync_hidden")
        return {(row[0], row[1]): row[2] for row in rows}

    def has(self, key: Key) -> bool:
        """Whether the row is there."""
        return self.one(f"SELECT 1 FROM {key[0]} WHERE id = ?", key[1]) is not None


@contextmanager
def scoped_site() -> Iterator[ScopedSite]:
    """A site that follows nothing yet."""
    with tempfile.TemporaryDirectory(prefix="packhorse-scoped-") as name:
        path = Path(name) / "node.db"
        connection = open_writer(path)
        prepare(connection, core_catalogue())
        connection.execute("BEGIN")
        found_site(connection, SITE, "site 2", "installation", bytes(16))
        connection.execute("COMMIT")
        connection.close()
        site = ScopedSite(path)
        try:
            yield site
        finally:
            site.connection.close()

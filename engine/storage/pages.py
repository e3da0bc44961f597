"""Reads what a subscriber has not got yet, feed by feed, in one snapshot (F14).

Pages are read in the order of record positions. For every document touched, all its other entries beyond the
subscriber's position go along, from the same snapshot, so that no page shows half a document; the subscriber's position
moves to the last *paged* position only, so that nothing is passed. Entries sent ahead come again and change nothing.

What the subscriber wrote itself travels as (key, version, hash) without content (echoes.py).
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.catalogue.codec import Unreadable, codec
from engine.catalogue.model import Catalogue
from engine.limits import COUNT_CAP, FRAME_BYTES, ID_BYTES_MAX
from engine.rules.versions import Version
from engine.session.frames import to_wire
from engine.storage.echoes import echoes_of
from engine.storage.feeds import LEAVE, PUT, heads
from engine.storage.outbox import Present
from engine.storage.records import Key, State, Writer, chunks
from engine.storage.wants import read_wants

# The conditions of the partial indexes are repeated: without them SQLite reads all feeds for every page. They come
# last: SQLite begins its search at the first condition on the position, and would read a feed from its start.
_BEYOND = "scope = ? AND position > ? AND position > 0"
_BY_DOCUMENT = "INDEXED BY sync_membership_document"
_ENTRY = (
    "m.table_name, m.id, m.root_id, m.position, m.state, r.term, r.term_id, r.counter, r.hash, r.deleted,"
    " r.writer_site, r.writer_epoch FROM sync_membership AS m {} LEFT JOIN sync_record AS r"
    " ON r.table_name = m.table_name AND r.id = m.id"
)


class Cursor(NamedTuple):
    """A subscription, or a backfill of one table in it, and how far its subscriber is."""

    scope: str
    generation: int
    position: int
    table: str = ""
    """Of a backfill: the table."""
    until: int = 0
    """Of a backfill: its last position."""

    @property
    def key(self) -> str:
        """Names the subscription or backfill among those of its subscriber."""
        return key_of(self.scope, self.table)


def key_of(scope: str, table: str) -> str:
    """The key of a subscription, or of a backfill of that table."""
    return f"{table}:{scope}" if table else scope


def advanced(cursors: Mapping[str, Cursor], sections: Iterable[document_pb2.FeedSection]) -> dict[str, Cursor]:
    """Key -> where the subscriber is after these sections, for those that they move."""
    keys = {key_of(section.scope, section.table): section.to_position for section in sections}
    return {key: cursors[key]._replace(position=position) for key, position in keys.items()}


class Page(NamedTuple):
    """What goes into one pull frame."""

    sections: list[document_pb2.FeedSection]
    records: int
    exhausted: bool
    """Nothing more was there in the snapshot."""
    remaining: int
    """Estimate of the records that were still to come, counted up to COUNT_CAP + 1 (F48)."""


class _Entry(NamedTuple):
    """An entry of a feed with what is known of its record."""

    table: str
    id: str
    root_id: str
    position: int
    state: int
    term: int
    term_id: int
    counter: int
    hash: bytes
    deleted: int
    writer_site: int
    writer_epoch: str

    @property
    def version(self) -> Version:
        """The record's."""
        return Version(self.term, self.term_id, self.counter)

    @property
    def of_record(self) -> State:
        """What is known of the record."""
        return State(self.version, self.hash, bool(self.deleted), self.root_id, self.writer_site, self.writer_epoch)


def read_page(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    cursors: Iterable[Cursor],
    receiver: Writer,
    tables: frozenset[str],
    limit: int,
    limit_bytes: int = FRAME_BYTES,
) -> Page:
    """The next page for a subscriber.

    Args:
        connection: inside a read snapshot.
        catalogue: this node's catalogue.
        cursors: the subscriptions, the essential first.
        receiver: who will read it.
        tables: the tables that the receiver knows; records of others are passed over here.
        limit: about how many records.
        limit_bytes: from which size on no further feed is begun.
    """
    every = list(cursors)
    known = heads(connection, (cursor.scope for cursor in every))
    sections: list[document_pb2.FeedSection] = []
    records, size, remaining, exhausted = 0, 0, 0, True
    for cursor in every:
        scope, head = known.get(cursor.scope, (0, 0))
        head = cursor.until if cursor.table else head
        if head <= cursor.position:
            continue
        if records >= limit or size >= limit_bytes:
            exhausted = False
            remaining += count_beyond(connection, scope, cursor.position)
            if remaining > COUNT_CAP:
                break
            continue
        if cursor.table:
            entries, last = _backfilled(connection, scope, cursor, limit - records)
        else:
            entries = _entries(connection, catalogue, scope, cursor.position, limit - records)
            last = _paged(connection, scope, *entries) if entries[0] else head
        section = _section(connection, catalogue, cursor, [*entries[0], *entries[1]], last, receiver, tables)
        sections.append(section)
        records += len(entries[0]) + len(entries[1])
        size += section.ByteSize()
        if last < head:
            exhausted = False
            remaining += count_beyond(connection, scope, last)
    return Page(sections, records, exhausted, min(remaining, COUNT_CAP + 1))


def count_beyond(connection: sqlite3.Connection, scope: int, position: int, cap: int = COUNT_CAP) -> int:
    """Entries of a feed beyond a position, counted up to cap + 1."""
    query = f"SELECT count(*) FROM (SELECT 1 FROM sync_membership WHERE {_BEYOND} LIMIT {cap + 1})"
    return int(connection.execute(query, (scope, position)).fetchone()[0])


def _backfilled(
    connection: sqlite3.Connection, scope: int, cursor: Cursor, limit: int
) -> tuple[tuple[list[_Entry], list[_Entry]], int]:
    """(the records of the table, none that go along), and the last position paged."""
    query = (
        f"SELECT {_ENTRY.format('')} WHERE m.table_name = ? AND m.state = ? AND position <= ? AND {_BEYOND}"
        " ORDER BY position LIMIT ?"
    )
    values = (cursor.table, PUT, cursor.until, scope, cursor.position, limit)
    page = list(map(_Entry._make, connection.execute(query, values)))
    return (page, []), page[-1].position if len(page) == limit else cursor.until


def _entries(
    connection: sqlite3.Connection, catalogue: Catalogue, scope: int, after: int, limit: int
) -> tuple[list[_Entry], list[_Entry]]:
    """(the page, the other entries beyond `after` of the documents that the page touches): both together about `limit`
    entries, one document more at most."""
    query = f"SELECT {_ENTRY.format('')} WHERE {_BEYOND} ORDER BY position LIMIT ?"
    page = list(map(_Entry._make, connection.execute(query, (scope, after, limit))))
    if not any(entry.root_id for entry in page):
        return page, []
    page = page[: _fitting(connection, scope, after, limit, page)]
    there = {(entry.table, entry.id) for entry in page}
    roots = {(_root_table(catalogue, entry), entry.root_id) for entry in page if entry.root_id}
    others = []
    for marks, part in chunks(sorted({root_id for _, root_id in roots})):
        query = f"SELECT {_ENTRY.format(_BY_DOCUMENT)} WHERE {_BEYOND} AND m.root_id <> '' AND m.root_id IN ({marks})"
        for entry in map(_Entry._make, connection.execute(query, (scope, after, *part))):
            if (entry.table, entry.id) not in there and (_root_table(catalogue, entry), entry.root_id) in roots:
                others.append(entry)
    return page, others


def _fitting(connection: sqlite3.Connection, scope: int, after: int, limit: int, page: list[_Entry]) -> int:
    """How many entries of a page may be taken until the documents that they touch have `limit` entries."""
    along: dict[str, int] = {}
    for marks, part in chunks(sorted({entry.root_id for entry in page if entry.root_id})):
        along |= connection.execute(
            f"SELECT root_id, count(*) FROM sync_membership {_BY_DOCUMENT}"
            f" WHERE {_BEYOND} AND root_id <> '' AND root_id IN ({marks}) GROUP BY root_id",
            (scope, after, *part),
        )
    entries = 0
    for place, entry in enumerate(page):
        if entries >= limit:
            return place
        entries += along.pop(entry.root_id, 0) if entry.root_id else 1
    return len(page)


def _paged(connection: sqlite3.Connection, scope: int, page: list[_Entry], others: list[_Entry]) -> int:
    """The last paged position. Reading on over entries that go along anyway is paging too: a document with more
    records than a page is not sent again for each page of them."""
    last = page[-1].position
    along = {entry.position for entry in others if entry.position > last}
    if along:
        for (position,) in connection.execute(
            f"SELECT position FROM sync_membership WHERE {_BEYOND} ORDER BY position", (scope, last)
        ):
            if position not in along:
                break
            last = position
    return last


def _root_table(catalogue: Catalogue, entry: _Entry) -> str:
    return catalogue.root_of(catalogue[entry.table]).name


def _section(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    cursor: Cursor,
    entries: Sequence[_Entry],
    last: int,
    receiver: Writer,
    tables: frozenset[str],
) -> document_pb2.FeedSection:
    section = document_pb2.FeedSection(
        scope=cursor.scope,
        generation=cursor.generation,
        from_position=cursor.position,
        to_position=last,
        table=cursor.table,
    )
    section.left.extend(
        document_pb2.RecordKey(table=entry.table, id=entry.id) for entry in entries if entry.state == LEAVE
    )
    shown = [entry for entry in entries if entry.state != LEAVE and entry.table in tables]
    damaged = {*read_wants(connection)}  # they come with new positions when they are mended (F43)
    own: list[_Entry] = []
    groups: dict[Key, list[Key]] = {}
    states: dict[Key, State] = {}
    for entry in shown:
        if not entry.root_id and not entry.deleted and _wrote(entry, receiver):
            own.append(entry)
            continue
        key = (entry.table, entry.id)
        states[key] = entry.of_record
        if entry.root_id:
            groups.setdefault((_root_table(catalogue, entry), entry.root_id), []).append(key)
        else:
            groups[key] = [key]
    for key in damaged:
        groups.pop(key, None)
    section.echoes.extend(echoes_of(connection, (entry for entry in own if entry[:2] not in damaged)))
    present = Present(connection, catalogue, chain.from_iterable(groups.values()), states)
    for root, members in groups.items():
        section.documents.append(_document(catalogue, root, members, present, receiver))
    return section


def _document(
    catalogue: Catalogue, root: Key, keys: Sequence[Key], present: Present, receiver: Writer | None
) -> document_pb2.Document:
    # A row that is missing although it was never deleted is damage here: absence is never sent as a delete.
    states = {key: present.states[key] for key in keys}
    there = [key for key in keys if states[key].deleted or present.row(key) is not None]
    newest = states[keys[0]].version
    if len(keys) > 1:
        there.sort(key=lambda key: key != root)
        newest = max((state.version for state in states.values()), key=lambda version: version.order)
    document = document_pb2.Document(table=root[0], id=root[1], version=to_wire(newest))
    for key in there:
        record = document.records.add()
        if key != root:
            record.table, record.id = key
        state, row = states[key], present.row(key)
        if state.version != newest:
            record.version.CopyFrom(to_wire(state.version))
        if row is None or state.deleted:
            record.deleted = True
        elif receiver is not None and _wrote(state, receiver):
            record.hash = state.hash
        else:
            try:
                record.content = codec(catalogue[key[0]]).encode(row, present.unknown(key))
            except Unreadable:
                del document.records[-1]  # it is held here; when it is mended it gets a new position
    return document


def _wrote(record: State | _Entry, receiver: Writer) -> bool:
    return record.writer_site == receiver.site and record.writer_epoch == receiver.epoch


class Wanted(NamedTuple):
    """What was asked for."""

    documents: list[document_pb2.Document]
    later: list[Key]
    """What did not fit: it was not looked at."""


def read_wanted(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    roots: Sequence[Key],
    scopes: frozenset[str],
    limit_bytes: int = FRAME_BYTES,
) -> Wanted:
    """Whole documents by key, with their tombstones, until the next one would pass the limit, but at least one. For a
    key of which nothing is in the receiver's scopes, a document without records; what is damaged here, and what can be
    no key, is passed over."""
    documents: list[document_pb2.Document] = []
    damaged, size = set(read_wants(connection)), 0
    for place, (table, root_id) in enumerate(roots):
        if (table, root_id) in damaged or table not in catalogue or len(root_id.encode()) > ID_BYTES_MAX:
            continue
        if size > limit_bytes:
            return Wanted(documents, list(roots[place:]))
        if not _is_for(connection, catalogue, (table, root_id), scopes):
            documents.append(document_pb2.Document(table=table, id=root_id))
            continue
        keys = [(table, root_id)]
        if catalogue.members_of(table):
            names = {member.name for member in catalogue.members_of(table)}
            query = "SELECT table_name, id FROM sync_record WHERE root_id <> '' AND root_id = ?"
            found = connection.execute(query, (root_id,))
            keys += [(row[0], row[1]) for row in found if row[0] in names]
        document = _document(catalogue, (table, root_id), keys, Present(connection, catalogue, keys), None)
        document.whole = True
        size += document.ByteSize()
        if documents and size > limit_bytes:
            return Wanted(documents, list(roots[place:]))
        documents.append(document)
    return Wanted(documents, [])


def _is_for(connection: sqlite3.Connection, catalogue: Catalogue, root: Key, scopes: frozenset[str]) -> bool:
    """Whether there is such a document in one of these scopes."""
    if catalogue[root[0]].parent:
        return False
    rows = connection.execute(
        "SELECT s.name FROM sync_membership AS m JOIN sync_scope AS s USING (scope)"
        " WHERE m.table_name = ? AND m.id = ? AND m.state <> 2",
        root,
    )
    return not scopes.isdisjoint({row[0] for row in rows})

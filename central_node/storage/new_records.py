"""Records that were never here: the short way through ingest.

Most of what a site pushes are documents of one record of which the central has never heard. They are judged and written
together, column by column, in half of the time that `Ingest` needs for them. Only what it would apply without any
doubt goes this way: where one document of them is not as simple as that, nothing is written and all go the long way.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from central_node.storage.follow_up import has_follow_up, queue_follow_up
from central_node.storage.refusals import Refusals
from central_node.storage.routing import Router
from engine.catalogue.codec import Unreadable, codec, record_hasher
from engine.catalogue.model import Catalogue, Row, Table
from engine.limits import ID_BYTES_MAX
from engine.rules.topology import Topology
from engine.rules.versions import NEVER, Version
from engine.session.frames import from_wire
from engine.storage.feeds import Published, publish_new
from engine.storage.held import held_documents, wake
from engine.storage.records import Writer, are_here, are_unknown, insert_new
from engine.storage.wants import read_wants


class NewRecords:
    """Documents of one record of one table, in the order in which they came."""

    def __init__(self, root: Table) -> None:
        self.root = root
        self.ids: list[str] = []
        self.versions: list[Version] = []
        self._given: dict[bytes, Version] = {}
        self._contents: list[bytes] = []
        self.rows: list[Row] = []
        self.unknown: list[tuple[str, bytes]] = []
        """(id, fields that this program does not know), for those that have some."""
        self.hashes: list[bytes] = []

    def add(self, record_id: str, version: document_pb2.Version, content: bytes) -> None:
        """Takes one more."""
        self.ids.append(record_id)
        told = version.SerializeToString()  # most have the same
        given = self._given.get(told)
        if given is None:
            given = self._given[told] = from_wire(version)
        self.versions.append(given)
        self._contents.append(content)

    def decode(self) -> bool:
        """Reads the contents; whether each is what its document says, with an id and a version that can be."""
        every = set(self.versions)
        if any(max(version) >= 1 << 63 or not version.is_newer_than(NEVER) for version in every):
            return False
        decode = codec(self.root).decode
        hashers = {version: record_hasher(self.root.name, *version) for version in every}
        try:
            for record_id, version, content in zip(self.ids, self.versions, self._contents, strict=True):
                row, unknown, canonical = decode(content)
                if row[0] != record_id:
                    return False
                self.rows.append(row)
                self.hashes.append(hashers[version](record_id, canonical))
                if unknown:
                    self.unknown.append((record_id, unknown))
        except Unreadable:
            return False
        return len(set(self.ids)) == len(self.ids) and max(len(i.encode()) for i in self.ids) <= ID_BYTES_MAX


class Parted(NamedTuple):
    """A frame, parted."""

    new: list[NewRecords]
    """What may be new records, by table."""
    others: list[tuple[int, document_pb2.Document]]
    """The other documents, with their places."""


def part(catalogue: Catalogue, every: list[tuple[int, document_pb2.Document]]) -> Parted:
    """Tells documents that look like new records from others. Where one document occurs on both sides, all are
    others: their order matters."""
    found: dict[str, NewRecords] = {}
    others: list[tuple[int, document_pb2.Document]] = []
    for place, document in every:
        name = document.table
        new = found.get(name)
        if new is None:
            root = catalogue.tables.get(name)
            if root is None or root.parent or catalogue.members_of(name):
                others.append((place, document))
                continue
            new = found[name] = NewRecords(root)
        content = _only_content(document)
        if content:
            new.add(document.id, document.version, content)
        else:
            others.append((place, document))
    ids = {name: {*new.ids} for name, new in found.items()} if others else {}
    if any(document.id in ids.get(document.table, ()) for _, document in others):
        return Parted([], every)
    return Parted([new for new in found.values() if new.ids], others)


def _only_content(document: document_pb2.Document) -> bytes:
    """The content of a document that continues nothing and has no other record; else empty."""
    records = document.records
    if len(records) != 1 or (document.HasField("base") and from_wire(document.base) != NEVER):
        return b""
    record = records[0]
    return b"" if record.table or record.id else record.content


def take_new(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    topology: Topology,
    writer: Writer,
    parted: Sequence[NewRecords],
) -> set[str] | None:
    """Applies new records; returns the scopes whose feeds moved, or None, where nothing was written, because one of
    them is not new, may not be applied, or refers to what is not here."""
    keys = [(new.root.name, record_id) for new in parted for record_id in new.ids]
    refusals, router = Refusals(writer.site, topology), Router(connection, catalogue, topology)
    if held_documents(connection, keys, writer.site) or not {*read_wants(connection)}.isdisjoint(keys):
        return None
    for new in parted:
        if not (new.decode() and are_unknown(connection, new.root, new.ids) and _may_be_written(new, refusals)):
            return None
    if not _refers_to_what_is_here(connection, catalogue, parted):
        return None
    for new in parted:
        insert_new(connection, new.root, new.rows, new.versions, new.hashes, new.unknown, writer)
    router.read(keys)
    wake(connection, keys)
    moved = publish_new(connection, [group for new in parted for group in _by_scopes(new, router)])
    followed = (new for new in parted if has_follow_up(catalogue, new.root))
    queue_follow_up(connection, catalogue, ((new.root, row) for new in followed for row in new.rows))
    return moved


def _may_be_written(new: NewRecords, refusals: Refusals) -> bool:
    place = new.root.index[new.root.store_column or "id"]
    cases = {(row[place], version): row for row, version in zip(new.rows, new.versions, strict=True)}
    return not any(refusals.of(new.root, row, version, is_new=True) for (_, version), row in cases.items())


def _refers_to_what_is_here(connection: sqlite3.Connection, catalogue: Catalogue, parted: Iterable[NewRecords]) -> bool:
    """Whether every required reference is to something that is here, or was and is deleted (F26)."""
    wanted: dict[str, set[str]] = {}
    for new in parted:
        for place, table in new.root.required:
            wanted.setdefault(table, set()).update(str(row[place]) for row in new.rows if row[place])
    return all(are_here(connection, catalogue[table], sorted(ids)) for table, ids in wanted.items())


def _by_scopes(new: NewRecords, router: Router) -> list[Published]:
    grouped: dict[tuple[str, ...], tuple[list[str], list[bytes]]] = {}
    for row, record_id, record_hash in zip(new.rows, new.ids, new.hashes, strict=True):
        group = grouped.setdefault(router.scopes(new.root, row), ([], []))
        group[0].append(record_id)
        group[1].append(record_hash)
    return [Published(new.root.name, scopes, *group) for scopes, group in grouped.items()]

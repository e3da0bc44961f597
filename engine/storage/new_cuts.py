"""The sender's short way: documents of one record of which the peer has never heard.

Most changes are that. They are read, encoded and hashed together; everything else - lines, later versions, deletes,
what was held or cannot be encoded - is cut document by document (push.py), with the same result.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine.catalogue.codec import Unreadable, canonical_of, codec, record_hasher
from engine.catalogue.model import Catalogue
from engine.rules.versions import Term, Version, next_version
from engine.storage.outbox import EditedRecord
from engine.storage.records import chunks, known_among, read_rows, read_unknown
from engine.storage.retention import last_forgotten

_MESSAGE_BYTES = 64
"""About what a document takes in a frame beyond its id and its content."""


class NewCut(NamedTuple):
    """A document of one record as it goes into a frame."""

    order: int
    """Of its table in the catalogue: within a frame a document comes after those that it may require."""
    queued_at: int
    table: str
    id: str
    token: int
    version: Version
    hash: bytes
    content: bytes


class NewCuts(NamedTuple):
    """What was cut together."""

    cuts: list[NewCut]
    size_bytes: int
    """About what they take in a frame before it is compressed."""
    others: list[EditedRecord]
    """What goes the long way."""


def cut_new(
    connection: sqlite3.Connection, catalogue: Catalogue, records: Iterable[EditedRecord], limit_bytes: int
) -> NewCuts:
    """Cuts those of some edited records that are new documents, in their order, until one passes the limit; those that
    come after it wait for the next frame."""
    single: dict[str, list[EditedRecord]] = {}
    others: list[EditedRecord] = []
    for record in records:
        (others if catalogue.members_of(record[0]) else single.setdefault(record[2], [])).append(record)
    cuts: list[NewCut] = []
    forgotten = last_forgotten(connection)
    for name, its in single.items():
        found, left = _cut_table(connection, catalogue, name, its, forgotten, limit_bytes)
        cuts += found
        others += left
    if others or len(single) > 1:
        cuts.sort(key=lambda cut: cut.queued_at)
        others.sort(key=lambda record: record[7])
    if others and sum(map(_size_bytes, cuts)) >= limit_bytes:  # there is no room for all: what waits longest goes first
        cuts = [cut for cut in cuts if cut.queued_at < others[0][7]]
    size_bytes = 0
    for place, cut in enumerate(cuts):
        size_bytes += _size_bytes(cut)
        if size_bytes >= limit_bytes:
            return NewCuts(cuts[: place + 1], size_bytes, others)
    return NewCuts(cuts, size_bytes, others)


def _size_bytes(cut: NewCut) -> int:
    return len(cut.content) + len(cut.id) + _MESSAGE_BYTES


def _cut_table(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    name: str,
    records: list[EditedRecord],
    forgotten: Version,
    limit_bytes: int,
) -> tuple[list[NewCut], list[EditedRecord]]:
    table, order, encode = catalogue[name], catalogue.order[name], codec(catalogue[name]).encode
    every = [record[3] for record in records]
    heard_of = _heard_of(connection, name, every)
    ids = [record_id for record_id in every if record_id not in heard_of] if heard_of else every
    cuts: list[NewCut] = []
    others: list[EditedRecord] = []
    if not ids:
        return cuts, records
    rows, unknown = read_rows(connection, table, ids), read_unknown(connection, table, ids)
    given: dict[tuple[int, int], tuple[Version, Callable[[str, bytes], bytes]]] = {}
    for record in records:
        _, _, _, record_id, token, term, term_id, queued_at = record
        if (term, term_id) not in given:
            version = next_version(forgotten, Term(term, term_id))
            given[term, term_id] = version, record_hasher(name, *version)
        version, hashed = given[term, term_id]
        row = rows.get(record_id)  # none too where the peer has heard of it
        if row is None:
            others.append(record)
            continue
        try:
            content = canonical = encode(row)
        except Unreadable:
            others.append(record)
            continue
        if record_id in unknown:
            content, canonical = content + unknown[record_id], canonical_of(content, unknown[record_id])
        cut = NewCut(order, queued_at, name, record_id, token, version, hashed(record_id, canonical), content)
        if _size_bytes(cut) < limit_bytes:
            cuts.append(cut)
        else:  # it may have to go in parts
            others.append(record)
    return cuts, others


def _heard_of(connection: sqlite3.Connection, table: str, ids: list[str]) -> set[str]:
    """The ids of records of which the peer has heard, or been sent something."""
    found = known_among(connection, "sync_record", table, ids)
    for marks, part in chunks([record_id for record_id in ids if record_id not in found]):
        for query in (
            f"SELECT id FROM sync_in_flight WHERE table_name = ? AND id IN ({marks})",
            f"SELECT root_id FROM sync_outcome WHERE root_table = ? AND root_id IN ({marks})",
        ):
            found.update(row[0] for row in connection.execute(query, (table, *part)))
    return found

"""What a site wrote itself and reads in a feed: (key, version, hash) without content (F8).

It proves agreement, or makes the site ask for the document. Documents of one record, most by far, go together by table
and version (Echoes); documents with lines and tombstones go as documents whose records have a hash.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Protocol

from packhorse.sync.v1 import document_pb2

from engine.catalogue.model import Catalogue
from engine.errors import Code, PeerProblem
from engine.rules.versions import Version
from engine.session.frames import from_wire, to_wire
from engine.storage.bulk import insert_rows
from engine.storage.digests import DigestLedger
from engine.storage.hidden import show
from engine.storage.records import chunks

MARKED = 3
"""State of a membership that a subscription which has begun again has not shown yet."""
_HASH_BYTES = 16


class Own(Protocol):
    """A document of one record that its receiver wrote itself."""

    @property
    def table(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def version(self) -> Version: ...
    @property
    def hash(self) -> bytes: ...


def echoes_of(connection: sqlite3.Connection, own: Iterable[Own]) -> list[document_pb2.Echoes]:
    """Tells a receiver of documents of one record that it wrote itself, none of them deleted, in their order.

    A row that is missing although it was never deleted is damage here, and not spoken of.
    """
    grouped: dict[tuple[str, Version], dict[str, bytes]] = {}
    for document in own:
        grouped.setdefault((document.table, document.version), {})[document.id] = document.hash
    told = list[document_pb2.Echoes]()
    for (table, version), hashes in grouped.items():
        there: set[str] = set()
        for marks, part in chunks(list(hashes)):
            there.update(row[0] for row in connection.execute(f"SELECT id FROM {table} WHERE id IN ({marks})", part))
        ids = [record_id for record_id in hashes if record_id in there]
        joined = b"".join(hashes[record_id] for record_id in ids)
        told.append(document_pb2.Echoes(table=table, version=to_wire(version), ids=ids, hashes=joined))
    return told


def take_echoes(
    connection: sqlite3.Connection, catalogue: Catalogue, echoes: Iterable[document_pb2.Echoes], scope: int
) -> list[document_pb2.Document]:
    """Joins what this node has exactly as it is told into a scope; returns the others, as documents by hash.

    Raises:
        PeerProblem: PROTOCOL_BROKEN where there is not one hash for each id.
    """
    others: list[document_pb2.Document] = []
    ledger = DigestLedger()
    for told in echoes:
        count = len(told.ids)
        if len(told.hashes) != _HASH_BYTES * count:
            what = f"The central sent {count} echoes with {len(told.hashes)} bytes of hashes."
            raise PeerProblem(Code.PROTOCOL_BROKEN, what)
        if told.table not in catalogue:
            continue
        here = _as_here(connection, catalogue, told, scope)
        joined, hashes, marked = list[str](), list[bytes](), list[str]()
        for record_id, at in zip(told.ids, range(0, len(told.hashes), _HASH_BYTES), strict=True):
            told_hash = told.hashes[at : at + _HASH_BYTES]
            known_hash, state = here.pop(record_id, (None, None))
            if known_hash != told_hash:
                record = document_pb2.Record(hash=told_hash)
                other = document_pb2.Document(table=told.table, id=record_id, version=told.version, records=[record])
                others.append(other)
            elif state is None:
                joined.append(record_id)
                hashes.append(told_hash)
            elif state == MARKED:
                marked.append(record_id)
        ledger.add_all(scope, told.table, hashes)
        _join(connection, told.table, scope, joined, marked)
    ledger.write(connection)
    return others


def _as_here(
    connection: sqlite3.Connection, catalogue: Catalogue, told: document_pb2.Echoes, scope: int
) -> dict[str, tuple[bytes, int | None]]:
    """(hash, state of the membership in the scope, None where there is none) of the documents of one record that have
    the version that is told."""
    found: dict[str, tuple[bytes, int | None]] = {}
    version = from_wire(told.version)
    if catalogue.members_of(told.table) or max(version) >= 1 << 63:
        return found
    for marks, part in chunks(list(told.ids)):
        rows = connection.execute(
            "SELECT r.id, r.hash, m.state FROM sync_record AS r LEFT JOIN sync_membership AS m"
            " ON m.table_name = r.table_name AND m.id = r.id AND m.scope = ?"
            f" WHERE r.table_name = ? AND r.id IN ({marks}) AND r.deleted = 0"
            " AND (r.term, r.term_id, r.counter) = (?, ?, ?)",
            (scope, told.table, *part, *version),
        )
        found.update((record_id, (known_hash, state)) for record_id, known_hash, state in rows)
    return found


def _join(connection: sqlite3.Connection, table: str, scope: int, joined: Sequence[str], marked: Sequence[str]) -> None:
    keys = [(table, record_id) for record_id in joined]
    insert_rows(
        connection, "INSERT OR IGNORE INTO sync_membership (table_name, id, scope)", "(?, ?, ?)",
        [(*key, scope) for key in keys],
    )  # fmt: skip
    connection.executemany(
        "UPDATE sync_membership SET state = 0 WHERE table_name = ? AND id = ? AND scope = ?",
        [(table, record_id, scope) for record_id in marked],
    )
    show(connection, keys)

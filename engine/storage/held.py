"""Documents kept aside with a reason: never dropped, at most one per document and site, woken when what they wait for
arrives (law 7, F4, F28)."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.errors import Code, sentence
from engine.limits import HELD_BYTES_PER_SITE, HELD_DOCUMENTS_PER_SITE, ID_BYTES_MAX
from engine.rules.versions import NEVER, Version
from engine.session.frames import from_wire
from engine.storage.records import Key

_COLUMNS = (
    "table_name, id, site, term, term_id, counter, base_term, base_term_id, base_counter, code, sentence,"
    " waits_table, waits_id, ready, held_at, document"
)


class Reason(NamedTuple):
    """Why a document is held."""

    code: Code
    says: str
    waits_for: Key | None = None


class Held(NamedTuple):
    """A held document."""

    key: Key
    site: int
    version: Version
    base: Version
    code: str
    document: document_pb2.Document


def hold(
    connection: sqlite3.Connection,
    document: document_pb2.Document,
    base: Version,
    site: int,
    why: Reason,
    now: int,
    keeps_to_quota: bool = True,
) -> bool:
    """Keeps a document, in place of an older version of it; False when the site's quota is used up and counts."""
    key, content = (document.table, document.id), document.SerializeToString()
    if keeps_to_quota and not _has_room(connection, key, site, len(content)):
        return False
    table, record_id = why.waits_for or ("", "")
    waits = (table, record_id[:ID_BYTES_MAX])  # no longer one ever arrives
    connection.execute(
        f"INSERT OR REPLACE INTO sync_held ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
        (*key, site, *_storable(from_wire(document.version)), *_storable(base), why.code,
         sentence(why.code, why.says), *waits, now,
         content),
    )  # fmt: skip
    return True


def _has_room(connection: sqlite3.Connection, key: Key, site: int, size_bytes: int) -> bool:
    """Whether the site's quota lets this be held. What takes no more than what is held of the document has its room."""
    query = "SELECT bytes FROM sync_held WHERE table_name = ? AND id = ? AND site = ?"
    there = connection.execute(query, (*key, site)).fetchone()
    more_bytes = size_bytes - int(there[0] if there is not None else 0)
    if there is not None and more_bytes <= 0:
        return True
    query = "SELECT count(*), coalesce(sum(bytes), 0) FROM sync_held WHERE site = ?"
    documents, used_bytes = map(int, connection.execute(query, (site,)).fetchone())
    has_place = there is not None or documents < HELD_DOCUMENTS_PER_SITE
    return has_place and used_bytes + more_bytes <= HELD_BYTES_PER_SITE


def hold_unreadable(
    connection: sqlite3.Connection, site: int, unreadable: Mapping[Key, str], arrived: Iterable[Key], now: int
) -> None:
    """Notes the documents of a feed that this program cannot read; those that arrived and can be read are let go."""
    if connection.execute("SELECT 1 FROM sync_held LIMIT 1").fetchone() is not None:
        let_go(connection, [key for key in arrived if key not in unreadable], site)
    for key, why in unreadable.items():
        document = document_pb2.Document(table=key[0], id=key[1])
        hold(connection, document, NEVER, site, Reason(Code.UNREADABLE, f"{key[0]} {key[1]}: {why}."), now)


def _storable(version: Version) -> Version:
    """A hostile peer's numbers may be larger than a column takes."""
    return Version(*(min(number, (1 << 63) - 1) for number in version))


def held_documents(connection: sqlite3.Connection, keys: Iterable[Key], site: int) -> dict[Key, Held]:
    """The held documents of a site among these keys."""
    if not holds_any(connection, site):
        return {}
    found = {}
    for key in keys:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM sync_held WHERE table_name = ? AND id = ? AND site = ?", (*key, site)
        ).fetchone()
        if row is not None:
            found[key] = _held(row)
    return found


def let_go(connection: sqlite3.Connection, keys: Iterable[Key], site: int) -> None:
    """Takes documents of a site out of the held list: they are applied, or replaced by something newer."""
    if holds_any(connection, site):
        connection.executemany(
            "DELETE FROM sync_held WHERE table_name = ? AND id = ? AND site = ?", [(*key, site) for key in keys]
        )


def holds_any(connection: sqlite3.Connection, site: int) -> bool:
    """Whether a document of a site is held."""
    return connection.execute("SELECT 1 FROM sync_held WHERE site = ? LIMIT 1", (site,)).fetchone() is not None


def wake(connection: sqlite3.Connection, arrived: Iterable[Key]) -> None:
    """Marks the documents that wait for one of these records."""
    if connection.execute("SELECT 1 FROM sync_held WHERE waits_id <> '' LIMIT 1").fetchone() is None:
        return
    connection.executemany(
        "UPDATE sync_held SET ready = 1 WHERE waits_id <> '' AND waits_table = ? AND waits_id = ?", arrived
    )


def woken(connection: sqlite3.Connection, limit: int) -> list[Held]:
    """Documents whose wait is over, the oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM sync_held WHERE ready = 1 ORDER BY held_at LIMIT ?", (limit,))
    return [_held(row) for row in rows]


def held_count(connection: sqlite3.Connection, site: int | None = None) -> int:
    """How many documents are held, of one site or in all."""
    if site is None:
        return int(connection.execute("SELECT count(*) FROM sync_held").fetchone()[0])
    return int(connection.execute("SELECT count(*) FROM sync_held WHERE site = ?", (site,)).fetchone()[0])


def held_list(connection: sqlite3.Connection, site: int | None = None, limit: int = 20) -> list[dict[str, Any]]:
    """The held documents for a person: table, id, site, code, sentence."""
    where, values = ("WHERE site = ?", (site, limit)) if site is not None else ("", (limit,))
    rows = connection.execute(
        f"SELECT table_name, id, site, code, sentence FROM sync_held {where} ORDER BY held_at LIMIT ?", values
    )
    return [dict(zip(("table", "id", "site", "code", "sentence"), row, strict=True)) for row in rows]


def _held(row: tuple[Any, ...]) -> Held:
    document = document_pb2.Document.FromString(row[15])
    return Held((row[0], row[1]), row[2], Version(*row[3:6]), Version(*row[6:9]), row[9], document)

"""Changes of the topology, each checked as a whole before anything is written."""

import secrets
import sqlite3
from typing import Any

from central_node.storage.steps import refresh_topology
from engine.catalogue.model import Catalogue, Kind
from engine.errors import Code, Refused
from engine.rules.topology import CENTRAL_SITE, CopyType, Topology
from engine.rules.versions import Term
from engine.storage.records import write_meta


class administering:  # noqa: N801 - a context manager that reads as a word
    """While it is entered, records of kind sync may be edited; the edits are captured like any other."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("UPDATE sync_flag SET administering = 1")

    def __exit__(self, *_exception: object) -> None:
        self._connection.execute("UPDATE sync_flag SET administering = 0")


def found_central(connection: sqlite3.Connection, catalogue: Catalogue, name: str) -> None:
    """Makes an empty database that of a central node which is also the primary."""
    write_meta(
        connection,
        role="central",
        site=str(CENTRAL_SITE),
        epoch=secrets.token_hex(16),
        sync_term="1",
        sync_term_id=str(_random()),
    )
    refresh_topology(connection, catalogue)
    with administering(connection):
        connection.execute(
            "INSERT INTO site (id, name, is_primary, term, term_id) VALUES (?, ?, 1, 1, ?)",
            (str(CENTRAL_SITE), name, _random()),
        )
    refresh_topology(connection, catalogue)


def add_site(connection: sqlite3.Connection, number: int, name: str) -> None:
    """Adds a site that holds no store yet; harmless where it is there."""
    with administering(connection):
        connection.execute("INSERT INTO site (id, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (str(number), name))


def assign_store(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    topology: Topology,
    store_id: str,
    site: int,
    central: CopyType,
) -> dict[str, Any]:
    """Makes a site the one where a store is active; the term grows when that moves.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        topology: as it is now.
        store_id: the store.
        site: the site where it is to be active; the central's own number is allowed.
        central: the copy that the central is to hold, collector or transfer; not used where the central is the site.

    Raises:
        Refused: STORE_UNKNOWN, SITE_UNKNOWN, STORE_HAS_RECORDS; nothing is changed then.
    """
    row = connection.execute("SELECT name FROM store WHERE id = ?", (store_id,)).fetchone()
    if row is None:
        raise Refused(Code.STORE_UNKNOWN, f"There is no store with the id {store_id!r}.")
    if site not in topology.sites:
        raise Refused(Code.SITE_UNKNOWN, f"There is no site {site}.")
    active = topology.active_copies.get(store_id)
    if active is not None and active.site != site:
        _require_empty(connection, catalogue, store_id, str(row[0]), active.site)
    if active is not None and active.site == site:
        term = active.term
    else:
        term = Term((active.term.counter if active else _last_term(connection, store_id)) + 1, _random())
        write_meta(connection, **{f"term/{store_id}": str(term.counter)})
    with administering(connection):
        if active is not None and active.site not in (site, CENTRAL_SITE):
            connection.execute("DELETE FROM store_copy WHERE id = ?", (f"{store_id}@{active.site}",))
        _put_copy(connection, store_id, site, CopyType.ACTIVE, term)
        if site != CENTRAL_SITE:
            _put_copy(connection, store_id, CENTRAL_SITE, central, Term())
    return {
        "store": store_id,
        "name": row[0],
        "site": site,
        "central": CopyType.ACTIVE.value if site == CENTRAL_SITE else central.value,
        "term": term.counter,
    }


def _require_empty(connection: sqlite3.Connection, catalogue: Catalogue, store_id: str, name: str, at: int) -> None:
    for table in catalogue:
        if table.kind is Kind.STORE and table.store_column:
            query = f"SELECT 1 FROM {table.name} WHERE {table.store_column} = ? LIMIT 1"
            if connection.execute(query, (store_id,)).fetchone():
                raise Refused(
                    Code.STORE_HAS_RECORDS, f"Store {name} ({store_id}) is active at site {at} and has records."
                )
    seen = connection.execute(
        "SELECT installation <> '', agreed = 1 AND waiting_to_push = 0 FROM central_site WHERE site = ?", (at,)
    ).fetchone()
    if seen and seen[0] and not seen[1]:
        raise Refused(
            Code.STORE_HAS_RECORDS,
            f"Store {name} ({store_id}) is active at site {at}, which may have records of it that are not here yet.",
        )


def _put_copy(connection: sqlite3.Connection, store_id: str, site: int, kind: CopyType, term: Term) -> None:
    connection.execute(
        "INSERT INTO store_copy (id, store_id, site, type, term, term_id) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET type = excluded.type, term = excluded.term, term_id = excluded.term_id",
        (f"{store_id}@{site}", store_id, site, kind.value, *term),
    )


def _last_term(connection: sqlite3.Connection, store_id: str) -> int:
    row = connection.execute("SELECT value FROM sync_meta WHERE key = ?", (f"term/{store_id}",)).fetchone()
    return int(row[0]) if row else 0


def _random() -> int:
    return secrets.randbits(62) + 1

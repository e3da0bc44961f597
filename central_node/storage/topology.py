"""Changes of the sync preferences: sites, where stores are active, who else holds a copy of them.

Each is made by `effects.change_topology`, which checks the whole and lets copies follow.
"""

import secrets
import sqlite3
from typing import Any

from central_node.storage.copies import administering, put_copy, random_term_part, visible_at
from central_node.storage.steps import refresh_topology
from engine.catalogue.model import Catalogue, Kind
from engine.errors import Code, Refused
from engine.rules.copies import Refusal, SyncWith, holds_every_store, judge_sync_with
from engine.rules.topology import CENTRAL_SITE, Copy, CopyType, Topology
from engine.rules.versions import Term
from engine.storage.configuration import read_topology
from engine.storage.records import write_meta


def found_central(connection: sqlite3.Connection, catalogue: Catalogue, name: str) -> None:
    """Makes an empty database that of a central node which is also the primary."""
    write_meta(
        connection,
        role="central",
        site=str(CENTRAL_SITE),
        epoch=secrets.token_hex(16),
        sync_term="1",
        sync_term_id=str(random_term_part()),
    )
    refresh_topology(connection, catalogue)
    with administering(connection):
        connection.execute(
            "INSERT INTO site (id, name, is_primary, term, term_id) VALUES (?, ?, 1, 1, ?)",
            (str(CENTRAL_SITE), name, random_term_part()),
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

    The former active copy becomes a transfer copy, or none where the store is visible to nobody; collectors stay.

    Args:
        connection: inside a write transaction.
        catalogue: the tables.
        topology: as it is now.
        store_id: the store.
        site: the site where it is to be active; the central's own number is allowed.
        central: the copy that the central is to hold, collector or transfer; not used where the central is the site.

    Raises:
        Refused: STORE_UNKNOWN, SITE_UNKNOWN, STORE_HAS_RECORDS, COPY_REQUIRED; nothing is changed then.
    """
    name = store_name(connection, store_id)
    require_site(topology, site)
    active = topology.active_copies.get(store_id)
    if active is not None and active.site != site:
        _require_empty(connection, catalogue, topology, active, name)
    if site != CENTRAL_SITE and central is CopyType.TRANSFER:
        _require_nothing_to_keep(connection, catalogue, store_id, name)
    if active is not None and active.site == site:
        term = active.term
    else:
        term = Term((active.term.counter if active else _last_term(connection, store_id)) + 1, random_term_part())
        write_meta(connection, **{f"term/{store_id}": str(term.counter)})
    with administering(connection):
        if active is not None and active.site != site:
            put_copy(connection, store_id, active.site, _former(connection, catalogue, topology, active))
        excludes = active.excludes_transactions if active else False
        put_copy(connection, store_id, site, CopyType.ACTIVE, term, excludes)
        if site != CENTRAL_SITE:
            put_copy(connection, store_id, CENTRAL_SITE, central)
    return {
        "store": store_id,
        "name": name,
        "site": site,
        "central": CopyType.ACTIVE.value if site == CENTRAL_SITE else central.value,
        "term": term.counter,
    }


def _former(connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, active: Copy) -> CopyType:
    is_visible = catalogue["name"].visibility_table and (active.store_id, active.site) in visible_at(
        connection, catalogue
    )
    return CopyType.TRANSFER if is_visible or holds_every_store(active.site, topology) else CopyType.NONE


def set_sync_with(
    connection: sqlite3.Connection, catalogue: Catalogue, store_id: str, site: int, wanted: SyncWith
) -> dict[str, Any]:
    """Chooses what a site holds of a store, as far as that can be chosen.

    Raises:
        Refused: STORE_UNKNOWN, SITE_UNKNOWN, STORE_ACTIVE_THERE, COPY_REQUIRED, NOT_VISIBLE; nothing is changed then.
    """
    topology, name = read_topology(connection), store_name(connection, store_id)
    require_site(topology, site)
    is_visible = (store_id, site) in visible_at(connection, catalogue)
    judged = judge_sync_with(store_id, site, wanted, is_visible, topology)
    if isinstance(judged, Refusal):
        raise Refused(judged.code, judged.says)
    if site == CENTRAL_SITE and judged is CopyType.TRANSFER:
        _require_nothing_to_keep(connection, catalogue, store_id, name)
    if judged is not topology.copy_type(store_id, site):
        with administering(connection):
            put_copy(connection, store_id, site, judged)
    return {"store": store_id, "name": name, "site": site, "copy": judged.value, "sync_with": wanted.value}


def include_transactions(connection: sqlite3.Connection, store_id: str, included: bool) -> dict[str, Any]:
    """Sets "include transactions in sync" of a store; it has an effect on dispensaries only.

    Raises:
        Refused: STORE_UNKNOWN, or STORE_NOT_ACTIVE where the store is active nowhere yet.
    """
    topology, name = read_topology(connection), store_name(connection, store_id)
    active = topology.active_copies.get(store_id)
    if active is None:
        raise Refused(Code.STORE_NOT_ACTIVE, f"Store {name} ({store_id}) is active at no site yet.")
    with administering(connection):
        put_copy(connection, store_id, active.site, CopyType.ACTIVE, active.term, not included)
    effective = topology.is_dispensary(store_id)
    return {"store": store_id, "name": name, "include_transactions": included, "has_effect": effective}


def store_name(connection: sqlite3.Connection, store_id: str) -> str:
    """The name of a store. Raises Refused with STORE_UNKNOWN."""
    row = connection.execute("SELECT name FROM store WHERE id = ?", (store_id,)).fetchone()
    if row is None:
        raise Refused(Code.STORE_UNKNOWN, f"There is no store with the id {store_id!r}.")
    return str(row[0])


def require_site(topology: Topology, site: int) -> None:
    """Raises Refused with SITE_UNKNOWN."""
    if site not in topology.sites:
        raise Refused(Code.SITE_UNKNOWN, f"There is no site {site}.")


def _require_empty(
    connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, active: Copy, name: str
) -> None:
    """A store moves while it has no records, as far as the central can know: not where it does not collect them all."""
    told = f"Store {name} ({active.store_id}) is active at site {active.site}"
    if _has_records(connection, catalogue, active.store_id):
        raise Refused(Code.STORE_HAS_RECORDS, f"{told} and has records.")
    if connection.execute("SELECT 1 FROM sync_held WHERE site = ?", (active.site,)).fetchone():
        raise Refused(Code.STORE_HAS_RECORDS, f"{told}, of which documents are held here; they may be the store's.")
    is_collected = topology.copy_type(active.store_id, CENTRAL_SITE) in (CopyType.ACTIVE, CopyType.COLLECTOR)
    keeps_some = not is_collected or topology.withholds_transactions(active.store_id)
    seen = connection.execute(
        "SELECT installation <> '', agreed = 1 AND waiting_to_push = 0 FROM central_site WHERE site = ?", (active.site,)
    ).fetchone()
    if seen and seen[0] and (keeps_some or not seen[1]):
        raise Refused(Code.STORE_HAS_RECORDS, f"{told}, which may have records of it that are not here yet.")


def _require_nothing_to_keep(connection: sqlite3.Connection, catalogue: Catalogue, store_id: str, name: str) -> None:
    """A central that collects no more would keep what it has as it is now, and feed it to collectors for ever."""
    if _has_records(connection, catalogue, store_id):
        says = f"The central has records of store {name} ({store_id}), which would not be kept up to date any more."
        raise Refused(Code.COPY_REQUIRED, says)


def _has_records(connection: sqlite3.Connection, catalogue: Catalogue, store_id: str) -> bool:
    """Whether store data of a store are here."""
    return any(
        connection.execute(f"SELECT 1 FROM {table.name} WHERE {table.store_column} = ? LIMIT 1", (store_id,)).fetchone()
        for table in catalogue.synchronised
        if table.kind is Kind.STORE and table.store_column
    )


def _last_term(connection: sqlite3.Connection, store_id: str) -> int:
    row = connection.execute("SELECT value FROM sync_meta WHERE key = ?", (f"term/{store_id}",)).fetchone()
    return int(row[0]) if row else 0

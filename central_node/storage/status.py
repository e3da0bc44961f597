"""What the central can say of itself and of each site, read from its database."""

import sqlite3
from typing import Any

from engine.errors import PackhorseError
from engine.limits import CLOCK_WARNING_SECONDS, COUNT_CAP
from engine.reporting import capped, estimated, instant
from engine.rules.topology import CENTRAL_SITE
from engine.storage.feeds import nowhere_count
from engine.storage.held import held_count, held_list
from engine.storage.integrity import kept_aside
from engine.storage.pages import count_beyond
from engine.storage.wants import read_wants
from engine.storage.work import failed_work

_BROKEN = ("LINEAGE_BROKEN", "COPIED", "CENTRAL_RESTORED", "CHAIN_BROKEN")


def read_sites(connection: sqlite3.Connection, connected: set[int], running: bool) -> list[dict[str, Any]]:
    """Every site with its state, by number."""
    rows = connection.execute(
        "SELECT site, name, installation <> '', last_seen, last_success, agreed, waiting_to_push, held_there,"
        " last_error_code, last_error, differing, clock_difference_milliseconds, software_version FROM central_site"
        " ORDER BY site"
    ).fetchall()
    return [_site(connection, row, row[0] in connected, running) for row in rows]


def _site(connection: sqlite3.Connection, row: tuple[Any, ...], connected: bool, running: bool) -> dict[str, Any]:
    site = row[0]
    held = max(held_count(connection, site), row[7] or 0)
    to_pull = _waiting_to_pull(connection, site) if row[2] else None
    clock = round(row[11] / 1000) if row[11] is not None else None
    agrees = bool(row[5]) and not held and not row[6] and to_pull == 0
    return {
        "site": site,
        "name": row[1],
        "state": _state(row, held, agrees, connected, running),
        "enrolled": bool(row[2]),
        "connected": connected,
        **capped("waiting_to_push", row[6]),
        **estimated("waiting_to_pull", to_pull),
        "held": held,
        "in_agreement": agrees,
        "last_seen": instant(row[3]),
        "last_success": instant(row[4]),
        "last_error": row[9] or None,
        "last_error_code": row[8] or None,
        "differing": row[10].split(", ") if row[10] else [],
        "clock_difference_seconds": clock,
        "clock_warning": clock is not None and abs(clock) >= CLOCK_WARNING_SECONDS,
        "software_version": row[12] or None,
    }


def _state(row: tuple[Any, ...], held: int, agrees: bool, connected: bool, running: bool) -> str:
    if row[8] in _BROKEN:
        return "lineage_broken"
    if row[8] in ("CREDENTIAL_UNKNOWN", "PROTOCOL_TOO_OLD"):
        return "refused"
    if not running:
        return "stopped"
    if held:
        return "held"
    if agrees:
        return "in_agreement"
    if connected:
        return "syncing"
    return "offline" if row[3] is None or row[8] else "waiting"


def _waiting_to_pull(connection: sqlite3.Connection, site: int) -> int:
    total = 0
    for scope, position in connection.execute(
        "SELECT s.scope, u.position FROM central_subscription AS u JOIN sync_scope AS s ON s.name = u.scope"
        " WHERE u.site = ? AND s.position > u.position",
        (site,),
    ).fetchall():
        total += count_beyond(connection, scope, position)
        if total > COUNT_CAP:
            break
    return total


def _noted(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM sync_status WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def read_status(
    connection: sqlite3.Connection, name: str, connected: set[int], running: bool, trouble: PackhorseError | None
) -> dict[str, Any]:
    """The central node and all its sites; `trouble` is why it cannot work at the moment."""
    sites = read_sites(connection, connected, running)
    held = held_count(connection)
    damaged = read_wants(connection)
    failed = failed_work(connection)
    agrees = all(site["in_agreement"] for site in sites if site["enrolled"]) and not (held or damaged or failed)
    own = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM sync_outbox LIMIT {COUNT_CAP + 1})").fetchone()[0]
    states = {site["state"] for site in sites if site["enrolled"]}
    state = "stopped" if not running else "held" if held else "in_agreement" if agrees else "waiting"
    if running and state == "waiting" and "syncing" in states:
        state = "syncing"
    successes = [site["last_success"] for site in sites if site["last_success"]]
    return {
        "site": CENTRAL_SITE,
        "name": name,
        "state": state,
        **capped("waiting_to_push", own),
        **capped("waiting_to_pull", 0),
        "held": held,
        "in_agreement": agrees,
        "last_seen": None,
        "last_success": max(successes, default=None),
        "last_error": trouble.sentence
        if trouble is not None
        else next((site["last_error"] for site in sites if site["last_error"]), None),
        "trouble": trouble.code.value if trouble is not None else None,
        "schema_repaired": _noted(connection, "schema_repaired"),
        **kept_aside(connection),
        "asked_for": len(damaged),
        "follow_up_failed": failed,
        **capped("routed_to_nobody", nowhere_count(connection)),
        "sites": sites,
        "held_documents": held_list(connection),
    }

"""What a site notes of itself, and what it can say of itself."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from packhorse.sync.v1 import session_pb2

from engine.catalogue.descriptors import catalogue
from engine.limits import CLOCK_WARNING_SECONDS, DIFFERING_SCOPES
from engine.reporting import capped, estimated, instant
from engine.storage.held import held_count, held_list
from engine.storage.integrity import kept_aside
from engine.storage.outbox import waiting, waiting_for_upgrade
from engine.storage.records import read_meta, write_meta
from engine.storage.settle import held_at_peer
from engine.storage.wants import read_wants
from site_node.storage.scope_changes import scope_changes


def found_site(connection: sqlite3.Connection, site: int, name: str, installation: str, epoch: bytes) -> None:
    """Makes an empty database that of a site."""
    write_meta(
        connection,
        role="site",
        site=str(site),
        name=name,
        installation=installation,
        epoch=epoch.hex(),
        acknowledged="0",
    )


def note(connection: sqlite3.Connection, **facts: str) -> None:
    """Notes facts for `status`."""
    connection.executemany("INSERT OR REPLACE INTO sync_status VALUES (?, ?)", facts.items())


def notes(connection: sqlite3.Connection) -> dict[str, str]:
    """What was noted."""
    return dict(connection.execute("SELECT key, value FROM sync_status"))


def count(connection: sqlite3.Connection, key: str, more: int) -> None:
    """Adds to a figure, in the transaction that it counts."""
    connection.execute(
        "INSERT INTO sync_total VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value",
        (key, more),
    )


def held_total(connection: sqlite3.Connection) -> int:
    """Documents held here or, as far as this site knows, at the central."""
    return held_count(connection) + held_at_peer(connection)


def report_on(
    connection: sqlite3.Connection, checkpoint: session_pb2.PullCheckpoint, comparable: bool, differing: list[str]
) -> session_pb2.CheckpointReport:
    """What this site says of a checkpoint: agreement is equal digests, nothing waiting and nothing held (law 10)."""
    to_push, held = waiting(connection), held_total(connection)
    missing = checkpoint.wanted or read_wants(connection)
    agrees = comparable and not differing and not to_push and not held and not missing and not checkpoint.held
    return session_pb2.CheckpointReport(
        round=checkpoint.round,
        in_agreement=agrees,
        differing=differing[:DIFFERING_SCOPES],
        held=held,
        waiting_to_push=to_push,
        comparable=comparable,
    )


def read_status(connection: sqlite3.Connection, running: bool, unnoted: Mapping[str, str]) -> dict[str, Any]:
    """The site's state for a person or a program; `unnoted` is what the database could not take of it."""
    meta, noted = read_meta(connection), {**notes(connection), **unnoted}
    to_push, held = waiting(connection), held_total(connection)
    to_pull = noted.get("waiting_to_pull", "")
    agrees = noted.get("agreed") == "1" and not to_push and not held
    clock = noted.get("clock_difference_seconds", "")
    return {
        "site": int(meta["site"]),
        "name": meta.get("name", ""),
        "state": _state(noted, running, held, agrees),
        **capped("waiting_to_push", to_push),
        **estimated("waiting_to_pull", int(to_pull) if to_pull else None),
        **capped("waiting_for_upgrade", waiting_for_upgrade(connection)),
        "held": held,
        "in_agreement": agrees,
        "last_success": instant(int(noted.get("last_success", "0"))),
        "last_error": noted.get("last_error") or None,
        "last_error_code": noted.get("last_error_code") or None,
        "differing": [scope for scope in noted.get("differing", "").split(", ") if scope],
        "clock_difference_seconds": int(clock) if clock else None,
        "clock_warning": bool(clock) and abs(int(clock)) >= CLOCK_WARNING_SECONDS,
        **kept_aside(connection),
        **scope_changes(connection, catalogue()),
        "schema_repaired": noted.get("schema_repaired") or None,
        "totals": dict(connection.execute("SELECT key, value FROM sync_total")),
        "held_documents": [*held_list(connection), *_held_there(connection)],
    }


def _state(noted: dict[str, str], running: bool, held: int, agrees: bool) -> str:
    link = noted.get("link", "")
    if link in ("lineage_broken", "refused"):
        return link
    if not running:
        return "stopped"
    if link == "offline":
        return "offline"
    if held:
        return "held"
    if agrees:
        return "in_agreement"
    return "syncing" if link == "syncing" else "waiting"


def _held_there(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT root_table, root_id, code, sentence FROM sync_outcome WHERE disposition = 'held' LIMIT 20"
    )
    return [{"table": row[0], "id": row[1], "site": 1, "code": row[2], "sentence": row[3]} for row in rows]

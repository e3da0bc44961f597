"""A site takes what the central sends: content, memberships, digests and positions in one transaction (law 3).

What is never done here (law 8, F9): content from a feed never replaces a record with a pending or in-flight change, nor
a record that this node owns now and already has; what its former owner wrote last is no such content, but what this
node has to go on from. Absence never deletes; only a tombstone of a higher version does. One exception: what was
refused for NO_AUTHORITY (healing.py).
Required references are not waited for: a dangling one is shown as "not known here" (F26).
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.catalogue.codec import Unreadable, codec, record_hash
from engine.catalogue.model import Catalogue, Table
from engine.errors import Code, PeerProblem
from engine.rules.authority import Owner, owner_of
from engine.rules.eviction import outlives_delete
from engine.rules.versions import Version
from engine.session.frames import from_wire
from engine.storage.bulk import insert_rows
from engine.storage.chain import last_number
from engine.storage.configuration import TOPOLOGY_TABLES, read_rights, read_topology, write_rights
from engine.storage.digests import DigestLedger
from engine.storage.echoes import MARKED, take_echoes
from engine.storage.eviction import close_scope, leave_scopes, linger, lose_rights
from engine.storage.healing import move_aside
from engine.storage.held import hold_unreadable
from engine.storage.hidden import show
from engine.storage.outbox import queue_again
from engine.storage.records import (
    Change,
    Key,
    Writer,
    applying,
    by_table,
    chunks,
    read_memberships,
    read_rows,
    read_states,
    write_changes,
    write_states,
)
from engine.storage.scopes import scope_numbers
from engine.storage.settle import settle_echo
from engine.storage.wants import end_wants


@dataclass
class Received:
    """What came of a pull frame."""

    records: int = 0
    """Records written."""
    wants: list[Key] = field(default_factory=list)
    """Documents to ask for."""
    requeued: int = 0
    """Own records that the central showed in another version; they were queued again."""


class _Arrived(NamedTuple):
    """One record of a frame."""

    table: Table
    id: str
    root: Key
    root_id: str
    """As stored: empty for documents that never have members."""
    version: Version
    scope: int | None
    """None for a document that was asked for."""
    body: document_pb2.Record
    kind: str | None
    """Which field of the body is set: content, hash, deleted; None: a peer forgot it."""


class _Local:
    """What this node has of the records of a frame, read at once."""

    def __init__(self, connection: sqlite3.Connection, catalogue: Catalogue, arrived: list[_Arrived]) -> None:
        keys = [(record.table.name, record.id) for record in arrived]
        self._keys, self.states = keys, read_states(connection, keys)
        self.pending: set[Key] = set()
        self.has_row: set[Key] = set()
        self._rights = read_rights(connection)
        self._owners: dict[Key, Owner | None] = {}
        any_pending = connection.execute("SELECT 1 FROM sync_outbox LIMIT 1").fetchone() is not None
        for table, ids in by_table(keys).items():
            for marks, part in chunks(ids):
                found = connection.execute(f"SELECT id FROM {table} WHERE id IN ({marks})", part)
                self.has_row.update((table, row[0]) for row in found)
                if any_pending:
                    found = connection.execute(
                        f"SELECT id FROM sync_outbox WHERE table_name = ? AND id IN ({marks})", (table, *part)
                    )
                    self.pending.update((table, row[0]) for row in found)
        # What comes without content only proves agreement, whoever may edit it.
        roots = [record.root for record in arrived if record.kind != "hash"]
        for table, ids in by_table(roots).items():
            root = catalogue[table]
            for record_id, row in read_rows(connection, root, ids).items():
                self._owners[table, record_id] = owner_of(root, row)

    def read_states_again(self, connection: sqlite3.Connection) -> None:
        """Something was settled meanwhile."""
        self.states = read_states(connection, self._keys)

    def right(self, root: Key) -> Owner | None:
        """The right under which this node may edit a document that it has or has deleted, or None."""
        owner = self._owners.get(root)
        return owner if owner in self._rights else None

    def is_of_former_owner(self, key: Key, version: Version, right: Owner) -> bool:
        """Whether a version is from before this node had the right, and newer than what the node has."""
        state = self.states.get(key)
        return state is not None and version.is_newer_than(state.version) and version.term < self._rights[right].counter

    def is_here(self, key: Key) -> bool:
        """Whether the record is there, or was deleted here."""
        state = self.states.get(key)
        return key in self.has_row or (state is not None and state.deleted)

    def learn_owner(self, change: Change) -> None:
        """Whose a deleted document was is told by the content with which it comes back."""
        key = (change.table.name, change.id)
        if change.row is not None and not change.table.parent and key not in self.has_row and self.is_here(key):
            self._owners[key] = owner_of(change.table, change.row)


def apply_pull(
    connection: sqlite3.Connection, catalogue: Catalogue, me: Writer, body: document_pb2.PullBody, now: int
) -> Received:
    """Applies a pull frame whole, inside the caller's write transaction.

    Raises:
        PeerProblem: PROTOCOL_BROKEN when a section does not continue this node's position; nothing is applied then.
    """
    _check_numbers(body)
    for change in body.subscriptions:
        _change_subscription(connection, change)
    arrived: list[_Arrived] = []
    left: list[tuple[Key, int]] = []
    numbers = scope_numbers(connection, [section.scope for section in body.sections])
    for section in body.sections:
        scope = numbers[section.scope]
        _check_continues(connection, section, scope)
        arrived += _records(catalogue, section.documents, scope)
        arrived += _records(catalogue, take_echoes(connection, catalogue, section.echoes, scope), scope)
        left += [((key.table, key.id), scope) for key in section.left]
    arrived += _records(catalogue, body.wanted, None)
    move_aside(connection, catalogue, body.wanted, now)
    received = _apply(connection, catalogue, me, arrived, now)
    leave_scopes(connection, left)
    connection.executemany(
        "UPDATE sync_scope SET position = ? WHERE scope = ?",
        [(section.to_position, numbers[section.scope]) for section in body.sections if not section.table],
    )
    end_wants(connection, [(document.table, document.id) for document in body.wanted])
    connection.executemany("INSERT OR IGNORE INTO sync_want VALUES (?, ?)", received.wants)
    if TOPOLOGY_TABLES & {record.table.name for record in arrived} or body.subscriptions:
        before = read_rights(connection).keys()
        write_rights(connection, catalogue, me.site, read_topology(connection))
        if before - read_rights(connection).keys():
            lose_rights(connection)
    return received


def _check_numbers(body: document_pb2.PullBody) -> None:
    numbers = [change.generation for change in body.subscriptions]
    for section in body.sections:
        numbers += (section.generation, section.from_position, section.to_position)
        if section.to_position < section.from_position:
            raise PeerProblem(Code.PROTOCOL_BROKEN, f"The central sent {section.scope[:200]} backwards.")
    if max(numbers, default=0) >= 1 << 63:
        raise PeerProblem(Code.PROTOCOL_BROKEN, "The central sent a generation or position beyond 2^63.")


def _change_subscription(connection: sqlite3.Connection, change: document_pb2.SubscriptionChange) -> None:
    if change.closed:
        close_scope(connection, change.scope)
        return
    scope = scope_numbers(connection, [change.scope])[change.scope]
    (before,) = connection.execute("SELECT generation FROM sync_scope WHERE scope = ?", (scope,)).fetchone()
    if before == change.generation:
        return
    connection.execute(
        "UPDATE sync_scope SET generation = ?, position = 0, filled = 0 WHERE scope = ?", (change.generation, scope)
    )
    if before:  # it is read again from the start: what does not come is not in it any more (F38)
        connection.execute("UPDATE sync_membership SET state = ? WHERE scope = ?", (MARKED, scope))


def _check_continues(connection: sqlite3.Connection, section: document_pb2.FeedSection, scope: int) -> None:
    generation, position = connection.execute(
        "SELECT generation, position FROM sync_scope WHERE scope = ?", (scope,)
    ).fetchone()
    if section.table:  # what passed here before this program knew the table: it moves no position (F45)
        position = section.from_position
    if (generation, position) != (section.generation, section.from_position):
        raise PeerProblem(
            Code.PROTOCOL_BROKEN,
            f"The central sent {section.scope[:200]} from position {section.from_position} of generation"
            f" {section.generation}; this site is at {position} of {generation}.",
        )


def _records(catalogue: Catalogue, documents: Iterable[document_pb2.Document], scope: int | None) -> Iterable[_Arrived]:
    tables = catalogue.tables
    for document in documents:
        if document.table not in tables:
            continue
        root = (document.table, document.id)
        root_id = root[1] if catalogue.members_of(root[0]) else ""
        version = from_wire(document.version)
        for record in document.records:
            table = tables.get(record.table or root[0])
            if table is not None:
                own = from_wire(record.version) if record.HasField("version") else version
                kind = record.WhichOneof("body")
                yield _Arrived(table, record.id or root[1], root, root_id, own, scope, record, kind)


def _apply(
    connection: sqlite3.Connection, catalogue: Catalogue, me: Writer, arrived: list[_Arrived], now: int
) -> Received:
    local, received, ledger = _Local(connection, catalogue, arrived), Received(), DigestLedger()
    changes: dict[Key, Change] = {}
    wants: dict[Key, None] = {}
    unreadable: dict[Key, str] = {}
    for record in arrived:
        key = (record.table.name, record.id)
        if max(record.version) >= 1 << 63:
            unreadable[record.root] = "its version is beyond 2^63"
            continue
        if record.kind == "hash":
            if not _agrees(connection, local, record, key, me) and key not in local.pending:
                wants[record.root] = None
            continue
        change = _judge(record, key, local, unreadable)
        if change is not None:
            changes[key] = change
    if unreadable:  # a document is applied whole or not at all (law 5)
        torn = {(record.table.name, record.id) for record in arrived if record.root in unreadable}
        changes = {key: change for key, change in changes.items() if key not in torn}
    memberships = read_memberships(connection, [(r.table.name, r.id) for r in arrived])
    for key, change in changes.items():
        state = local.states.get(key)
        for scope in memberships.get(key, ()):
            if state is not None and not state.deleted:
                ledger.remove(scope, key[0], state.hash)
            if change.row is not None:
                ledger.add(scope, key[0], change.hash)
    _write(connection, catalogue, local, changes, now)
    hold_unreadable(connection, me.site, unreadable, {record.root for record in arrived}, now)
    _requeue(connection, received, local, arrived, changes)
    ledger.write(connection)
    _join_scopes(connection, arrived, memberships, local, changes)
    received.records, received.wants = len(changes), list(wants)
    return received


def _write(
    connection: sqlite3.Connection, catalogue: Catalogue, local: _Local, changes: dict[Key, Change], now: int
) -> None:
    lingering = {
        key: change
        for key, change in changes.items()
        if change.row is None and key in local.has_row and outlives_delete(catalogue, change.table)
    }
    writer = Writer(0, "")
    with applying(connection):
        write_changes(connection, [change for key, change in changes.items() if key not in lingering], writer)
    tombstones = [(*key, c.root_id, *c.version, c.hash, True, *writer) for key, c in lingering.items()]
    write_states(connection, tombstones)
    linger(connection, [(*key, change.root_id) for key, change in lingering.items()], now)


def _agrees(connection: sqlite3.Connection, local: _Local, record: _Arrived, key: Key, me: Writer) -> bool:
    """Whether this node has exactly what the central has of a record that this node wrote itself."""
    state = local.states.get(key)
    if state is not None and state.version == record.version and state.hash == record.body.hash:
        return True
    if state is not None and state.version.order > record.version.order:
        return True  # an acknowledgement overtook the page: a later entry of the feed speaks of the newer version
    if not settle_echo(connection, record.root, record.version, me.site, me.epoch):
        return False
    local.read_states_again(connection)
    state = local.states.get(key)
    return state is not None and state.hash == record.body.hash


def _live_hash(key: Key, local: _Local, changes: dict[Key, Change]) -> bytes | None:
    """The hash of a record after the changes of a frame were written, or None where it is deleted or not known."""
    if (change := changes.get(key)) is not None:
        return change.hash if change.row is not None else None
    state = local.states.get(key)
    return state.hash if state is not None and not state.deleted else None


def _judge(record: _Arrived, key: Key, local: _Local, unreadable: dict[Key, str]) -> Change | None:
    """The change to write for a record that came with content or as a tombstone, or None."""
    state = local.states.get(key)
    if key in local.pending:
        return None
    try:
        change = _change(record)
    except Unreadable as error:
        unreadable[record.root] = str(error)
        return None
    local.learn_owner(change)
    if state is not None and state.version.order > record.version.order:
        return None
    if state is not None and state.hash == change.hash and record.scope is not None:
        return None
    right = local.right(record.root)
    if right is None or record.scope is None or not local.is_here(key):
        return change
    return change if local.is_of_former_owner(key, record.version, right) else None


def _change(record: _Arrived) -> Change:
    name, kind = record.table.name, record.kind
    if kind is None or (kind == "deleted" and not record.body.deleted):
        raise Unreadable(f"{name} {record.id} is neither deleted nor has it any content")
    if kind == "deleted":
        empty = record_hash(name, record.id, *record.version, b"")
        return Change(record.table, record.id, record.root_id, record.version, None, b"", empty)
    row, unknown, canonical = codec(record.table).decode(record.body.content)
    if row[0] != record.id:
        raise Unreadable(f"{name} {record.id} came with the id of another record")
    return Change(
        record.table, record.id, record.root_id, record.version, row, unknown,
        record_hash(name, record.id, *record.version, canonical),
    )  # fmt: skip


def _requeue(
    connection: sqlite3.Connection,
    received: Received,
    local: _Local,
    arrived: list[_Arrived],
    changes: dict[Key, Change],
) -> None:
    """Own records that the central shows in another version than ours: ours goes out again, with its whole document,
    because nothing is known of what the central has of it (F9)."""
    for record in arrived:
        if record.kind == "hash" or record.scope is None:
            continue
        key = (record.table.name, record.id)
        if key in changes or key in local.pending or not local.is_here(key):
            continue
        state, right = local.states.get(key), local.right(record.root)
        if right is None:
            continue
        if state is None or state.version != record.version:
            queue_again(connection, key, record.root, right)
            connection.execute(
                "INSERT OR IGNORE INTO sync_outcome VALUES (?, ?, ?, 'need_whole', '', '')",
                (*record.root, last_number(connection)),
            )
            received.requeued += 1


def _join_scopes(
    connection: sqlite3.Connection,
    arrived: list[_Arrived],
    before: dict[Key, list[int]],
    local: _Local,
    changes: dict[Key, Change],
) -> None:
    """Writes the memberships that a frame brought. A tombstone ends them: in its feed, and in every feed where it was
    asked for, because a feed may have brought it while a change that was refused stood in its way."""
    ledger = DigestLedger()
    joined, ended = [], []
    for record in arrived:
        key = (record.table.name, record.id)
        live_hash = _live_hash(key, local, changes)
        if live_hash is None and record.body.deleted:
            ended += [(*key, scope) for scope in (before.get(key, ()) if record.scope is None else (record.scope,))]
        elif record.scope is not None and record.scope not in before.get(key, ()):
            joined.append((*key, record.scope, record.root_id))
            before.setdefault(key, []).append(record.scope)
            if live_hash is not None:
                ledger.add(record.scope, key[0], live_hash)
    insert_rows(
        connection, "INSERT OR IGNORE INTO sync_membership (table_name, id, scope, root_id)", "(?, ?, ?, ?)", joined
    )
    connection.executemany("DELETE FROM sync_membership WHERE table_name = ? AND id = ? AND scope = ?", ended)
    if connection.execute(f"SELECT 1 FROM sync_membership WHERE state = {MARKED} LIMIT 1").fetchone():
        connection.executemany(
            "UPDATE sync_membership SET state = 0 WHERE table_name = ? AND id = ? AND scope = ?",
            [(record.table.name, record.id, record.scope) for record in arrived],
        )
    show(connection, [(row[0], row[1]) for row in joined])
    ledger.write(connection)

"""The central takes a pushed frame: judges each document, applies it, routes it, notes the frame; one transaction.

The verdict on a document, in this order:

1. unreadable content or unknown table                          -> held UNREADABLE
2. the site may not edit it, or not under that term             -> held NO_AUTHORITY, STALE_TERM
3. the store's data are not collected here                      -> held NOT_COLLECTED
4. it does not continue the stored version                      -> held DIVERGED; NEED_WHOLE where only changed members
                                                                   came and the base is the held version or unknown
5. a required reference is neither here nor deleted             -> held MISSING_REFERENCE, woken when it arrives
6. otherwise it is applied and leaves the held list.

Everything that can be judged is judged before SQL writes (F39). A later version of a held document replaces it; a
tombstone of a document that never got here ends it (F4).
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.follow_up import queue_follow_up
from central_node.storage.pushed import Pushed
from central_node.storage.references import doubtful_references, first_missing
from central_node.storage.refusals import Refusals
from central_node.storage.routing import Router
from central_node.storage.tombstones import conflict, is_foreign, is_forgotten, is_without_right
from engine.catalogue.codec import Unreadable, codec, record_hash
from engine.catalogue.model import Catalogue, Row, Table
from engine.errors import Code, sentence
from engine.limits import ID_BYTES_MAX
from engine.rules.authority import RIGHT_OF_KIND, RIGHTS_PER_STORE, Owner, may_edit
from engine.rules.topology import Topology
from engine.rules.versions import NEVER, Term, Version
from engine.session.frames import from_wire
from engine.storage.feeds import Routed, publish
from engine.storage.held import Held, Reason, held_documents, hold, let_go, wake
from engine.storage.in_use import kept_in_use
from engine.storage.records import (
    Change,
    Key,
    State,
    Writer,
    applying,
    members_of,
    read_rows,
    read_states,
    write_changes,
)
from engine.storage.wants import end_wants, read_wants


class Ingested(NamedTuple):
    """What became of a group of documents."""

    outcomes: list[session_pb2.Outcome]
    moved: set[str]
    """Scopes whose feeds moved."""
    applied: int
    """Records written."""
    tables: set[str]
    """The tables of the roots that were written."""

    def and_then(self, more: "Ingested") -> "Ingested":
        """This and what was taken after it."""
        outcomes, applied = [*self.outcomes, *more.outcomes], self.applied + more.applied
        return Ingested(outcomes, self.moved | more.moved, applied, self.tables | more.tables)


class Ingest:
    """Judges and applies documents of one site inside a write transaction."""

    def __init__(
        self, connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, writer: Writer, now: int
    ) -> None:
        self._connection, self._catalogue, self._topology = connection, catalogue, topology
        self._writer, self._now = writer, now
        self._router = Router(connection, catalogue, topology)
        self._states: dict[Key, State] = {}
        self._roots: dict[Key, Row] = {}
        self._held: dict[Key, Held] = {}
        self._damaged: set[Key] = set()
        """What was changed here behind the triggers: only a whole document mends it (F43)."""
        self._refusals = Refusals(writer.site, topology)
        self._accepted: set[Key] = set()
        self._outcomes: list[session_pb2.Outcome] = []
        self._ended: list[Key] = []

    def take(self, pushed: Sequence[Pushed]) -> Ingested:
        """Applies or holds documents in their order; no record occurs in two of them. Those of held documents that
        still wait stay held."""
        self._read(pushed)
        routed: list[Routed] = []
        candidates: list[tuple[Pushed, list[Change], Row | None]] = []
        for document in pushed:
            judged = self._judge(document)
            if judged is not None:
                changes, root_row = judged
                if changes[0].row is None:
                    changes = kept_in_use(self._connection, self._catalogue, changes, self._roots.get(document.key))
                candidates.append((document, changes, changes[0].row or root_row))
        together = chain.from_iterable(changes for _, changes, _ in candidates)
        doubtful = doubtful_references(self._connection, self._catalogue, self._states, list(together))
        for document, changes, root_row in candidates:
            missing = first_missing(self._connection, changes, doubtful, self._accepted) if doubtful else None
            if missing is not None:
                says = f"{_name(document)} refers to {missing[0]} {missing[1][:ID_BYTES_MAX]}, which is not here yet."
                self._hold(document, Reason(Code.MISSING_REFERENCE, says, missing))
                continue
            routed += self._accept(document, changes, root_row)
        return self._write(routed)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, pushed: Sequence[Pushed]) -> None:
        keys = []
        roots: dict[str, list[str]] = {}
        for document in pushed:
            table, root_id = document.key
            if table not in self._catalogue.tables:
                continue
            roots.setdefault(table, []).append(root_id)
            keys.append(document.key)
            if len(document.message.records) > 1:
                keys += [(record.table or table, record.id or root_id) for record in document.message.records]
        self._router.read((table, root_id) for table, ids in roots.items() for root_id in ids)
        self._states = read_states(self._connection, keys)
        for table, ids in roots.items():
            for record_id, row in read_rows(self._connection, self._catalogue[table], ids).items():
                self._roots[table, record_id] = row
        self._held = held_documents(self._connection, [d.key for d in pushed], self._writer.site)
        self._damaged = {*read_wants(self._connection)}

    # --- judging ------------------------------------------------------------------------------------------------------

    def _judge(self, document: Pushed) -> tuple[list[Change], Row | None] | None:
        """The changes to apply with the root's row, or None when the document was put elsewhere."""
        try:
            changes = self._changes(document)
        except Unreadable as error:
            self._hold(document, Reason(Code.UNREADABLE, f"{_name(document)} cannot be read: {error}."))
            return None
        root, stored = changes[0].table, self._roots.get(document.key)
        root_row = changes[0].row if changes[0].row is not None else stored
        if root_row is None:
            return self._judge_unknown(document, changes)
        refusal = self._refusals.of(root, root_row, document.version, stored is None)
        if refusal is None and stored is not None:
            refusal = self._refusals.of(root, stored, document.version, is_new=False)
            column = root.store_column if RIGHT_OF_KIND[root.kind] in RIGHTS_PER_STORE else ""
            if refusal is None and column and root.value(root_row, column) != root.value(stored, column):
                refusal = Code.UNREADABLE, "names another store than before."
        if refusal is not None:
            self._hold(document, Reason(refusal[0], f"{_name(document)} {refusal[1]}"))
            return None
        return self._judge_base(document, changes, root_row)

    def _judge_base(
        self, document: Pushed, changes: list[Change], root_row: Row | None
    ) -> tuple[list[Change], Row | None] | None:
        version, stored = document.version, self._version_of(document.key)
        held = self._held.get(document.key)
        base = document.base
        if base == stored and held is None and document.key not in self._damaged and version.is_newer_than(stored):
            return changes, root_row  # most documents
        if held is not None and base == held.version:
            if not document.message.whole:
                self._say(document, session_pb2.DISPOSITION_NEED_WHOLE)
                return None
            document = document._replace(base=(base := held.base))
        torn = base != stored or (document.key in self._damaged and root_row is not None)
        if torn and not document.message.whole:
            self._say(document, session_pb2.DISPOSITION_NEED_WHOLE)
            return None
        if stored != base and self._was_held(document, stored):
            base = stored  # what was held has been applied since, and this continues it
        state = self._states.get(document.key)
        if base != stored and is_foreign(self._connection, document.key, state, self._writer.site):
            if root_row is None and not version.is_newer_than(stored):
                self._ended.append(document.key)  # a newer tombstone is remembered already, and stays (I2)
                return None
            stored = NEVER
        elif base != stored and is_forgotten(self._connection, document.message, base, state):
            base = stored  # one end remembers that it was deleted, the other one not any more
        if stored == NEVER and document.key in self._roots:
            base = stored  # created here for its owner: whatever the owner has supersedes it
        if base != stored or not version.is_newer_than(stored):
            site, root = self._writer.site, self._catalogue[document.message.table]
            is_forged = root_row is None and state is not None and is_without_right(site, root, version, self._topology)
            self._hold(document, conflict(_name(document), base, stored, is_forged))
            return None
        return changes, root_row

    def _was_held(self, document: Pushed, stored: Version) -> bool:
        """Whether the stored version is one that this site was told is held, or an earlier one that was held before:
        the site cannot know yet that it was applied, and sends the whole document on top of all of them."""
        state = self._states.get(document.key)
        if state is None or not document.message.whole or not document.message.HasField("held"):
            return False
        newest = from_wire(document.message.held)
        mine = (state.writer_site, state.writer_epoch) == (self._writer.site, self._writer.epoch)
        return mine and document.base.order <= stored.order <= newest.order

    def _version_of(self, key: Key) -> Version:
        state = self._states.get(key)
        return state.version if state is not None else NEVER

    def _changes(self, document: Pushed) -> list[Change]:
        name, document_id = document.key
        root = self._catalogue.tables.get(name)
        if root is None or root.parent:
            raise Unreadable(f"this program knows no documents of the table {name[:60]!r}")
        records = list(document.message.records)
        if not records or not document_id or records[0].table or records[0].id:
            raise Unreadable("the root record does not come first")
        if max(document.version) >= 1 << 63:
            raise Unreadable("its version is beyond 2^63")
        members = self._catalogue.members_of(name)
        root_id = document_id if members else ""
        changes = [self._change(document, root, records[0], document_id, root_id)]
        if len(records) > 1:
            by_name = {table.name: table for table in members}
            for record in records[1:]:
                of_table = record.table or name
                if of_table not in by_name:
                    raise Unreadable(f"{of_table[:60]!r} is no table of its lines")
                changes.append(self._change(document, by_name[of_table], record, record.id or document_id, root_id))
        return changes if changes[0].row is not None else self._with_every_line(document, changes)

    def _with_every_line(self, document: Pushed, changes: list[Change]) -> list[Change]:
        """A deleted document takes all its lines along, also those that its site has not named (law 5)."""
        living = next((change for change in changes if change.row is not None), None)
        if living is not None:
            raise Unreadable(f"it is deleted, but its line {living.id} is not")
        root, named = changes[0], {(change.table.name, change.id) for change in changes}
        left = [
            (table, record_id)
            for table in self._catalogue.members_of(root.table.name)
            for record_id in members_of(self._connection, table, root.id)
            if (table.name, record_id) not in named
        ]
        self._states |= read_states(self._connection, [(table.name, record_id) for table, record_id in left])
        return [
            *changes,
            *(
                Change(
                    table, record_id, root.root_id, root.version, None, b"",
                    record_hash(table.name, record_id, *root.version, b""),
                )
                for table, record_id in left
            ),
        ]  # fmt: skip

    def _change(
        self, document: Pushed, table: Table, record: document_pb2.Record, record_id: str, root_id: str
    ) -> Change:
        version = document.version
        row: Row | None = None
        unknown = canonical = b""
        if len(record_id.encode()) > ID_BYTES_MAX:
            raise Unreadable(f"an id has more than {ID_BYTES_MAX} bytes")
        if table.parent:
            state = self._states.get((table.name, record_id))
            if state is not None and state.root_id != root_id:
                raise Unreadable(f"its line {record_id} belongs to another document")
        match record.WhichOneof("body"):
            case "content":
                row, unknown, canonical = codec(table).decode(record.content)
                if row[0] != record_id or (table.parent and table.value(row, table.parent_column) != root_id):
                    raise Unreadable(f"its record {record_id} names another document")
            case "deleted" if record.deleted:
                pass
            case _:
                raise Unreadable(f"its record {record_id} has no content")
        return Change(
            table, record_id, root_id, version, row, unknown,
            record_hash(table.name, record_id, *version, canonical),
        )  # fmt: skip

    def _judge_unknown(self, document: Pushed, changes: list[Change]) -> tuple[list[Change], Row | None] | None:
        """A tombstone of a document that is not here. It ends what is held of it and is remembered, in no scope; whose
        it was cannot be proved for store data, so it never stands in the way of another site's document."""
        root, state = self._catalogue[document.message.table], self._states.get(document.key)
        if state is not None and not state.deleted:
            says = f"{_name(document)} was deleted, but its row is missing here."
            self._hold(document, Reason(Code.DIVERGED, says))
            return None
        right = RIGHT_OF_KIND[root.kind]
        if right not in RIGHTS_PER_STORE:
            term = Term(document.version.term, document.version.term_id)
            # Nobody may delete a message, whether it is here or not.
            verdict = may_edit(self._writer.site, root, Owner(right), term, self._topology, is_new=False)
            if verdict is not None:
                self._hold(document, Reason(verdict.code, f"{_name(document)} was not deleted. {verdict.says}"))
                return None
        return self._judge_base(document, changes, None)

    # --- accepting ----------------------------------------------------------------------------------------------------

    def _accept(self, document: Pushed, changes: list[Change], root_row: Row | None) -> list[Routed]:
        scopes: Sequence[str] = ()
        if changes[0].row is not None and root_row is not None:
            scopes = self._router.scopes(changes[0].table, root_row)
        self._ended.append(document.key)
        routed = []
        for change in changes:
            key = (change.table.name, change.id)
            self._accepted.add(key)
            routed.append(Routed(change, scopes, self._states.get(key)))
        return routed

    def _write(self, routed: list[Routed]) -> Ingested:
        last = {(entry.change.table.name, entry.change.id): entry for entry in routed}
        with applying(self._connection):
            write_changes(self._connection, [entry.change for entry in last.values()], self._writer)
        if self._held:
            let_go(self._connection, self._ended, self._writer.site)
        if self._damaged:
            end_wants(self._connection, self._ended)
        wake(self._connection, last)
        moved = publish(self._connection, list(last.values()))
        roots = [entry.change for entry in last.values() if not entry.change.table.parent]
        as_they_were = ((c.table, row) for c in roots if (row := self._roots.get((c.table.name, c.id))) is not None)
        queue_follow_up(self._connection, self._catalogue, [*((c.table, c.row) for c in roots), *as_they_were])
        return Ingested(self._outcomes, moved, len(last), {change.table.name for change in roots})

    # --- saying -------------------------------------------------------------------------------------------------------

    def _hold(self, document: Pushed, why: Reason) -> None:
        if not hold(self._connection, document.message, document.base, self._writer.site, why, self._now):
            self._say(document, session_pb2.DISPOSITION_DEFERRED)
            return
        self._outcomes.append(
            session_pb2.Outcome(
                index=document.place,
                disposition=session_pb2.DISPOSITION_HELD,
                code=why.code,
                sentence=sentence(why.code, why.says),
            )
        )

    def _say(self, document: Pushed, disposition: session_pb2.Disposition.ValueType) -> None:
        self._outcomes.append(session_pb2.Outcome(index=document.place, disposition=disposition))


def _name(document: Pushed) -> str:
    return f"{document.message.table[:60]} {document.message.id[:ID_BYTES_MAX]}"

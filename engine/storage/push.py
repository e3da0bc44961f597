"""The sender's side of frames: cut them and keep their bytes. What becomes of them: settle.py.

Order of durability (DESIGN section 5.2, F1): the frame's exact bytes and the (record, token) of each change in it are
committed before the first byte is sent; a repeat sends those bytes. A change leaves the outbox only when the token that
was framed is acknowledged and still the newest.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.catalogue.codec import Unreadable
from engine.catalogue.model import Catalogue
from engine.errors import Code, sentence
from engine.limits import DOCUMENT_BYTES_MAX, FRAME_BYTES, FRAME_RECORDS
from engine.rules.topology import CENTRAL_SITE
from engine.rules.versions import NEVER, Version, next_version
from engine.session.frames import pack, to_wire
from engine.storage.bulk import insert_rows
from engine.storage.chain import append, last_link, last_number, leave_overtaken_lane
from engine.storage.held import holds_any, let_go
from engine.storage.new_cuts import NewCut, NewCuts, cut_new
from engine.storage.outbox import (
    Edited,
    Present,
    documents_of,
    edited_records,
    every_change,
    forget,
    orphans,
    read_beyond,
)
from engine.storage.parts import LANE_FRAME, Body, body_for, open_body
from engine.storage.records import (
    Change,
    Key,
    State,
    applying,
    by_table,
    chunks,
    forget_unknown,
    has_unknown,
    members_of,
)


class Cut(NamedTuple):
    """A document as it goes into a frame. It begins as a `NewCut` does."""

    order: int
    queued_at: int
    edited: Edited
    changes: list[Change]
    message: document_pb2.Document


class Known(NamedTuple):
    """What the sender knows of a document beyond its acknowledged state."""

    in_flight: Version | None
    disposition: str
    """Empty, or what the peer said of the last version that it was sent, where it did not apply that."""


_NOTHING = Known(None, "")
FULL_SIZE = (FRAME_RECORDS, FRAME_BYTES)


def cut_frame(
    connection: sqlite3.Connection, catalogue: Catalogue, site: int, now: int, size: tuple[int, int] = FULL_SIZE
) -> document_pb2.Frame | None:
    """Cuts the next frame from the outbox and stores it; None when nothing waits.

    Runs inside a write transaction; the frame may be sent once that is committed. It is closed at the first document
    that passes `size`: (records, bytes before compression). A document that is larger than those bytes even when it is
    compressed goes into the lane instead (lane.py), or waits until that is free.
    """
    leave_overtaken_lane(connection)
    while records := edited_records(connection, catalogue, size[0]):
        new = cut_new(connection, catalogue, records, size[1])
        if new.cuts:
            let_go(connection, [(cut.table, cut.id) for cut in new.cuts], site)
        edited = documents_of(connection, catalogue, new.others) if new.size_bytes < size[1] else []
        cuts = _cut_documents(connection, catalogue, edited, site, now, size, new) if edited else []
        if new.cuts or cuts:
            return _store(connection, new.cuts, cuts)
    return None


def _cut_documents(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    edited: list[Edited],
    site: int,
    now: int,
    limits: tuple[int, int],
    new: NewCuts,
) -> list[Cut]:
    roots = [(document.root.name, document.id) for document in edited]
    known = _known(connection, roots)
    # What the peer did not apply goes out again with everything that was in it.
    if known:
        edited = [
            every_change(connection, document) if known.get(key, _NOTHING).disposition else document
            for key, document in zip(roots, edited, strict=True)
        ]
    with_members = [document for document in edited if catalogue.members_of(document.root.name)]
    lost = {(d.root.name, d.id): orphans(connection, catalogue, d) for d in with_members}
    lines = [entry[:2] for document in with_members for entry in document.entries]
    present = Present(connection, catalogue, [*roots, *lines, *(key for found in lost.values() for key in found)])
    cuts, records, size = [], len(new.cuts), new.size_bytes
    some_held, some_unknown = holds_any(connection, site), has_unknown(connection)
    for key, document in zip(roots, edited, strict=True):
        try:
            cut = _cut(connection, catalogue, document, present, known.get(key, _NOTHING), lost.get(key, ()))
        except Unreadable as error:
            set_aside(connection, document, site, str(error), now)
            continue
        if some_held:
            let_go(connection, [key], site)
        if cut is None:
            forget(connection, document.entries)
            continue
        if some_unknown:
            forget_unknown(connection, cut.changes)
        size_bytes = cut.message.ByteSize()
        if size_bytes > limits[1] and _goes_in_parts(connection, cut, limits[1], site, now):
            continue
        cuts.append(cut)
        records, size = records + len(cut.changes), size + size_bytes
        if records >= limits[0] or size >= limits[1]:
            break
    return cuts


def _cut(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    document: Edited,
    present: Present,
    more: Known,
    lost: Sequence[Key],
) -> Cut | None:
    """The document as it is now, or None when nothing of it differs from what the peer has."""
    root, root_key = document.root, (document.root.name, document.id)
    members = catalogue.members_of(root.name)
    state = present.states.get(root_key)
    base, last_given, whole = _continued(state, more, present.forgotten)
    root_row = present.row(root_key)
    if lost and root_row is None:
        with applying(connection):
            for table, record_id in lost:
                connection.execute(f"DELETE FROM {table} WHERE id = ?", (record_id,))
    keys: dict[Key, None] = {root_key: None} | dict.fromkeys(entry[:2] for entry in document.entries)
    if more == _NOTHING and present.are_unchanged(keys) and not _is_waited_for(catalogue, present, keys):
        return None
    version = next_version(last_given, document.term)
    if root_row is None:
        keys |= dict.fromkeys(lost)
    elif whole and members:
        every = [(member.name, row) for member in members for row in members_of(connection, member, document.id)]
        present = Present(connection, catalogue, [root_key, *keys, *every])
        keys |= dict.fromkeys(every)
    if members and (beyond := read_beyond(connection)):
        keys = {key: None for key in keys if key[0] not in beyond}
    changes = [present.change(key, document.id if members else "", version) for key in keys]
    if root_row is None:
        changes = [change._replace(row=None, unknown=b"") for change in changes]
    message = _message(document, version, base, whole, changes)
    if more.disposition and more.in_flight is not None:
        message.held.CopyFrom(to_wire(more.in_flight))
    return Cut(catalogue.order[root.name], document.queued_at, document, changes, message)


def _continued(state: State | None, more: Known, forgotten: Version) -> tuple[Version, Version, bool]:
    """(the version that the peer has and the document continues, the last one that was given, whether all of it goes
    along: what the peer lacks, or did not apply)."""
    acknowledged = state.version if state is not None else NEVER
    known_there = more.in_flight or forgotten
    last_given = known_there if known_there.is_newer_than(acknowledged) else acknowledged
    whole = bool(more.disposition) or (more.in_flight is None and (state is None or state.deleted))
    base = acknowledged if more.disposition else (more.in_flight or acknowledged)
    return base, last_given, whole


def _is_waited_for(catalogue: Catalogue, present: Present, keys: Iterable[Key]) -> bool:
    """Whether something may wait for one of these records that came and went before the peer has heard of it: only its
    tombstone ends that (F26)."""
    return any(present.row(key) is None and key not in present.states and catalogue.is_required(key[0]) for key in keys)


def _message(
    document: Edited, version: Version, base: Version, whole: bool, changes: list[Change]
) -> document_pb2.Document:
    message = document_pb2.Document(table=document.root.name, id=document.id, version=to_wire(version), whole=whole)
    if base != NEVER:
        message.base.CopyFrom(to_wire(base))
    for place, change in enumerate(changes):
        record = message.records.add()
        if place:
            record.table, record.id = change.table.name, change.id
        if change.row is None:
            record.deleted = True
        else:
            record.content = change.content
    return message


def _known(connection: sqlite3.Connection, roots: Iterable[Key]) -> dict[Key, Known]:
    flights: dict[Key, Version] = {}
    outcomes: dict[Key, tuple[str, int]] = {}
    for table, ids in by_table(roots).items():
        for marks, part in chunks(ids):
            for row in connection.execute(
                "SELECT id, term, term_id, counter FROM sync_in_flight"
                f" WHERE table_name = ? AND id IN ({marks}) ORDER BY frame",
                (table, *part),
            ):
                flights[table, row[0]] = Version(*row[1:])
            for row in connection.execute(
                f"SELECT root_id, disposition, frame FROM sync_outcome WHERE root_table = ? AND root_id IN ({marks})",
                (table, *part),
            ):
                outcomes[table, row[0]] = row[1:]
    found = {key: Known(version, "") for key, version in flights.items()}
    for key, (disposition, frame) in outcomes.items():
        # Where the whole document is on its way already, what follows continues that.
        told = "" if is_whole_under_way(connection, key, frame) else disposition
        found[key] = Known(flights.get(key), told)
    return found


def is_whole_under_way(connection: sqlite3.Connection, document: Key, after: int) -> bool:
    """Whether a frame later than that one carries the whole document."""
    query = "SELECT 1 FROM sync_in_flight WHERE table_name = ? AND id = ? AND frame > ? AND whole = 1 LIMIT 1"
    return connection.execute(query, (*document, after)).fetchone() is not None


def _goes_in_parts(connection: sqlite3.Connection, cut: Cut, size_bytes: int, site: int, now: int) -> bool:
    """Puts a document that is too large for a frame into the lane, or notes that it waits for the lane."""
    if cut.message.ByteSize() > DOCUMENT_BYTES_MAX:
        set_aside(connection, cut.edited, site, f"it is larger than {DOCUMENT_BYTES_MAX >> 20} MiB", now)
        return True
    body, body_hash = pack(document_pb2.FrameBody(documents=[cut.message]))
    if len(body) <= size_bytes:
        return False
    key = (cut.edited.root.name, cut.edited.id)
    if body_for(connection, CENTRAL_SITE) is not None:
        connection.execute("INSERT OR IGNORE INTO sync_lane_waiting VALUES (?, ?)", key)
        return True
    open_body(connection, Body(CENTRAL_SITE, body_hash, len(body), 0, *key), body)
    _note_in_flight(connection, LANE_FRAME, [cut])
    return True


def _store(connection: sqlite3.Connection, new: list[NewCut], cuts: list[Cut]) -> document_pb2.Frame:
    previous, number = last_link(connection), last_number(connection) + 1
    # What was edited first goes first; within a frame a document comes after those that it may require.
    every: list[NewCut | Cut] = [*new, *cuts]
    every.sort(key=itemgetter(0, 1))
    body, frame_hash = pack(_body(every))
    _note_in_flight(connection, number, every)
    frame = document_pb2.Frame(
        number=number, hash=frame_hash, previous_number=previous.number, previous_hash=previous.hash, body=body
    )
    append(connection, frame, len(every))
    return frame


def _body(cuts: Iterable[NewCut | Cut]) -> document_pb2.FrameBody:
    body = document_pb2.FrameBody()
    for cut in cuts:
        if isinstance(cut, Cut):
            body.documents.append(cut.message)
            continue
        document = body.documents.add()
        document.CopyFrom(_new_document(cut.table, cut.version))
        document.id = cut.id
        document.records.add().content = cut.content
    return body


@lru_cache(maxsize=128)
def _new_document(table: str, version: Version) -> document_pb2.Document:
    """What new documents of one table and version have in common: setting it in each would take thrice as long."""
    return document_pb2.Document(table=table, version=to_wire(version), whole=True)


def _note_in_flight(connection: sqlite3.Connection, number: int, cuts: Sequence[NewCut | Cut]) -> None:
    rows: list[tuple[object, ...]] = []
    for place, cut in enumerate(cuts):
        if isinstance(cut, NewCut):
            root = cut.table, cut.id
            rows.append((number, *root, place, *root, "", cut.token, *cut.version, cut.hash, False, True))
            continue
        tokens = {entry[:2]: entry.token for entry in cut.edited.entries}
        rows += [
            (number, c.table.name, c.id, place, cut.edited.root.name, cut.edited.id, c.root_id,
             tokens.get((c.table.name, c.id), 0), *c.version, c.hash, c.row is None, cut.message.whole)
            for c in cut.changes
        ]  # fmt: skip
    insert_rows(connection, "INSERT INTO sync_in_flight", "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute(
        # Nothing can have been edited since the outbox was read: that was in this transaction.
        "UPDATE sync_outbox SET framed_token = token WHERE (table_name, id) IN"
        " (SELECT table_name, id FROM sync_in_flight WHERE frame = ?)",
        (number,),
    )


def set_aside(connection: sqlite3.Connection, document: Edited, site: int, why: str, now: int) -> None:
    """Notes a document that cannot leave this node. It is tried again when it is edited."""
    text = sentence(Code.UNREADABLE, f"{document.root.name} {document.id} cannot be sent: {why}.")
    connection.execute(
        "INSERT OR REPLACE INTO sync_held (table_name, id, site, term, term_id, counter, base_term, base_term_id,"
        " base_counter, code, sentence, held_at, document) VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0, ?, ?, ?, x'')",
        (document.root.name, document.id, site, Code.UNREADABLE, text, now),
    )
    connection.executemany(
        "UPDATE sync_outbox SET framed_token = token WHERE table_name = ? AND id = ? AND token = ?", document.entries
    )

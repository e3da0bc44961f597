"""The steps of the central's one loop: take frames, wake what waited, route the central's own changes.

Each step is one transaction. Feeds, digests and the note of a frame change together with the data (law 3); the
central's own edits are routed by the same loop, so that a checkpoint can say that nothing is under way (F44).
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.attempts import (
    Submitted,
    forget_attempts,
    forget_frame,
    is_hopeless,
    note_failure,
    set_frame_aside,
)
from central_node.storage.follow_up import queue_follow_up, queue_withheld
from central_node.storage.ingest import Ingest, Ingested
from central_node.storage.new_records import part, take_new
from central_node.storage.pushed import Pushed, pushed_again, pushed_in, without_repeats
from central_node.storage.roster import check_current
from central_node.storage.routing import Router
from engine.catalogue.codec import Unreadable
from engine.catalogue.model import Catalogue
from engine.errors import Code, PackhorseError, PeerProblem, Unavailable, sentence
from engine.limits import FRAME_RECORDS, ID_BYTES_MAX, ROUTE_RECORDS
from engine.rules.authority import Owner, Right
from engine.rules.topology import CENTRAL_SITE, Topology
from engine.rules.versions import NEVER, Term, next_version
from engine.session.frames import Link, unpack
from engine.storage.configuration import TOPOLOGY_TABLES, read_topology, write_rights
from engine.storage.feeds import Routed, publish, scopes_in_force
from engine.storage.held import Reason, hold, let_go, wake, woken
from engine.storage.outbox import Edited, Entry, Present, documents_of, edited_records, forget, orphans
from engine.storage.parts import body_of
from engine.storage.push import set_aside
from engine.storage.records import Key, Writer, applying, forget_unknown, read_meta, write_states

_WOKEN = 200
REFUSED_BY_SQL = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError, UnicodeError)
"""A value is none that a column takes."""
_log = structlog.get_logger("central")


@dataclass
class Taken:
    """What became of a group of frames."""

    acknowledgements: list[session_pb2.Acknowledgement | PackhorseError | None] = field(default_factory=list)
    """For each frame that there was time for: its acknowledgement, why its session must end, or None where it was
    passed over because a frame before it was not taken."""
    moved: set[str] = field(default_factory=set)
    records: int = 0
    topology: Topology | None = None
    """The topology after it, where it has changed."""


IsLate = Callable[[], bool]
"""Whether a transaction has lasted long enough: what is left is for the next one (F43)."""


def never_late() -> bool:
    """For work that is bounded otherwise."""
    return False


def take_frames(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    topology: Topology,
    frames: Sequence[Submitted],
    now: int,
    is_late: IsLate = never_late,
) -> Taken:
    """Takes frames of any sites, each strictly in the order of its chain: at least one, then as long as it is not late.

    A frame is never taken in part: some 10 ms of work, unless one document alone is larger.
    """
    taken = Taken()
    for submitted in frames:
        if taken.acknowledgements and is_late():
            break
        connection.execute("SAVEPOINT frame")
        try:
            acknowledgement, ingested = _take_frame(connection, catalogue, topology, submitted, now)
        except PackhorseError as error:
            connection.execute("ROLLBACK TO frame")
            taken.acknowledgements.append(error)
        except sqlite3.OperationalError:
            raise  # the disk or another program: nothing can be taken now
        except Exception:
            # One site's frame must not keep the others' from being taken.
            connection.execute("ROLLBACK TO frame")
            note_failure(connection, submitted)
            _log.exception("a frame could not be taken", site=submitted.writer.site, frame=submitted.frame.number)
            what = f"Frame {submitted.frame.number} could not be taken."
            taken.acknowledgements.append(Unavailable(Code.INTERNAL, what, 60.0))
        else:
            taken.acknowledgements.append(acknowledgement)
            if ingested is not None:
                taken.moved |= ingested.moved
                taken.records += ingested.applied
                if ingested.tables & TOPOLOGY_TABLES:  # the primary is another node
                    taken.topology = topology = refresh_topology(connection, catalogue)
        connection.execute("RELEASE frame")
    forget_attempts(connection, frames[: len(taken.acknowledgements)])
    return taken


def _take_frame(
    connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, submitted: Submitted, now: int
) -> tuple[session_pb2.Acknowledgement | None, Ingested | None]:
    site, frame = submitted.writer.site, submitted.frame
    check_current(connection, site, submitted.session, submitted.confirms)
    last = Link(
        *connection.execute("SELECT frame_number, frame_hash FROM central_site WHERE site = ?", (site,)).fetchone()
    )
    if (frame.previous_number, frame.previous_hash) != last or frame.number <= last.number:
        return None, None  # a frame before it was not taken, or it is no new one: Welcome tells what was taken (F1)
    if frame.number >= 1 << 63:
        raise PeerProblem(Code.PROTOCOL_BROKEN, "A frame came with a number beyond 2^63.")
    raw = body_of(connection, site, frame)
    if is_hopeless(connection, submitted):
        ingested = Ingested(set_frame_aside(connection, submitted, raw, now), set(), 0, set())
    else:
        body = unpack(document_pb2.FrameBody, raw, frame.hash)
        if len(body.documents) > FRAME_RECORDS:
            what = f"Frame {frame.number} brought {len(body.documents)} documents, more than {FRAME_RECORDS}."
            raise PeerProblem(Code.PROTOCOL_BROKEN, what)
        ingested = _ingest(connection, catalogue, topology, submitted.writer, body.documents, now)
    forget_frame(connection, site, frame.number)
    acknowledgement = session_pb2.Acknowledgement(number=frame.number, hash=frame.hash, outcomes=ingested.outcomes)
    connection.execute(
        "INSERT OR REPLACE INTO central_note VALUES (?, ?, ?, ?)",
        (site, frame.number, frame.hash, acknowledgement.SerializeToString()),
    )
    connection.execute(
        "UPDATE central_site SET frame_number = ?, frame_hash = ?, last_seen = ? WHERE site = ?",
        (frame.number, frame.hash, now, site),
    )
    return acknowledgement, ingested


def _ingest(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    topology: Topology,
    writer: Writer,
    documents: Sequence[document_pb2.Document],
    now: int,
) -> Ingested:
    """Takes the documents of a frame: new records first, where they are that, then the others in groups, each judged
    against what the group before has left."""
    whole, others = _new(connection, catalogue, topology, writer, documents)
    for group in without_repeats(pushed_in(others)) if others else ():
        whole = whole.and_then(_together(connection, catalogue, topology, writer, group, now))
    return whole


def _new(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    topology: Topology,
    writer: Writer,
    documents: Sequence[document_pb2.Document],
) -> tuple[Ingested, list[tuple[int, document_pb2.Document]]]:
    """Takes the new records of a frame; returns what became of them, and the documents that are left."""
    nothing, every = Ingested([], set(), 0, set()), list(enumerate(documents))
    parted = part(catalogue, every)
    if not parted.new:
        return nothing, every
    connection.execute("SAVEPOINT new")
    try:
        moved = take_new(connection, catalogue, topology, writer, parted.new)
    except REFUSED_BY_SQL:
        connection.execute("ROLLBACK TO new")
        moved = None
    connection.execute("RELEASE new")
    if moved is None:
        return nothing, every
    count = sum(len(new.ids) for new in parted.new)
    return Ingested([], moved, count, {new.root.name for new in parted.new}), parted.others


def _together(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    topology: Topology,
    writer: Writer,
    documents: Sequence[Pushed],
    now: int,
) -> Ingested:
    """Takes documents together; where SQL refuses one, one by one, and holds the culprit (F39)."""
    connection.execute("SAVEPOINT documents")
    try:
        ingested = Ingest(connection, catalogue, topology, writer, now).take(documents)
    except REFUSED_BY_SQL:
        connection.execute("ROLLBACK TO documents")
        ingested = _one_by_one(connection, catalogue, topology, writer, documents, now)
    connection.execute("RELEASE documents")
    return ingested


def _one_by_one(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    topology: Topology,
    writer: Writer,
    documents: Sequence[Pushed],
    now: int,
) -> Ingested:
    whole = Ingested([], set(), 0, set())
    for pushed in documents:
        connection.execute("SAVEPOINT document")
        try:
            ingested = Ingest(connection, catalogue, topology, writer, now).take([pushed])
        except REFUSED_BY_SQL:
            connection.execute("ROLLBACK TO document")
            document = pushed.message
            why = Reason(
                Code.UNREADABLE,
                f"{document.table[:60]} {document.id[:ID_BYTES_MAX]} holds a value that no column takes.",
            )
            kept = hold(connection, document, NEVER, writer.site, why, now)
            disposition = session_pb2.DISPOSITION_HELD if kept else session_pb2.DISPOSITION_DEFERRED
            told = session_pb2.Outcome(
                index=pushed.place, disposition=disposition, code=why.code, sentence=sentence(why.code, why.says)
            )
            ingested = Ingested([told], set(), 0, set())
        connection.execute("RELEASE document")
        whole = whole.and_then(ingested)
    return whole


def wake_held(
    connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, now: int, is_late: IsLate = never_late
) -> Taken:
    """Judges held documents again whose wait is over, if they still are the newest (F4): at least one, then as long as
    it is not late."""
    taken = Taken()
    for place, held in enumerate(woken(connection, _WOKEN)):
        if place and is_late():
            break
        epoch = connection.execute("SELECT epoch FROM central_site WHERE site = ?", (held.site,)).fetchone()
        writer = Writer(held.site, epoch[0].hex() if epoch else "")
        connection.execute("SAVEPOINT woken")
        try:
            ingested = Ingest(connection, catalogue, topology, writer, now).take(pushed_again([held]))
            taken.moved |= ingested.moved
            taken.records += ingested.applied
            if ingested.tables & TOPOLOGY_TABLES:
                taken.topology = topology = refresh_topology(connection, catalogue)
        except REFUSED_BY_SQL:
            connection.execute("ROLLBACK TO woken")
            why = Reason(Code.UNREADABLE, f"{held.key[0]} {held.key[1]} holds a value that no column takes.")
            hold(connection, held.document, held.base, held.site, why, now)
        connection.execute("RELEASE woken")
    return taken


def route_own(
    connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, now: int
) -> tuple[Taken, Topology]:
    """Gives versions and feed positions to what was edited at the central itself; returns the topology after it."""
    edited = documents_of(connection, catalogue, edited_records(connection, catalogue, ROUTE_RECORDS))
    edited.sort(key=lambda document: (catalogue.order[document.root.name], document.queued_at))
    taken = Taken()
    if not edited:
        return taken, topology
    if any(document.root.name in TOPOLOGY_TABLES for document in edited):
        topology = refresh_topology(connection, catalogue)
        edited += _copies_at_central(connection, catalogue, edited)
    writer = central_writer(connection)
    lost = {(d.root.name, d.id): orphans(connection, catalogue, d) for d in edited if catalogue.members_of(d.root.name)}
    keys = {(d.root.name, d.id) for d in edited} | {(e.table, e.id) for d in edited for e in d.entries}
    present = Present(connection, catalogue, [*sorted(keys), *(key for found in lost.values() for key in found)])
    rows = ((document.root, present.row((document.root.name, document.id))) for document in edited)
    queue_follow_up(connection, catalogue, rows)
    router = Router(connection, catalogue, topology)
    router.read((document.root.name, document.id) for document in edited)
    routed: list[Routed] = []
    kept: set[tuple[Entry, ...]] = set()
    for document in edited:
        gone = lost.get((document.root.name, document.id), [])
        try:
            routed += _route(connection, catalogue, router, document, present, gone)
        except Unreadable as error:
            set_aside(connection, document, CENTRAL_SITE, str(error), now)
            kept.add(document.entries)
    write_states(
        connection,
        [
            (r.change.table.name, r.change.id, r.change.root_id, *r.change.version, r.change.hash,
             r.change.row is None, *writer)
            for r in routed
        ],
    )  # fmt: skip
    forget_unknown(connection, [r.change for r in routed])
    done = [document for document in edited if document.entries not in kept]
    for document in done:
        forget(connection, document.entries)
    let_go(connection, [(document.root.name, document.id) for document in done], CENTRAL_SITE)
    wake(connection, [(r.change.table.name, r.change.id) for r in routed])
    taken.moved = publish(connection, routed)
    taken.records = len(routed)
    return taken, topology


def _route(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    router: Router,
    document: Edited,
    present: Present,
    lost: list[Key],
) -> list[Routed]:
    root_key = (document.root.name, document.id)
    keys: dict[Key, None] = {root_key: None} | dict.fromkeys((entry.table, entry.id) for entry in document.entries)
    root_row = present.row(root_key)
    if root_row is None:
        keys |= dict.fromkeys(lost)
        with applying(connection):
            for table, record_id in lost:
                connection.execute(f"DELETE FROM {table} WHERE id = ?", (record_id,))
    elif present.are_unchanged(keys) and set(router.scopes(document.root, root_row)) == set(
        scopes_in_force(connection, root_key)
    ):
        return []
    # What came and went since the last turn leaves a tombstone, in no feed: documents may wait for it (F26).
    state = present.states.get(root_key)
    version = next_version(state.version if state else present.forgotten, document.term)
    in_document = document.id if catalogue.members_of(document.root.name) else ""
    scopes = router.scopes(document.root, root_row) if root_row is not None else ()
    changes = [present.change(key, in_document, version) for key in keys]
    if root_row is None:
        changes = [change._replace(row=None, unknown=b"") for change in changes]
    return [Routed(change, scopes, present.states.get((change.table.name, change.id))) for change in changes]


def _copies_at_central(connection: sqlite3.Connection, catalogue: Catalogue, edited: Sequence[Edited]) -> list[Edited]:
    """The central's copies of stores whose active copy changed: who receives them depends on where that is."""
    touched = {(document.root.name, document.id) for document in edited}
    term = read_meta(connection)
    more = []
    for document in edited:
        if document.root.name != "store_copy":
            continue
        record_id = f"{document.id.rpartition('@')[0]}@{CENTRAL_SITE}"
        if ("store_copy", record_id) in touched:
            continue
        touched.add(("store_copy", record_id))
        if connection.execute("SELECT 1 FROM store_copy WHERE id = ?", (record_id,)).fetchone():
            sync_term = Term(int(term["sync_term"]), int(term["sync_term_id"]))
            more.append(Edited(catalogue["store_copy"], record_id, sync_term, 0, ()))
    return more


def central_writer(connection: sqlite3.Connection) -> Writer:
    """The central as the writer of its own records."""
    return Writer(CENTRAL_SITE, read_meta(connection)["epoch"])


def refresh_topology(connection: sqlite3.Connection, catalogue: Catalogue) -> Topology:
    """Reads the topology and makes the central's own rights follow it. What was not collected is judged again."""
    topology, meta = read_topology(connection), read_meta(connection)
    sync = Term(int(meta["sync_term"]), int(meta["sync_term_id"]))
    write_rights(connection, catalogue, CENTRAL_SITE, topology, {Owner(Right.SYNC): sync})
    queue_withheld(connection, catalogue, topology)
    connection.execute("UPDATE sync_held SET ready = 1 WHERE code = ?", (Code.NOT_COLLECTED,))
    return topology

"""Any frame that a site may push: it is acknowledged or refused by name, and what is not applied leaves no trace.

The frames are those of a correct site with some fields set to anything, or raw bytes in the place of a body; several
follow each other. The database is a real file; every example is rolled back.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from google.protobuf.message import DecodeError
from hypothesis import event, given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.steps import wake_held
from engine.catalogue.codec import Unreadable, codec
from engine.errors import Code, PackhorseError
from engine.rules.versions import Version
from engine.storage.configuration import read_topology
from engine.storage.pages import Cursor, read_page
from engine.storage.records import Key, Writer
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import (
    NOW,
    STORE_OF,
    TABLES,
    document,
    documents_of,
    everything_in,
    flaws,
    frame_of,
    rows_of,
    serving_central,
    take,
    term_of,
)
from tests.engine.storage.nodes import undone
from tests.garbling import EXAMPLES, Garbler

FUZZ = settings(deadline=None, database=None, max_examples=EXAMPLES)
SITE = 2
IDS = [f"{kind}-{store}" for kind in ("stock", "location", "invoice") for store in ("far", "third", "own")]
WORDS = [*TABLES, *IDS, "far", "third", "own", "item-1", "unit-1", "invoice-far-1", "invoice-third-1", "no_table"]


def _content(record: Any) -> Any:
    table = record.table or "stock_line"
    return core_catalogue()[table].message() if table in core_catalogue() else core_catalogue()["item"].message()


GARBLER = Garbler(WORDS, {"packhorse.sync.v1.Record.content": _content})


@pytest.fixture(scope="module", name="central")
def central_of_two_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = serving_central(tmp_path_factory.mktemp("central") / "node.db")
    yield connection
    connection.close()


def test_the_world_is_without_flaws(central: sqlite3.Connection) -> None:
    assert flaws(central) == []
    assert len(rows_of(central)) > 20


def pushed(data: st.DataObject, connection: sqlite3.Connection, turn: int) -> document_pb2.FrameBody:
    """The body of a frame: good documents, new and continued, garbled."""
    known = Version(*term_of(connection, SITE), 1)
    good = documents_of(connection, SITE, suffix=f"-{turn}") + documents_of(connection, SITE, base=known)
    tombstone = document("location", known._replace(counter=2), ("location", {"id": "location-far"}), base=known)
    tombstone.records[0].deleted = True
    chosen = data.draw(st.lists(st.sampled_from([*good, tombstone]), max_size=4), "documents")
    body = document_pb2.FrameBody(documents=[GARBLER.garbled(data, message, 3) for message in chosen])
    return GARBLER.garbled(data, body, 2)


def readable_rows(message: document_pb2.Document) -> dict[Key, set[Any]]:
    """The rows that a document carries, by key; None for a record that it deletes."""
    found: dict[Key, set[Any]] = {}
    for record in message.records:
        table, row = record.table or message.table, None
        if table in core_catalogue() and record.HasField("content"):
            try:
                row = codec(core_catalogue()[table]).decode(record.content).row
            except Unreadable:
                continue
        found.setdefault((table, record.id or message.id), set()).add(row)
    return found


def assert_only_what_was_applied_is_there(
    before: dict[Key, Any], after: dict[Key, Any], body: document_pb2.FrameBody, told: session_pb2.Acknowledgement
) -> None:
    apart = [outcome.index for outcome in told.outcomes]
    assert len(set(apart)) == len(apart) and all(index < len(body.documents) for index in apart)
    for outcome in told.outcomes:
        held = outcome.disposition == session_pb2.DISPOSITION_HELD
        assert held == (outcome.code in Code.__members__ and bool(outcome.sentence))
    carried: dict[Key, set[Any]] = {}
    for place, message in enumerate(body.documents):
        if place not in apart:
            for key, rows in readable_rows(message).items():
                carried.setdefault(key, set()).update(rows)
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key):
            assert after.get(key) in carried.get(key, ()), f"{key} came from no document that was applied"
            assert_may_edit(before, after, key)


def assert_may_edit(before: dict[Key, Any], after: dict[Key, Any], key: Key) -> None:
    """Law 1, said again without the engine's functions: the site edits documents of its own store and nothing else."""
    for rows in (before, after):
        if key in rows:
            table = core_catalogue()[key[0]]
            root = (table.parent, rows[key][table.index[table.parent_column]]) if table.parent else key
            owner = rows.get(root) or before.get(root)
            assert owner is not None
            columns = core_catalogue()[root[0]].index
            place = next(columns[name] for name in ("store_id", "home_store_id", "from_store_id") if name in columns)
            assert owner[place] == STORE_OF[SITE], f"{key} is not of site {SITE}"


def assert_goes_on(connection: sqlite3.Connection) -> None:
    """A good frame is taken as if nothing had been, what woke is judged again, and pages can be read."""
    good = documents_of(connection, SITE, suffix="-good")
    (told,) = take(connection, [frame_of(connection, SITE, good)], SITE).acknowledgements
    assert isinstance(told, session_pb2.Acknowledgement) and not told.outcomes
    after = rows_of(connection)
    assert all((message.table, message.id) in after for message in good)
    while connection.execute("SELECT 1 FROM sync_held WHERE ready = 1").fetchone():
        wake_held(connection, core_catalogue(), read_topology(connection), NOW)
    assert flaws(connection) == []
    for site, epoch in ((2, "02" * 16), (3, "03" * 16)):
        scopes = [row[0] for row in connection.execute("SELECT name FROM sync_scope").fetchall()]
        cursors = [Cursor(scope, 1, 0) for scope in scopes]
        read_page(connection, core_catalogue(), cursors, Writer(site, epoch), frozenset(TABLES), 10_000)


@FUZZ
@given(data=st.data())
def test_any_documents_are_applied_or_put_aside_by_name(central: sqlite3.Connection, data: st.DataObject) -> None:
    with undone(central):
        for turn in range(data.draw(st.integers(1, 3), "frames")):
            body = pushed(data, central, turn)
            before, all_before = rows_of(central), everything_in(central)
            (told,) = take(central, [frame_of(central, SITE, body.documents)], SITE).acknowledgements
            assert told is not None
            event(told.code if isinstance(told, PackhorseError) else ", ".join(sorted({o.code for o in told.outcomes})))
            if isinstance(told, PackhorseError):
                assert told.code is not Code.INTERNAL, told.what
                assert everything_in(central) == all_before
            else:
                assert_only_what_was_applied_is_there(before, rows_of(central), body, told)
            assert flaws(central) == []
        assert_goes_on(central)


@FUZZ
@given(data=st.data())
def test_any_frame_around_a_body_is_taken_or_refused_whole(central: sqlite3.Connection, data: st.DataObject) -> None:
    with undone(central):
        good = frame_of(central, SITE, documents_of(central, SITE, suffix="-in"))
        frame = GARBLER.garbled(data, good, 3)
        if data.draw(st.booleans(), "hash fits"):
            frame.hash = hashlib.sha256(frame.body).digest()
        before = everything_in(central)
        (told,) = take(central, [frame], SITE).acknowledgements
        if isinstance(told, session_pb2.Acknowledgement):
            assert (told.number, told.hash) == (frame.number, frame.hash)
        else:
            assert told is None or told.code is not Code.INTERNAL, told
            assert everything_in(central) == before
        assert flaws(central) == []
        if told is None or isinstance(told, PackhorseError) or frame.number < 1 << 62:
            assert_goes_on(central)


@FUZZ
@given(raw=st.binary(max_size=200))
def test_any_bytes_as_a_body_are_taken_or_refused_whole(central: sqlite3.Connection, raw: bytes) -> None:
    with undone(central):
        frame = frame_of(central, SITE, [])
        frame.body = zstandard.ZstdCompressor().compress(raw)
        frame.hash = hashlib.sha256(frame.body).digest()
        before = everything_in(central)
        (told,) = take(central, [frame], SITE).acknowledgements
        try:
            document_pb2.FrameBody.FromString(raw)
        except DecodeError:
            assert isinstance(told, PackhorseError) and told.code is Code.FRAME_DAMAGED
            assert everything_in(central) == before
        else:
            assert isinstance(told, session_pb2.Acknowledgement)
        assert_goes_on(central)

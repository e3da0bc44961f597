"""Frames that a correct site never cuts: each is taken document by document, and what is not applied is kept."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PeerProblem
from engine.limits import FRAME_RECORDS
from engine.rules.versions import NEVER, Version
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import document, everything_in, flaws, frame_of, rows_of, serving_central, take
from tests.central_node.storage.centrals import term_of as term_at
from tests.engine.storage.nodes import undone

SITE = 2


@pytest.fixture(scope="module", name="central")
def central_of_two_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = serving_central(tmp_path_factory.mktemp("central") / "node.db")
    yield connection
    connection.close()


def version(connection: sqlite3.Connection, counter: int) -> Version:
    return Version(*term_at(connection, SITE), counter)


def location(
    connection: sqlite3.Connection, counter: int, base: Version = NEVER, record: str = "L", **fields: Any
) -> document_pb2.Document:
    row = {"id": record, "store_id": "far"} | fields
    return document("location", version(connection, counter), ("location", row), base=base)


def invoice(
    connection: sqlite3.Connection, record: str, line: str, counter: int = 1, base: Version = NEVER
) -> document_pb2.Document:
    root = ("invoice", {"id": record, "store_id": "far", "name_id": "name-far"})
    member = ("invoice_line", {"id": line, "invoice_id": record, "item_id": "item-1"})
    return document("invoice", version(connection, counter), root, member, base=base)


def pushed(
    connection: sqlite3.Connection, documents: list[document_pb2.Document]
) -> tuple[set[Key], list[tuple[int, str]], list[Key]]:
    """(records that changed, (place, code) of what was put aside, documents that are held)."""
    before = rows_of(connection)
    (told,) = take(connection, [frame_of(connection, SITE, documents)], SITE).acknowledgements
    assert isinstance(told, session_pb2.Acknowledgement), told
    after = rows_of(connection)
    assert flaws(connection) == []
    held = connection.execute("SELECT table_name, id FROM sync_held").fetchall()
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return changed, [(outcome.index, outcome.code) for outcome in told.outcomes], held


@pytest.mark.parametrize("owner", ["third", "own"])
def test_a_document_of_another_site_is_held_and_nothing_of_it_applied(central: sqlite3.Connection, owner: str) -> None:
    message = location(central, 1, store_id=owner)
    with undone(central):
        changed, apart, held = pushed(central, [message, location(central, 1, record="mine")])
        assert changed == {("location", "mine")}, "everything else flows on"
        assert (apart, held) == ([(0, "NO_AUTHORITY")], [("location", "L")])
        kept = central.execute("SELECT document, sentence FROM sync_held").fetchone()
        assert document_pb2.Document.FromString(kept[0]) == message, "as it came"
        assert "location L" in kept[1] and "Site 2" in kept[1]


def test_a_document_that_comes_twice_is_judged_twice(central: sqlite3.Connection) -> None:
    first, second = location(central, 1), location(central, 2, base=version(central, 1), name="second")
    with undone(central):
        assert pushed(central, [first, second]) == ({("location", "L")}, [], [])
        assert rows_of(central)["location", "L"][3] == "second"


def test_a_document_that_comes_twice_and_diverges_is_kept(central: sqlite3.Connection) -> None:
    """Also when something else that was held is applied with it, and leaves the held list."""
    first, second = location(central, 1), location(central, 9, base=version(central, 7))
    held, mended = location(central, 8, base=version(central, 7), record="K"), location(central, 9, record="K")
    with undone(central):
        assert pushed(central, [held])[2] == [("location", "K")]
        changed, apart, kept = pushed(central, [first, second, mended])
        assert (changed, apart) == ({("location", "L"), ("location", "K")}, [(1, "DIVERGED")])
        assert kept == [("location", "L")]


def test_a_line_cannot_be_in_two_documents_of_a_frame(central: sqlite3.Connection) -> None:
    with undone(central):
        changed, apart, held = pushed(central, [invoice(central, "A", "line"), invoice(central, "B", "line")])
        assert changed == {("invoice", "A"), ("invoice_line", "line")}
        assert (apart, held) == ([(1, "UNREADABLE")], [("invoice", "B")])


def test_a_deleted_document_has_no_living_line(central: sqlite3.Connection) -> None:
    message = invoice(central, "invoice-far", "new line", 2, version(central, 1))
    message.records[0].deleted = True
    with undone(central):
        assert pushed(central, [message]) == (set(), [(0, "UNREADABLE")], [("invoice", "invoice-far")])


def test_a_deleted_document_takes_the_lines_along_that_were_not_named(central: sqlite3.Connection) -> None:
    message = invoice(central, "invoice-far", "", 2, version(central, 1))
    message.records[0].deleted = True
    del message.records[1:]
    with undone(central):
        lines = {("invoice_line", "invoice-far-1"), ("invoice_line", "invoice-far-2")}
        assert pushed(central, [message]) == ({("invoice", "invoice-far"), *lines}, [], [])


@pytest.mark.parametrize("place", ["root", "line"])
def test_an_id_beyond_its_bound_is_kept_aside(central: sqlite3.Connection, place: str) -> None:
    long = "é" * 101
    message = location(central, 1, record=long) if place == "root" else invoice(central, "A", long)
    with undone(central):
        changed, apart, held = pushed(central, [message, location(central, 1)])
        assert (changed, apart) == ({("location", "L")}, [(0, "UNREADABLE")])
        assert held == [(message.table, message.id)]


def test_the_table_of_a_newer_program_is_kept_aside_in_few_words(central: sqlite3.Connection) -> None:
    message = location(central, 1)
    message.table = "table_of_tomorrow" * 10_000
    with undone(central):
        (told,) = take(central, [frame_of(central, SITE, [message])], SITE).acknowledgements
        assert isinstance(told, session_pb2.Acknowledgement)
        assert told.outcomes[0].code == Code.UNREADABLE and len(told.outcomes[0].sentence) < 500


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
def test_a_frame_number_that_no_database_can_keep_is_refused(central: sqlite3.Connection, number: int) -> None:
    with undone(central):
        frame, before = frame_of(central, SITE, [location(central, 1)]), everything_in(central)
        frame.number = number
        (told,) = take(central, [frame], SITE).acknowledgements
        assert isinstance(told, PeerProblem) and told.code is Code.PROTOCOL_BROKEN
        assert everything_in(central) == before


def test_a_frame_has_no_more_documents_than_a_frame_may_have(central: sqlite3.Connection) -> None:
    """Or an acknowledgement could outgrow what a message may be, and stay in the way for ever."""
    with undone(central):
        documents = [location(central, 1, record=f"L{number}") for number in range(FRAME_RECORDS + 1)]
        (told,) = take(central, [frame_of(central, SITE, documents)], SITE).acknowledgements
        assert isinstance(told, PeerProblem) and told.code is Code.PROTOCOL_BROKEN
        assert len(pushed(central, documents[:-1])[0]) == FRAME_RECORDS


def test_what_no_digest_can_name_is_kept_aside(central: sqlite3.Connection) -> None:
    """A protobuf group, which no version of the catalogue uses."""
    message = location(central, 1)
    message.records[0].content += bytes([0xA3, 0x38, 0xA4, 0x38])
    with undone(central):
        assert pushed(central, [message])[1] == [(0, "UNREADABLE")]


def test_fields_of_a_newer_program_are_kept_and_passed_on(central: sqlite3.Connection) -> None:
    message = location(central, 1)
    unknown = core_catalogue()["location"].message.FromString(bytes([0xA2, 0x38, 2]) + b"hi").SerializeToString()
    message.records[0].content += unknown
    with undone(central):
        assert pushed(central, [message])[1:] == ([], [])
        kept = central.execute("SELECT fields FROM sync_unknown WHERE id = 'L'").fetchall()
        assert kept == [(unknown,)]


def test_what_is_not_deleted_is_not_deleted(central: sqlite3.Connection) -> None:
    """`deleted: false` is on the wire when a client sets it: it never deletes."""
    message = location(central, 2, base=version(central, 1), record="location-far")
    message.records[0].deleted = False
    with undone(central):
        assert pushed(central, [message]) == (set(), [(0, "UNREADABLE")], [("location", "location-far")])

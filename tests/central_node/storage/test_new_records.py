"""New records go through ingest by a short way: it comes to what the long way comes to, document by document."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2

from central_node.storage import steps
from central_node.storage.ingest import Ingest
from central_node.storage.new_records import Parted, part, take_new
from central_node.storage.pushed import Pushed
from engine.errors import PackhorseError
from engine.limits import ID_BYTES_MAX
from engine.rules.versions import Version
from engine.session.frames import to_wire
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import (
    document,
    documents_of,
    everything_in,
    flaws,
    frame_of,
    serving_central,
    take,
    term_of,
)
from tests.central_node.storage.test_any_frame import FUZZ, SITE, pushed
from tests.engine.storage.nodes import undone
from tests.partners import central_and_two_sites, connect, push, synchronise

Bodies = list[document_pb2.FrameBody]
Contents = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="module", name="central")
def central_of_two_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = serving_central(tmp_path_factory.mktemp("central") / "node.db")
    yield connection
    connection.close()


def comes_to(connection: sqlite3.Connection, bodies: Bodies) -> tuple[list[str], Contents]:
    """What a site is told of these frames, and what is in the central's database then. Which of two documents of one
    frame comes first in a feed is left open."""
    told = []
    with undone(connection):
        for body in bodies:
            (answer,) = take(connection, [frame_of(connection, SITE, body.documents)], SITE).acknowledgements
            told.append(answer.code if isinstance(answer, PackhorseError) else str(answer))
        assert flaws(connection) == []
        contents = everything_in(connection)
    contents["sync_membership"] = sorted((*row[:3], *row[4:]) for row in contents["sync_membership"])
    return told, contents


def by_the_long_way(connection: sqlite3.Connection, bodies: Bodies) -> tuple[list[str], Contents]:
    with patch.object(steps, "part", lambda _catalogue, every: Parted([], every)):
        return comes_to(connection, bodies)


def stock_line(connection: sqlite3.Connection, name: str, **fields: Any) -> document_pb2.Document:
    """A new stock line of the site."""
    row = {"id": name, "store_id": "far", "item_id": "item-1", "number_of_packs": "1"} | fields
    return document("stock_line", Version(*term_of(connection, SITE), 1), ("stock_line", row))


@FUZZ
@given(data=st.data())
def test_both_ways_come_to_the_same(central: sqlite3.Connection, data: st.DataObject) -> None:
    with undone(central):
        bodies = [pushed(data, central, turn) for turn in range(data.draw(st.integers(1, 3), "frames"))]
    for body in bodies:  # each is mixed with some that go the short way
        places = data.draw(st.lists(st.integers(0, len(body.documents)), max_size=3), "places of new records")
        every = list(body.documents)
        for number, place in enumerate(places):
            every.insert(place, stock_line(central, f"new-{number}"))
        del body.documents[:]
        body.documents.extend(every)
    short = comes_to(central, bodies)
    event(f"parted: {bool(part(core_catalogue(), list(enumerate(bodies[0].documents))).new)}")
    assert short == by_the_long_way(central, bodies)


def versions(document: document_pb2.Document, **numbers: int) -> document_pb2.Document:
    """The document with another version."""
    for name, number in numbers.items():
        setattr(document.version, name, number)
    return document


def deleted(document: document_pb2.Document) -> document_pb2.Document:
    """The document with its record deleted."""
    document.records[0].deleted = True
    return document


def unreadable(document: document_pb2.Document) -> document_pb2.Document:
    """The document with bytes that are no record."""
    document.records[0].content = b"\xff"
    return document


def known(connection: sqlite3.Connection, counter: int = 1) -> Version:
    """A version that the site may give."""
    return Version(*term_of(connection, SITE), counter)


FRAMES: dict[str, Callable[[sqlite3.Connection], list[document_pb2.Document]]] = {
    "new records of two tables": lambda c: [stock_line(c, "a"), *documents_of(c, SITE, suffix="-b")[:2]],
    "new records among changed ones": lambda c: [*documents_of(c, SITE, base=known(c)), stock_line(c, "a")],
    "one of them twice": lambda c: [stock_line(c, "a"), stock_line(c, "a", batch="other")],
    "one of them continued": lambda c: [
        stock_line(c, "a"),
        document(
            "stock_line", known(c, 2), ("stock_line", {"id": "a", "store_id": "far", "item_id": "item-1"}),
            base=known(c),
        ),
    ],
    "an id that is here": lambda c: [stock_line(c, "stock-far")],
    "an id of another site": lambda c: [stock_line(c, "stock-third")],
    "the store of another site": lambda c: [stock_line(c, "a"), stock_line(c, "b", store_id="third")],
    "an item that is not here": lambda c: [stock_line(c, "a"), stock_line(c, "b", item_id="item-9")],
    "an item that comes along": lambda c: [
        stock_line(c, "b", item_id="item-9"),
        document("item", known(c), ("item", {"id": "item-9", "name": "x", "unit_id": "unit-1"})),
    ],
    "content of another id": lambda c: [
        stock_line(c, "a"),
        document_pb2.Document(
            table="stock_line", id="b", version=to_wire(known(c)), records=stock_line(c, "c").records
        ),
    ],
    "a delete": lambda c: [stock_line(c, "a"), deleted(stock_line(c, "b"))],
    "content that is none": lambda c: [stock_line(c, "a"), unreadable(stock_line(c, "b"))],
    "an id that is too long": lambda c: [stock_line(c, "x" * (ID_BYTES_MAX + 1))],
    "a version that is none": lambda c: [versions(stock_line(c, "b"), term=0, counter=0)],
    "a version beyond every column": lambda c: [versions(stock_line(c, "b"), counter=1 << 63)],
    "a term that was never given": lambda c: [versions(stock_line(c, "b"), term_id=5)],
}  # fmt: skip
"""Frames beside the plainest one, by what is peculiar about them."""


@pytest.mark.parametrize("what", FRAMES)
def test_what_is_peculiar_comes_to_the_same(central: sqlite3.Connection, what: str) -> None:
    bodies = [document_pb2.FrameBody(documents=FRAMES[what](central))]
    assert comes_to(central, bodies) == by_the_long_way(central, bodies)


def test_what_is_plain_goes_the_short_way(central: sqlite3.Connection) -> None:
    """Also beside what goes the long way: only that is judged document by document."""
    plain = [stock_line(central, f"new-{number}") for number in range(3)]
    changed = documents_of(central, SITE, base=known(central))
    judged: list[str] = []

    def judge(ingest: Ingest, document: Pushed) -> Any:
        judged.append(document.key[1])
        return real(ingest, document)

    real = Ingest._judge
    with patch.object(Ingest, "_judge", judge):
        told, contents = comes_to(central, [document_pb2.FrameBody(documents=[*plain, *changed])])
    assert judged == [message.id for message in changed]
    assert {f"new-{number}" for number in range(3)} <= {row[0] for row in contents["stock_line"]}
    assert "outcomes" not in told[0]


def test_f39_where_sql_refuses_one_of_them_only_that_is_held(central: sqlite3.Connection) -> None:
    """Its neighbours are taken, and nothing of the attempt to take them together is left."""

    def refuse(connection: sqlite3.Connection, *arguments: Any) -> Any:
        moved = real(connection, *arguments)
        if any("poison" in new.ids for new in arguments[-1]):
            raise sqlite3.IntegrityError("refused")
        return moved

    def refuse_alone(ingest: Ingest, documents: Sequence[Pushed]) -> Any:
        if any(document.key[1] == "poison" for document in documents):
            raise sqlite3.IntegrityError("refused")
        return take_alone(ingest, documents)

    real, take_alone = take_new, Ingest.take
    names = ["new-1", "poison", "new-2"]
    body = document_pb2.FrameBody(documents=[stock_line(central, name) for name in names])
    with patch.object(steps, "take_new", refuse), patch.object(Ingest, "take", refuse_alone):
        _, contents = comes_to(central, [body])
    assert {"new-1", "new-2"} <= {row[0] for row in contents["stock_line"]}
    assert [row[:2] for row in contents["sync_held"]] == [("stock_line", "poison")]


def test_f04_what_was_held_comes_again(central: sqlite3.Connection) -> None:
    """The site has heard that it is held, and sends it whole, without a base: nothing of it was ever applied."""
    held = document_pb2.FrameBody(documents=[stock_line(central, "a", item_id="item-9")])
    mended = document_pb2.FrameBody(documents=[versions(stock_line(central, "a"), counter=2), stock_line(central, "b")])
    short = comes_to(central, [held, mended])
    assert short == by_the_long_way(central, [held, mended])
    assert not short[1]["sync_held"] and tuple(row[0] for row in short[1]["stock_line"][:2]) == ("a", "b")


def test_f26_a_new_record_wakes_what_waits_for_it(tmp_path: Path) -> None:
    """A stock line of one site waits for an item that the primary, another site, has not sent yet."""
    node, primary, other = central_and_two_sites(tmp_path)
    node.make_primary(primary.number, 2)
    for site in (primary, other):
        synchronise(node, site)
        connect(node, site)
    other.put_stock("waiting", item="item-9")
    push(node, other)
    assert node.execute("SELECT id, code, ready FROM sync_held") == [("waiting", "MISSING_REFERENCE", 0)]
    primary.execute("INSERT INTO item (id, name, unit_id) VALUES ('item-9', 'x', 'each')")
    with patch.object(Ingest, "take", side_effect=AssertionError):
        node.take_from(primary, primary.cut_all())
    assert node.execute("SELECT ready FROM sync_held") == [(1,)]
    node.route()
    assert node.count("stock_line", "id = 'waiting'") == 1 and not node.count("sync_held")

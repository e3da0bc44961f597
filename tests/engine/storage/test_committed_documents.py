"""A document is what is committed, in however many transactions; unknown fields outlive every edit (F21)."""

import sqlite3
from itertools import product

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.rules.versions import Version
from engine.session.frames import unpack
from engine.storage.push import cut_frame
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.documents import document, record
from tests.engine.storage.exchange import Exchange, exchange
from tests.engine.storage.nodes import HERE, execute, read_contents, undone
from tests.engine.storage.settings import RECURSION, Settings
from tests.engine.storage.statements import Effect, every_statement

TABLES = ("invoice", "invoice_line")
HEADER = "INSERT INTO invoice (id, store_id, name_id) VALUES ('i', 'store-2', 'name')"
FINAL = "UPDATE invoice SET status = 'finalised' WHERE id = 'i'"


def line(name: str, item: str = "item-1") -> str:
    return f"INSERT INTO invoice_line (id, invoice_id, item_id) VALUES ('{name}', 'i', '{item}')"


WRITING = (HEADER, line("a"), line("b"), FINAL)


def agree(country: Exchange) -> None:
    """Both ends have the same documents."""
    session = country.synchronise(country.site)
    assert country.differing(country.site, session) == []
    assert country.central.rows(*TABLES) == country.site.rows(*TABLES)


@pytest.mark.parametrize("cuts", list(product((False, True), repeat=3)), ids=str)
def test_f21_a_document_is_what_was_committed(cuts: tuple[bool, ...]) -> None:
    """Header, lines and the final status in any transactions: each commit is a version of its own, lines or not."""
    with exchange() as country:
        transaction: list[str] = []
        for statement, ends in zip(WRITING, (*cuts, True), strict=True):
            transaction.append(statement)
            if ends:
                country.site.edit(*transaction)
                transaction.clear()
                agree(country)
        assert len(country.central.rows(*TABLES)) == 3
        assert country.central.one("SELECT status FROM invoice") == "finalised"


def test_f21_a_refused_line_leaves_what_was_committed() -> None:
    """A program ignores the error of one statement and commits the rest: that is the document."""
    with exchange() as country:
        site = country.site
        site.connection.execute("BEGIN IMMEDIATE")
        assert execute(site.connection, HEADER) == ""
        assert execute(site.connection, line("a").replace("'i'", "'nowhere'"))
        assert execute(site.connection, line("b")) == ""
        site.connection.execute("COMMIT")
        agree(country)
        assert {key[1] for key in country.central.rows(*TABLES)} == {"i", "b"}


@pytest.mark.parametrize("chosen", RECURSION.values(), ids=RECURSION.keys())
@pytest.mark.parametrize("known", [False, True], ids=["never sent", "known to the central"])
@pytest.mark.parametrize("before", ["nothing", "a line was added", "the header was replaced"])
def test_f21_a_deleted_document_leaves_no_line_anywhere(before: str, known: bool, chosen: Settings) -> None:
    with exchange() as country:
        site = country.site
        site.edit(*WRITING[:3])
        if known:
            agree(country)
        chosen.apply(site.connection)
        more = {
            "nothing": (),
            "a line was added": (line("c"),),
            "the header was replaced": (HEADER.replace("INSERT", "INSERT OR REPLACE"),),
        }[before]
        site.edit(*more, "DELETE FROM invoice WHERE id = 'i'")
        agree(country)
        assert country.central.rows(*TABLES) == {}


# --- unknown fields ---------------------------------------------------------------------------------------------------

UNKNOWN = b"\xa2\x3f\x03new"
"""Field 1012 of a newer version of the contract, as it stands in a message."""
KEYS: tuple[Key, ...] = (
    ("stock_line", "stock-own"),
    ("invoice", "invoice-1-own"),
    ("invoice_line", "invoice-1-own-a"),
)


def sent_contents(connection: sqlite3.Connection) -> dict[str, bytes]:
    """Id -> content of every record in the next frame."""
    frame = cut_frame(connection, core_catalogue(), HERE, 0)
    assert frame is not None
    body = unpack(document_pb2.FrameBody, frame.body, frame.hash)
    return {record.id or document.id: record.content for document in body.documents for record in document.records}


@pytest.mark.parametrize("chosen", RECURSION.values(), ids=RECURSION.keys())
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_f21_unknown_fields_outlive_every_edit(site: sqlite3.Connection, key: Key, chosen: Settings) -> None:
    """A program of today edits or replaces a record that a newer one has written."""
    chosen.apply(site)
    row = read_contents(site).rows[key]
    for statement in every_statement(core_catalogue()[key[0]], row, "new-1"):
        if statement.effect is not Effect.UPDATES:
            continue
        with undone(site):
            site.execute("INSERT INTO sync_unknown VALUES (?, ?, ?)", (*key, UNKNOWN))
            assert execute(site, statement.sql, statement.values) == ""
            assert sent_contents(site)[key[1]].endswith(UNKNOWN), statement.sql
            assert site.execute("SELECT fields FROM sync_unknown").fetchall() == [(UNKNOWN,)]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_f21_a_deleted_record_takes_its_unknown_fields_along(site: sqlite3.Connection, key: Key) -> None:
    row = read_contents(site).rows[key]
    columns = ", ".join(core_catalogue()[key[0]].column_names)
    again = f"INSERT INTO {key[0]} ({columns}) VALUES ({', '.join('?' * len(row))})"
    with undone(site):
        site.execute("INSERT INTO sync_unknown VALUES (?, ?, ?)", (*key, UNKNOWN))
        site.execute("INSERT INTO sync_record (table_name, id, root_id, term, term_id, counter, hash)"
                     " VALUES (?, ?, ?, 3, 33, 1, x'00')",
                     (*key, "invoice-1-own" if key[0].startswith("invoice") else ""))  # fmt: skip
        assert execute(site, f"DELETE FROM {key[0]} WHERE id = ?", key[1:]) == ""
        assert sent_contents(site)[key[1]] == b""
        assert site.execute("SELECT count(*) FROM sync_unknown").fetchone() == (0,)
        assert execute(site, again, row) == ""
        assert not sent_contents(site)[key[1]].endswith(UNKNOWN)


@pytest.mark.parametrize("edit", ["UPDATE stock_line SET batch = 'x' WHERE id = 's'",
                                  "REPLACE INTO stock_line (id, store_id, item_id, batch)"
                                  " VALUES ('s', 'store-2', 'item-1', 'x')"])  # fmt: skip
def test_f21_what_a_newer_site_wrote_comes_back_through_an_older_one(edit: str) -> None:
    with exchange() as country:
        site, central = country.site, country.central
        term = central.term_of("store-2")
        newer = record("stock_line", id="s", store_id="store-2", item_id="item-1")
        newer.content += UNKNOWN
        told = central.push(country.connect(site), document(Version(term.counter, term.random, 1), newer))
        assert told == session_pb2.Acknowledgement(number=told.number, hash=told.hash)
        # The central has taken a frame that the site does not know of: its chain is moved along by hand.
        site.edit(
            f"INSERT OR REPLACE INTO sync_meta VALUES ('acknowledged', '{told.number}'), ('frame_number', '1'),"
            f" ('link_number', '{told.number}'), ('link_hash', '{told.hash.hex()}')"
        )
        session = country.synchronise(site)
        assert country.differing(site, session) == []
        assert site.one("SELECT fields FROM sync_unknown") == UNKNOWN
        site.edit(edit)
        session = country.synchronise(site)
        assert country.differing(site, session) == []
        for node in (site, central):
            assert node.one("SELECT fields FROM sync_unknown") == UNKNOWN
            assert node.one("SELECT batch FROM stock_line") == "x"
        site.edit("DELETE FROM stock_line")
        session = country.synchronise(site)
        assert country.differing(site, session) == []
        assert [node.one("SELECT count(*) FROM sync_unknown") for node in (site, central)] == [0, 0]

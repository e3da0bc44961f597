"""Pull frames that a correct central never sends: refused whole by name, or the document put aside as a whole."""

import sqlite3
from collections.abc import Callable, Iterator

import pytest
from packhorse.sync.v1 import document_pb2

from engine.errors import Code, PeerProblem
from engine.storage.receive import apply_pull
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import NOW, everything_in, flaws, rows_of, serving_central
from tests.engine.storage.nodes import undone
from tests.site_node.sites import ME, follow_third, joined_site, next_page

BEYOND = 1 << 63


@pytest.fixture(scope="module", name="site")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """Site 2, which has everything but the documents of store `third`."""
    folder = tmp_path_factory.mktemp("world")
    central = serving_central(folder / "central.db")
    site = joined_site(folder / "site.db", central)
    follow_third(central)
    site.execute("CREATE TEMP TABLE page (body BLOB)")
    site.execute("INSERT INTO temp.page VALUES (?)", (next_page(site, central).SerializeToString(),))
    central.close()
    yield site
    site.close()


def page_of(site: sqlite3.Connection) -> document_pb2.PullBody:
    """The next page: the store `third`, with a location, a stock line and an invoice of two lines."""
    return document_pb2.PullBody.FromString(site.execute("SELECT body FROM temp.page").fetchone()[0])


def invoice_in(body: document_pb2.PullBody) -> document_pb2.Document:
    return next(d for section in body.sections for d in section.documents if d.table == "invoice")


def held(site: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return site.execute("SELECT table_name, id, code FROM sync_held").fetchall()


def test_the_page_itself_is_applied(site: sqlite3.Connection) -> None:
    with undone(site):
        apply_pull(site, core_catalogue(), ME, page_of(site), NOW)
        assert {("invoice", "invoice-third"), ("invoice_line", "invoice-third-2")} < rows_of(site).keys()
        assert not held(site) and not flaws(site)


def _backwards(body: document_pb2.PullBody) -> None:
    body.sections[0].from_position, body.sections[0].to_position = 5, 4


def _generation(body: document_pb2.PullBody) -> None:
    body.subscriptions[0].generation = BEYOND


def _position(body: document_pb2.PullBody) -> None:
    body.sections[0].to_position = BEYOND


def _gap(body: document_pb2.PullBody) -> None:
    body.sections[0].from_position += 1
    body.sections[0].to_position += 1


@pytest.mark.parametrize("spoil", [_backwards, _generation, _position, _gap])
def test_a_page_that_fits_nowhere_is_refused_whole(
    site: sqlite3.Connection, spoil: Callable[[document_pb2.PullBody], None]
) -> None:
    body = page_of(site)
    spoil(body)
    with undone(site):
        before = everything_in(site)
        site.execute("SAVEPOINT page")
        with pytest.raises(PeerProblem) as caught:
            apply_pull(site, core_catalogue(), ME, body, NOW)
        assert caught.value.code is Code.PROTOCOL_BROKEN
        site.execute("ROLLBACK TO page")
        assert everything_in(site) == before


def _unreadable_line(document: document_pb2.Document) -> None:
    document.records[1].content = b"\xff\xff"


def _unreadable_root(document: document_pb2.Document) -> None:
    document.records[0].content = b"\xff\xff"


def _line_without_body(document: document_pb2.Document) -> None:
    document.records[2].ClearField("content")


def _line_not_deleted(document: document_pb2.Document) -> None:
    document.records[2].deleted = False


def _version(document: document_pb2.Document) -> None:
    document.version.counter = BEYOND


def _version_of_a_line(document: document_pb2.Document) -> None:
    document.records[1].version.counter = BEYOND


@pytest.mark.parametrize(
    "spoil",
    [_unreadable_line, _unreadable_root, _line_without_body, _line_not_deleted, _version, _version_of_a_line],
)
def test_a_document_that_cannot_be_read_is_put_aside_whole(
    site: sqlite3.Connection, spoil: Callable[[document_pb2.Document], None]
) -> None:
    body = page_of(site)
    spoil(invoice_in(body))
    with undone(site):
        apply_pull(site, core_catalogue(), ME, body, NOW)
        assert not [key for key in rows_of(site) if "invoice-third" in key[1]], "no torn document"
        assert ("stock_line", "stock-third") in rows_of(site), "everything else flows on"
        assert held(site) == [("invoice", "invoice-third", "UNREADABLE")]
        assert not flaws(site)


def test_what_is_not_deleted_is_not_deleted(site: sqlite3.Connection) -> None:
    """`deleted: false` is on the wire when a client sets it: it never deletes."""
    with undone(site):
        apply_pull(site, core_catalogue(), ME, page_of(site), NOW)
        body = document_pb2.PullBody(wanted=[invoice_in(page_of(site))])
        body.wanted[0].version.counter += 1
        for record in body.wanted[0].records:
            record.deleted = False
        before = rows_of(site)
        apply_pull(site, core_catalogue(), ME, body, NOW)
        assert rows_of(site) == before
        assert held(site) == [("invoice", "invoice-third", "UNREADABLE")]

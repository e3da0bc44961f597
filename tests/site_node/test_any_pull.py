"""Any pull frame that a central may send: it is applied, put aside or refused by name, and never harms what is here.

The frames are pages of a real central with some fields set to anything. The site has changes of its own that wait.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2

from engine.errors import Code, PackhorseError
from engine.storage.database import transact
from engine.storage.eviction import Place, evict_some, reach_checkpoint
from engine.storage.receive import apply_pull
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import NOW, TABLES, everything_in, flaws, rows_of, serving_central, settle
from tests.engine.storage.nodes import undone
from tests.garbling import EXAMPLES, Garbler
from tests.site_node.sites import ME, follow_third, joined_site, next_page, pull

FUZZ = settings(deadline=None, database=None, max_examples=EXAMPLES)
RECORDS = [
    "item-1",
    "unit-1",
    "stock-far",
    "location-far",
    "invoice-far",
    "invoice-far-1",
    "stock-third",
    "invoice-third",
]
SCOPES = ["central", "store/far", "store/third", "site/2", "store-record/far"]
WORDS = [*TABLES, *RECORDS, *SCOPES, "far", "third", "invoice-third-1"]


def _content(record: Any) -> Any:
    return (
        core_catalogue()[record.table].message()
        if record.table in core_catalogue()
        else core_catalogue()["item"].message()
    )


GARBLER = Garbler(WORDS, {"packhorse.sync.v1.Record.content": _content})


class World:
    """A site and the pages that it may be sent."""

    def __init__(self, site: sqlite3.Connection, central: sqlite3.Connection) -> None:
        self.site, self.central = site, central
        transact(central, self._edit_central)
        transact(site, self._edit_site)
        self.page = next_page(site, central)
        third = [document for section in self.page.sections for document in section.documents]
        self.wanted = document_pb2.PullBody(wanted=third[-3:])

    def _edit_central(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE item SET name = 'renamed'")
        connection.execute("INSERT INTO unit (id, name) VALUES ('unit-2', 'bottle')")
        settle(connection)
        # As if they had never been sent: the whole of store/third comes again.
        self.site.execute("UPDATE sync_scope SET position = 0 WHERE name IN ('store/third', 'store/far')")

    def _edit_site(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE stock_line SET batch = 'edited here' WHERE id = 'stock-far'")
        connection.execute("INSERT INTO location (id, store_id, name) VALUES ('new here', 'far', 'new')")


@pytest.fixture(scope="module", name="world")
def world_of_one_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    central = serving_central(folder / "central.db")
    follow_third(central)
    site = joined_site(folder / "site.db", central)
    yield World(site, central)
    site.close()
    central.close()


def test_the_world_is_without_flaws(world: World) -> None:
    assert flaws(world.site) == []
    assert {("stock_line", "stock-far"), ("invoice_line", "invoice-third-1")} < rows_of(world.site).keys()
    with undone(world.site):
        assert pull(world.site, world.central).records == 2
        assert flaws(world.site) == []


def assert_nothing_was_harmed(
    before: dict[Key, Any], after: dict[Key, Any], body: document_pb2.PullBody, wanted: bool
) -> None:
    """Law 8: absence never deletes, and what a feed brings never replaces what this site owns and has."""
    documents = [d for section in body.sections for d in section.documents] + list(body.wanted)
    tombstones = {
        (record.table or document.table, record.id or document.id)
        for document in documents
        for record in document.records
        if record.deleted
    }
    gone = before.keys() - after.keys()
    assert gone <= tombstones, gone - tombstones
    for key, row in before.items():
        owns = key[0] in ("stock_line", "location", "invoice") and row[1] == "far"
        if owns and not wanted:
            assert after.get(key) == row, f"{key} is edited here"


@FUZZ
@given(data=st.data())
def test_any_page_is_applied_or_refused_by_name(world: World, data: st.DataObject) -> None:
    body = GARBLER.garbled(data, data.draw(st.sampled_from([world.page, world.wanted]), "body"), 5)
    site = world.site
    with undone(site):
        before, all_before = rows_of(site), everything_in(site)
        outbox = set(site.execute("SELECT table_name, id, token FROM sync_outbox"))
        site.execute("SAVEPOINT page")
        try:
            received = apply_pull(site, core_catalogue(), ME, body, NOW)
        except PackhorseError as error:
            event(error.code)
            assert error.code is not Code.INTERNAL
            site.execute("ROLLBACK TO page")
            assert everything_in(site) == all_before
        else:
            event(f"applied, {len(received.wants) and 'wants'}")
            assert_nothing_was_harmed(before, rows_of(site), body, bool(body.wanted))
            assert outbox <= set(site.execute("SELECT table_name, id, token FROM sync_outbox")), "an edit was forgotten"
            assert flaws(site) == []
            place = Place() if reach_checkpoint(site, looks_at_hidden=True) else None
            while place is not None:
                place = evict_some(site, core_catalogue(), place, NOW)
            owned = {key for key, row in before.items() if key[0] in ("stock_line", "location") and row[1] == "far"}
            assert owned <= rows_of(site).keys()


def test_nothing_grows_with_what_is_refused(world: World) -> None:
    body = document_pb2.PullBody()
    body.CopyFrom(world.page)
    body.sections[-1].from_position += 7
    for _ in range(50):
        before = everything_in(world.site)
        with pytest.raises(PackhorseError):
            transact(world.site, lambda c: apply_pull(c, core_catalogue(), ME, body, NOW))
        assert everything_in(world.site) == before

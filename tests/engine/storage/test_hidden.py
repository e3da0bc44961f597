"""What a document here refers to is hidden instead of removed, for every reference of the catalogue (F36)."""

from collections.abc import Iterator

import pytest

from engine.catalogue.model import Column, Kind, Table
from engine.storage.eviction import Phase
from engine.storage.integrity import mend
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.documents import document, gone, record
from tests.engine.storage.scoped import V1, V2, ScopedSite, scoped_site
from tests.engine.storage.site_end import NOW

REFERENCES = [
    (table, column)
    for table in core_catalogue()
    for column in table.references
    if column.name != table.parent_column and not core_catalogue()[column.refers_to].parent
]
HIDDEN, OTHER = "hidden", "other"


@pytest.fixture(name="site", scope="module")
def empty_site() -> Iterator[ScopedSite]:
    with scoped_site() as site:
        yield site


@pytest.mark.parametrize(
    ("table", "column"), REFERENCES, ids=[f"{table.name}.{column.name}" for table, column in REFERENCES]
)
def test_f36_whatever_refers_to_it_keeps_it(site: ScopedSite, table: Table, column: Column) -> None:
    target: Key = (column.refers_to, HIDDEN)
    site.put("store/S", target, (column.refers_to, OTHER))
    site.write_row(table.name, "referrer", **{column.name: HIDDEN})
    site.close("store/S")
    site.evict()
    assert site.has(target) and not site.has((column.refers_to, OTHER))
    assert site.hidden() == {target: "not_visible"}
    assert site.one("SELECT count(*) FROM sync_digest") == 0, "outside digests"
    site.evict()
    assert site.has(target)
    remove(site, (table.name, "referrer"))
    site.evict()
    assert not site.has(target), "nothing refers to it any more"
    assert site.hidden() == {} and site.one("SELECT count(*) FROM sync_record") == 0


def remove(site: ScopedSite, key: Key) -> None:
    site.edit(
        "UPDATE sync_flag SET applying = 1",
        f"DELETE FROM {key[0]} WHERE id = '{key[1]}'",
        "UPDATE sync_flag SET applying = 0",
    )


def test_f36_what_refers_and_leaves_too_keeps_nothing() -> None:
    """Nor does what is hidden itself, so that two records that refer to each other do not stay for ever."""
    with scoped_site() as site:
        site.put("store/S", ("location", "shelf"), store_id="S")
        site.put("store/S", ("stock_line", "stock"), store_id="S", location_id="shelf", item_id="item")
        site.close("store/S")
        site.evict()
        assert site.rows("location", "stock_line") == {}


def test_f36_what_is_left_behind_keeps_what_it_refers_to() -> None:
    with scoped_site() as site:
        site.put("store/S", ("location", "shelf"), ("location", "other"), store_id="S")
        site.put("store/S", ("stock_line", "stock"), store_id="S", location_id="shelf", item_id="item")
        site.edit("INSERT INTO sync_outbox VALUES ('stock_line', 'stock', 'stock_line', 'stock', 'S', 9, 9, 1, 1, 0)")
        site.close("store/S")
        site.evict()
        assert site.hidden() == {("stock_line", "stock"): "left_behind", ("location", "shelf"): "not_visible"}
        site.edit("DELETE FROM sync_outbox")
        site.evict()
        assert site.rows("location", "stock_line") == {}


def test_f36_an_edit_that_refers_to_it_while_it_goes_keeps_it() -> None:
    with scoped_site() as site:
        site.put("store/S", ("location", "shelf"), store_id="S")
        site.close("store/S")
        site.edit("INSERT INTO sync_authority VALUES ('store', 'U', 1, 1)")
        for place in site.pieces():
            if place.phase is Phase.CLEAR and not site.has(("stock_line", "new")):
                site.edit(
                    "INSERT INTO stock_line (id, store_id, item_id, location_id) VALUES ('new', 'U', 'item', 'shelf')"
                )
        assert site.hidden() == {("location", "shelf"): "not_visible"}


def test_f36_a_hidden_record_that_comes_back_is_shown() -> None:
    with scoped_site() as site:
        site.put("central", ("item", "i"))
        site.write_row("stock_line", "stock", item_id="i")
        site.close("central")
        site.evict()
        assert site.hidden() == {("item", "i"): "not_visible"}
        site.put("central", ("item", "i"), version=V2, name="again")
        assert site.hidden() == {} and site.one("SELECT name FROM item") == "again"
        site.evict()
        assert site.has(("item", "i"))


@pytest.mark.parametrize("name", [t.name for t in core_catalogue() if t.kind is Kind.CENTRAL and not t.parent])
def test_f36_a_tombstone_hides_what_an_own_document_refers_to(name: str) -> None:
    with scoped_site() as site:
        site.put("central", (name, "used"), (name, "unused"))
        referring = core_catalogue().referring_to(name)
        if referring:
            site.write_row(referring[0][0].name, "referrer", **{referring[0][1]: "used"})
        site.delete("central", (name, "used"), (name, "unused"))
        assert site.one("SELECT count(*) FROM sync_membership") == 0, "for the digests both are deleted"
        assert {row[0] for row in site.connection.execute("SELECT deleted FROM sync_record")} == {1}
        site.evict()
        assert not site.has((name, "unused"))
        assert site.has((name, "used")) is bool(referring)
        assert (site.hidden() == {(name, "used"): "not_visible"}) is bool(referring)
        assert site.one("SELECT count(*) FROM sync_record WHERE deleted") == 2, "tombstones stay"
        if referring:
            remove(site, (referring[0][0].name, "referrer"))
            site.evict()
            assert not site.has((name, "used")) and site.hidden() == {}
            assert site.one("SELECT count(*) FROM sync_record WHERE deleted") == 2


def test_f36_a_record_that_is_deleted_and_written_again_is_shown() -> None:
    with scoped_site() as site:
        site.put("central", ("item", "i"))
        site.write_row("stock_line", "stock", item_id="i")
        site.delete("central", ("item", "i"))
        assert site.hidden() == {("item", "i"): "not_visible"}
        site.put("central", ("item", "i"), version=V2._replace(counter=3), name="again")
        assert site.hidden() == {} and site.one("SELECT name FROM item") == "again"
        site.evict()
        assert site.has(("item", "i"))


def test_f36_a_hidden_record_is_neither_asked_for_nor_put_aside() -> None:
    """The central tells nothing of it any more: it would be asked for again and again."""
    with scoped_site() as site:
        site.put("central", ("item", "deleted"), ("item", "gone"))
        for item in ("deleted", "gone"):
            site.write_row("stock_line", item, item_id=item)
        site.delete("central", ("item", "deleted"))
        site.close("central")
        site.evict()
        assert len(site.hidden()) == 2
        site.write(lambda c: mend(c, core_catalogue(), list(site.hidden()), NOW))
        assert site.one("SELECT count(*) FROM sync_want") == site.one("SELECT count(*) FROM sync_aside") == 0


def test_f36_a_line_that_is_deleted_goes_although_its_document_stays() -> None:
    """Lines that are deleted together, of several documents, are judged each for itself."""
    with scoped_site() as site:
        lists = ("a", "b")
        for name in lists:
            lines = [
                record("master_list_line", id=f"{name}-{line}", master_list_id=name, item_id="item") for line in "12"
            ]
            site.apply(site.page("central", document(V1, record("master_list", id=name), *lines)))
        for name in lists:
            tombstone = gone("master_list_line", f"{name}-1")
            site.apply(site.page("central", document(V2, record("master_list", id=name), tombstone, whole=False)))
        site.evict()
        assert site.rows("master_list_line").keys() == {("master_list_line", f"{name}-2") for name in lists}
        assert site.rows("master_list").keys() == {("master_list", name) for name in lists}
        assert site.hidden() == {} and site.one("SELECT count(*) FROM sync_left") == 0
        tombstones = site.connection.execute("SELECT id FROM sync_record WHERE deleted").fetchall()
        assert sorted(row[0] for row in tombstones) == ["a-1", "b-1"]


def test_f36_lines_of_a_document_that_goes_go_with_it_those_deleted_before_too() -> None:
    with scoped_site() as site:
        lines = [record("master_list_line", id=line, master_list_id="a", item_id="item") for line in "12"]
        site.apply(site.page("central", document(V1, record("master_list", id="a"), *lines)))
        deleted = document(V2, record("master_list", id="a"), gone("master_list_line", "1"), whole=False)
        site.apply(site.page("central", deleted))
        site.close("central")
        site.evict()
        assert site.rows("master_list", "master_list_line") == {} and site.hidden() == {}

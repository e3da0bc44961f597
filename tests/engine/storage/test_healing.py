"""What is refused for NO_AUTHORITY moves aside at an honest site, and the central's document takes its place."""

from collections.abc import Iterator, Mapping

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.catalogue.codec import codec
from engine.errors import Code
from engine.rules.topology import CopyType
from engine.rules.versions import Term
from engine.storage.integrity import kept_aside
from engine.storage.receive import apply_pull
from engine.storage.wants import read_wants
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.exchange import Exchange, exchange
from tests.engine.storage.site_end import NOW, SiteEnd

TABLES = ("location", "stock_line", "invoice", "invoice_line")
LINE = "INSERT INTO invoice_line (id, invoice_id, item_id) VALUES ('{}', '{}', 'item-1')"
EDITS = {
    "a change": ("UPDATE location SET name = 'mine' WHERE id = 'shelf'",),
    "a delete": ("DELETE FROM location WHERE id = 'shelf'",),
    "a new record": ("INSERT INTO location (id, store_id) VALUES ('new', 'store-2')",),
    "a change of a line": ("UPDATE invoice_line SET note = 'mine' WHERE id = 'i-b'",),
    "a new line": (LINE.format("i-c", "i"),),
    "a deleted line": ("DELETE FROM invoice_line WHERE id = 'i-a'",),
    "a deleted document": ("DELETE FROM invoice WHERE id = 'i'",),
    "a new document": (
        "INSERT INTO invoice (id, store_id, name_id) VALUES ('j', 'store-2', 'name')",
        LINE.format("j-a", "j"),
    ),
    "all at once": (
        "UPDATE location SET name = 'mine' WHERE id = 'shelf'",
        "DELETE FROM invoice_line WHERE id = 'i-a'",
        LINE.format("i-c", "i"),
        "INSERT INTO location (id, store_id) VALUES ('new', 'store-2')",
    ),
}


@pytest.fixture(name="country")
def country_with_a_store() -> Iterator[Exchange]:
    """Site 2 has a shelf and an invoice with two lines, known everywhere."""
    with exchange() as country:
        country.site.edit(
            "INSERT INTO location (id, store_id, name) VALUES ('shelf', 'store-2', 'agreed')",
            "INSERT INTO invoice (id, store_id, name_id) VALUES ('i', 'store-2', 'name')",
            *(LINE.format(f"i-{line}", "i") for line in "ab"),
        )
        assert country.differing(country.site, country.synchronise(country.site)) == []
        yield country


def edit_and_lose(country: Exchange, edit: str, keeps: CopyType) -> None:
    """The site edits its store offline; meanwhile it is given to another one."""
    country.site.edit(*EDITS[edit])
    country.central.put_copy("store-2", 2, keeps)
    country.central.put_copy("store-2", 3, CopyType.ACTIVE, Term(2, 22))


def contents(kept: bytes) -> dict[str, tuple[object, ...]]:
    """Id -> row of each record that a document holds; what it deletes is left out."""
    document = document_pb2.Document.FromString(kept)
    return {
        record.id or document.id: codec(core_catalogue()[record.table or document.table]).decode(record.content).row
        for record in document.records
        if record.WhichOneof("body") == "content"
    }


def document_of(rows: Mapping[tuple[str, str], tuple[object, ...]], root_id: str) -> dict[str, tuple[object, ...]]:
    """Id -> row of the records of a document: here their ids begin alike."""
    return {key[1]: row for key, row in rows.items() if key[1].startswith(root_id)}


def assert_healed(country: Exchange, site: SiteEnd, keeps: CopyType) -> None:
    expected = country.central.rows(*TABLES) if keeps is CopyType.COLLECTOR else {}
    assert site.rows(*TABLES) == expected
    for place in ("sync_outbox", "sync_in_flight", "sync_outcome", "sync_want", "sync_hidden", "sync_left"):
        assert site.one(f"SELECT count(*) FROM {place}") == 0, place
    assert country.differing(site, country.connect(site)) == ["held at the central"]


@pytest.mark.parametrize("keeps", [CopyType.COLLECTOR, CopyType.NONE])
@pytest.mark.parametrize("edit", EDITS)
def test_what_was_refused_moves_aside_and_digests_agree(country: Exchange, edit: str, keeps: CopyType) -> None:
    site, central = country.site, country.central
    edit_and_lose(country, edit, keeps)
    mine, theirs = site.rows(*TABLES), central.rows(*TABLES)
    country.synchronise(site)
    assert central.rows(*TABLES) == theirs, "nothing of it was applied"
    assert_healed(country, site, keeps)
    aside = site.connection.execute("SELECT table_name, id, code, sentence, content, in_its_place FROM sync_aside")
    for table, record_id, code, sentence, content, in_its_place in aside.fetchall():
        assert code == Code.NO_AUTHORITY and f"{table} {record_id}" in sentence and "Undo" in sentence
        assert contents(content) == document_of(mine, record_id)
        is_theirs = keeps is CopyType.COLLECTOR and (table, record_id) in theirs
        assert bool(in_its_place) is is_theirs
        if is_theirs:
            assert contents(in_its_place) == document_of(theirs, record_id)
    assert len(site.read(kept_aside)["kept_aside_records"]) == len({"all at once": "abc"}.get(edit, "a"))


@pytest.mark.parametrize("keeps", [CopyType.COLLECTOR, CopyType.NONE])
@pytest.mark.parametrize("dies", ["after the refusal", "while it moves aside", "after it moved aside"])
def test_it_may_die_at_any_moment(country: Exchange, dies: str, keeps: CopyType) -> None:
    site, central = country.site, country.central
    edit_and_lose(country, "all at once", keeps)
    session = country.connect(site)
    country.push(site, session)
    asked = site.read(read_wants)
    assert len(asked) == 3
    assert site.one("SELECT count(*) FROM sync_outbox") != 0, "until it is answered everything stays"
    if dies == "after the refusal":
        site.restart()
    elif dies == "while it moves aside":
        before = site.dump()
        with pytest.raises(KeyError):
            site.write(lambda _: dies_while_applying(site, central.wanted(session, asked)))
        assert site.dump() == before
        site.restart()
    else:
        site.apply(central.wanted(session, asked))
        site.restart()
    country.synchronise(site)
    assert_healed(country, site, keeps)
    assert site.one("SELECT count(*) FROM sync_aside") == 3, "each once"


def dies_while_applying(site: SiteEnd, body: document_pb2.PullBody) -> None:
    apply_pull(site.connection, core_catalogue(), site.me, body, NOW)
    raise KeyError


@pytest.mark.parametrize("is_on_its_way", [False, True])
def test_what_was_edited_again_is_judged_for_itself(country: Exchange, is_on_its_way: bool) -> None:
    """The store came back meanwhile: the edit under the new term is not one that was refused."""
    site, central = country.site, country.central
    edit_and_lose(country, "a change", CopyType.COLLECTOR)
    session = country.connect(site)
    country.push(site, session)
    central.put_copy("store-2", 3, CopyType.NONE)
    central.put_copy("store-2", 2, CopyType.ACTIVE, Term(3, 33))
    session = country.connect(site)  # the site learns of it
    site.edit("UPDATE location SET name = 'mine again' WHERE id = 'shelf'")
    if is_on_its_way:
        assert site.cut() is not None
    site.apply(central.wanted(session, [("location", "shelf")]))
    assert site.one("SELECT name FROM location") == "mine again"
    country.synchronise(site)
    assert site.one("SELECT count(*) FROM sync_aside") == 0
    assert site.one("SELECT name FROM location") == "mine again" == central.one("SELECT name FROM location")


@pytest.mark.parametrize(
    "code", [Code.STALE_TERM, Code.DIVERGED, Code.MISSING_REFERENCE, Code.NOT_COLLECTED, Code.UNREADABLE]
)
def test_no_other_refusal_moves_anything(country: Exchange, code: Code) -> None:
    site = country.site
    site.edit(*EDITS["all at once"])
    frame = site.cut()
    assert frame is not None
    held = [
        session_pb2.Outcome(index=place, disposition=session_pb2.DISPOSITION_HELD, code=code, sentence="says")
        for place in range(3)
    ]
    before = site.rows()
    site.settle(session_pb2.Acknowledgement(number=frame.number, hash=frame.hash, outcomes=held))
    assert site.read(read_wants) == []
    answers = [document_pb2.Document(table="location", id="shelf"), document_pb2.Document(table="invoice", id="i")]
    site.apply(document_pb2.PullBody(wanted=answers))
    assert site.rows() == before and site.one("SELECT count(*) FROM sync_aside") == 0


@pytest.mark.parametrize("is_told_first", ["by the feed", "by the answer"])
def test_what_was_deleted_while_a_refused_edit_stood_in_its_way_goes(country: Exchange, is_told_first: str) -> None:
    """A program gave itself a right; the tombstone of the owner must not be lost between feed and answer."""
    site, central = country.site, country.central
    central.edit("INSERT INTO location_type (id, name) VALUES ('cold', 'agreed')")
    country.synchronise(site)
    site.edit(
        "INSERT INTO sync_authority VALUES ('central', '', 1, 666)",
        "UPDATE location_type SET name = 'mine' WHERE id = 'cold'",
        "DELETE FROM sync_authority WHERE term_id = 666",
    )
    session = country.connect(site)
    central.edit("DELETE FROM location_type WHERE id = 'cold'")
    country.push(site, session)
    central.route()
    if is_told_first == "by the answer":
        site.apply(central.wanted(session, site.read(read_wants)))
    country.pull(site, session)
    assert site.one("SELECT name FROM location_type WHERE id = 'cold'") is None
    assert site.one("SELECT count(*) FROM sync_membership WHERE id = 'cold'") == 0
    assert country.differing(site, country.connect(site)) == ["held at the central"]
    assert [row["id"] for row in site.read(kept_aside)["kept_aside_records"]] == ["cold"]

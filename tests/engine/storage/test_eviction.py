"""What leaves a scope goes at the checkpoint, and only what nothing here needs any more (F7)."""

import sqlite3
from collections.abc import Iterator

import pytest

from engine.rules.authority import Right
from engine.storage.digests import read_digests
from engine.storage.eviction import Phase, Place, evict_some
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import flaws
from tests.engine.storage.documents import document, record
from tests.engine.storage.scoped import V1, V2, ScopedSite, scoped_site

SHELVES: list[Key] = [("location", f"shelf-{number}") for number in range(4)]


@pytest.fixture(name="site")
def followed_site() -> Iterator[ScopedSite]:
    """Four shelves of S in the scope `store/S`."""
    with scoped_site() as site:
        site.put("store/S", *SHELVES, store_id="S")
        yield site


def shelves(site: ScopedSite) -> list[Key]:
    return [key for key in SHELVES if site.has(key)]


def own(site: ScopedSite, store: str) -> None:
    site.edit(f"INSERT INTO sync_authority VALUES ('{Right.STORE}', '{store}', 1, 1)")


def disown(site: ScopedSite) -> None:
    site.edit("DELETE FROM sync_authority")


def wait_in(site: ScopedSite, place: str, key: Key) -> None:
    """Makes a document one that the other end does not have as it is here."""
    statements = {
        "pending": "INSERT INTO sync_outbox VALUES ('location', :id, 'location', :id, 'S', 9, 9, 1, 1, 0)",
        "in flight": "INSERT INTO sync_in_flight VALUES"
        " (7, 'location', :id, 0, 'location', :id, '', 9, 1, 1, 2, x'', 0, 1)",
        "held at the other end": "INSERT INTO sync_outcome VALUES ('location', :id, 7, 'held', 'DIVERGED', 'says')",
        "deferred": "INSERT INTO sync_outcome VALUES ('location', :id, 7, 'deferred', '', '')",
    }
    site.edit(statements[place].replace(":id", f"'{key[1]}'"))


def settle(site: ScopedSite) -> None:
    site.edit("DELETE FROM sync_outbox", "DELETE FROM sync_in_flight", "DELETE FROM sync_outcome")


@pytest.mark.parametrize("how", ["the scope is closed", "the records leave it"])
def test_f07_nothing_goes_before_the_checkpoint_and_everything_at_it(site: ScopedSite, how: str) -> None:
    site.put("store/T", ("location", "other"), store_id="T")
    site.close("store/S") if how == "the scope is closed" else site.leave("store/S", *SHELVES)
    assert shelves(site) == SHELVES, "the push and pull checkpoints are still to come"
    site.evict()
    assert shelves(site) == [] and site.has(("location", "other"))
    assert site.one("SELECT count(*) FROM sync_record") == 1
    assert site.one("SELECT count(*) FROM sync_left") == site.one("SELECT count(*) FROM sync_hidden") == 0
    assert flaws(site.connection) == []


def test_f07_what_left_after_the_checkpoint_waits_for_the_next(site: ScopedSite) -> None:
    site.leave("store/S", SHELVES[0])
    for place in site.pieces():
        if place == Place():
            site.leave("store/S", SHELVES[1])
            site.put("store/T", ("location", "other"), store_id="T")
            site.close("store/T")
    assert shelves(site) == SHELVES[1:] and site.has(("location", "other"))
    site.evict()
    assert shelves(site) == SHELVES[2:] and not site.has(("location", "other"))


def test_f07_what_moves_from_scope_to_scope_never_goes(site: ScopedSite) -> None:
    site.leave("store/S", SHELVES[0])
    site.put("store/T", SHELVES[0], store_id="S")
    site.close("store/S")
    for _ in site.pieces():
        assert site.has(SHELVES[0])
    assert shelves(site) == SHELVES[:1]
    assert flaws(site.connection) == []


@pytest.mark.parametrize("place", ["pending", "in flight", "held at the other end", "deferred"])
def test_f07_what_the_other_end_does_not_have_is_left_behind_until_that_is_settled(
    site: ScopedSite, place: str
) -> None:
    wait_in(site, place, SHELVES[1])
    before = site.rows("location")[SHELVES[1]]
    site.close("store/S")
    site.evict()
    assert shelves(site) == [SHELVES[1]]
    assert site.rows("location")[SHELVES[1]] == before
    assert site.hidden() == {SHELVES[1]: "left_behind"}
    site.evict()
    assert site.hidden() == {SHELVES[1]: "left_behind"}, "nobody has decided"
    settle(site)
    site.evict()
    assert shelves(site) == [] and site.hidden() == {}


def test_f07_a_document_is_left_behind_whole() -> None:
    with scoped_site() as site:
        lines = [record("invoice_line", id=f"line-{n}", invoice_id="i", item_id="item") for n in range(3)]
        site.apply(site.page("store/S", document(V1, record("invoice", id="i", store_id="S", name_id="n"), *lines)))
        site.edit("INSERT INTO sync_outbox VALUES ('invoice_line', 'line-1', 'invoice', 'i', 'S', 9, 9, 1, 1, 0)")
        site.close("store/S")
        site.evict()
        kept = {("invoice", "i"), *(("invoice_line", f"line-{n}") for n in range(3))}
        assert set(site.rows("invoice", "invoice_line")) == kept == site.hidden().keys()
        settle(site)
        site.evict()
        assert site.rows("invoice", "invoice_line") == {}
        assert site.one("SELECT count(*) FROM sync_record") == 0


def test_f07_what_this_site_owns_stays_whatever_the_feeds_say(site: ScopedSite) -> None:
    """Law 8: absence never deletes. A dispensary that leaves its transactions out has them in no feed."""
    own(site, "S")
    site.leave("store/S", *SHELVES)
    site.evict()
    assert shelves(site) == SHELVES and site.hidden() == {}
    disown(site)
    site.close("store/S")
    site.evict()
    assert shelves(site) == [], "not any more"


def test_f07_an_own_document_that_the_feed_has_not_shown_yet_goes_with_its_store(site: ScopedSite) -> None:
    """It was acknowledged; its echo never came, so it is in no scope."""
    site.edit(
        "INSERT INTO sync_record (table_name, id, term, term_id, counter, hash)"
        " VALUES ('location', 'new', 1, 1, 1, x'')"
    )
    site.write_row("location", "new", store_id="S")
    site.close("store/S")
    site.evict()
    assert not site.has(("location", "new"))
    assert site.one("SELECT count(*) FROM sync_record") == 0


def test_f07_a_scope_that_comes_back_while_it_is_emptied_fills_again(site: ScopedSite) -> None:
    site.close("store/S")
    for number, _ in enumerate(site.pieces()):
        if number == 0:
            site.put("store/S", *SHELVES[:2], store_id="S")
    assert shelves(site) == SHELVES[:2]
    assert flaws(site.connection) == []
    (scope,) = site.connection.execute("SELECT scope FROM sync_scope WHERE name = 'store/S'").fetchone()
    assert read_digests(site.connection, scope)["location"].records == 2
    assert site.one("SELECT count(*) FROM sync_scope") == 1


def test_f07_what_was_left_behind_and_comes_back_is_shown_again(site: ScopedSite) -> None:
    wait_in(site, "pending", SHELVES[0])
    site.close("store/S")
    site.evict()
    site.put("store/S", *SHELVES, store_id="S")
    assert site.hidden() == {}
    assert site.one("SELECT count(*) FROM sync_outbox") == 1, "the edit is still to be sent"


def many(site: ScopedSite, count: int) -> None:
    site.apply(
        site.page("store/T", *(document(V1, record("location", id=f"t{n:05}", store_id="T")) for n in range(count)))
    )


def test_f07_an_eviction_is_done_in_bounded_pieces(site: ScopedSite) -> None:
    many(site, 5_000)
    before = site.one("SELECT count(*) FROM location")
    site.close("store/T")
    assert site.one("SELECT count(*) FROM sync_membership") == 5_004, "closing a scope touches none of its records"
    written, pieces = site.connection.total_changes, 0
    for _ in site.pieces():
        now = site.connection.total_changes
        assert now - written <= 7_000, "memberships and notes of one piece of a walk"
        written, pieces = now, pieces + 1
        after = site.one("SELECT count(*) FROM location")
        assert int(str(before)) - int(str(after)) <= 300
        before = after
    assert pieces > 20
    assert shelves(site) == SHELVES and before == 4


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_f07_a_process_that_dies_between_two_pieces_or_within_one_goes_on(site: ScopedSite, at: int) -> None:
    many(site, 2_500)
    wait_in(site, "pending", ("location", "t00007"))
    site.close("store/T")
    for number, place in enumerate(site.pieces()):
        if number == at:
            die_within(site, place)
            break
    while site.one("SELECT 1 FROM sync_meta WHERE key = 'left_due'"):
        site.evict()
    site.evict()
    left = {key for key in site.rows("location") if key not in SHELVES}
    assert left == {("location", "t00007")} == site.hidden().keys()
    assert flaws(site.connection) == []


def die_within(site: ScopedSite, place: Place) -> None:
    """A piece was done and not committed when the process ended."""

    def work(connection: sqlite3.Connection) -> None:
        evict_some(connection, core_catalogue(), place, 0)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        site.write(work)
    site.restart()


def test_f07_edits_and_frames_between_the_pieces_lose_nothing(site: ScopedSite) -> None:
    many(site, 1_500)
    site.close("store/T")
    own(site, "U")
    edits = 0
    for edits, _ in enumerate(site.pieces()):
        site.edit(f"INSERT INTO location (id, store_id) VALUES ('u{edits}', 'U')")
        site.put("store/S", SHELVES[edits % 4], version=V2._replace(counter=2 + edits), store_id="S", name=f"n{edits}")
    assert edits > 5
    assert shelves(site) == SHELVES
    assert site.one("SELECT count(*) FROM location WHERE id GLOB 'u*'") == edits + 1
    assert site.one("SELECT count(*) FROM sync_outbox") == edits + 1
    assert site.one("SELECT count(*) FROM location WHERE id GLOB 't*'") == 0
    assert flaws(site.connection) == []


def test_f07_a_document_that_is_edited_just_before_its_piece_stays(site: ScopedSite) -> None:
    site.leave("store/S", *SHELVES)
    for place in site.pieces():
        if place.phase is Phase.CLEAR:
            wait_in(site, "pending", SHELVES[2])
            break
    site.evict()
    assert site.hidden() == {SHELVES[2]: "left_behind"}

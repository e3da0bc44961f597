"""What comes from a feed never replaces what is not sent, nor what its owner has or has deleted (law 8, F9)."""

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.rules.versions import NEVER, Version
from tests.engine.storage.central_end import Session, Told
from tests.engine.storage.documents import gone, record
from tests.engine.storage.exchange import Exchange, exchange

INVOICE = ("invoice", "h")
TABLES = ("invoice", "invoice_line")


def half(comment: str, *lines: str, number: int = -1) -> tuple[document_pb2.Record, ...]:
    """An invoice of store 2 as another node writes it."""
    root = record("invoice", id="h", store_id="store-2", name_id="name", number=number, comment=comment)
    every = (record("invoice_line", id=line, invoice_id="h", item_id="item-1", note=comment) for line in lines)
    return (root, *every)


def write_half(country: Exchange, comment: str) -> None:
    """The owner writes the invoice, with its number and two lines."""
    country.site.edit(
        "INSERT INTO invoice (id, store_id, name_id, number, comment)"
        f" VALUES ('h', 'store-2', 'name', 101, '{comment}')",
        *(f"INSERT INTO invoice_line (id, invoice_id, item_id) VALUES ('{line}', 'h', 'item-1')" for line in "ab"),
    )


def version(country: Exchange, counter: int) -> Version:
    term = country.central.term_of("store-2")
    return Version(term.counter, term.random, counter) if counter else NEVER


def pull(country: Exchange, session: Session) -> None:
    """One page with all there is."""
    body = country.central.page(session)
    assert body is not None
    country.site.apply(body, country.central.era)


MOMENTS = ("edited", "cut", "taken", "held", "edited again")


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("counter", [0, 2, 9])
@pytest.mark.parametrize("is_owner", [True, False], ids=["owner", "right lost"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_f09_a_pending_change_is_never_overwritten(moment: str, is_owner: bool, counter: int, deleted: bool) -> None:
    """At no moment of its way, by no version, whoever owns it now; and its acknowledgement takes nothing else along."""
    with exchange() as country:
        site, central, session = country.site, country.central, country.connect(country.site)
        write_half(country, "mine")
        if moment == "held":
            site.edit("UPDATE invoice SET name_id = 'late' WHERE id = 'h'")
        told: Told = None
        if moment != "edited":
            frame = site.cut()
            assert frame is not None
            if moment != "cut":
                (told,) = central.take(session, frame)
            if moment == "held" and isinstance(told, session_pb2.Acknowledgement):
                site.settle(told)
            if moment == "edited again":
                site.edit("UPDATE invoice SET comment = 'mine again' WHERE id = 'h'")
        mine = site.rows(*TABLES)
        assert site.one("SELECT count(*) FROM sync_outbox") == 3
        if not is_owner:
            site.edit("DELETE FROM sync_authority WHERE key = 'store-2'")
        content = (gone("invoice", "h"), gone("invoice_line", "a")) if deleted else half("theirs", "a", "c")
        central.write_for_another("store/store-2", INVOICE, version(country, counter), *content)
        pull(country, session)
        there = {key: row for key, row in site.rows(*TABLES).items() if key[1] != "c"}
        assert there == mine
        if isinstance(told, session_pb2.Acknowledgement) and moment != "held":
            site.settle(told)
        if moment == "edited again":
            assert site.one("SELECT count(*) FROM sync_outbox") == 1, "what came after the frame still waits"


def agreed(country: Exchange) -> Session:
    """A session after which both ends have the invoice, in its second version."""
    session = country.connect(country.site)
    write_half(country, "first")
    country.push(country.site, session)
    country.site.edit("UPDATE invoice SET comment = 'received' WHERE id = 'h'")
    country.push(country.site, session)
    country.pull(country.site, session)
    return session


@pytest.mark.parametrize("at_site", ["as it was", "deleted", "a line deleted"])
def test_f09_what_a_restored_central_creates_anew_gives_way_to_its_owner(at_site: str) -> None:
    """The invoice is numbered, edited and received at its owner; the central has forgotten that and makes it again."""
    with exchange() as country:
        site, central, session = country.site, country.central, agreed(country)
        if at_site != "as it was":
            site.edit(f"DELETE FROM {'invoice' if at_site == 'deleted' else 'invoice_line'} WHERE id IN ('h', 'a')")
            country.push(site, session)
            country.pull(site, session)
        mine = site.rows(*TABLES)
        central.write_for_another("store/store-2", INVOICE, NEVER, *half("created", "a", "b"))
        assert central.one("SELECT number FROM invoice") == -1
        pull(country, session)
        assert site.rows(*TABLES) == mine, "the owner keeps what it has, and what it has deleted stays deleted"
        country.push(site, session)
        assert central.rows(*TABLES) == mine
        assert country.differing(site, country.synchronise(site)) == []
        assert site.rows(*TABLES) == mine


@pytest.mark.parametrize("counter", [1, 2, 3, 9])
def test_f09_another_version_of_what_the_owner_has_is_kept_beside_it(counter: int) -> None:
    """Somebody else has written it: the owner's answer is held beside that, and it is an alarm."""
    with exchange() as country:
        site, central, session = country.site, country.central, agreed(country)
        mine = site.rows(*TABLES)
        central.write_for_another("store/store-2", INVOICE, version(country, counter), *half("theirs", "a", "b"))
        theirs = central.rows(*TABLES)
        pull(country, session)
        assert site.rows(*TABLES) == mine
        country.push(site, session)
        assert site.rows(*TABLES) == mine
        if counter == 2:
            assert central.rows(*TABLES) == mine, "what claims to be the owner's version gives way to the owner"
        else:
            assert central.one("SELECT code FROM sync_held") == "DIVERGED"
            assert "received" in str(central.one("SELECT document FROM sync_held"))
            assert central.rows(*TABLES) == theirs


def test_f09_what_the_owner_never_had_is_taken() -> None:
    """The first time the central creates a document for another owner; then the owner goes on from there."""
    with exchange() as country:
        site, central, session = country.site, country.central, country.connect(country.site)
        central.write_for_another("store/store-2", INVOICE, NEVER, *half("created", "a"))
        pull(country, session)
        assert site.rows(*TABLES) == central.rows(*TABLES)
        site.edit("UPDATE invoice SET number = 7 WHERE id = 'h'")
        country.push(site, session)
        assert central.one("SELECT number FROM invoice") == 7
        assert country.differing(site, country.synchronise(site)) == []

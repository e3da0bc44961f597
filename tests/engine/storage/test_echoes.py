"""What a site wrote itself comes back as (key, version, hash): a proof, or the wish for what is missing (F8)."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2

from engine.errors import Code, PeerProblem
from engine.rules.topology import CopyType
from engine.rules.versions import Term
from engine.storage.echoes import MARKED
from engine.storage.records import Key, applying
from tests.engine.storage.exchange import Exchange, exchange
from tests.engine.storage.site_end import SiteEnd

TABLES = ("location", "stock_line", "invoice", "invoice_line")
SCOPE = "store/store-2"


def write_history(site: SiteEnd) -> None:
    """What a store has after some work: documents with lines, single records, some deleted."""
    site.edit(
        "INSERT INTO location (id, store_id) VALUES ('shelf', 'store-2'), ('gone', 'store-2')",
        "INSERT INTO stock_line (id, store_id, item_id) VALUES ('s1', 'store-2', 'item-1')",
        *(f"INSERT INTO invoice (id, store_id, name_id) VALUES ('{i}', 'store-2', 'name')" for i in ("i1", "i2")),
        *(
            f"INSERT INTO invoice_line (id, invoice_id, item_id) VALUES ('{i}-{line}', '{i}', 'item-1')"
            for i in ("i1", "i2")
            for line in "ab"
        ),
    )


def change_history(site: SiteEnd) -> None:
    """A later day."""
    site.edit(
        "DELETE FROM location WHERE id = 'gone'",
        "DELETE FROM invoice_line WHERE id = 'i1-b'",
        "UPDATE invoice SET comment = 'later' WHERE id = 'i2'",
        "INSERT INTO stock_line (id, store_id, item_id) VALUES ('s2', 'store-2', 'item-2')",
    )


def of_store_2(rows: dict[Key, tuple[object, ...]]) -> dict[Key, tuple[object, ...]]:
    return {key: row for key, row in rows.items() if key[0] in TABLES}


def synchronise(country: Exchange, site: SiteEnd) -> None:
    session = country.synchronise(site)
    assert country.differing(site, session) == []


class Sent(NamedTuple):
    """How the records of a store came."""

    with_content: set[str]
    as_echo: set[str]
    deleted: set[str]


def sent_in(body: document_pb2.PullBody) -> Sent:
    sent = Sent(set(), set(), set())
    for section in body.sections:
        if section.scope != SCOPE:
            continue
        for document in section.documents:
            for record in document.records:
                kinds = {"content": sent.with_content, "hash": sent.as_echo, "deleted": sent.deleted}
                kinds[str(record.WhichOneof("body"))].add(record.id or document.id)
        sent.as_echo.update(record_id for told in section.echoes for record_id in told.ids)
    return sent


@pytest.mark.parametrize("works_elsewhere", [False, True], ids=["nothing happens there", "it is edited there"])
@pytest.mark.parametrize("between", [CopyType.NONE, CopyType.COLLECTOR])
def test_f08_a_store_that_comes_back_has_its_history(between: CopyType, works_elsewhere: bool) -> None:
    """Site 2 -> site 3 -> site 2: what was evicted was written by site 2 itself."""
    with exchange() as country:
        home, other, central = country.sites[2], country.sites[3], country.central
        write_history(home)
        synchronise(country, home)
        change_history(home)
        synchronise(country, home)
        central.put_copy("store-2", 2, between)
        central.put_copy("store-2", 3, CopyType.ACTIVE, Term(2, 22))
        synchronise(country, home)
        assert bool(of_store_2(home.rows())) is (between is CopyType.COLLECTOR)
        synchronise(country, other)
        assert of_store_2(other.rows()) == of_store_2(central.rows())
        if works_elsewhere:
            other.edit(
                "UPDATE stock_line SET batch = 'elsewhere' WHERE id = 's1'", "DELETE FROM invoice WHERE id = 'i1'"
            )
            synchronise(country, other)
            synchronise(country, home)
        central.put_copy("store-2", 3, CopyType.NONE)
        central.put_copy("store-2", 2, CopyType.ACTIVE, Term(3, 33))
        synchronise(country, home)
        synchronise(country, other)
        assert of_store_2(home.rows()) == of_store_2(central.rows())
        assert of_store_2(other.rows()) == {}
        assert of_store_2(home.rows())
        home.edit("UPDATE stock_line SET batch = 'home again' WHERE id = 's2'")
        synchronise(country, home)
        assert central.one("SELECT batch FROM stock_line WHERE id = 's2'") == "home again"


def read_again(country: Exchange) -> Sent:
    """The site reads its own store's feed from the beginning; what it wants comes."""
    session = country.connect(country.site)
    cursor = session.cursors[SCOPE]
    session.cursors[SCOPE] = cursor._replace(position=0, generation=cursor.generation + 100)
    change = document_pb2.SubscriptionChange(scope=SCOPE, generation=cursor.generation + 100)
    country.site.apply(document_pb2.PullBody(subscriptions=[change]))
    body = country.central.page(session)
    assert body is not None
    country.site.apply(body, country.central.era)
    country.pull(country.site, session)
    return sent_in(body)


@pytest.mark.parametrize("edited", [False, True])
def test_f08_a_site_that_lacks_nothing_is_sent_no_content(edited: bool) -> None:
    with exchange() as country:
        site = country.site
        write_history(site)
        synchronise(country, site)
        change_history(site)
        synchronise(country, site)
        before = of_store_2(site.rows())
        if edited:
            site.edit("UPDATE stock_line SET batch = 'not sent yet' WHERE id = 's1'")
        sent = read_again(country)
        assert sent.with_content == set()
        assert sent.as_echo == {key[1] for key in before}
        assert sent.deleted == {"gone", "i1-b"}
        assert site.one("SELECT count(*) FROM sync_want") == 0
        assert site.one("SELECT batch FROM stock_line WHERE id = 's1'") == ("not sent yet" if edited else "")
        synchronise(country, site)


def lose(site: SiteEnd, key: Key, how: str) -> None:
    """A record of the site is gone, or not what both had agreed on, as after a restored or damaged file."""
    table, record_id = key
    with applying(site.connection):
        if how == "row and state":
            site.connection.execute(f"DELETE FROM {table} WHERE id = ?", (record_id,))
        if how in ("row and state", "state"):
            site.connection.execute("DELETE FROM sync_record WHERE table_name = ? AND id = ?", key)
        if how == "older":
            column = "name" if table == "location" else "batch" if table != "invoice" else "comment"
            site.connection.execute(f"UPDATE {table} SET {column} = 'older' WHERE id = ?", (record_id,))
            site.connection.execute(
                "UPDATE sync_record SET counter = 0, hash = x'00' WHERE table_name = ? AND id = ?", key
            )


HISTORY: tuple[Key, ...] = (
    ("location", "shelf"),
    ("stock_line", "s1"),
    ("stock_line", "s2"),
    ("invoice", "i1"),
    ("invoice", "i2"),
    ("invoice_line", "i1-a"),
    ("invoice_line", "i2-a"),
    ("invoice_line", "i2-b"),
)
LOSSES = st.dictionaries(st.sampled_from(HISTORY), st.sampled_from(["row and state", "state", "older"]))


@settings(deadline=None, max_examples=60)
@given(losses=LOSSES)
def test_f08_whatever_is_missing_is_wanted_and_comes(losses: dict[Key, str]) -> None:
    with exchange() as country:
        site = country.site
        write_history(site)
        synchronise(country, site)
        change_history(site)
        synchronise(country, site)
        before = of_store_2(site.rows())
        # Digests tell of what was agreed on: what is lost is taken out of them with its membership.
        for key, how in losses.items():
            lose(site, key, how)
        site.connection.execute(
            "DELETE FROM sync_membership WHERE scope = (SELECT scope FROM sync_scope WHERE name = ?)", (SCOPE,)
        )
        site.connection.execute(
            "DELETE FROM sync_digest WHERE scope = (SELECT scope FROM sync_scope WHERE name = ?)", (SCOPE,)
        )
        sent = read_again(country)
        assert sent.with_content == set()
        assert of_store_2(site.rows()) == before
        assert of_store_2(site.rows()) == of_store_2(country.central.rows())
        assert site.one("SELECT count(*) FROM sync_want") == 0
        assert site.one("SELECT count(*) FROM sync_outbox") == 0
        synchronise(country, site)


@pytest.mark.parametrize("how", ["nothing", "state"])
def test_f08_what_has_a_pending_change_is_not_wanted(how: str) -> None:
    with exchange() as country:
        site = country.site
        write_history(site)
        synchronise(country, site)
        site.edit("UPDATE stock_line SET batch = 'not sent yet' WHERE id = 's1'")
        lose(site, ("stock_line", "s1"), how)
        read_again(country)
        assert site.one("SELECT batch FROM stock_line") == "not sent yet"
        assert site.one("SELECT count(*) FROM sync_outbox") == 1


# --- what no correct central sends ------------------------------------------------------------------------------------


def page_of_echoes(country: Exchange) -> document_pb2.PullBody:
    """The site's own store from the beginning, as `read_again` has it, not applied yet."""
    session = country.connect(country.site)
    cursor = session.cursors[SCOPE]
    session.cursors[SCOPE] = cursor._replace(position=0, generation=cursor.generation + 100)
    change = document_pb2.SubscriptionChange(scope=SCOPE, generation=cursor.generation + 100)
    body = country.central.page(session)
    assert body is not None
    body.subscriptions.append(change)
    return body


def echoes_in(body: document_pb2.PullBody) -> list[document_pb2.Echoes]:
    return [told for section in body.sections for told in section.echoes]


def test_f08_records_without_lines_go_together_and_the_others_by_document() -> None:
    with exchange() as country:
        write_history(country.site)
        synchronise(country, country.site)
        body = page_of_echoes(country)
        assert {(told.table, *sorted(told.ids)) for told in echoes_in(body)} == {
            ("location", "gone", "shelf"),
            ("stock_line", "s1"),
        }
        assert {d.table for section in body.sections for d in section.documents if section.scope == SCOPE} == {
            "invoice"
        }


@pytest.mark.parametrize("more", [b"", bytes(15), bytes(32)], ids=["none", "too short", "too long"])
def test_echoes_without_one_hash_each_are_refused_and_change_nothing(more: bytes) -> None:
    with exchange() as country:
        write_history(country.site)
        synchronise(country, country.site)
        body, before = page_of_echoes(country), country.site.dump()
        told = next(told for told in echoes_in(body) if told.table == "stock_line")
        told.hashes = more
        with pytest.raises(PeerProblem) as raised:
            country.site.apply(body)
        assert raised.value.code is Code.PROTOCOL_BROKEN
        assert country.site.dump() == before


@pytest.mark.parametrize("what", ["twice", "an unknown table", "a version beyond 2^63", "of a table with lines"])
def test_strange_echoes_harm_nothing(what: str) -> None:
    with exchange() as country:
        site = country.site
        write_history(site)
        synchronise(country, site)
        body, before = page_of_echoes(country), of_store_2(site.rows())
        told = next(told for told in echoes_in(body) if told.table == "stock_line")
        strange = document_pb2.Echoes()
        strange.CopyFrom(told)
        if what == "an unknown table":
            strange.table = "of_tomorrow"
        elif what == "a version beyond 2^63":
            strange.version.counter = (1 << 64) - 1
        elif what == "of a table with lines":
            strange.table, strange.ids[0] = "invoice", "i1"
        next(section for section in body.sections if section.scope == SCOPE).echoes.append(strange)
        country.site.apply(body)
        assert of_store_2(site.rows()) == before
        if what == "a version beyond 2^63":
            assert site.one("SELECT code FROM sync_held") == Code.UNREADABLE
        else:
            synchronise(country, site)
            assert of_store_2(site.rows()) == of_store_2(country.central.rows())


def test_a_record_that_a_subscription_shows_again_stays_in_its_scope() -> None:
    """A subscription that begins again marks what is in the scope; an echo takes the mark away."""
    with exchange() as country:
        site = country.site
        write_history(site)
        synchronise(country, site)
        country.site.apply(page_of_echoes(country))
        marked = "SELECT count(*) FROM sync_membership WHERE state = ? AND table_name = 'stock_line'"
        assert site.one(marked, MARKED) == 0
        assert site.one(marked, 0) == 1


def test_f08_an_echo_proves_the_content_too() -> None:
    """The same version of another content, as after a restored database, is asked for."""
    with exchange() as country:
        site = country.site
        write_history(site)
        synchronise(country, site)
        with applying(site.connection):
            site.connection.execute("UPDATE sync_record SET hash = zeroblob(16) WHERE table_name = 'stock_line'")
        received = country.site.apply(page_of_echoes(country))
        assert received.wants == [("stock_line", "s1")]

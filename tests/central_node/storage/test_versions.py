"""A push is applied only on top of what it continues; what differs is kept beside it (law 6, F5)."""

from itertools import product

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.rules.versions import NEVER, Version
from tests.engine.storage.central_end import Session
from tests.engine.storage.documents import document, gone, record
from tests.engine.storage.exchange import Exchange, exchange

HELD, NEED_WHOLE = session_pb2.DISPOSITION_HELD, session_pb2.DISPOSITION_NEED_WHOLE
STORED = 5


def version(country: Exchange, counter: int) -> Version:
    """A version in the term of store 2; 0 is that of what never was."""
    term = country.central.term_of("store-2")
    return Version(term.counter, term.random, counter) if counter else NEVER


def stock(batch: str) -> document_pb2.Record:
    return record("stock_line", id="s", store_id="store-2", item_id="item-1", batch=batch)


def with_stored(country: Exchange) -> Session:
    """A session, after a document of version 5 was applied."""
    session = country.connect(country.site)
    assert not country.central.push(session, document(version(country, STORED), stock("stored"))).outcomes
    return session


CASES = [
    (base, counter, whole, deleted)
    for base, counter, whole, deleted in product((0, 4, 5, 6), (3, 4, 5, 6, 9), (True, False), (False, True))
]


@pytest.mark.parametrize(("base", "counter", "whole", "deleted"), CASES)
def test_f05_only_what_continues_the_stored_version_is_applied(
    base: int, counter: int, whole: bool, deleted: bool
) -> None:
    with exchange() as country:
        session, central = with_stored(country), country.central
        new = gone("stock_line", "s") if deleted else stock("pushed")
        pushed = document(version(country, counter), new, base=version(country, base), whole=whole)
        told = central.push(session, pushed)
        batch, held = central.one("SELECT batch FROM stock_line"), central.one("SELECT document FROM sync_held")
        if base == STORED and counter > STORED:
            assert not told.outcomes
            assert (batch, held) == (None if deleted else "pushed", None)
        elif base != STORED and not whole:
            assert [outcome.disposition for outcome in told.outcomes] == [NEED_WHOLE]
            assert (batch, held) == ("stored", None)
        else:
            assert [(outcome.disposition, outcome.code) for outcome in told.outcomes] == [(HELD, "DIVERGED")]
            assert (batch, held) == ("stored", pushed.SerializeToString()), "both are kept"
            assert central.one("SELECT counter FROM sync_record WHERE id = 's'") == STORED
            assert central.one("SELECT base_counter FROM sync_held") == base


@pytest.mark.parametrize("together", [False, True], ids=["frame by frame", "in one transaction"])
@pytest.mark.parametrize("edits", [2, 3])
def test_f05_in_a_window_a_frame_continues_the_one_before(edits: int, together: bool) -> None:
    with exchange() as country:
        site, session = country.site, country.connect(country.site)
        frames = []
        for edit in range(edits):
            site.edit(
                f"INSERT INTO stock_line (id, store_id, item_id, batch) VALUES ('s', 'store-2', 'item-1', '{edit}')"
                " ON CONFLICT (id) DO UPDATE SET batch = excluded.batch"
            )
            frames.append(site.cut())
        sent = [frame for frame in frames if frame is not None]
        groups = [sent] if together else [[frame] for frame in sent]
        told = [answer for group in groups for answer in country.central.take(session, *group)]
        for answer in told:
            assert isinstance(answer, session_pb2.Acknowledgement)
            assert not answer.outcomes
            site.settle(answer)
        assert country.central.one("SELECT batch FROM stock_line") == str(edits - 1)
        assert country.differing(site, country.synchronise(site)) == []


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("base", [0, 4])
def test_f05_any_version_of_the_owner_supersedes_what_the_central_created_for_it(base: int, whole: bool) -> None:
    """The owner has its own copy, numbered and edited; a restored central has created the document anew."""
    with exchange() as country:
        session, central = with_stored(country), country.central
        central.connection.execute("UPDATE sync_record SET term = 0, term_id = 0, counter = 0 WHERE id = 's'")
        pushed = document(version(country, 6), stock("pushed"), base=version(country, base), whole=whole)
        told = central.push(session, pushed)
        applied = whole or base == 0
        assert [outcome.disposition for outcome in told.outcomes] == ([] if applied else [NEED_WHOLE])
        assert central.one("SELECT batch FROM stock_line") == ("pushed" if applied else "stored")

"""Pages of a feed: documents are never torn, no entry is passed, and an old subscription moves nothing (F14, F15)."""

from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2

from engine.errors import Code, PeerProblem
from engine.rules.topology import CopyType
from engine.storage.records import Key
from tests.engine.storage.central_end import Session
from tests.engine.storage.exchange import Exchange, exchange
from tests.engine.storage.site_end import Node, SiteEnd

DOCUMENTS, LINES = ("i1", "i2", "i3"), ("a", "b", "c")
Document = frozenset[tuple[object, ...]]


def edits(document: str, line: str) -> dict[str, tuple[str, ...]]:
    """What the central's own store may do to an invoice."""
    line_id = f"{document}-{line}"
    header = f"INSERT OR IGNORE INTO invoice (id, store_id, name_id) VALUES ('{document}', 'store-1', 'name')"
    add = f"INSERT OR IGNORE INTO invoice_line (id, invoice_id, item_id) VALUES ('{line_id}', '{document}', 'item-1')"
    return {
        "write": (header, add),
        "change the header": (f"UPDATE invoice SET comment = comment || '.' WHERE id = '{document}'",),
        "change a line": (f"UPDATE invoice_line SET note = note || '.' WHERE id = '{line_id}'",),
        "replace a line": (header, add, f"DELETE FROM invoice_line WHERE id = '{document}-a'"),
        "delete a line": (f"DELETE FROM invoice_line WHERE id = '{line_id}'",),
        "delete": (f"DELETE FROM invoice WHERE id = '{document}'",),
    }


KINDS = tuple(edits("", ""))


def contents(node: Node) -> dict[str, Document]:
    """Each invoice with its lines, as one thing."""
    found: dict[str, set[tuple[object, ...]]] = {}
    for key, row in node.rows("invoice", "invoice_line").items():
        found.setdefault(key[1].partition("-")[0], set()).add((key[0], *row))
    return {document: frozenset(rows) for document, rows in found.items()}


class Story:
    """A site that reads a store of the central's in small pages, while that changes."""

    def __init__(self, country: Exchange) -> None:
        self.country, self.central, self.site = country, country.central, country.site
        self.central.put_copy("store-1", 2, CopyType.COLLECTOR)
        self.session = country.connect(self.site)
        self.ever: dict[str, set[Document]] = {document: {frozenset()} for document in DOCUMENTS}

    def edit(self, kind: str, document: str, line: str) -> None:
        """One transaction at the central."""
        self.central.edit(*edits(document, line)[kind])
        for name in DOCUMENTS:
            self.ever[name].add(contents(self.central).get(name, frozenset()))

    def page(self, records: int) -> bool:
        """Applies one page; returns whether there was any."""
        body = self.central.page(self.session, records)
        if body is None:
            return False
        self.site.apply(body, self.central.era)
        for document, content in contents(self.site).items():
            assert content in self.ever[document], f"{document} is torn"
        return True


STEP = st.one_of(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(DOCUMENTS), st.sampled_from(LINES)),
    st.integers(1, 4),
)


@settings(deadline=None, max_examples=100)
@given(steps=st.lists(STEP, max_size=20))
def test_f14_no_page_shows_half_a_document_and_none_is_passed(steps: list[tuple[str, str, str] | int]) -> None:
    with exchange() as country:
        story = Story(country)
        for document in DOCUMENTS[:2]:
            story.edit("write", document, "a")
            story.edit("write", document, "b")
        for step in steps:
            if isinstance(step, int):
                story.page(step)
            else:
                story.edit(*step)
        while story.page(1):
            pass
        assert contents(country.site) == contents(country.central)
        assert country.differing(country.site, country.synchronise(country.site)) == []


STORIES = {
    "the page ends between the lines": [("write", "i1", "a"), ("write", "i1", "b")],
    "a header moves behind other documents": [
        ("write", "i1", "a"),
        ("write", "i2", "a"),
        ("write", "i3", "a"),
        ("change the header", "i1", "a"),
    ],
    "a line moves behind other documents": [
        ("write", "i1", "a"),
        ("write", "i1", "b"),
        ("write", "i2", "a"),
        ("write", "i3", "b"),
        ("change a line", "i1", "b"),
    ],
    "a line replaces another": [("write", "i1", "a"), ("replace a line", "i1", "b")],
    "a document is deleted and written again": [("write", "i1", "a"), ("delete", "i1", "a"), ("write", "i1", "b")],
}


@pytest.mark.parametrize("records", [1, 2, 3])
@pytest.mark.parametrize("read", range(6), ids=lambda read: f"read after {read}")
@pytest.mark.parametrize("name", STORIES)
def test_f14_the_stories_of_the_finding(name: str, read: int, records: int) -> None:
    """In pages of so many records; the site has read to the end after so many of the edits."""
    with exchange() as country:
        story = Story(country)
        for place, edit in enumerate(STORIES[name]):
            if place == read:
                while story.page(records):
                    pass
            story.edit(*edit)
        while story.page(records):
            pass
        assert contents(country.site) == contents(country.central)


# --- subscriptions that end and begin again while frames are under way ------------------------------------------------


def frames_of_the_store(country: Exchange, session: Session) -> list[document_pb2.PullBody]:
    """Frames of one record of the store's feed; what is sent of other feeds before them is applied."""
    frames = []
    while (body := country.central.page(session, 1)) is not None:
        if body.sections[0].scope == "store/store-1":
            frames.append(body)
        else:
            country.site.apply(body, country.central.era)
    return frames


def change_subscription(country: Exchange, session: Session, kind: CopyType) -> document_pb2.PullBody:
    """The message that tells the site, after its copy of the store has become another."""
    country.central.put_copy("store-1", 2, kind)
    country.central.follow_topology(session)
    changes = [change for change in session.changes if change.scope == "store/store-1"]
    session.changes[:] = [change for change in session.changes if change.scope != "store/store-1"]
    assert len(changes) == 1
    return document_pb2.PullBody(subscriptions=changes)


def has_all_that_it_passed(country: Exchange, site: SiteEnd) -> bool:
    """Whether the site has every record of the store up to the position that it claims, in the generation that is."""
    row = site.connection.execute(
        "SELECT generation, position FROM sync_scope WHERE name = 'store/store-1'"
    ).fetchone() or (0, 0)
    current = country.central.one("SELECT generation FROM central_subscription WHERE scope = 'store/store-1'")
    if row[0] != current:
        return True
    passed: list[Key] = country.central.connection.execute(
        "SELECT table_name, id FROM sync_membership AS m JOIN sync_scope AS s USING (scope)"
        " WHERE s.name = 'store/store-1' AND m.position <= ?",
        (row[1],),
    ).fetchall()
    there = site.rows()
    return all(key in there for key in passed)


@pytest.mark.parametrize("swept", [False, True], ids=["reopened at once", "swept in between"])
@pytest.mark.parametrize("order", Random(15).sample(list(permutations(range(6))), 40), ids=str)
def test_f15_frames_of_an_old_subscription_move_nothing(order: tuple[int, ...], swept: bool) -> None:
    """Visibility goes off and on; frames of the old subscription arrive at any moment, before and after the new."""
    with exchange() as country:
        central, site = country.central, country.site
        for place in range(3):
            central.edit(f"INSERT INTO location (id, store_id) VALUES ('location-{place}', 'store-1')")
        session = country.connect(site)
        site.apply(change_subscription(country, session, CopyType.COLLECTOR), central.era)
        old = frames_of_the_store(country, session)
        closed = change_subscription(country, session, CopyType.NONE)
        reopened = change_subscription(country, session, CopyType.COLLECTOR)
        new = frames_of_the_store(country, session)
        assert len(old) == len(new) == 3
        arriving = [old[0], old[1], closed, reopened, new[0], new[1]]
        for place in order:
            before = site.dump()
            try:
                site.apply(arriving[place], central.era)
            except PeerProblem as error:
                assert error.code is Code.PROTOCOL_BROKEN
                assert site.dump() == before, "what does not fit changes nothing"
            if swept and arriving[place] is closed:
                country.pull(site, session._replace(cursors={}, changes=[]))
            assert has_all_that_it_passed(country, site)
        last = country.synchronise(site)
        assert country.differing(site, last) == []
        assert site.rows("location") == central.rows("location")

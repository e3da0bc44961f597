"""What is held never comes back over something newer, and nothing that is held is dropped (law 7, F4)."""

from collections.abc import Iterator
from itertools import combinations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.rules.versions import NEVER, Version
from tests.engine.storage.documents import document, gone, record
from tests.engine.storage.exchange import Exchange, exchange
from tests.engine.storage.site_end import NOW

LATE = ("late-1", "late-2")
"""Names that the invoice of the tests refers to, and that the central has not got yet."""
_HEADER = "UPDATE invoice SET name_id = '{}', comment = comment || '.' WHERE id = 'i'"
EDITS: dict[str, tuple[str, ...]] = {
    "waits for late-1": (_HEADER.format("late-1"),),
    "waits for late-2": (_HEADER.format("late-2"),),
    "refers to what is there": (_HEADER.format("name"),),
    "changes a line": ("UPDATE invoice_line SET note = note || '.' WHERE id = 'l'",),
    "adds a line": (
        "INSERT OR IGNORE INTO invoice_line (id, invoice_id, item_id) SELECT 'm', 'i', 'item-2'"
        " WHERE EXISTS (SELECT 1 FROM invoice WHERE id = 'i')",
    ),
    "deletes a line": ("DELETE FROM invoice_line WHERE id = 'm'",),
    "deletes it": ("DELETE FROM invoice WHERE id = 'i'",),
    "writes it": (
        "INSERT OR IGNORE INTO invoice (id, store_id, name_id) VALUES ('i', 'store-2', 'late-1')",
        "INSERT OR IGNORE INTO invoice_line (id, invoice_id, item_id) VALUES ('l', 'i', 'item-1')",
    ),
}


Step = tuple[str, str]


class Story:
    """An invoice that may have to wait, and what happens around it."""

    def __init__(self, country: Exchange) -> None:
        self.country, self.site, self.central = country, country.site, country.central
        self.session = country.connect(self.site)
        self.answers: list[session_pb2.Acknowledgement] = []
        self.version = (0, 0)

    def step(self, name: str, what: str = "") -> None:
        """Does one thing, and looks at what must hold at any moment."""
        if name == "edit":
            self.site.edit(*EDITS[what])
        elif name == "push":
            frame = self.site.cut()
            if frame is not None:
                (told,) = self.central.take(self.session, frame)
                assert isinstance(told, session_pb2.Acknowledgement)
                self.answers.append(told)
        elif name == "settle":
            self.settle()
        elif name == "arrive":
            self.central.edit(f"INSERT OR IGNORE INTO name (id, name) VALUES ('{what}', 'x')")
        elif name == "wake":
            self.central.wake()
        else:
            self.country.pull(self.site, self.session)
        assert self.central.one("SELECT count(*) FROM sync_held") in (0, 1)
        query = "SELECT term, counter FROM sync_record WHERE id = 'i'"
        version = self.central.connection.execute(query).fetchone() or (0, 0)
        assert version >= self.version, "an older version came over a newer one"
        self.version = version

    def settle(self) -> None:
        """The answers of the central arrive, in order."""
        for told in self.answers:
            self.site.settle(told)
        self.answers.clear()

    def end(self) -> None:
        """Everything that is waited for arrives, everything is sent: both ends have the same, and nothing is held."""
        self.settle()
        for name in LATE:
            self.step("arrive", name)
        session = self.country.synchronise(self.site)
        assert self.country.differing(self.site, session) == []
        tables = ("invoice", "invoice_line")
        assert self.central.rows(*tables) == self.site.rows(*tables)


def interleaved(
    one: tuple[tuple[str, str], ...], other: tuple[tuple[str, str], ...]
) -> Iterator[list[tuple[str, str]]]:
    """Every order of two sequences that keeps each of them in its own order."""
    for places in combinations(range(len(one) + len(other)), len(other)):
        first, second = iter(one), iter(other)
        yield [next(second) if place in places else next(first) for place in range(len(one) + len(other))]


@pytest.mark.parametrize("settle", [True, False], ids=["answered at once", "answered at the end"])
@pytest.mark.parametrize("second", [name for name in EDITS if name != "writes it"])
def test_f04_what_is_held_never_wakes_over_what_is_newer(second: str, settle: bool) -> None:
    """Version 1 waits for a name; version 2 comes; the name comes: in every order of these."""
    push = (("push", ""), ("settle", "")) if settle else (("push", ""),)
    site = (("edit", "writes it"), *push, ("edit", second), *push)
    for order in interleaved(site, (("arrive", "late-1"), ("wake", ""))):
        with exchange() as country:
            story = Story(country)
            for step in order:
                story.step(*step)
            story.end()


STEP = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from(sorted(EDITS))),
    st.tuples(st.just("arrive"), st.sampled_from(LATE)),
    st.tuples(st.sampled_from(["push", "push", "settle", "wake", "pull"]), st.just("")),
)


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEP, max_size=20))
@example(
    steps=[("push", ""), ("arrive", "late-1"), ("wake", ""), ("pull", "")]
)  # applied, shown, and only then answered
def test_f04_whatever_waits_for_whatever_both_ends_agree_in_the_end(steps: list[Step]) -> None:
    with exchange() as country:
        story = Story(country)
        story.step("edit", "writes it")
        for step in steps:
            story.step(*step)
        story.end()


def test_f04_a_delta_of_what_is_held_is_answered_with_the_wish_for_the_whole() -> None:
    with exchange() as country:
        story = Story(country)
        for step in (("edit", "writes it"), ("push", ""), ("edit", "changes a line"), ("push", "")):
            story.step(*step)
        first, second = story.answers
        assert [outcome.disposition for outcome in first.outcomes] == [session_pb2.DISPOSITION_HELD]
        assert [outcome.disposition for outcome in second.outcomes] == [session_pb2.DISPOSITION_NEED_WHOLE]
        assert country.central.one("SELECT counter FROM sync_held") == 1, "what is held stays as it was"
        story.settle()
        assert country.site.one("SELECT count(*) FROM sync_outbox") == 2, "the sender keeps its changes"
        again = country.site.cut()
        assert again is not None
        (told,) = country.central.take(story.session, again)
        assert isinstance(told, session_pb2.Acknowledgement)
        assert country.central.one("SELECT counter FROM sync_held") == 2, "the whole document replaces it"
        story.answers.append(told)
        story.end()


# --- documents that share records in one frame ------------------------------------------------------------------------


def hostile(country: Exchange) -> list[document_pb2.Document]:
    """Documents that no site of ours would put into one frame."""
    term = country.central.term_of("store-2")
    versions = [Version(term.counter, term.random, number) for number in range(4)]

    def invoice(name: str, comment: str) -> document_pb2.Record:
        return record("invoice", id="i", store_id="store-2", name_id=name, comment=comment)

    def line(parent: str, note: str) -> document_pb2.Record:
        return record("invoice_line", id="l", invoice_id=parent, item_id="item-1", note=note)

    other = record("invoice", id="j", store_id="store-2", name_id="name")
    return [
        document(versions[1], invoice("name", "first"), line("i", "first"), base=NEVER),
        document(versions[1], invoice("name", "another first"), base=NEVER),
        document(versions[2], invoice("name", "second"), line("i", "second"), base=versions[1]),
        document(versions[2], invoice("late-1", "waits"), base=versions[1]),
        document(versions[3], invoice("name", "diverged"), base=versions[2]),
        document(versions[3], gone("invoice", "i"), gone("invoice_line", "l"), base=versions[2]),
        document(versions[1], other, line("j", "stolen"), base=NEVER),
        document(versions[2], invoice("name", "delta"), base=versions[1], whole=False),
    ]


COUNT = 8


def kept(country: Exchange) -> list[object]:
    """What the central has of the documents: rows, versions, what is held and why."""
    query = "SELECT {} FROM sync_{} WHERE table_name LIKE 'invoice%' ORDER BY table_name, id"
    records = country.central.connection.execute(
        query.format("table_name, id, root_id, term, counter, hash, deleted", "record")
    ).fetchall()
    held = country.central.connection.execute(query.format("code, counter, base_counter, document", "held")).fetchall()
    return [country.central.rows("invoice", "invoice_line"), records, held]


@pytest.mark.parametrize("chosen", list(product(range(COUNT), repeat=2)), ids=str)
def test_f04_two_documents_with_one_record_in_a_frame_are_as_if_they_came_in_two(chosen: tuple[int, ...]) -> None:
    told, found = [], []
    for together in (True, False):
        with exchange() as country:
            session = country.connect(country.site)
            documents = [hostile(country)[place] for place in chosen]
            groups = [documents] if together else [[document] for document in documents]
            answers = [country.central.push(session, *group) for group in groups]
            told.append([(o.disposition, o.code) for answer in answers for o in answer.outcomes])
            found.append(kept(country))
    assert told[0] == told[1]
    # Terms are random, so hashes and documents differ between two countries.
    assert [len(part) for part in found[0]] == [len(part) for part in found[1]]  # type: ignore[arg-type]
    assert found[0][0] == found[1][0]


@pytest.mark.parametrize("held_before", [False, True])
def test_f04_what_is_held_in_a_frame_is_not_let_go_by_what_was_applied_before_it(held_before: bool) -> None:
    with exchange() as country:
        session, documents = country.connect(country.site), hostile(country)
        if held_before:
            country.central.push(session, documents[4])
        told = country.central.push(session, documents[0], documents[4])
        assert [(o.index, o.code) for o in told.outcomes] == [(1, "DIVERGED")]
        assert country.central.one("SELECT document FROM sync_held") == documents[4].SerializeToString()
        assert country.central.one("SELECT held_at FROM sync_held") == NOW
        assert country.central.one("SELECT comment FROM invoice") == "first"


@pytest.mark.parametrize("term", [Version(0, 7, 9_000), Version(1, 0, 1)], ids=["another term", "an older one"])
def test_a_tombstone_of_a_stranger_never_takes_the_place_of_a_newer_one(term: Version) -> None:
    """Neither has the document, so nobody can say whose it was: the newest tombstone is remembered."""
    with exchange() as country:
        owner = country.connect(country.sites[2])
        mine = country.central.term_of("store-2")
        told = country.central.push(owner, document(Version(*mine, 2), gone("invoice", "i"), base=NEVER))
        assert not told.outcomes
        kept = "SELECT term, term_id, counter, hash, writer_site FROM sync_record WHERE id = 'i'"
        before = country.central.connection.execute(kept).fetchall()
        stranger = country.connect(country.sites[3])
        told = country.central.push(stranger, document(term, gone("invoice", "i"), base=NEVER))
        assert not told.outcomes, "for the stranger it is deleted, as it wished"
        assert country.central.connection.execute(kept).fetchall() == before
        assert country.central.one("SELECT count(*) FROM sync_held") == 0

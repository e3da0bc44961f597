"""A frame is its bytes: what is repeated, lost, cut again or restored is never taken for what it is not (F1)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PackhorseError, PeerProblem
from engine.rules.versions import Version
from engine.session.frames import Link, pack, to_wire
from tests.engine.storage.central_end import Session
from tests.engine.storage.exchange import Exchange, exchange
from tests.engine.storage.site_end import SiteEnd

RECORDS = 3


def edit(site: SiteEnd, record: int, value: str) -> None:
    """Inserts or changes one of a few stock lines."""
    site.edit(
        f"INSERT INTO stock_line (id, store_id, item_id, batch) VALUES ('s{record}', 'store-2', 'item-1', '{value}')"
        " ON CONFLICT (id) DO UPDATE SET batch = excluded.batch"
    )


def link_of(frame: document_pb2.Frame) -> Link:
    return Link(frame.number, frame.hash)


STEP = st.one_of(
    st.tuples(st.just("edit"), st.integers(1, RECORDS), st.just(0)),
    st.tuples(st.just("cut"), st.integers(1, 2), st.just(0)),
    st.tuples(st.just("carry"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.sampled_from(["connect", "restart site", "restart central"]), st.just(0), st.just(0)),
)


class Story:
    """Frames on a bad link."""

    def __init__(self, country: Exchange) -> None:
        self.country, self.site = country, country.site
        self.connect()
        self.bytes: dict[int, bytes] = {}
        self.taken: dict[int, bytes] = {}
        self.edits = 0

    def step(self, name: str, first: int, second: int) -> None:
        """Does one thing, and looks whether a frame still is what it was."""
        if name == "edit":
            self.edits += 1
            edit(self.site, first, f"edit {self.edits}")
        elif name == "cut":
            self.site.cut(first)
        elif name == "carry":
            self.carry(taken=first, told=second)
        elif name == "connect":
            self.connect()
        elif name == "restart site":
            self.site.restart()
        else:
            self.country.central.restart()
        for frame in self.site.frames():
            assert self.bytes.setdefault(frame.number, frame.SerializeToString()) == frame.SerializeToString()

    def connect(self) -> None:
        """A new session: what was lost in the old one is lost."""
        self.session = self.country.connect(self.site)
        self.sent, self.answers_arrive = self.session.welcome.last_applied, True

    def carry(self, taken: int, told: int) -> None:
        """Some of the frames that wait reach the central, some of its answers come back, in order."""
        frames = [frame for frame in self.site.frames() if frame.number > self.sent][:taken]
        answers = self.country.central.take(self.session, *frames)
        for place, (frame, answer) in enumerate(zip(frames, answers, strict=True)):
            assert isinstance(answer, session_pb2.Acknowledgement)
            assert self.taken.setdefault(frame.number, frame.hash) == frame.hash, "a number was taken twice"
            self.sent = frame.number
            self.answers_arrive &= place < told
            if self.answers_arrive:
                self.site.settle(answer)


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEP, max_size=25))
def test_f01_whatever_is_lost_the_last_edit_arrives(steps: list[tuple[str, int, int]]) -> None:
    """Frame 812 is cut, applied and not acknowledged; the site dies; the record is edited; the site starts again."""
    with exchange() as country:
        story = Story(country)
        for step in steps:
            story.step(*step)
        session = country.synchronise(country.site)
        assert country.differing(country.site, session) == []
        assert country.central.rows("stock_line") == country.site.rows("stock_line")


def taken_frame(country: Exchange) -> tuple[Session, document_pb2.Frame]:
    """A session in which frame 1 was applied and not acknowledged."""
    session = country.connect(country.site)
    edit(country.site, 1, "first")
    frame = country.site.cut()
    assert frame is not None
    assert isinstance(country.central.take(session, frame)[0], session_pb2.Acknowledgement)
    return session, frame


def forged(number: int, previous: Link) -> document_pb2.Frame:
    """A frame with other bytes."""
    content = document_pb2.Record(content=b"\n\x02s1")
    version = to_wire(Version(1, 1, 9))
    body, told = pack(
        document_pb2.FrameBody(
            documents=[document_pb2.Document(table="stock_line", id="s1", version=version, records=[content])]
        )
    )
    return document_pb2.Frame(
        number=number, hash=told, previous_number=previous.number, previous_hash=previous.hash, body=body
    )


@pytest.mark.parametrize("case", ["the same number", "the same number behind itself", "a lower number", "another past"])
def test_f01_a_number_alone_is_never_acknowledged(case: str) -> None:
    with exchange() as country:
        session, frame = taken_frame(country)
        before = country.central.dump()
        other = {
            "the same number": forged(frame.number, Link()),
            "the same number behind itself": forged(frame.number, link_of(frame)),
            "a lower number": forged(0, link_of(frame)),
            "another past": forged(frame.number + 1, Link(frame.number, b"x" * 32)),
        }[case]
        assert country.central.take(session, other) == [None]
        assert country.central.take(session, frame) == [None], "the repeat is told by Welcome"
        assert country.central.dump() == before


def test_f01_an_acknowledgement_of_other_bytes_changes_nothing() -> None:
    with exchange() as country:
        _, frame = taken_frame(country)
        edit(country.site, 1, "second")
        before = country.site.dump()
        with pytest.raises(PeerProblem) as caught:
            country.site.settle(session_pb2.Acknowledgement(number=frame.number, hash=b"x" * 32))
        assert caught.value.code is Code.CHAIN_BROKEN
        assert country.site.dump() == before


MOMENTS = ("before the edit", "edited", "cut", "taken", "settled")


@pytest.mark.parametrize("again", ["nothing", "the same record", "another record"])
@pytest.mark.parametrize("more", [False, True], ids=["one frame", "two frames"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_f01_a_restored_site_takes_no_acknowledgement_for_other_bytes(moment: str, more: bool, again: str) -> None:
    """A backup of the running site is put back: its number 1 is another frame than the one that the central has."""
    with exchange() as country:
        site = country.site
        session = country.connect(site)
        backups = {"before the edit": site.backup("backup-0")}
        edit(site, 1, "first")
        backups["edited"] = site.backup("backup-1")
        frame = site.cut()
        assert frame is not None
        backups["cut"] = site.backup("backup-2")
        (told,) = country.central.take(session, frame)
        backups["taken"] = site.backup("backup-3")
        assert isinstance(told, session_pb2.Acknowledgement)
        site.settle(told)
        backups["settled"] = site.backup("backup-4")
        if more:
            edit(site, 2, "more")
            country.push(site, session)
        site.restore(backups[moment])
        if again != "nothing":
            edit(site, 1 if again == "the same record" else 3, "again")
        before = site.dump()
        try:
            country.synchronise(site)
        except PackhorseError as error:
            assert error.code in (Code.CHAIN_BROKEN, Code.LINEAGE_BROKEN)
            assert site.dump() == before, "a refusal changes nothing"
            assert more or moment in ("before the edit", "edited")
        else:
            assert not more
            assert country.central.rows("stock_line") == site.rows("stock_line")

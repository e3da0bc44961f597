"""One database of a site goes on, whatever becomes of its messages; a copy of it is found out (F13)."""

from itertools import permutations, product
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import session_pb2

from central_node.storage.attempts import Submitted
from central_node.storage.roster import check_current
from engine.errors import Code, PackhorseError, PeerProblem, Refused
from engine.limits import LINEAGE_TOKENS
from tests.engine.storage.central_end import CentralEnd, Session
from tests.engine.storage.exchange import Exchange, exchange


class Dial(NamedTuple):
    """An attempt of a site: what it said, and the session that came of it."""

    hello: session_pb2.Hello
    judged: list[Session]


class Holder:
    """A database of the site, as far as lineage is concerned: the token that it has stored."""

    def __init__(self, country: Exchange, token: bytes) -> None:
        self.central, self.token = country.central, token
        self.hello = country.site.hello()
        self.dials: list[Dial] = []
        self.welcomed = self.refused = False

    def dial(self) -> None:
        """Gives the session before up, and says Hello with the stored token."""
        hello = session_pb2.Hello()
        hello.CopyFrom(self.hello)
        hello.lineage_token = self.token
        self.dials.append(Dial(hello, []))
        self.welcomed = False

    def judge(self, back: int) -> None:
        """The Hello of the last dial, or of one before it, reaches the central now."""
        for dial in self.dials[-1 - back :][:1]:
            if not dial.judged:
                before = self.facts()
                try:
                    dial.judged.append(self.central.open(dial.hello))
                except Refused as error:
                    assert error.code is Code.LINEAGE_BROKEN
                    assert self.facts() == before
                    self.refused |= dial is self.dials[-1]

    def facts(self) -> list[tuple[object, ...]]:
        """What the central knows of its sites."""
        tables = ("site", "offered", "lineage", "subscription", "note")
        return [row for table in tables for row in self.central.connection.execute(f"SELECT * FROM central_{table}")]

    def receive(self) -> None:
        """The Welcome of the last dial arrives, and its token is stored."""
        if self.dials and self.dials[-1].judged and not self.welcomed:
            self.token, self.welcomed = self.dials[-1].judged[0].welcome.lineage_token, True

    def prove(self) -> bool:
        """The site says something after Welcome; whether its session still is the current one."""
        if not self.welcomed:
            return False
        try:
            session = self.dials[-1].judged[0]
            self.central.write(lambda c: check_current(c, session.site, session.id))
        except PeerProblem as error:
            assert error.code is Code.SUPERSEDED
            return False
        return True

    def goes_on(self) -> bool:
        """A whole session, with nothing lost; whether it was let in."""
        self.refused = False
        self.dial()
        self.judge(0)
        if self.refused:
            return False
        self.receive()
        return self.prove()


def stored_token(country: Exchange) -> bytes:
    return country.site.hello().lineage_token


def step(holder: Holder, name: str, back: int) -> None:
    """One thing that happens."""
    if name == "judge":
        holder.judge(back)
    else:
        getattr(holder, name)()


STEP = st.tuples(st.sampled_from(["dial", "judge", "judge", "receive", "prove"]), st.integers(0, 3))


@settings(deadline=None, max_examples=100)
@given(steps=st.lists(STEP, max_size=25))
def test_f13_whatever_order_its_hellos_are_judged_in_a_site_is_let_in(steps: list[tuple[str, int]]) -> None:
    """Welcomes are lost, and Hellos of sessions that were given up reach the central after later ones."""
    with exchange() as country:
        site = Holder(country, stored_token(country))
        for name, back in steps:
            step(site, name, back)
            assert not site.refused, "the Hello that the site waits for was refused"
        assert site.goes_on()


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
@pytest.mark.parametrize("received", [False, True])
def test_f13_welcomes_in_another_order_than_hellos_do_not_lock_the_site_out(
    order: tuple[int, ...], received: bool
) -> None:
    with exchange() as country:
        site = Holder(country, stored_token(country))
        for _ in order:
            site.dial()
        for back in order:
            site.judge(back)
        if received:
            site.receive()
            is_newest = order[-1] == 0
            assert site.prove() is is_newest, "the session that was judged last is the current one"
        assert site.goes_on()


@settings(deadline=None, max_examples=100)
@given(steps=st.lists(st.tuples(st.booleans(), STEP), max_size=25))
def test_f13_of_two_copies_only_one_goes_on(steps: list[tuple[bool, tuple[str, int]]]) -> None:
    """They dial at the same time or by turns; who proves first to have a new token is the site, for ever."""
    with exchange() as country:
        token = stored_token(country)
        holders = (Holder(country, token), Holder(country, token))
        for which, (name, back) in steps:
            step(holders[which], name, back)
        went_on = [[holder.goes_on() for holder in holders] for _ in range(3)]
        assert went_on in ([[True, False]] * 3, [[False, True]] * 3)


def test_f13_copies_that_take_turns_are_found_out_at_the_second_turn() -> None:
    with exchange() as country:
        token = stored_token(country)
        holders = (Holder(country, token), Holder(country, token))
        assert [holder.goes_on() for holder in (*holders, *holders)] == [True, False, True, False]


@pytest.mark.parametrize("lost", [0, 1, LINEAGE_TOKENS - 1, LINEAGE_TOKENS, 3 * LINEAGE_TOKENS])
def test_f13_any_number_of_welcomes_may_be_lost(lost: int) -> None:
    with exchange() as country:
        site = Holder(country, stored_token(country))
        for _ in range(lost):
            site.dial()
            site.judge(0)
        assert int(str(country.central.one("SELECT count(*) FROM central_offered WHERE site = 2"))) <= LINEAGE_TOKENS
        assert site.goes_on()
        assert country.central.one("SELECT count(*) FROM central_offered WHERE site = 2") == 0


# --- two sessions at once ---------------------------------------------------------------------------------------------


def submitted(country: Exchange, central: CentralEnd, session: Session, stock: str) -> Submitted:
    """A frame of a session; both sessions send the same bytes where the stock is the same."""
    frames = country.site.frames()
    if not frames:
        country.site.edit(f"INSERT INTO stock_line (id, store_id, item_id) VALUES ('{stock}', 'store-2', 'item-1')")
        cut = country.site.cut()
        assert cut is not None
        frames = [cut]
    return Submitted(session.writer, session.id, frames[0])


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one transaction"])
@pytest.mark.parametrize("order", list(product((0, 1), repeat=3)), ids=str)
def test_f13_only_the_current_session_is_taken_from(order: tuple[int, ...], together: bool) -> None:
    """A half-open session and the one that superseded it send the same frame, in any order and more than once."""
    with exchange() as country:
        central, site = country.central, country.site
        sessions = [central.open(site.hello()), central.open(site.hello())]
        frames = [submitted(country, central, sessions[which], "s") for which in order]
        told = central.take_together(frames) if together else [central.take_together([f])[0] for f in frames]
        taken = 0
        for which, answer in zip(order, told, strict=True):
            if which == 0:
                assert isinstance(answer, PackhorseError)
                assert answer.code is Code.SUPERSEDED
            else:
                assert isinstance(answer, session_pb2.Acknowledgement) is (taken == 0)
                taken += 1
        assert central.one("SELECT count(*) FROM stock_line") == min(taken, 1)


def test_f13_a_superseded_session_notes_no_position() -> None:
    with exchange() as country:
        central, site = country.central, country.site
        old = central.open(site.hello())
        central.open(site.hello())
        before = central.dump()
        with pytest.raises(PeerProblem):
            central.take_positions(old, [], central.era)
        with pytest.raises(PeerProblem):
            central.follow_topology(old)
        assert central.dump() == before

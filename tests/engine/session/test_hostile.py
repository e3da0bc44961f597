"""Peers that say what a correct program never says: each ends the session with a named error, never with another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PeerProblem, Unavailable
from engine.limits import POSITIONS_PER_PAGE, WANT_DOCUMENTS
from engine.session.machine import CLOSED, Event
from engine.session.site_machine import Loaded, Stored
from tests.engine.session.machines import (
    LIMITS,
    WELCOME,
    WINDOW,
    acknowledgement,
    actions,
    assert_refused,
    busy,
    central_in,
    finished,
    frame,
    give,
    hash_of,
    idle_central,
    idle_site,
    keys,
    sent,
    site_in,
    to_central,
    to_site,
)

UINT32_MAX, UINT64_MAX = (1 << 32) - 1, (1 << 64) - 1

# --- what a site hears ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 3, 4, UINT64_MAX])
@pytest.mark.parametrize("state", ["pushing", "exchanging"])
def test_acknowledgement_of_another_frame_than_the_next(state: str, number: int) -> None:
    """Frame 2 is the next: 1 was acknowledged before, 3 and beyond were never sent."""
    machine = site_in(state)
    assert_refused(machine, machine.receive(to_site(acknowledgement=acknowledgement(number))))


def test_acknowledgements_out_of_order() -> None:
    machine = site_in("settling")
    machine.step(Event("welcome_stored", Stored(LIMITS, [])))
    machine.step(Event("frames_loaded", Loaded([frame(1), frame(2)], exhausted=False)))
    assert_refused(machine, machine.receive(to_site(acknowledgement=acknowledgement(2))))


def test_acknowledgements_may_come_faster_than_they_are_stored() -> None:
    machine = site_in("pushing")
    steps = machine.receive(to_site(acknowledgement=acknowledgement(2)))
    assert actions(steps, "store_acknowledgement") == [acknowledgement(2)]
    machine.step(Event("acknowledgement_stored", False))
    machine.step(Event("acknowledgement_stored", False))
    assert machine.window == 0


@pytest.mark.parametrize("number", [0, 3, UINT64_MAX])
def test_busy_of_a_frame_that_is_not_under_way(number: int) -> None:
    machine = site_in("pushing")
    assert_refused(machine, machine.receive(to_site(busy=session_pb2.Busy(number=number))))


def test_busy_of_a_frame_that_was_acknowledged() -> None:
    """The acknowledgement of frame 1 is still being stored."""
    machine = site_in("pushing")
    assert_refused(machine, machine.receive(to_site(busy=session_pb2.Busy(number=1))))


@pytest.mark.parametrize("round_", [2, UINT32_MAX])
def test_pull_checkpoint_of_a_later_round(round_: int) -> None:
    machine = idle_site()
    assert_refused(machine, machine.receive(to_site(pull_checkpoint=session_pb2.PullCheckpoint(round=round_))))


def test_more_pull_frames_than_the_window() -> None:
    """Law 12: what waits to be stored is bounded, whatever the central does."""
    machine = idle_site()
    for sequence in range(1, WINDOW + 1):
        assert actions(machine.receive(to_site(pull_frame=document_pb2.PullFrame(sequence=sequence))), "store_pull")
    assert_refused(machine, machine.receive(to_site(pull_frame=document_pb2.PullFrame(sequence=WINDOW + 1))))


def test_welcome_without_limits() -> None:
    """Every limit is above zero; a window of 0 would stop the session for ever."""
    machine = site_in("greeting")
    assert_refused(machine, machine.receive(to_site(welcome=session_pb2.Welcome(lineage_token=b"t" * 32))))


@pytest.mark.parametrize("code", ["", "INTERNAL", "NO_SUCH_CODE", "x" * 100_000])
@pytest.mark.parametrize("state", ["greeting", "settling", "pushing", "exchanging"])
def test_goodbye_that_the_central_may_not_say(state: str, code: str) -> None:
    machine = site_in(state)
    assert_refused(machine, machine.receive(to_site(goodbye=session_pb2.Goodbye(code=code))))


@pytest.mark.parametrize("state", ["greeting", "settling", "pushing", "exchanging"])
def test_draining_is_no_error_of_anybody(state: str) -> None:
    steps = site_in(state).receive(to_site(goodbye=session_pb2.Goodbye(code="DRAINING")))
    error = finished(steps).error
    assert isinstance(error, Unavailable) and error.code is Code.DRAINING and len(steps) == 1


@given(
    code=st.one_of(st.sampled_from([code.value for code in Code]), st.text(max_size=40), st.just("INTERNAL" * 50_000)),
    text=st.one_of(st.text(max_size=40), st.just("Something happened. " * 50_000)),
    after=st.one_of(st.just(0), st.integers(1, UINT32_MAX)),
)
@settings(deadline=None, database=None)
def test_any_problem_is_told_in_words_and_bounds(code: str, text: str, after: int) -> None:
    machine = site_in("pushing")
    problem = session_pb2.Problem(code=code, sentence=text, retry=True, retry_after_milliseconds=after)
    error = finished(machine.receive(to_site(problem=problem))).error
    assert isinstance(error, PeerProblem) and machine.state == CLOSED
    assert error.code.value == (code if code in Code.__members__ else "INTERNAL")
    assert 0 < len(error.what) <= 500 and error.sentence
    assert error.retry_after_seconds == (after / 1000 if after else None)


@pytest.mark.parametrize("count", [0, 1, POSITIONS_PER_PAGE, POSITIONS_PER_PAGE + 1, 3 * POSITIONS_PER_PAGE])
def test_positions_go_in_pages_of_which_one_is_the_last(count: int) -> None:
    positions = [session_pb2.FeedPosition(scope=f"store/{number}", generation=1) for number in range(count)]
    pages = sent(site_in("settling").step(Event("welcome_stored", Stored(LIMITS, positions))), "positions")
    assert [position for page in pages for position in page.positions] == positions
    assert all(len(page.positions) <= POSITIONS_PER_PAGE for page in pages)
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True] * bool(pages)


# --- what a central hears ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(frame(2), id="repeats"),
        pytest.param(frame(1), id="goes back"),
        pytest.param(frame(5), id="leaves one out"),
        pytest.param(frame(2, previous=2), id="same number, follows itself"),
        pytest.param(frame(1, previous=2), id="number goes down"),
        pytest.param(frame(0, previous=2), id="number zero"),
        pytest.param(document_pb2.Frame(number=3, hash=hash_of(3), previous_number=2), id="no hash before it"),
        pytest.param(
            document_pb2.Frame(number=3, hash=hash_of(3), previous_number=2, previous_hash=hash_of(7)), id="F1"
        ),
        pytest.param(document_pb2.Frame(), id="empty"),
    ],
)
def test_a_frame_that_breaks_the_chain(hostile: document_pb2.Frame) -> None:
    """Frame 2 was taken last. Equal number with another hash is another history (F1)."""
    machine = central_in("receiving")
    assert_refused(machine, machine.receive(to_central(frame=hostile)), Code.CHAIN_BROKEN)


def test_a_gap_in_the_numbers_is_legal() -> None:
    steps = central_in("receiving").receive(to_central(frame=frame(UINT64_MAX, previous=2)))
    assert len(actions(steps, "ingest")) == 1


def test_more_frames_than_the_window() -> None:
    machine = central_in("receiving")
    assert actions(machine.receive(to_central(frame=frame(WINDOW))), "ingest")
    assert_refused(machine, machine.receive(to_central(frame=frame(WINDOW + 1))))


def test_after_busy_only_what_follows_is_taken() -> None:
    """F41: what was under way when Busy was said is passed over, however much it is."""
    machine = central_in("receiving")
    machine.step(Event("ingest_busy", busy(1)))
    for number in (2, 3, 3, 7, UINT64_MAX):
        assert machine.receive(to_central(frame=frame(number))) == []
    assert len(actions(machine.receive(to_central(frame=frame(1))), "ingest")) == 1
    assert_refused(machine, machine.receive(to_central(frame=frame(3))), Code.CHAIN_BROKEN)


@pytest.mark.parametrize("sequence", [0, 2, UINT64_MAX])
def test_acknowledgement_of_a_pull_frame_that_was_not_the_next(sequence: int) -> None:
    machine = central_in("serving")
    told = session_pb2.PullAcknowledgement(sequence=sequence)
    assert_refused(machine, machine.receive(to_central(pull_acknowledgement=told)))


def test_acknowledgement_of_a_pull_frame_twice() -> None:
    machine = central_in("serving")
    assert len(actions(give(machine, "pull_acknowledgement"), "note_positions")) == 1
    assert_refused(machine, give(machine, "pull_acknowledgement"))


@pytest.mark.parametrize("state", ["receiving", "serving"])
def test_positions_that_nobody_asked_for(state: str) -> None:
    machine = central_in(state)
    assert_refused(machine, give(machine, "positions"))


def test_positions_end_with_their_last_page() -> None:
    welcome = session_pb2.Welcome(limits=LIMITS, send_positions=True)
    machine = central_in("receiving", welcome)
    for last in (False, False, True):
        steps = machine.receive(to_central(positions=session_pb2.Positions(last=last)))
        assert len(actions(steps, "store_positions")) == 1
    assert_refused(machine, machine.receive(to_central(positions=session_pb2.Positions(last=True))))


def test_positions_that_stay_out() -> None:
    machine = central_in("receiving", session_pb2.Welcome(limits=LIMITS, send_positions=True))
    assert_refused(machine, machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1))))


@pytest.mark.parametrize("round_", [0, 1, 3, UINT32_MAX])
def test_push_checkpoint_of_another_round_than_the_next(round_: int) -> None:
    machine = central_in("serving")
    assert_refused(machine, machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=round_))))


def test_want_is_bounded() -> None:
    machine = idle_central()
    assert actions(machine.receive(to_central(want=session_pb2.Want(documents=keys(WANT_DOCUMENTS)))), "load_wanted")
    machine = idle_central()
    assert_refused(machine, machine.receive(to_central(want=session_pb2.Want(documents=keys(WANT_DOCUMENTS + 1)))))


@pytest.mark.parametrize("code", ["LINEAGE_BROKEN", "NO_SUCH_CODE", "x" * 100_000])
@pytest.mark.parametrize("state", ["judging", "receiving", "serving"])
def test_a_site_may_leave_with_any_code(state: str, code: str) -> None:
    machine = central_in(state)
    steps = machine.receive(to_central(goodbye=session_pb2.Goodbye(code=code)))
    error = finished(steps).error
    assert isinstance(error, PeerProblem) and len(steps) == 1
    assert error.code.value == (code if code in Code.__members__ else "INTERNAL")


def test_hello_comes_once() -> None:
    for state in ("judging", "receiving", "serving"):
        machine = central_in(state)
        assert_refused(machine, give(machine, "hello"))


def test_a_goodbye_is_answered() -> None:
    machine = central_in("serving")
    steps = give(machine, "goodbye")
    assert sent(steps, "goodbye") == [session_pb2.Goodbye()] and finished(steps).error is None
    site = site_in("leaving")
    assert finished(site.receive(to_site(goodbye=session_pb2.Goodbye()))).error is None
    assert site.receive(to_site(welcome=WELCOME)) == []

"""The pace of a link: bounded whatever happens, one frame after a loss, full again when frames pass (F27, F47)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PeerProblem
from engine.limits import (
    BUSY_SECONDS,
    FRAME_BYTES,
    FRAME_RECORDS,
    FRAME_RECORDS_LEAST,
    WINDOW_FRAMES,
    WINDOW_FRAMES_FIRST,
)
from engine.session.central_machine import CentralMachine, PageLoaded
from engine.session.machine import Event
from engine.session.pace import Pace, spread_retry
from engine.session.site_machine import Loaded, SiteMachine, Stored
from tests.engine.session.machines import LIMITS, WELCOME, acknowledgement, actions, frame, to_central, to_site

PAGE = PageLoaded(document_pb2.PullFrame(), exhausted=False)


@settings(deadline=None, database=None)
@given(st.lists(st.sampled_from(("acknowledged", "lost early", "lost late"))))
def test_the_pace_keeps_its_bounds(history: list[str]) -> None:
    pace = Pace()
    for happened in history:
        if happened == "acknowledged":
            pace.acknowledged()
        else:
            pace.lost(progressed=happened == "lost late")
            assert pace.window == 1, "the window shrinks to one frame on loss"
        assert 1 <= pace.window <= WINDOW_FRAMES
        assert FRAME_RECORDS_LEAST <= pace.records <= FRAME_RECORDS
        assert 0 < pace.size_bytes <= FRAME_BYTES


def test_a_link_that_lets_nothing_through_gets_the_smallest_frames_and_recovers() -> None:
    pace = Pace()
    for _ in range(10):
        pace.lost(progressed=False)
    assert (pace.records, pace.window) == (FRAME_RECORDS_LEAST, 1)
    for _ in range(WINDOW_FRAMES):
        pace.acknowledged()
    assert (pace.records, pace.window) == (FRAME_RECORDS, WINDOW_FRAMES)


@given(
    asked=st.one_of(st.floats(0, 1 << 32), st.sampled_from((0.0, *BUSY_SECONDS))),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_f41_a_retry_after_is_kept_within_bounds(asked: float, chance: float) -> None:
    least, most = BUSY_SECONDS
    seconds = spread_retry(asked, chance)
    assert (least, most) == (1, 15 * 60) and least <= seconds <= most
    assert seconds >= min(asked, 0.8 * most) * (1 - 1e-9), "the peer wanted to be left alone for longer"


@pytest.mark.parametrize("asked", [0, 1, 5, 60, BUSY_SECONDS[1], 1e9])
def test_f41_a_retry_after_is_spread(asked: float) -> None:
    """Sites that were all told the same time do not all come back at once."""
    drawn = [spread_retry(asked, chance / 10) for chance in range(10)]
    assert drawn == sorted(set(drawn)) and drawn[-1] > 1.2 * drawn[0]


def site_with_frames(pace: Pace, count: int) -> SiteMachine:
    machine = SiteMachine(stay=True, pace=pace)
    machine.receive(to_site(welcome=WELCOME))
    machine.step(Event("welcome_stored", Stored(LIMITS, [])))
    machine.step(Event("frames_loaded", Loaded([frame(number + 1) for number in range(count)], exhausted=not count)))
    return machine


def central_with_frames(pace: Pace, count: int) -> CentralMachine:
    machine = CentralMachine(pace)
    machine.receive(to_central(hello=session_pb2.Hello(site=2)))
    machine.step(Event("hello_judged", WELCOME))
    machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
    for _ in range(count):
        machine.step(Event("page_loaded", PAGE))
    return machine


@pytest.mark.parametrize("end", ["cut", "silence"])
def test_f47_after_a_loss_a_site_sends_one_frame_at_a_time(end: str) -> None:
    pace = Pace()
    site_with_frames(pace, 2).step(Event(end))
    machine = SiteMachine(stay=True, pace=pace)
    machine.receive(to_site(welcome=WELCOME))
    (wanted,) = actions(machine.step(Event("welcome_stored", Stored(LIMITS, []))), "load_frames")
    assert wanted.frames == 1 and wanted.records == FRAME_RECORDS // 4
    assert not actions(machine.step(Event("frames_loaded", Loaded([frame(1)], exhausted=False))), "load_frames")
    machine.receive(to_site(acknowledgement=acknowledgement(1)))
    (wanted,) = actions(machine.step(Event("acknowledgement_stored", False)), "load_frames")
    assert wanted.frames == 2 and wanted.records == FRAME_RECORDS // 2


@pytest.mark.parametrize("end", ["cut", "silence"])
def test_after_a_loss_a_central_sends_one_frame_at_a_time(end: str) -> None:
    pace = Pace()
    central_with_frames(pace, 2).step(Event(end))
    assert pace.window == 1 and pace.records == FRAME_RECORDS // 4
    machine = central_with_frames(pace, 0)
    assert not actions(machine.step(Event("page_loaded", PAGE)), "load_page")
    told = session_pb2.PullAcknowledgement(sequence=1)
    assert actions(machine.receive(to_central(pull_acknowledgement=told)), "load_page")


def test_a_session_that_a_newer_one_supersedes_was_lost_too() -> None:
    """On a bad link the site is back before the central has noticed the cut: that is how it learns of the loss."""
    pace = Pace()
    error = PeerProblem(Code.SUPERSEDED, "A newer session of site 2 took over.")
    central_with_frames(pace, 2).step(Event("failed", error))
    assert pace.window == 1


def test_a_loss_with_nothing_under_way_says_nothing_of_the_link() -> None:
    of_site, of_central = Pace(), Pace()
    site_with_frames(of_site, 0).step(Event("cut"))
    central_with_frames(of_central, 0).step(Event("cut"))
    assert (of_site, of_central) == (Pace(window=WINDOW_FRAMES_FIRST), Pace())


def test_an_end_that_was_said_is_no_loss() -> None:
    of_site, of_central = Pace(), Pace()
    site_with_frames(of_site, 2).receive(to_site(goodbye=session_pb2.Goodbye(code="DRAINING")))
    central_with_frames(of_central, 2).receive(to_central(goodbye=session_pb2.Goodbye()))
    assert (of_site, of_central) == (Pace(window=WINDOW_FRAMES_FIRST), Pace())


def test_a_site_begins_with_a_small_window_that_grows_with_each_acknowledgement() -> None:
    """Whatever the session before had reached: many sites that come at once do not bury the central."""
    pace = Pace()
    site_with_frames(pace, 0)
    windows = [pace.window]
    for _ in range(WINDOW_FRAMES):
        pace.acknowledged()
        windows.append(pace.window)
    assert windows == [*range(WINDOW_FRAMES_FIRST, WINDOW_FRAMES + 1), WINDOW_FRAMES, WINDOW_FRAMES]
    site_with_frames(pace, 0)
    assert pace.window == WINDOW_FRAMES_FIRST

"""Two things at once, between two correct ends: each race by itself, as short as it can be told.

`test_pair` finds these too, and their relatives; here each has a name.
"""

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code
from engine.limits import ROUNDS
from engine.session.central_machine import PageLoaded
from engine.session.machine import CLOSED, Event
from engine.session.site_machine import Loaded, PullStored, Stored
from tests.engine.session.machines import (
    LIMITS,
    WELCOME,
    WINDOW,
    acknowledgement,
    actions,
    busy,
    central_in,
    finished,
    frame,
    give,
    idle_central,
    idle_site,
    keys,
    sent,
    site_in,
    to_central,
    to_site,
)

NOTHING = Loaded([], exhausted=True)


def checkpoint(round_: int) -> session_pb2.PullCheckpoint:
    return session_pb2.PullCheckpoint(round=round_)


def report(round_: int) -> session_pb2.CheckpointReport:
    return session_pb2.CheckpointReport(round=round_)


# --- changes that come while frames are loaded ------------------------------------------------------------------------


def test_a_change_behind_the_snapshot_of_a_load_is_loaded_next() -> None:
    """The load saw nothing; before it was reported a change was committed and noticed."""
    machine = idle_site()
    assert actions(machine.step(Event("changed")), "load_frames")
    assert machine.step(Event("changed")) == []
    steps = machine.step(Event("frames_loaded", NOTHING))
    assert actions(steps, "load_frames"), "nothing will ever tell of that change again"


def test_a_change_during_the_first_load_is_part_of_the_first_round() -> None:
    machine = site_in("settling")
    machine.step(Event("welcome_stored", Stored(LIMITS, [])))
    machine.step(Event("changed"))
    steps = machine.step(Event("frames_loaded", NOTHING))
    assert actions(steps, "load_frames") and not sent(steps, "push_checkpoint")


@pytest.mark.parametrize("wish", ["round_wanted", "leave"])
def test_a_round_that_is_wanted_during_an_empty_load_comes(wish: str) -> None:
    machine = idle_site()
    machine.receive(to_site(pull_checkpoint=checkpoint(1)))
    machine.step(Event("compared", report(1)))
    machine.step(Event("changed"))
    steps = [*machine.step(Event(wish)), *machine.step(Event("frames_loaded", NOTHING))]
    if not sent(steps, "push_checkpoint"):
        steps += machine.step(Event("frames_loaded", NOTHING))
    assert sent(steps, "push_checkpoint") == [session_pb2.PushCheckpoint(round=2)], f"{wish} was forgotten"


def test_a_round_that_is_wanted_while_a_frame_is_under_way_comes() -> None:
    machine = idle_site()
    machine.receive(to_site(pull_checkpoint=checkpoint(1)))
    machine.step(Event("compared", report(1)))
    machine.step(Event("changed"))
    steps = machine.step(Event("frames_loaded", Loaded([frame(1)], exhausted=False)))
    steps += machine.step(Event("round_wanted"))
    steps += machine.step(Event("frames_loaded", NOTHING))
    if not sent(steps, "push_checkpoint"):
        steps += machine.step(Event("frames_loaded", NOTHING))
    assert [told.round for told in sent(steps, "push_checkpoint")] == [2]


def test_a_scheduled_session_ends_although_an_empty_load_overlaps_its_checkpoint() -> None:
    """Somebody noticed a change that was framed already: the load finds nothing, and nothing else will come."""
    machine = idle_site(stay=False)
    machine.step(Event("changed"))
    machine.receive(to_site(pull_checkpoint=checkpoint(1)))
    machine.step(Event("compared", report(1)))
    steps = machine.step(Event("frames_loaded", NOTHING))
    for round_ in (2, 3):
        if machine.state == "exchanging" and sent(steps, "push_checkpoint"):
            machine.receive(to_site(pull_checkpoint=checkpoint(round_)))
            steps = machine.step(Event("compared", report(round_)))
        if actions(steps, "load_frames"):
            steps = machine.step(Event("frames_loaded", NOTHING))
    assert machine.state == "leaving", "both ends would stay silent for ever"


# --- Busy -------------------------------------------------------------------------------------------------------------


def test_f41_a_load_that_outlasts_the_wait_of_busy_is_void() -> None:
    """F41: it loaded what follows the frames that were sent; meanwhile those became void and the wait was over."""
    machine = site_in("pushing")
    machine.receive(to_site(busy=session_pb2.Busy(number=2)))
    machine.step(Event("waited"))
    steps = machine.step(Event("frames_loaded", Loaded([frame(3)], exhausted=False)))
    assert not sent(steps, "frame"), "frame 3 goes before frame 2, and is dropped for ever"
    assert [wanted.after for wanted in actions(steps, "load_frames")] == [1]


def test_a_load_during_the_wait_of_busy_is_void() -> None:
    machine = site_in("pushing")
    machine.receive(to_site(busy=session_pb2.Busy(number=2)))
    assert machine.step(Event("frames_loaded", Loaded([frame(3)], exhausted=False))) == []
    wanted = actions(machine.step(Event("waited")), "load_frames")
    assert [(there.after, there.frames) for there in wanted] == [(1, WINDOW - 1)]


def test_nobody_is_silent_while_busy_is_waited_for() -> None:
    """Busy may last 900 s, patience 120 s: the one who was told to wait owes nothing, and is owed nothing."""
    central = central_in("receiving")
    central.step(Event("frame_ingested", acknowledgement(1)))
    central.step(Event("ingest_busy", busy(2)))
    site = site_in("pushing")
    site.step(Event("acknowledgement_stored", False))
    site.step(Event("frames_loaded", NOTHING))
    assert site.waits, "the answer to the checkpoint is awaited"
    site.receive(to_site(busy=session_pb2.Busy(number=2, retry_after_milliseconds=900_000)))
    assert not site.waits, "the site itself is to speak next"
    assert not central.waits, "the central has told the site to be silent"


def test_a_checkpoint_behind_busy_is_not_answered() -> None:
    machine = central_in("receiving")
    machine.step(Event("ingest_busy", busy(1)))
    assert machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1))) == []
    machine.receive(to_central(frame=frame(1)))
    assert machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=2))) == []
    steps = machine.step(Event("frame_ingested", acknowledgement(1)))
    assert actions(steps, "load_page") and machine.state == "serving"


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_a_round_is_answered_only_after_its_frames() -> None:
    """Round 2 was announced while the checkpoint of round 1 was being read and a frame of round 2 was being applied."""
    machine = idle_central()
    machine.step(Event("feed_moved"))
    machine.step(Event("page_loaded", PageLoaded(document_pb2.PullFrame(), exhausted=True)))
    machine.receive(to_central(frame=frame(1)))
    machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=2, last_frame=1)))
    steps = machine.step(Event("checkpoint_loaded", checkpoint(1)))
    assert actions(steps, "load_checkpoint") == [], "round 2 is answered before its frame was applied"
    steps = machine.step(Event("frame_ingested", acknowledgement(1)))
    assert actions(steps, "load_page")
    steps = machine.step(Event("page_loaded", PageLoaded(None, exhausted=True)))
    assert actions(steps, "load_checkpoint") == [2], "round 2 is never answered after its frame"


def test_a_feed_that_moves_while_its_page_is_read_is_read_again() -> None:
    machine = idle_central()
    machine.step(Event("feed_moved"))
    assert machine.step(Event("feed_moved")) == []
    steps = machine.step(Event("page_loaded", PageLoaded(None, exhausted=True)))
    assert len(actions(steps, "load_page")) == 1


def test_a_feed_that_moves_while_the_checkpoint_is_read_is_read_again() -> None:
    machine = central_in("receiving")
    for number in (1, 2):
        machine.step(Event("frame_ingested", acknowledgement(number)))
    machine.receive(to_central(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
    assert actions(machine.step(Event("page_loaded", PageLoaded(None, exhausted=True))), "load_checkpoint") == [1]
    machine.step(Event("feed_moved"))
    steps = machine.step(Event("checkpoint_loaded", checkpoint(1)))
    assert sent(steps, "pull_checkpoint") and actions(steps, "load_page")


@pytest.mark.parametrize("moving", range(7))
def test_f49_rounds_go_on_until_one_moves_nothing_at_most_five(moving: int) -> None:
    """What a pull makes necessary, a number that is given to a document for example, does not wait for the schedule."""
    machine, rounds = idle_site(stay=False), 0
    while machine.state == "exchanging":
        rounds += 1
        if rounds <= moving:
            machine.receive(to_site(pull_frame=document_pb2.PullFrame(sequence=rounds)))
            machine.step(Event("pull_stored", PullStored(rounds, 1, [], requeued=0)))
        machine.receive(to_site(pull_checkpoint=checkpoint(rounds)))
        if actions(machine.step(Event("compared", report(rounds))), "load_frames"):
            machine.step(Event("frames_loaded", NOTHING))
    assert (machine.state, rounds) == ("leaving", min(moving + 1, ROUNDS))


# --- wants ------------------------------------------------------------------------------------------------------------


def test_a_want_may_overtake_the_frames_that_are_being_applied() -> None:
    """The site asks right behind its first push checkpoint; the central may still be at work on the frames before."""
    site = site_in("settling")
    site.step(Event("welcome_stored", Stored(LIMITS, [], keys(2))))
    site.step(Event("frames_loaded", Loaded([frame(1)], exhausted=False)))
    steps = site.step(Event("frames_loaded", NOTHING))
    central = central_in("judging")
    central.step(Event("hello_judged", WELCOME))
    central.receive(to_central(frame=frame(1)))
    for step in steps:
        answer = central.receive(step.message)  # type: ignore[union-attr]
        assert central.state != CLOSED, f"a correct site was refused: {finished(answer).error}"
        assert not actions(answer, "load_wanted"), "push comes before pull"
    steps = central.step(Event("frame_ingested", acknowledgement(1)))
    steps += central.step(Event("page_loaded", PageLoaded(None, exhausted=True)))
    wants = actions(steps, "load_wanted")
    assert [key for want in wants for key in want.documents] == keys(2)


def test_what_is_wanted_keeps_to_the_window() -> None:
    """A window is a window in each direction, whatever it carries (law 12)."""
    machine = idle_central()
    count, under_way, work = 3 * WINDOW, 0, 0
    for _ in range(count):
        work += len(actions(give(machine, "want"), "load_wanted"))
    for sequence in range(1, count + 1):
        while work:
            steps = machine.step(Event("wanted_loaded", document_pb2.PullFrame()))
            under_way += len(sent(steps, "pull_frame"))
            work += len(actions(steps, "load_wanted")) - 1
            assert under_way <= WINDOW, f"{under_way} pull frames are under way"
        told = session_pb2.PullAcknowledgement(sequence=sequence)
        work += len(actions(machine.receive(to_central(pull_acknowledgement=told)), "load_wanted"))
        under_way -= 1
    assert under_way == work == 0


# --- goodbyes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", ["pull_frame", "pull_checkpoint", "pull_stored", "compared"])
def test_what_crosses_with_the_goodbye_is_no_mistake(late: str) -> None:
    """A feed moved before the central had read the Goodbye."""
    machine = site_in("leaving")
    steps = give(machine, late)
    assert machine.state == "leaving", finished(steps).error
    assert not any(sent(steps, name) for name in ("pull_acknowledgement", "checkpoint_report", "want", "goodbye"))
    assert finished(machine.receive(to_site(goodbye=session_pb2.Goodbye()))).error is None


def test_a_pull_frame_that_is_being_stored_at_the_goodbye() -> None:
    machine = idle_site(stay=False)
    machine.receive(to_site(pull_checkpoint=checkpoint(1)))
    machine.receive(to_site(pull_frame=document_pb2.PullFrame(sequence=1)))
    machine.step(Event("compared", report(1)))
    machine.step(Event("pull_stored", PullStored(1, 1, [], requeued=1)))
    assert machine.state in ("leaving", "exchanging"), "the session was broken although nobody did wrong"


def test_drain_and_goodbye_may_cross() -> None:
    site, central = site_in("leaving"), central_in("serving")
    farewell = sent(central.step(Event("drain")), "goodbye")
    assert farewell == [session_pb2.Goodbye(code=Code.DRAINING)]
    assert finished(site.receive(to_site(goodbye=farewell[0]))).error is None
    assert central.receive(to_central(goodbye=session_pb2.Goodbye())) == []

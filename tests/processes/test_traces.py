"""What counts the frames notices what must not be: made-up traces of a site and the central."""

from engine.limits import WINDOW_FRAMES
from tests.processes.traces import Audit, Flight, Moment, audit_pull, audit_push, parse


def audited(direction: str, site: str, central: str, noted: str = "") -> Audit:
    """The audit of traces without their columns of time and site: lines are `at word number [push|pull ...]`."""
    told = []
    for text in (site, central, noted):
        words = (line.split() for line in text.splitlines() if line.strip())
        told.append([parse(" ".join((at, word, number, "2", *more))) for at, word, number, *more in words])
    return (audit_push if direction == "push" else audit_pull)(*told)


def push_session(begin: int, *lines: str) -> str:
    """A site's session from that moment on."""
    opened = (f"{begin} sent_hello 0", f"{begin + 5} received_welcome 0")
    return "\n".join((*opened, *(f"{begin + 10 + place} {line}" for place, line in enumerate(lines)), ""))


def test_frames_in_flight_at_the_cut_are_sent_again_once() -> None:
    site = push_session(0, "frame_sent 1 push", "frame_sent 2 push", "frame_acked 1 push")
    site += push_session(100, "frame_sent 2 push", "frame_sent 3 push", "frame_acked 2 push")
    central = "11 apply_commit 1 push\n111 apply_commit 2 push\n112 apply_commit 3 push"
    audit = audited("push", site, central)
    assert audit == Audit(sessions=2, sent=4, committed=3, resent=1, window_most=2)


def test_a_frame_that_was_committed_and_is_sent_again_is_counted() -> None:
    site = push_session(0, "frame_sent 1 push") + push_session(100, "frame_sent 1 push")
    assert audited("push", site, "50 apply_commit 1 push").committed_again == 1
    assert audited("push", site, "", noted="50 noted_commit 1 push").committed_again == 1, "the trace lacks the line"
    assert audited("push", site, "115 apply_commit 1 push").committed_again == 0
    sent = "0 received_hello 0\n1 frame_sent 1 pull c:1:0-9\n20 received_hello 0\n21 frame_sent 1 pull c:1:0-9"
    assert audited("pull", "10 apply_commit 1 pull c:1:0-9", sent).committed_again == 1
    assert audited("pull", "", sent, "10 noted_commit 0 pull c:1:0-9").committed_again == 1
    assert audited("pull", "30 apply_commit 1 pull c:1:0-9", sent) == Audit(2, 2, 1, resent=9, window_most=1)


def test_a_frame_that_is_applied_twice_is_counted() -> None:
    site = push_session(0, "frame_sent 1 push")
    assert audited("push", site, "20 apply_commit 1 push\n30 apply_commit 1 push").applied_twice == 1
    assert audited("push", site, "30 apply_commit 1 push", "20 noted_commit 1 push").applied_twice == 1
    twice = "20 apply_commit 1 pull c:1:0-9\n30 apply_commit 2 pull c:1:5-12"
    assert audited("pull", twice, "").applied_twice == 1
    assert audited("pull", "20 apply_commit 1 pull c:1:0-9\n30 apply_commit 2 pull c:2:0-9", "").applied_twice == 0


def test_what_is_sent_again_beyond_the_window_is_counted() -> None:
    settled = push_session(0, "frame_sent 1 push", "frame_acked 1 push") + push_session(100, "frame_sent 1 push")
    assert audited("push", settled, "").beyond_window == 1
    numbers = range(1, WINDOW_FRAMES + 2)
    much = [f"frame_sent {number} push" for number in numbers]
    audit = audited("push", push_session(0, *much) + push_session(100, *much), "")
    assert (audit.beyond_window, audit.window_most) == (1, WINDOW_FRAMES + 1)
    sent = "0 received_hello 0\n1 frame_sent 1 pull c:1:0-9\n2 frame_sent 2 pull c:1:5-12"
    assert audited("pull", "", sent).beyond_window == 1


def test_where_a_frame_is_on_its_way() -> None:
    flight = Flight("push")
    for text in ("1 sent_hello 0 2", "2 frame_sent 1 2 push", "3 frame_sent 2 2 push", "4 apply_begin 1 2 push"):
        flight.tell(parse(text))
    assert (flight.at(Moment.IN_FLIGHT), flight.at(Moment.IN_APPLY), flight.at(Moment.IN_GAP)) == ({1, 2}, {1}, set())
    flight.tell(parse("5 apply_commit 1 2 push"))
    assert (flight.at(Moment.IN_FLIGHT), flight.at(Moment.IN_APPLY), flight.at(Moment.IN_GAP)) == ({1, 2}, set(), {1})
    flight.tell(parse("6 frame_acked 1 2 push"))
    assert (flight.at(Moment.IN_FLIGHT), flight.at(Moment.IN_GAP)) == ({2}, set())
    flight.tell(parse("7 sent_hello 0 2"))
    assert flight.at(Moment.IN_FLIGHT) == set(), "a new session has sent nothing yet"

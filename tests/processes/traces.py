"""Reads the traces of daemons (docs/operating.md) and counts what the laws speak of.

Both ends are on one machine and its monotonic clock is one, so the lines of two traces are compared by their times.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from engine.limits import WINDOW_FRAMES

HELLO = {"push": "sent_hello", "pull": "received_hello"}
"""What the sender of a direction tells first of a session."""


class Moment(StrEnum):
    """Where a frame is when a node is killed."""

    IN_FLIGHT = "in flight"
    IN_APPLY = "in apply"
    """The receiver's transaction has begun and is not committed."""
    IN_GAP = "in gap"
    """The receiver has committed it, the sender does not know."""


class Span(NamedTuple):
    """Positions of a feed: those after `begin` up to `end`."""

    feed: str
    """Scope and generation."""
    begin: int
    end: int


class Line(NamedTuple):
    """One line of a trace."""

    at: int
    """Nanoseconds of the machine's monotonic clock."""
    word: str
    number: int
    site: int
    direction: str = ""
    spans: tuple[Span, ...] = ()


def parse(text: str) -> Line:
    """One line without its end."""
    at, word, number, site, *more = text.split(" ")
    spans = []
    for told in more[1:]:
        feed, _, positions = told.rpartition(":")
        begin, _, end = positions.partition("-")
        spans.append(Span(feed, int(begin), int(end)))
    return Line(int(at), word, int(number), int(site), more[0] if more else "", tuple(spans))


class TraceFile:
    """A trace that is still being written; it survives its process and the next one goes on with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        self._read_bytes = 0

    def read(self) -> list[Line]:
        """What is new since the last call; all of it is in `lines`."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        new = [parse(line) for line in whole.decode().splitlines()]
        self.lines += new
        return new


@dataclass
class Flight:
    """The frames of one direction in the session that was opened last, as its two ends have told so far."""

    direction: str
    sent: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)

    def tell(self, line: Line) -> None:
        """Takes the next line of either trace."""
        if line.word == HELLO[self.direction]:
            self.sent, self.begun, self.committed, self.acked = set(), set(), set(), set()
        elif line.direction == self.direction:
            if line.word == "frame_sent":
                self.sent.add(line.number)
            elif line.word == "frame_acked":
                self.acked.add(line.number)
            elif line.word == "apply_begin":
                self.begun.add(line.number)
            elif line.word == "apply_commit":
                self.committed.add(line.number)

    def at(self, moment: Moment) -> set[int]:
        """The frames that are in flight (sent and not acknowledged) and at that moment of their way."""
        in_flight = self.sent - self.acked
        match moment:
            case Moment.IN_FLIGHT:
                return in_flight
            case Moment.IN_APPLY:
                return in_flight & self.begun - self.committed
            case Moment.IN_GAP:
                return in_flight & self.committed


@dataclass
class Audit:
    """What became of the frames between one site and the central. Every `..._again`, `..._twice` must be 0."""

    sessions: int = 0
    sent: int = 0
    committed: int = 0
    resent: int = 0
    """Frames of a push sent in more than one session, and positions of a pull."""
    window_most: int = 0
    applied_twice: int = 0
    committed_again: int = 0
    """Sent in a session that began when the receiver had committed it."""
    beyond_window: int = 0
    """Sent again although it was not under way when the session before ended, or more than a window of it."""

    def hold(self) -> None:
        """Asserts what must be."""
        assert (self.applied_twice, self.committed_again, self.beyond_window) == (0, 0, 0), self
        assert self.window_most <= WINDOW_FRAMES, self


def sessions(lines: Iterable[Line], hello: str) -> Iterator[list[Line]]:
    """The lines of each session, which begins with that word."""
    found: list[Line] = []
    for line in lines:
        if line.word == hello and found:
            yield found
            found = []
        found.append(line)
    if found:
        yield found


def _most_under_way(session: Iterable[Line]) -> tuple[int, set[int]]:
    """(the most frames under way at once, those that were at the end)."""
    most, under_way = 0, set()
    for line in session:
        if line.word == "frame_sent":
            under_way.add(line.number)
        elif line.word == "frame_acked":
            under_way.discard(line.number)
        most = max(most, len(under_way))
    return most, under_way


def audit_push(site: Iterable[Line], central: Iterable[Line], noted: Iterable[Line]) -> Audit:
    """What became of a site's frames.

    Args:
        site: its trace.
        central: the central's lines about that site.
        noted: apply_commit lines that stand for what the central's database showed after a kill.
    """
    audit, ever, unsettled = Audit(), set[int](), set[int]()
    commits = sorted(line for line in [*central, *noted] if _is_commit(line, "push"))
    last = 0
    for line in commits:
        audit.committed += line.word == "apply_commit"
        audit.applied_twice += line.word == "apply_commit" and line.number <= last
        last = max(last, line.number)
    for session in sessions(site, HELLO["push"]):
        pushed = [line for line in session if line.direction == "push"]
        welcome = next((line.at for line in session if line.word == "received_welcome"), 0)
        before = max((line.number for line in commits if line.at < welcome), default=0)
        numbers = [line.number for line in pushed if line.word == "frame_sent"]
        again = ever & set(numbers)
        audit.sessions += 1
        audit.sent += len(numbers)
        audit.resent += len(again)
        audit.committed_again += sum(1 for number in numbers if number <= before)
        audit.beyond_window += len(again - unsettled) + (len(numbers) - len(set(numbers)))
        audit.beyond_window += max(0, len(again) - WINDOW_FRAMES)
        most, left = _most_under_way(pushed)
        audit.window_most = max(audit.window_most, most)
        # A session that sent nothing leaves what the one before had under way.
        unsettled = left | (unsettled - {line.number for line in pushed if line.word == "frame_acked"})
        ever |= set(numbers)
    return audit


def audit_pull(site: Iterable[Line], central: Iterable[Line], noted: Iterable[Line]) -> Audit:
    """What became of the frames for a site; positions of feeds, because these frames are numbered anew in each
    session. Arguments as `audit_push`; `noted` stands for what the site's database showed after a kill."""
    audit, sent_up_to = Audit(), dict[str, int]()
    commits = sorted(line for line in [*site, *noted] if _is_commit(line, "pull"))
    audit.committed = sum(1 for line in site if _is_commit(line, "pull"))
    up_to: dict[str, int] = {}
    for line in commits:
        for span in line.spans:
            audit.applied_twice += line.word == "apply_commit" and span.begin < up_to.get(span.feed, 0)
            up_to[span.feed] = max(up_to.get(span.feed, 0), span.end)
    for session in sessions(central, HELLO["pull"]):
        pulled = [line for line in session if line.direction == "pull"]
        before = _positions(line for line in commits if line.at < session[0].at)
        sent = [line for line in pulled if line.word == "frame_sent"]
        audit.sessions += 1
        audit.sent += len(sent)
        within: dict[str, int] = {}
        for span in (span for line in sent for span in line.spans):
            audit.committed_again += span.begin < before.get(span.feed, 0)
            audit.beyond_window += span.begin < within.get(span.feed, 0)
            audit.resent += max(0, min(span.end, sent_up_to.get(span.feed, 0)) - span.begin)
            within[span.feed] = span.end
        audit.window_most = max(audit.window_most, _most_under_way(pulled)[0])
        sent_up_to |= {feed: max(end, sent_up_to.get(feed, 0)) for feed, end in within.items()}
    return audit


def _is_commit(line: Line, direction: str) -> bool:
    return line.direction == direction and line.word in ("apply_commit", "noted_commit")


def _positions(lines: Iterable[Line]) -> dict[str, int]:
    found: dict[str, int] = {}
    for span in (span for line in lines for span in line.spans):
        found[span.feed] = max(found.get(span.feed, 0), span.end)
    return found

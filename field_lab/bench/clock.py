"""Reads the traces of site daemons: when the first byte was sent and when the last row was safe.

The traces and this process share the machine's monotonic clock.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of time by the monotonic clock, in nanoseconds."""

    begin: int
    end: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.begin) / 1e9


def now() -> int:
    """A mark: what was traced before it does not count."""
    return time.monotonic_ns()


def push_span(traces: Iterable[Path], after: int) -> Span:
    """From the first byte that a site sent until the last frame was applied, acknowledged and settled."""
    return _span(traces, after, "settled")


def pull_span(traces: Iterable[Path], after: int) -> Span:
    """From the first byte that a site sent until the last frame was applied and its position acknowledged."""
    return _span(traces, after, "sent_pull_acknowledgement")


def has_left(trace: Path) -> bool:
    """Whether the last session of a site has said goodbye: what is edited from now on goes into another."""
    words = [line.split(" ", 2)[1] for line in trace.read_text().splitlines()]
    return "sent_goodbye" in words[len(words) - words[::-1].index("sent_hello") :]


def _span(traces: Iterable[Path], after: int, last_word: str) -> Span:
    begin, end = [], []
    for trace in traces:
        for line in trace.read_text().splitlines():
            time_text, word, _ = line.split(" ", 2)
            if int(time_text) < after:
                continue
            if word == "sent_hello":
                begin.append(int(time_text))
            elif word == last_word:
                end.append(int(time_text))
    if not begin or not end:
        raise RuntimeError("the traces show no session that moved something")
    return Span(min(begin), max(end))

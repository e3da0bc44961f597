"""A line-buffered trace of what a session sends, receives and applies, for tests and for finding faults.

Off unless the environment variable PACKHORSE_TRACE names a file. A line is written before the next thing happens, so
that it survives a killed process. Never any content of records. What the words mean: docs/operating.md.

A message is told as sent before its first byte is: whatever left the process is in the trace.
"""

import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, Refused
from engine.limits import WINDOW_FRAMES
from engine.session.frames import unpack

VARIABLE = "PACKHORSE_TRACE"
Trace = Callable[[str, Any], None]
_ACKNOWLEDGEMENTS = {"acknowledgement": "push", "pull_acknowledgement": "pull"}


def open_trace() -> Callable[[int], Trace]:
    """Gives the trace of the sessions of a site, by its number: what the environment asks for, or one that does
    nothing. Raises Refused with CONFIGURATION_WRONG."""
    name = os.environ.get(VARIABLE)
    if not name:
        return lambda _site: lambda _word, _value: None
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        what = f"{VARIABLE} names a file that cannot be written ({os.strerror(error.errno or 0)})."
        raise Refused(Code.CONFIGURATION_WRONG, what) from error

    def of_site(site: int) -> Trace:
        def trace(word: str, value: Any) -> None:
            for told, number, more in _facts(word, value):
                os.write(descriptor, f"{time.monotonic_ns()} {told} {number} {site}{more}\n".encode())

        return trace

    return of_site


def _facts(word: str, value: Any) -> list[tuple[str, int, str]]:
    """(word, number, what follows the site) of each line that tells it."""
    if isinstance(value, session_pb2.SiteMessage | session_pb2.CentralMessage):
        name = value.WhichOneof("message")
        if name is None:  # a message that only a newer program can read
            return [(f"{word}_unknown", 0, "")]
        return _message(word, name, getattr(value, name))
    if isinstance(value, document_pb2.Frame):
        return [(word, value.number, " push")]
    if isinstance(value, document_pb2.PullFrame):
        return [(word, value.sequence, f" pull{_feeds(value)}")]
    return [(word, value, "")]


def _message(word: str, name: str, message: Any) -> list[tuple[str, int, str]]:
    if name in ("frame", "pull_frame"):
        return _facts(f"frame_{word}", message)
    if name in _ACKNOWLEDGEMENTS and word == "received":
        return [("frame_acked", _number(message), f" {_ACKNOWLEDGEMENTS[name]}")]
    missed = [("frame_acked", told.number, " push") for told in message.missed] if name == "welcome" else []
    return [(f"{word}_{name}", _number(message), ""), *(missed if word == "received" else [])]


def _number(message: Any) -> int:
    for name in ("number", "sequence", "round"):
        if name in message.DESCRIPTOR.fields_by_name:
            return int(getattr(message, name))
    return 0


def _feeds(frame: document_pb2.PullFrame) -> str:
    """Which positions of which feeds a pull frame carries. One that closes parts has no body of its own."""
    return "" if frame.parts_bytes else _feeds_in(frame.body, frame.hash)


@lru_cache(WINDOW_FRAMES)
def _feeds_in(packed: bytes, packed_hash: bytes) -> str:
    """A frame is told several times and read once."""
    body = unpack(document_pb2.PullBody, packed, packed_hash)
    return "".join(f" {s.scope}:{s.generation}:{s.from_position}-{s.to_position}" for s in body.sections)

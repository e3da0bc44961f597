"""A line-buffered trace of what a session sends, receives and applies, for tests and for finding faults.

Off unless the environment variable PACKHORSE_TRACE names a file. A line is `monotonic-nanoseconds word number`; it is
written before the next thing happens, so that it survives a killed process. Never any content of records.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from packhorse.sync.v1 import session_pb2

VARIABLE = "PACKHORSE_TRACE"
Trace = Callable[[str, Any], None]


def open_trace() -> Trace:
    """The trace that the environment asks for, or one that does nothing."""
    name = os.environ.get(VARIABLE)
    if not name:
        return lambda _word, _value: None
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def trace(word: str, value: Any) -> None:
        told = f"{word}_{value.WhichOneof('message')} {_number(value)}" if _is_message(value) else f"{word} {value}"
        os.write(descriptor, f"{time.monotonic_ns()} {told}\n".encode())

    return trace


def _is_message(value: Any) -> bool:
    return isinstance(value, session_pb2.SiteMessage | session_pb2.CentralMessage)


def _number(message: Any) -> int:
    inner = getattr(message, str(message.WhichOneof("message")))
    for name in ("number", "sequence", "round"):
        if name in inner.DESCRIPTOR.fields_by_name:
            return int(getattr(inner, name))
    return 0

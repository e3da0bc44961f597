"""How counts and instants are told to people and programs."""

from datetime import UTC, datetime
from typing import Any

from engine.limits import COUNT_CAP


def instant(seconds: int | None) -> str | None:
    """Seconds since 1970 as text in UTC; None where there are none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None


def capped(name: str, count: int | None) -> dict[str, Any]:
    """A count that stops at COUNT_CAP and says so."""
    if count is None or count <= COUNT_CAP:
        return {name: count, f"{name}_capped": False}
    return {name: COUNT_CAP, f"{name}_capped": True}

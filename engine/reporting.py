"""How counts and instants are told to people and programs."""

from collections.abc import Mapping
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


def estimated(name: str, count: int | None) -> dict[str, Any]:
    """A capped count that is an estimate and says so: a feed holds a record once, however often it changed (F48)."""
    return {**capped(name, count), f"{name}_estimated": True}


def count_in_words(fields: Mapping[str, Any], name: str) -> str:
    """A count of `capped` or `estimated` for a person: "7", "about 7", "> 10,000"; empty where it is not known."""
    count = fields[name]
    if count is None:
        return ""
    if fields.get(f"{name}_capped"):
        return f"> {count:,}"
    return f"about {count:,}" if count and fields.get(f"{name}_estimated") else f"{count:,}"


def progress_in_words(phase: str, remaining: int | None) -> str:
    """What a synchronisation does and how many records are estimated to come; None where nothing is known of that."""
    if remaining is None:
        return phase
    told = f"more than {COUNT_CAP:,}" if remaining > COUNT_CAP else f"about {remaining:,}"
    return f"{phase}, {told} records to come"

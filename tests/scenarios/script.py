"""Reads a scenario script: one sentence a line, each one of a closed list; see docs/scenarios.md.

A sentence is written as a pattern, `store {store} is created`. What stands in braces may be:

| field      | in a script                                       | given to the step as             |
|------------|---------------------------------------------------|----------------------------------|
| {site}     | sync server                                       | str                              |
| {sites}    | sync server, remote site 1 and remote site 2      | tuple of str                     |
| {store}    | A                                                 | str                              |
| {kind}     | stock line                                        | str                              |
| {column}   | comment                                           | str                              |
| {number}   | 2                                                 | int                              |
| {id}       | "INV-1"                                           | str                              |
| {text}     | "any words"                                       | str                              |
| {code}     | STORE_HAS_RECORDS                                 | str                              |
| {copies}   | active at sync server, collector at remote site 1 | dict: site -> type of the copy   |
| {sync with}| active/collector, transfer, none                  | str                              |
| {sentence} | another sentence                                  | `Step`                           |
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LATER = "later:"
_SITE = r"[a-z]+(?: [a-z0-9]+)*"
_FIELDS: Mapping[str, str] = {
    "site": _SITE,
    "sites": rf"{_SITE}(?:, {_SITE})*",
    "store": r"[A-Z]\w*",
    "kind": r"[a-z]+(?: [a-z]+)*",
    "column": r"[a-z]+(?: [a-z]+)*",
    "number": r"\d+",
    "id": r'"[^"]+"',
    "text": r'"[^"]*"',
    "code": r"[A-Z_]+",
    "copies": rf"\w+ at {_SITE}(?:, \w+ at {_SITE})*",
    "sync with": r"active/collector|transfer|none",
    "sentence": r".+",
}
_FIELD = re.compile(r"\{([a-z ]+)\}")
_ARTICLE = re.compile(r"^(a|an) ")


class ScriptError(Exception):
    """A script says what nobody understands; the text begins with file and line."""


@dataclass(frozen=True)
class Sentence:
    """A sentence that scripts may use. `do` gets the scene and the fields in the order of the pattern."""

    pattern: str
    do: Callable[..., Awaitable[None]]

    def fields_of(self, text: str) -> list[tuple[str, str]] | None:
        """(field, what a script says there) in the order of the pattern, or None where it is another sentence."""
        parts = _FIELD.split(self.pattern)
        expression = "".join(f"({_FIELDS[part]})" if place % 2 else re.escape(part) for place, part in enumerate(parts))
        found = re.fullmatch(expression, text)
        return list(zip(parts[1::2], found.groups(), strict=True)) if found else None


@dataclass(frozen=True)
class Step:
    """One sentence of a script with what it says. `place` is file:line."""

    place: str
    text: str
    do: Callable[..., Awaitable[None]]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Script:
    """A script: the steps to be done, and the steps that cannot be done yet, in their own words."""

    name: str
    steps: tuple[Step, ...]
    later: tuple[str, ...]


def read_script(path: Path, sentences: Iterable[Sentence]) -> Script:
    """Reads a script. Raises ScriptError with the place of the first sentence that is not one of `sentences`."""
    steps, later, known = [], [], tuple(sentences)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if text.startswith(LATER):
            later.append(text.removeprefix(LATER).strip())
        elif text and not text.startswith("#"):
            steps.append(_read_sentence(f"{path.name}:{number}", text, known))
    return Script(path.stem, tuple(steps), tuple(later))


def _read_sentence(place: str, text: str, known: tuple[Sentence, ...]) -> Step:
    said = _ARTICLE.sub("a ", text[0].lower() + text[1:])
    found = [(sentence, fields) for sentence in known if (fields := sentence.fields_of(said)) is not None]
    if len(found) != 1:
        raise ScriptError(f"{place}: {'no' if not found else 'more than one'} sentence is like this one: {text}")
    sentence, fields = found[0]
    values = tuple(_value(place, field, told, known) for field, told in fields)
    return Step(place, text, sentence.do, values)


def _value(place: str, field: str, told: str, known: tuple[Sentence, ...]) -> Any:
    match field:
        case "sites":
            return tuple(re.split(", | and ", told))
        case "number":
            return int(told)
        case "id" | "text":
            return told[1:-1]
        case "copies":
            return dict(reversed(copy.split(" at ", 1)) for copy in told.split(", "))  # type: ignore[misc]
        case "sentence":
            return _read_sentence(place, told, known)
    return told

"""Reads node.toml: the file, the environment before it, and plain sentences for what does not fit."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from engine.directory import CONFIGURATION_NAME, as_directory_errors, parse_address, require_node
from engine.errors import Code, PackhorseError, Refused
from engine.limits import CONFIGURATION_BYTES_MAX

Settings = TypeVar("Settings", bound=msgspec.Struct)
LogFormat = Literal["", "json", "text"]
_PREFIX, _WITHIN = "PACKHORSE_", "__"
_PLACE = re.compile(r"(?P<says>.*?)(?: - at `\$\.?(?P<table>.*)`)?", re.DOTALL)
_PLAIN = (
    (re.compile(r"Object contains unknown field `(.*)`", re.DOTALL), "there is no such key"),
    (re.compile(r"Object missing required field `(.*)`"), "it is missing"),
    (re.compile(r"Expected `str.*"), "it must be a text"),
    (re.compile(r"Expected `object.*"), "it must be a table"),
    (re.compile(r"Invalid enum value .*", re.DOTALL), "no such word is allowed there"),
)
"""What msgspec says, in the words of a person who edits the file; in brackets the key, where it is not the place."""


def read_settings(directory: Path, role: str, settings: type[Settings]) -> Settings:
    """The settings of a node of that role. A key of the environment comes before the same key of the file; a key in a
    table is written PACKHORSE_TABLE__KEY there.

    Raises:
        Refused: DIRECTORY_WRONG where the directory is no node's or that of another role, CONFIGURATION_WRONG with the
            key that does not fit.
    """
    require_node(directory)
    written = _read(directory)
    if "role" not in written:
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME}: role: it is missing.")
    if written["role"] != role:
        raise Refused(Code.DIRECTORY_WRONG, f"{directory} is no directory of a {role} node.")
    given = _environment(settings.__struct_fields__)
    try:
        return msgspec.convert(_over(written, given), settings)
    except msgspec.ValidationError as error:
        raise _wrong(given, error) from error


def checked_address(key: str, address: str) -> None:
    """Raises Refused with CONFIGURATION_WRONG unless the value of this key is HOST:PORT."""
    try:
        parse_address(address)
    except PackhorseError as error:
        raise Refused(Code.CONFIGURATION_WRONG, f"{key}: {address[:60]!r} is not HOST:PORT.") from error


def _read(directory: Path) -> dict[str, Any]:
    try:
        with as_directory_errors(directory), (directory / CONFIGURATION_NAME).open("rb") as file:
            content = file.read(CONFIGURATION_BYTES_MAX + 1)
        if len(content) > CONFIGURATION_BYTES_MAX:
            what = f"{CONFIGURATION_NAME} has more than {CONFIGURATION_BYTES_MAX} bytes."
            raise Refused(Code.CONFIGURATION_WRONG, what)
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME} is not UTF-8.") from error
    except RecursionError as error:
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME} is nested too deep.") from error
    except tomllib.TOMLDecodeError as error:
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME} is no TOML: {error}.") from error


def _environment(keys: tuple[str, ...]) -> dict[str, Any]:
    """What the environment says of these keys, as the file would say it."""
    given: dict[str, Any] = {}
    for variable, value in os.environ.items():
        key, within, inner = variable.removeprefix(_PREFIX).lower().partition(_WITHIN)
        if not variable.startswith(_PREFIX) or key not in keys:
            continue
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refused(Code.CONFIGURATION_WRONG, f"the environment: {key}: it is not UTF-8.") from error
        given = _over(given, {key: {inner: value} if within else value})
    return given


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two settings in one; of tables each key for itself."""
    merged = dict(below)
    for key, value in above.items():
        table = merged.get(key)
        merged[key] = {**table, **value} if isinstance(table, dict) and isinstance(value, dict) else value
    return merged


def _wrong(given: Mapping[str, Any], error: msgspec.ValidationError) -> Refused:
    found = _PLACE.fullmatch(str(error))
    says, table = (found["says"], found["table"] or "") if found else (str(error), "")
    place, plain = [table] if table else [], "it does not fit"
    for pattern, words in _PLAIN:
        if named := pattern.fullmatch(says):
            place, plain = [*place, *named.groups()], words
            break
    key = ".".join(place)
    where = "the environment" if key.split(".")[0] in given else CONFIGURATION_NAME
    shown = key[:60] if key.isprintable() else repr(key[:60])
    return Refused(Code.CONFIGURATION_WRONG, f"{where}: {shown}: {plain}.")

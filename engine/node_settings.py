"""Reads node.toml: the file, the environment before it, and plain sentences for what does not fit."""

import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from engine.directory import CONFIGURATION_NAME, as_directory_errors, parse_address, require_node
from engine.errors import Code, PackhorseError, Refused
from engine.limits import CONFIGURATION_BYTES_MAX

Settings = TypeVar("Settings", bound=BaseSettings)
LogFormat = Literal["", "json", "text"]
_PLAIN = {
    "extra_forbidden": "there is no such key",
    "missing": "it is missing",
    "string_type": "it must be a text",
    "path_type": "it must be the name of a file",
    "model_type": "it must be a table",
    "literal_error": "no such word is allowed there",
}
"""What pydantic says, by its type of error, in the words of a person who edits the file."""


def read_settings(directory: Path, role: str, settings: type[Settings]) -> Settings:
    """The settings of a node of that role.

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
    try:
        environment = settings().model_dump(exclude_unset=True)
    except (ValidationError, SettingsError, RecursionError) as error:
        raise _wrong("the environment", error) from error
    try:
        return settings.model_validate({**written, **environment})
    except ValidationError as error:
        raise _wrong(CONFIGURATION_NAME, error) from error


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


def _wrong(where: str, error: ValidationError | SettingsError | RecursionError) -> Refused:
    if not isinstance(error, ValidationError):
        return Refused(Code.CONFIGURATION_WRONG, f"{where}: a value cannot be read.")
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return Refused(Code.CONFIGURATION_WRONG, f"{where}: {key[:60]}: {_PLAIN.get(first['type'], first['msg'])}.")

"""Reads node.toml: the file, the environment before it, and plain sentences for what does not fit."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from engine.directory import CONFIGURATION_NAME, as_directory_errors, require_node
from engine.errors import Code, Refused

Settings = TypeVar("Settings", bound=BaseSettings)


def read_settings(directory: Path, role: str, settings: type[Settings]) -> Settings:
    """The settings of a node of that role.

    Raises:
        Refused: DIRECTORY_WRONG where the directory is no node's or that of another role, CONFIGURATION_WRONG with the
            key that does not fit.
    """
    require_node(directory)
    try:
        with as_directory_errors(directory):
            written = tomllib.loads((directory / CONFIGURATION_NAME).read_text())
        if written.get("role") != role:
            raise Refused(Code.DIRECTORY_WRONG, f"{directory} is no directory of a {role} node.")
        environment = settings().model_dump(exclude_unset=True)
        return settings.model_validate({**written, **environment})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME} is no TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME}: {where}: {first['msg']}.") from error

"""node.toml of a site: its defaults, its reading and its writing."""

import tomllib
from pathlib import Path

import tomlkit
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.directory import CONFIGURATION_NAME, as_directory_errors, parse_address, require_node, write_private
from engine.errors import Code, Refused
from engine.rpc.options import CENTRAL_CERTIFICATE_NAME

CA_NAME = "ca.pem"


class SiteConfiguration(BaseSettings):
    """What node.toml says; PACKHORSE_CENTRAL, ... in the environment come before it."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix="PACKHORSE_")
    role: str = "site"
    name: str = ""
    central: str = ""
    server_name: str = CENTRAL_CERTIFICATE_NAME
    log_format: str = ""


def write_configuration(directory: Path, name: str, central: str, server_name: str) -> None:
    """Writes the file that `join` leaves behind."""
    document = tomlkit.document()
    document.add(tomlkit.comment("A Packhorse site. Changes take effect when the daemon starts again."))
    document["role"], document["name"] = "site", name
    document.add(tomlkit.comment("HOST:PORT of the central node."))
    document["central"] = central
    document.add(
        tomlkit.comment("The name that the central's certificate must carry; empty: the host that is dialled.")
    )
    document["server_name"] = server_name
    write_private(directory / CONFIGURATION_NAME, tomlkit.dumps(document).encode())


def read_configuration(directory: Path) -> SiteConfiguration:
    """Reads node.toml and the environment. Raises Refused with DIRECTORY_WRONG or CONFIGURATION_WRONG."""
    require_node(directory)
    try:
        with as_directory_errors(directory):
            written = tomllib.loads((directory / CONFIGURATION_NAME).read_text())
        environment = SiteConfiguration().model_dump(exclude_unset=True)
        found = SiteConfiguration.model_validate({**written, **environment})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME} is no TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(Code.CONFIGURATION_WRONG, f"{CONFIGURATION_NAME}: {where}: {first['msg']}.") from error
    if found.role != "site":
        raise Refused(Code.DIRECTORY_WRONG, f"{directory} belongs to a {found.role} node, not to a site.")
    parse_address(found.central)
    return found

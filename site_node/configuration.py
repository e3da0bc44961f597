"""node.toml of a site: its defaults, its reading and its writing."""

from pathlib import Path
from typing import Literal

import msgspec

from engine.directory import CONFIGURATION_NAME, write_private
from engine.node_settings import LogFormat, checked_address, read_settings
from engine.rpc.options import CENTRAL_CERTIFICATE_NAME

CA_NAME = "ca.pem"


class SiteConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What node.toml says; PACKHORSE_CENTRAL, ... in the environment come before it."""

    role: Literal["site"] = "site"
    name: str = ""
    central: str = ""
    server_name: str = CENTRAL_CERTIFICATE_NAME
    log_format: LogFormat = ""


def write_configuration(directory: Path, name: str, central: str, server_name: str) -> None:
    """Writes the file that `join` leaves behind."""
    import tomlkit  # noqa: PLC0415 - every other command is quicker without it

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
    found = read_settings(directory, "site", SiteConfiguration)
    checked_address("central", found.central)
    return found

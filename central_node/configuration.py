"""node.toml of a central node: its defaults, its reading and its writing."""

from pathlib import Path
from typing import Literal

import msgspec

from engine.directory import CONFIGURATION_NAME, write_private
from engine.node_settings import LogFormat, checked_address, read_settings

DEFAULT_GRPC = "0.0.0.0:7443"
DEFAULT_WEB = "127.0.0.1:7480"


class GivenCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files of a certificate that was bought or made elsewhere; sites then check the host name they dial."""

    certificate: str
    key: str


class CentralConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What node.toml says; PACKHORSE_NAME, PACKHORSE_GRPC, ... in the environment come before it."""

    role: Literal["central"] = "central"
    name: str = "central"
    grpc: str = DEFAULT_GRPC
    web: str = DEFAULT_WEB
    log_format: LogFormat = ""
    tls: GivenCertificate | None = None


def write_configuration(directory: Path, name: str, grpc: str, web: str) -> None:
    """Writes the file that `init` leaves behind."""
    import tomlkit  # noqa: PLC0415 - every other command is quicker without it

    document = tomlkit.document()
    document.add(tomlkit.comment("A Packhorse central node. Changes take effect when the daemon starts again."))
    document["role"], document["name"] = "central", name
    document.add(tomlkit.comment("Where sites connect, with TLS."))
    document["grpc"] = grpc
    document.add(tomlkit.comment("Where /livez, /readyz and /metrics are served, without TLS: keep it local."))
    document["web"] = web
    write_private(directory / CONFIGURATION_NAME, tomlkit.dumps(document).encode())


def read_configuration(directory: Path) -> CentralConfiguration:
    """Reads node.toml and the environment. Raises Refused with DIRECTORY_WRONG or CONFIGURATION_WRONG."""
    found = read_settings(directory, "central", CentralConfiguration)
    for key, address in (("grpc", found.grpc), ("web", found.web)):
        checked_address(key, address)
    return found

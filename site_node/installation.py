"""The install secret: the site's credential, kept outside its directory and bound to it (F13).

A copy of the directory lacks the file on another machine; on the same machine the file names the directory that it
belongs to, by path and by inode. Moving a directory keeps its inode, restoring a backup in place keeps its path; a copy
has neither. What is restored in place is found by its lineage token.
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from engine.directory import as_directory_errors, write_private
from engine.errors import Code, Refused

STATE_VARIABLE = "PACKHORSE_STATE"


class Installation(NamedTuple):
    """An installation of a site."""

    id: str
    credential: bytes


def state_directory() -> Path:
    """Where install secrets lie: $PACKHORSE_STATE, else the system's or the user's state directory."""
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/packhorse")
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "packhorse"


def write_installation(directory: Path, installation: Installation) -> None:
    """Binds a credential to a directory, durably."""
    folder = state_directory()
    with as_directory_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    told = {"credential": installation.credential.hex(), **_place(directory)}
    write_private(folder / installation.id, json.dumps(told).encode())


def read_installation(directory: Path, installation_id: str) -> Installation:
    """The installation that a directory belongs to.

    Raises:
        Refused: LINEAGE_BROKEN where the secret is missing, COPIED where it belongs to another directory.
    """
    path = state_directory() / installation_id
    try:
        if not re.fullmatch(r"[0-9a-f]{32}", installation_id):
            raise ValueError("no installation id")
        told = json.loads(path.read_bytes())
        credential = bytes.fromhex(told["credential"])
        if len(credential) != 32:
            raise ValueError("not 32 bytes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            Code.LINEAGE_BROKEN, f"The install secret of {directory} is not on this machine ({path})."
        ) from error
    here = _place(directory)
    moved, restored = told.get("directory") != here["directory"], _inode(told) != _inode(here)
    if moved and restored:
        raise Refused(Code.COPIED, f"{directory} is a copy of {told.get('directory')}.")
    installation = Installation(installation_id, credential)
    if moved or restored:
        write_installation(directory, installation)
    return installation


def _place(directory: Path) -> dict[str, object]:
    with as_directory_errors(directory):
        status = directory.stat()
    return {"directory": str(directory.resolve()), "device": status.st_dev, "inode": status.st_ino}


def _inode(told: dict[str, object]) -> tuple[object, object]:
    return told.get("device"), told.get("inode")

"""The commands of a site; the daemon and the command line share them."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.x509 import load_pem_x509_certificates
from packhorse.enrolment.v1 import enrolment_pb2

from engine.catalogue.descriptors import catalogue
from engine.command_line import Arguments, plan_import
from engine.directory import CONFIGURATION_NAME, DirectoryLock, as_directory_errors, parse_address, write_private
from engine.errors import Code, Refused
from engine.rpc.local_channel import Command, Progress
from engine.rpc.options import CENTRAL_CERTIFICATE_NAME
from engine.rpc.token import EnrolmentToken, read_token
from engine.storage.aiosqlite_database import open_database
from engine.storage.csv_import import write_import
from engine.storage.database import Database
from engine.storage.sqlite_file import DATABASE_NAME
from site_node.configuration import CA_NAME, read_configuration, write_configuration
from site_node.connection import Central, dial, enrol
from site_node.installation import Installation, write_installation
from site_node.node import Ended, SiteNode
from site_node.storage.notes import found_site, read_status

_JOINING_NAME = "joining.json"
_ATTEMPTS = 5


async def join(directory: Path, central: str, token_text: str, ca: Path | None, progress: Progress) -> dict[str, Any]:
    """Enrols at a central node and initialises; may be repeated when it was interrupted.

    Raises:
        Refused: TOKEN_UNREADABLE, TOKEN_USED, CERTIFICATE_WRONG, ADDRESS_WRONG, DIRECTORY_TAKEN, ...
        Unavailable: UNREACHABLE.
    """
    parse_address(central)
    token = read_token(token_text)
    ca_certificate = _ca_certificate(token, ca)
    with as_directory_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    if (directory / CONFIGURATION_NAME).exists():
        raise Refused(Code.DIRECTORY_TAKEN, f"{directory} belongs to a node already.")
    server_name = CENTRAL_CERTIFICATE_NAME if token.ca_certificate else ""
    with DirectoryLock(directory):
        await _enrol(directory, Central(central, ca_certificate, server_name), token)
        result = await synchronise_directly(directory, progress)
    return {**result, "directory": str(directory.absolute())}


def _ca_certificate(token: EnrolmentToken, ca: Path | None) -> bytes:
    if ca is not None:
        try:
            given = ca.read_bytes()
            load_pem_x509_certificates(given)
        except OSError as error:
            what = f"{ca} cannot be read ({os.strerror(error.errno or 0)})."
            raise Refused(Code.CERTIFICATE_WRONG, what) from error
        except ValueError as error:
            raise Refused(Code.CERTIFICATE_WRONG, f"{ca} holds no certificate in PEM.") from error
        return given
    if not token.ca_certificate:
        raise Refused(Code.CERTIFICATE_WRONG, "This token holds no CA certificate: give the file with --ca.")
    return token.ca_certificate


async def _enrol(directory: Path, central: Central, token: EnrolmentToken) -> None:
    """Becomes the site of the token. What was drawn is kept until it is done: a repeat is the same installation."""
    kept = directory / _JOINING_NAME
    drawn = {"installation": secrets.token_hex(16), "epoch": secrets.token_hex(16), "credential": secrets.token_hex(32)}
    name = hashlib.sha256(token.secret).hexdigest()
    if kept.is_file():
        before = json.loads(kept.read_bytes())
        drawn = before["drawn"] if before.get("token") == name else drawn
    write_private(kept, json.dumps({"token": name, "drawn": drawn}).encode())
    credential = bytes.fromhex(drawn["credential"])
    write_installation(directory, Installation(drawn["installation"], credential))
    request = enrolment_pb2.EnrolRequest(
        secret=token.secret,
        installation=drawn["installation"],
        credential_hash=hashlib.sha256(credential).digest(),
        epoch=bytes.fromhex(drawn["epoch"]),
    )
    enrolled = await enrol(central, request)
    database = await open_database(directory / DATABASE_NAME, catalogue(), make=True)
    try:
        await database.write(
            lambda connection: found_site(
                connection, enrolled.site, enrolled.name, drawn["installation"], bytes.fromhex(drawn["epoch"])
            )
        )
    finally:
        await database.close()
    write_private(directory / CA_NAME, central.ca_certificate)
    # Last, so that a directory is a node's only when everything in it is.
    write_configuration(directory, enrolled.name, central.address, central.server_name)
    kept.unlink()


async def synchronise_directly(directory: Path, progress: Progress) -> dict[str, Any]:
    """Synchronises where no daemon runs. The caller owns the directory.

    A session that was cut after it had moved something is followed by another; what was committed stays committed.
    """
    configuration = read_configuration(directory)
    database = await open_database(directory / DATABASE_NAME, catalogue())
    try:
        node = SiteNode(database, catalogue(), dial(directory, configuration))
        node.told = progress
        fruitless = 0
        while True:
            ended = await node.synchronise()
            if ended.error is None or not ended.error.advice.retry:
                break
            fruitless = 0 if ended.tally.progressed else fruitless + 1
            if fruitless >= _ATTEMPTS or ended.error.code is Code.UNREACHABLE:
                break
        return await sync_result(database, ended)
    finally:
        await database.close()


async def sync_result(database: Database, ended: Ended) -> dict[str, Any]:
    """What `sync` tells: what moved, what is held, whether both sides agree."""
    status = await database.read(lambda connection: read_status(connection, True, {}))
    tally, error = ended.tally, ended.error
    return {
        "site": status["site"],
        "name": status["name"],
        "in_agreement": bool(error is None and tally.report and tally.report.in_agreement),
        "state": status["state"],
        "pushed": tally.pushed,
        "pulled": tally.pulled,
        "rounds": tally.rounds,
        "resumed_frames": tally.resumed_frames,
        "bytes_sent": tally.bytes_sent,
        "bytes_received": tally.bytes_received,
        "waiting_to_push": status["waiting_to_push"],
        "held": status["held"],
        "held_documents": status["held_documents"],
        "differing": status["differing"],
        "error": {"code": error.code.value, "sentence": error.sentence} if error is not None else None,
    }


def daemon_commands(node: SiteNode) -> Mapping[str, Command]:
    """What the daemon does for the command line."""
    return _commands(node.database, node)


def _commands(database: Database, node: SiteNode | None) -> dict[str, Command]:
    """The commands on an open database; `node` is the running daemon's, None where none runs."""

    async def imports(arguments: Arguments) -> dict[str, Any]:
        return await database.write(partial(write_import, plan=plan_import(arguments)))

    async def status(_: Arguments) -> dict[str, Any]:
        unnoted = node.unnoted if node is not None else {}
        return await database.read(lambda connection: read_status(connection, node is not None, unnoted))

    return {"import": imports, "status": status}


async def directly(directory: Path, command: str, arguments: Arguments) -> dict[str, Any]:
    """Does a command where no daemon runs. The caller owns the directory."""
    read_configuration(directory)
    database = await open_database(directory / DATABASE_NAME, catalogue())
    try:
        return await _commands(database, None)[command](arguments)
    finally:
        await database.close()

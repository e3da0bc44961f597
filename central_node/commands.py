"""The commands of a central node, each a function on its database; the daemon and the command line share them."""

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from central_node.certificates import CA_NAME, make_certificates, read_ca
from central_node.configuration import CentralConfiguration, read_configuration, write_configuration
from central_node.node import CentralNode
from central_node.storage.follow_up import do_follow_up
from central_node.storage.roster import expect_site
from central_node.storage.status import read_sites, read_status
from central_node.storage.steps import refresh_topology, route_own
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, found_central
from central_node.store_commands import StoreCommands, check_name
from engine.catalogue.descriptors import catalogue
from engine.command_line import Arguments, plan_import
from engine.directory import CONFIGURATION_NAME, DirectoryLock, as_directory_errors, parse_address
from engine.errors import Code, Refused, Unavailable
from engine.rpc.local_channel import Command, check_arguments
from engine.rpc.token import EnrolmentToken, write_token
from engine.storage.aiosqlite_database import open_database
from engine.storage.configuration import read_topology
from engine.storage.csv_import import write_import
from engine.storage.database import Database
from engine.storage.sqlite_file import DATABASE_NAME


async def initialise(directory: Path, name: str, grpc: str, web: str) -> None:
    """Makes a directory that of a new central node.

    Raises:
        Refused: NAME_WRONG, ADDRESS_WRONG, or DIRECTORY_TAKEN where it is a node's already.
    """
    check_name(name)
    for address in (grpc, web):
        parse_address(address)
    with as_directory_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    if (directory / CONFIGURATION_NAME).exists():
        raise Refused(Code.DIRECTORY_TAKEN, f"{directory} belongs to a node already.")
    if (directory / DATABASE_NAME).exists():
        what = (
            f"{directory} holds a {DATABASE_NAME} but no {CONFIGURATION_NAME}: that was lost, or an `init` was cut off."
        )
        raise Refused(Code.DIRECTORY_TAKEN, what)
    with DirectoryLock(directory):
        make_certificates(directory, name)
        database = await open_database(directory / DATABASE_NAME, catalogue(), CENTRAL_TABLES, make=True)
        try:
            await database.write(partial(found_central, catalogue=catalogue(), name=name))
            await _route(database)
        finally:
            await database.close()
        # Last, so that a directory is a node's only when everything in it is.
        write_configuration(directory, name, grpc, web)


async def directly(directory: Path, command: str, arguments: Arguments) -> dict[str, Any]:
    """Does a command where no daemon runs. The caller owns the directory."""
    configuration = read_configuration(directory)
    database = await open_database(directory / DATABASE_NAME, catalogue(), CENTRAL_TABLES)
    try:
        done = await _Commands(directory, configuration, database, None).by_name()[command](arguments)
        await _route(database)
        return done
    finally:
        await database.close()


def daemon_commands(directory: Path, node: CentralNode) -> Mapping[str, Command]:
    """What the daemon does for the command line."""
    return _Commands(directory, read_configuration(directory), node.database, node).by_name()


class _Commands:
    """The commands on an open database; `node` is the running daemon's, None where none runs."""

    def __init__(
        self, directory: Path, configuration: CentralConfiguration, database: Database, node: CentralNode | None
    ) -> None:
        self._directory, self._configuration, self._database, self._node = directory, configuration, database, node

    def by_name(self) -> dict[str, Command]:
        """The commands as the command line names them."""
        return {
            "import": self._import,
            "site add": self._site_add,
            "site list": self._site_list,
            "site show": self._site_show,
            "status": self._status,
            **StoreCommands(self._database, catalogue(), self._settled).by_name(),
        }

    async def _import(self, arguments: Arguments) -> dict[str, Any]:
        plan = plan_import(arguments)
        return await self._settled(await self._database.write(partial(write_import, plan=plan)))

    async def _site_add(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, name=str)
        secret, name, now = secrets.token_bytes(32), arguments["name"].strip(), int(time.time())
        check_name(name)

        def add(connection: sqlite3.Connection) -> int:
            number = expect_site(connection, name, secret, now)
            add_site(connection, number, name)
            return number

        number = await self._database.write(add)
        return await self._settled(_told(self._directory, self._configuration, number, name, secret))

    async def _site_list(self, _: Arguments) -> dict[str, Any]:
        return {"sites": await self._sites()}

    async def _site_show(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, site=int)
        number = arguments["site"]
        found = next((site for site in await self._sites() if site["site"] == number), None)
        if found is None:
            raise Refused(Code.SITE_UNKNOWN, f"There is no site {number}.")
        topology = await self._database.read(read_topology)
        copies = [{"store": copy.store_id, "copy": copy.type.value} for copy in topology.copies_at(number)]
        return {**found, "stores": copies}

    async def _status(self, _: Arguments) -> dict[str, Any]:
        running, connected = self._node is not None, self._connected()
        trouble = self._node.trouble if self._node is not None else None
        return await self._database.read(
            lambda c: read_status(c, self._configuration.name, connected, running, trouble)
        )

    async def _sites(self) -> list[dict[str, Any]]:
        running, connected = self._node is not None, self._connected()
        return await self._database.read(lambda c: read_sites(c, connected, running))

    def _connected(self) -> set[int]:
        return set(self._node.sessions) if self._node is not None else set()

    async def _settled(self, result: dict[str, Any]) -> dict[str, Any]:
        """Returns a result once everything that was committed is in the feeds."""
        if self._node is not None:
            try:
                await self._node.settle()
            except Unavailable:
                pass  # it is done and durable; the feeds follow when there is room again
        return result


async def _route(database: Database) -> None:
    topology = await database.write(partial(refresh_topology, catalogue=catalogue()))
    work: Callable[..., Any] = route_own
    while True:
        taken, topology = await database.write(
            partial(work, catalogue=catalogue(), topology=topology, now=int(time.time()))
        )
        _, done = await database.write(partial(do_follow_up, catalogue=catalogue(), topology=topology))
        if not taken.records and not done:
            return


def _told(
    directory: Path, configuration: CentralConfiguration, number: int, name: str, secret: bytes
) -> dict[str, Any]:
    own = configuration.tls is None
    certificate = read_ca(directory) if own else b""
    token = write_token(EnrolmentToken(secret, certificate))
    address = configuration.grpc.replace("0.0.0.0", "CENTRAL_HOST").replace("[::]", "CENTRAL_HOST")  # noqa: S104 - a text
    given = "" if own else " --ca CA.pem"
    return {
        "site": number,
        "name": name,
        "token": token,
        "ca": str((directory / CA_NAME).absolute()) if own else "",
        "command": f"site-node join DIR --central {address} --token {token}{given}",
    }

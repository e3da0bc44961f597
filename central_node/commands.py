"""The commands of a central node, each a function on its database; the daemon and the command line share them."""

import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from central_node.certificates import CA_NAME, make_certificates
from central_node.configuration import CentralConfiguration, read_configuration, write_configuration
from central_node.node import CentralNode
from central_node.storage.roster import expect_site
from central_node.storage.status import read_sites, read_status
from central_node.storage.steps import refresh_topology, route_own
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, assign_store, found_central
from engine.catalogue.descriptors import catalogue
from engine.command_line import Arguments, plan_import
from engine.directory import CONFIGURATION_NAME, DirectoryLock, as_directory_errors
from engine.errors import Code, Refused
from engine.rpc.local_channel import Command
from engine.rpc.token import EnrolmentToken, write_token
from engine.rules.topology import CopyType
from engine.storage.aiosqlite_database import open_database
from engine.storage.configuration import read_topology
from engine.storage.csv_import import write_import
from engine.storage.database import Database
from engine.storage.sqlite_file import DATABASE_NAME


async def initialise(directory: Path, name: str, grpc: str, web: str) -> None:
    """Makes a directory that of a new central node. Raises Refused with DIRECTORY_WRONG where it is one already."""
    with as_directory_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    if (directory / CONFIGURATION_NAME).exists() or (directory / DATABASE_NAME).exists():
        raise Refused(Code.DIRECTORY_WRONG, f"{directory} belongs to a node already.")
    with DirectoryLock(directory):
        make_certificates(directory, name)
        database = await open_database(directory / DATABASE_NAME, catalogue(), CENTRAL_TABLES)
        try:
            await database.write(partial(found_central, name=name))
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
        done = await _commands(directory, configuration, database, None)[command](arguments)
        await _route(database)
        return done
    finally:
        await database.close()


def daemon_commands(directory: Path, node: CentralNode) -> Mapping[str, Command]:
    """What the daemon does for the command line."""
    return _commands(directory, read_configuration(directory), node.database, node)


def _commands(
    directory: Path, configuration: CentralConfiguration, database: Database, node: CentralNode | None
) -> dict[str, Command]:
    async def imports(arguments: Arguments) -> dict[str, Any]:
        plan = plan_import(arguments)
        return await settled(await database.write(partial(write_import, plan=plan)))

    async def site_add(arguments: Arguments) -> dict[str, Any]:
        secret, name, now = secrets.token_bytes(32), str(arguments["name"]).strip(), int(time.time())
        if not name or len(name) > 200:
            raise Refused(Code.NAME_TAKEN, "A site needs a name of 1 to 200 characters.")

        def add(connection: Any) -> int:
            number = expect_site(connection, name, secret, now)
            add_site(connection, number, name)
            return number

        number = await database.write(add)
        return await settled(_told(directory, configuration, number, name, secret))

    async def store_assign(arguments: Arguments) -> dict[str, Any]:
        central = CopyType(arguments["central"])
        if central not in (CopyType.COLLECTOR, CopyType.TRANSFER):
            raise Refused(Code.CONFIGURATION_WRONG, "The central's copy is a collector or a transfer copy.")
        await settled({})

        def assign(connection: Any) -> dict[str, Any]:
            topology = read_topology(connection)
            return assign_store(connection, catalogue(), topology, arguments["store"], int(arguments["site"]), central)

        return await settled(await database.write(assign))

    async def site_list(_: Arguments) -> dict[str, Any]:
        return {"sites": await database.read(lambda c: read_sites(c, connected(), node is not None))}

    async def site_show(arguments: Arguments) -> dict[str, Any]:
        number = int(arguments["site"])
        sites = await database.read(lambda c: read_sites(c, connected(), node is not None))
        found = next((site for site in sites if site["site"] == number), None)
        if found is None:
            raise Refused(Code.SITE_UNKNOWN, f"There is no site {number}.")
        topology = await database.read(read_topology)
        copies = [{"store": c.store_id, "copy": c.type.value} for c in topology.copies_at(number)]
        return {**found, "stores": copies}

    async def status(_: Arguments) -> dict[str, Any]:
        return await database.read(lambda c: read_status(c, configuration.name, connected(), node is not None))

    def connected() -> set[int]:
        return set(node.sessions) if node is not None else set()

    async def settled(result: dict[str, Any]) -> dict[str, Any]:
        if node is not None:
            await node.settle()
        return result

    return {
        "import": imports,
        "site add": site_add,
        "store assign": store_assign,
        "site list": site_list,
        "site show": site_show,
        "status": status,
    }


async def _route(database: Database) -> None:
    topology = await database.write(refresh_topology)
    work: Callable[..., Any] = route_own
    while True:
        taken, topology = await database.write(partial(work, catalogue=catalogue(), topology=topology))
        if not taken.records:
            return


def _told(
    directory: Path, configuration: CentralConfiguration, number: int, name: str, secret: bytes
) -> dict[str, Any]:
    own = configuration.tls is None
    certificate = (directory / CA_NAME).read_bytes() if own else b""
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

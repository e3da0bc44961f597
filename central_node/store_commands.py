"""The commands about stores, their copies and visibility; the daemon and the command line share them."""

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from central_node.storage.effects import Change, change_topology
from central_node.storage.stores import (
    add_store,
    add_visibility,
    edit_store,
    list_stores,
    list_visibility,
    remove_visibility,
    show_store,
)
from central_node.storage.topology import assign_store, include_transactions, set_sync_with
from engine.catalogue.model import Catalogue
from engine.command_line import Arguments
from engine.errors import Code, Refused
from engine.rpc.local_channel import Command, check_arguments
from engine.rules.copies import SyncWith
from engine.rules.topology import CopyType
from engine.storage.configuration import read_topology
from engine.storage.database import Database

Settled = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Returns a result once everything that was committed is in the feeds."""
_NAME_BYTES_MAX = 200


class StoreCommands:
    """The commands on an open database of these tables."""

    def __init__(self, database: Database, catalogue: Catalogue, settled: Settled) -> None:
        self._database, self._catalogue, self._settled = database, catalogue, settled

    def by_name(self) -> dict[str, Command]:
        """The commands as the command line names them."""
        return {
            "store add": self._add,
            "store edit": self._edit,
            "store list": self._list,
            "store show": self._show,
            "store assign": self._assign,
            "store sync-with": self._sync_with,
            "store include-transactions": self._include_transactions,
            "visibility add": self._visibility_add,
            "visibility remove": self._visibility_remove,
            "visibility list": self._visibility_list,
        }

    async def _change(self, change: Change, arguments: Arguments) -> dict[str, Any]:
        """Makes a change on top of everything that was committed before it."""
        await self._settled({})
        work = partial(
            change_topology, catalogue=self._catalogue, change=change, dry_run=bool(arguments.get("dry_run"))
        )
        return await self._settled(await self._database.write(work))

    async def _add(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, name=str, code=str, mode=str, id=str)
        name, code, mode = arguments["name"], arguments["code"], arguments["mode"]
        check_name(name)
        return await self._change(lambda c: add_store(c, name, code, mode, arguments["id"]), arguments)

    async def _edit(self, arguments: Arguments) -> dict[str, Any]:
        settings = {key: arguments[key] for key in ("name", "code", "mode") if arguments.get(key) is not None}
        check_arguments(arguments, store=str, **dict.fromkeys(settings, str))
        if "name" in settings:
            check_name(settings["name"])
        return await self._change(lambda c: edit_store(c, arguments["store"], settings), arguments)

    async def _list(self, _: Arguments) -> dict[str, Any]:
        return {"stores": await self._database.read(lambda c: list_stores(c, read_topology(c)))}

    async def _show(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, store=str)
        return await self._database.read(lambda c: show_store(c, read_topology(c), arguments["store"]))

    async def _assign(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, store=str, site=int, central=str)
        if arguments["central"] not in (CopyType.COLLECTOR, CopyType.TRANSFER):
            raise Refused(Code.COMMAND_WRONG, f"The central holds no copy of the type {arguments['central'][:60]!r}.")
        site, central = arguments["site"], CopyType(arguments["central"])

        def assign(connection: sqlite3.Connection) -> dict[str, Any]:
            topology = read_topology(connection)
            return assign_store(connection, self._catalogue, topology, arguments["store"], site, central)

        return await self._change(assign, arguments)

    async def _sync_with(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, store=str, site=int, sync_with=str)
        if arguments["sync_with"] not in set(SyncWith):
            raise Refused(Code.COMMAND_WRONG, f"There is no way to sync with called {arguments['sync_with'][:60]!r}.")
        site, wanted = arguments["site"], SyncWith(arguments["sync_with"])
        return await self._change(
            lambda c: set_sync_with(c, self._catalogue, arguments["store"], site, wanted), arguments
        )

    async def _include_transactions(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, store=str, included=bool)
        included = arguments["included"]
        return await self._change(lambda c: include_transactions(c, arguments["store"], included), arguments)

    async def _visibility_add(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, table=str, id=str, store=str)
        table, record_id, store = arguments["table"], arguments["id"], arguments["store"]
        return await self._change(lambda c: add_visibility(c, self._catalogue, table, record_id, store), arguments)

    async def _visibility_remove(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, table=str, id=str, store=str)
        table, record_id, store = arguments["table"], arguments["id"], arguments["store"]
        return await self._change(lambda c: remove_visibility(c, self._catalogue, table, record_id, store), arguments)

    async def _visibility_list(self, arguments: Arguments) -> dict[str, Any]:
        check_arguments(arguments, table=str, store=str)
        table, store = arguments["table"], arguments["store"]
        return {"visible": await self._database.read(lambda c: list_visibility(c, self._catalogue, table, store))}


def check_name(name: str) -> None:
    """Raises Refused with NAME_WRONG unless people can read and type the name."""
    if not (0 < len(name) <= _NAME_BYTES_MAX and name.isprintable() and name.strip() == name):
        raise Refused(Code.NAME_WRONG, f"{name[:60]!r} is no name.")

"""The commands `central-node store ...` and `central-node visibility ...`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from central_node.local_command import do
from engine.command_line import DIRECTORY, TEXT, json_option, show_fields

Decorated = TypeVar("Decorated", bound=Callable[..., object])


def _dry_run(command: Decorated) -> Decorated:
    text = "Change nothing; tell which copies change and who gains and loses what."
    return click.option("--dry-run", is_flag=True, help=text)(command)


_MODE = click.Choice(["store", "dispensary"])


@click.group()
def store() -> None:
    """Stores: their records, where each is active and who else holds a copy."""


@store.command("add")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("name", type=TEXT)
@click.option("--id", "store_id", type=TEXT, default="", help="Its id. Left out: one is made.")
@click.option("--code", type=TEXT, default="", help="Short code, shown before the name.")
@click.option("--mode", type=_MODE, default="store", show_default=True, help="Whether it dispenses to patients.")
@_dry_run
@json_option
def add(directory: Path, name: str, store_id: str, code: str, mode: str, dry_run: bool, as_json: bool) -> None:
    """Add a store, with the name under which other stores trade with it. Only where the primary is this node."""
    arguments = {"name": name, "id": store_id, "code": code, "mode": mode, "dry_run": dry_run}
    result = do(directory, "store add", arguments, as_json)
    if not as_json:
        click.echo(f"Store {result['name']} has the id {result['store']}.")
        _show_effects(result)


@store.command("edit")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("store_id", type=TEXT, metavar="STORE")
@click.option("--name", type=TEXT, default=None, help="Its new name.")
@click.option("--code", type=TEXT, default=None, help="Its new code.")
@click.option("--mode", type=_MODE, default=None, help="Whether it dispenses to patients.")
@_dry_run
@json_option
def edit(
    directory: Path, store_id: str, name: str | None, code: str | None, mode: str | None, dry_run: bool, as_json: bool
) -> None:
    """Change the record of a store. Only where the primary is this node."""
    arguments = {"store": store_id, "name": name, "code": code, "mode": mode, "dry_run": dry_run}
    result = do(directory, "store edit", arguments, as_json)
    if not as_json:
        click.echo(f"Store {result['store']}: {result['name']}, code {result['code'] or '-'}, {result['mode']}.")
        _show_effects(result)


@store.command("list")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@json_option
def list_(directory: Path, as_json: bool) -> None:
    """List the stores with the site where each is active."""
    result = do(directory, "store list", {}, as_json)
    if not as_json:
        _show_table(("store", "code", "name", "mode", "site"), result["stores"])  # type: ignore[arg-type]


@store.command("show")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("store_id", type=TEXT, metavar="STORE")
@json_option
def show(directory: Path, store_id: str, as_json: bool) -> None:
    """Show a store and what each site holds of it: the Synchronisation tab."""
    result = do(directory, "store show", {"store": store_id}, as_json)
    if not as_json:
        show_fields(result)
        _show_table(("site", "site_name", "type", "sync_with"), result["copies"])  # type: ignore[arg-type]


@store.command("assign")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("store_id", type=TEXT, metavar="STORE")
@click.option("--site", "number", type=int, required=True, help="The site where the store is active; 1 is the central.")
@click.option(
    "--central",
    type=click.Choice(["collector", "transfer"]),
    default="collector",
    show_default=True,
    help="What the central holds: all of the store's data, or its record only.",
)
@_dry_run
@json_option
def assign(directory: Path, store_id: str, number: int, central: str, dry_run: bool, as_json: bool) -> None:
    """Make a site the one where a store is active, i.e. where its data are edited."""
    arguments = {"store": store_id, "site": number, "central": central, "dry_run": dry_run}
    result = do(directory, "store assign", arguments, as_json)
    if not as_json:
        click.echo(
            f"Store {result['name']} is active at site {result['site']}; the central's copy: {result['central']}."
        )
        _show_effects(result)


@store.command("sync-with")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("store_id", type=TEXT, metavar="STORE")
@click.option("--site", "number", type=int, required=True, help="The site that holds the copy.")
@click.argument("sync_with", type=click.Choice(["none", "active-collector", "transfer"]))
@_dry_run
@json_option
def sync_with(directory: Path, store_id: str, number: int, sync_with: str, dry_run: bool, as_json: bool) -> None:
    """Choose what a site holds of a store: all of its data (active-collector), its record only (transfer), or nothing.

    A store can be chosen where it is visible to another store that is active there; the central and the primary hold
    at least its record.
    """
    arguments = {"store": store_id, "site": number, "sync_with": sync_with, "dry_run": dry_run}
    result = do(directory, "store sync-with", arguments, as_json)
    if not as_json:
        click.echo(f"Store {result['name']} at site {result['site']}: {result['copy']}.")
        _show_effects(result)


@store.command("include-transactions")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("store_id", type=TEXT, metavar="STORE")
@click.argument("included", type=click.Choice(["on", "off"]))
@_dry_run
@json_option
def include_transactions(directory: Path, store_id: str, included: str, dry_run: bool, as_json: bool) -> None:
    """Choose whether a dispensary store's transactions, stock and stocktakes leave its site. On for new stores."""
    arguments = {"store": store_id, "included": included == "on", "dry_run": dry_run}
    result = do(directory, "store include-transactions", arguments, as_json)
    if not as_json:
        click.echo(f"Store {result['name']}: transactions in sync are {included}.")
        if not result["has_effect"]:
            click.echo("It is no dispensary, so its transactions are synchronised in any case.")
        _show_effects(result)


@click.group()
def visibility() -> None:
    """Visibility: which items, names, stores, patients and prescribers a store sees."""


_TABLE = click.argument("table", type=TEXT)
_ID = click.argument("record_id", type=TEXT, metavar="ID")
_STORE = click.option("--in", "store_id", type=TEXT, required=True, metavar="STORE", help="The store that sees it.")


@visibility.command("add")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@_TABLE
@_ID
@_STORE
@_dry_run
@json_option
def visibility_add(directory: Path, table: str, record_id: str, store_id: str, dry_run: bool, as_json: bool) -> None:
    """Make a record of TABLE (item, name, store, patient, prescriber) visible in a store.

    A store that becomes visible to one that is active at a site gets a transfer copy there by itself.
    """
    arguments = {"table": table, "id": record_id, "store": store_id, "dry_run": dry_run}
    result = do(directory, "visibility add", arguments, as_json)
    if not as_json:
        click.echo(f"{result['table']} {result['id']} is visible in {store_id}.")
        _show_effects(result)


@visibility.command("remove")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@_TABLE
@_ID
@_STORE
@_dry_run
@json_option
def visibility_remove(directory: Path, table: str, record_id: str, store_id: str, dry_run: bool, as_json: bool) -> None:
    """Take the visibility of a record of TABLE in a store away."""
    arguments = {"table": table, "id": record_id, "store": store_id, "dry_run": dry_run}
    result = do(directory, "visibility remove", arguments, as_json)
    if not as_json:
        click.echo(f"{result['table']} {result['id']} is not visible in {store_id}.")
        _show_effects(result)


@visibility.command("list")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@_TABLE
@_STORE
@json_option
def visibility_list(directory: Path, table: str, store_id: str, as_json: bool) -> None:
    """List the records of TABLE that are visible in a store."""
    result = do(directory, "visibility list", {"table": table, "store": store_id}, as_json)
    if not as_json:
        _show_table(("table", "id"), result["visible"])  # type: ignore[arg-type]


def _show_effects(result: dict[str, Any]) -> None:
    for copy in result["copies"]:
        click.echo(f"  store {copy['store']} at site {copy['site']}: {copy['before']} -> {copy['after']}")
    for site in result["sites"]:
        for word in ("gains", "loses"):
            for scope in site[word]:
                many = "record" if scope["records"] == 1 else "records"
                click.echo(f"  site {site['site']} ({site['name']}) {word} {scope['scope']}: {scope['records']} {many}")
    if result["dry_run"]:
        click.echo("Nothing was changed (--dry-run).")


def _show_table(columns: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick
    from rich.table import Table  # noqa: PLC0415 - keeps --help quick

    table = Table(box=None)
    for column in columns:
        # What a person types again is never cut off.
        table.add_column(column.replace("_", " "), no_wrap=column in ("store", "id"))
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    Console().print(table)

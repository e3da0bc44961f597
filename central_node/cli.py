"""The command `central-node`."""

import asyncio
import sys
from pathlib import Path

import click

from central_node.local_command import do
from central_node.store_cli import store, visibility
from engine.command_line import (
    DIRECTORY,
    TEXT,
    configure_logs,
    import_arguments,
    import_options,
    json_option,
    report,
    run,
    show_fields,
    show_import,
    show_json,
)
from engine.errors import PackhorseError
from engine.reporting import count_in_words


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="packhorse")
def main() -> None:
    """The node in the middle of a Packhorse system: it collects what sites do and routes to each what concerns it.

    DIR is the node's data directory. Exit codes: 0 done, 1 not done (stderr says why), 2 wrong usage.
    """


@main.command()
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.option("--name", type=TEXT, default="central", show_default=True, help="The central's name, shown to people.")
@click.option("--grpc", type=TEXT, default="0.0.0.0:7443", show_default=True, help="HOST:PORT where sites connect.")
@click.option(
    "--web", type=TEXT, default="127.0.0.1:7480", show_default=True, help="HOST:PORT of /livez, /readyz, /metrics."
)
@json_option
def init(directory: Path, name: str, grpc: str, web: str, as_json: bool) -> None:
    """Make DIR the directory of a new central node, with its own certificate authority."""
    from central_node.commands import initialise  # noqa: PLC0415 - keeps --help quick

    run(initialise(directory, name, grpc, web), as_json)
    if as_json:
        show_json({"directory": str(directory.absolute()), "name": name, "grpc": grpc, "web": web})
    else:
        click.echo(f"Central node {name} made in {directory}. Start it with: central-node serve {directory}")


@main.command()
@click.argument("directory", type=DIRECTORY, metavar="DIR")
def serve(directory: Path) -> None:
    """Run the daemon until SIGTERM."""
    from central_node.configuration import read_configuration  # noqa: PLC0415 - keeps --help quick
    from central_node.serve import serve as serve_daemon  # noqa: PLC0415 - keeps --help quick

    try:
        configuration = read_configuration(directory)
        configure_logs(configuration.log_format)
        asyncio.run(serve_daemon(directory, configuration))
    except PackhorseError as error:
        report(error, as_json=False)
        sys.exit(1)


@main.command("import")
@import_options
def import_(
    directory: Path,
    table: str,
    file: Path,
    mapping: tuple[str, ...],
    settings: tuple[str, ...],
    last_wins: str,
    as_json: bool,
) -> None:
    """Import a CSV file into a table that is edited here: all of it, or nothing."""
    arguments = import_arguments(table, file, mapping, settings, last_wins)
    result = do(directory, "import", arguments, as_json)
    if not as_json:
        show_import(result)


@main.group()
def site() -> None:
    """Sites: the nodes that synchronise with this one."""


@site.command("add")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("name", type=TEXT)
@json_option
def site_add(directory: Path, name: str, as_json: bool) -> None:
    """Expect a new site and make its one-time enrolment token, valid for 7 days."""
    result = do(directory, "site add", {"name": name}, as_json)
    if not as_json:
        click.echo(f"Site {result['site']} ({result['name']}). At the site, type:\n\n{result['command']}")


@site.command("list")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@json_option
def site_list(directory: Path, as_json: bool) -> None:
    """List the sites with their state."""
    result = do(directory, "site list", {}, as_json)
    if not as_json:
        _show_sites(result["sites"])


@site.command("show")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.argument("number", type=int)
@json_option
def site_show(directory: Path, number: int, as_json: bool) -> None:
    """Show one site with the copies of stores that it holds."""
    result = do(directory, "site show", {"site": number}, as_json)
    if not as_json:
        show_fields(result)
        for copy in result["stores"]:  # type: ignore[attr-defined]
            click.echo(f"  {copy['copy']:<10} {copy['store']}")


main.add_command(store)
main.add_command(visibility)


@main.command()
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show whether every site agrees with the central, and what waits or is held."""
    result = do(directory, "status", {}, as_json)
    if as_json:
        return
    show_fields(result)
    _show_sites(result["sites"])
    for held in result["held_documents"]:  # type: ignore[attr-defined]
        click.echo(f"held: {held['sentence']} [{held['code']}]")


def _show_sites(sites: object) -> None:
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick
    from rich.table import Table  # noqa: PLC0415 - keeps --help quick

    table = Table(box=None)
    columns = ("site", "name", "state", "waiting_to_push", "waiting_to_pull", "held", "last_seen", "last_error")
    for column in columns:
        table.add_column(column.replace("_", " "))
    for row in sites:  # type: ignore[attr-defined]
        table.add_row(*(_cell(row, column) for column in columns))
    Console().print(table)


def _cell(row: dict[str, object], column: str) -> str:
    if f"{column}_capped" in row:
        return count_in_words(row, column)
    return "" if row[column] is None else str(row[column])

"""The command `site-node`."""

import asyncio
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from engine.command_line import (
    DIRECTORY,
    TEXT,
    configure_logs,
    do_command,
    import_arguments,
    import_options,
    json_option,
    report,
    run,
    show_fields,
    show_import,
    show_json,
    through_daemon_or_directly,
)
from engine.errors import PackhorseError
from engine.reporting import progress_in_words
from engine.rpc import local_channel


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="packhorse")
def main() -> None:
    """A site of a Packhorse system: it works offline and synchronises with the central node when it can.

    DIR is the node's data directory; other programs may open DIR/node.db and write plain SQL. Exit codes: 0 done, 1 not
    done or no agreement (stderr says why), 2 wrong usage.
    """


@main.command()
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.option("--central", type=TEXT, required=True, help="HOST:PORT of the central node.")
@click.option("--token", type=TEXT, required=True, help="The one-time token of `central-node site add`.")
@click.option("--ca", type=click.Path(dir_okay=False, path_type=Path), help="CA file; only with given certificates.")
@json_option
def join(directory: Path, central: str, token: str, ca: Path | None, as_json: bool) -> None:
    """Make DIR the directory of a new site: enrol at the central node and fetch what concerns it."""
    from site_node.commands import join as join_central  # noqa: PLC0415 - keeps --help quick

    with _progress(as_json) as progress:
        result = run(join_central(directory, central, token, ca, progress), as_json)
    if not as_json:
        click.echo(f"This is now site {result['site']} ({result['name']}).")
    _end_of_sync(result, as_json)


def _no_nan(_context: click.Context, parameter: click.Parameter, minutes: float | None) -> float | None:
    if minutes is not None and math.isnan(minutes):
        raise click.BadParameter("it must be a number of minutes.", param=parameter)
    return minutes


@main.command()
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.option("--every", type=click.FloatRange(min=0.0, min_open=True, max=525_600), callback=_no_nan,
              metavar="MINUTES", help="Synchronise once in that time instead of staying connected.")  # fmt: skip
def serve(directory: Path, every: float | None) -> None:
    """Run the daemon until SIGTERM."""
    from site_node.configuration import read_configuration  # noqa: PLC0415 - keeps --help quick
    from site_node.serve import serve as serve_daemon  # noqa: PLC0415 - keeps --help quick

    try:
        configuration = read_configuration(directory)
        configure_logs(configuration.log_format)
        asyncio.run(serve_daemon(directory, configuration, every))
    except PackhorseError as error:
        report(error, as_json=False)
        sys.exit(1)


@main.command()
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@json_option
def sync(directory: Path, as_json: bool) -> None:
    """Synchronise now; exit 0 only when both sides agree in the end."""
    from site_node.commands import synchronise_directly  # noqa: PLC0415 - keeps --help quick
    from site_node.configuration import read_configuration  # noqa: PLC0415 - keeps --help quick

    async def work(progress: local_channel.Progress) -> dict[str, Any]:
        read_configuration(directory)
        return await through_daemon_or_directly(
            directory,
            lambda: local_channel.synchronise(directory, progress),
            lambda: synchronise_directly(directory, progress),
        )

    with _progress(as_json) as progress:
        result = run(work(progress), as_json)
    _end_of_sync(result, as_json)


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
    """Import a CSV file into a table that is edited at this site: all of it, or nothing."""
    arguments = import_arguments(table, file, mapping, settings, last_wins)
    result = _do(directory, "import", arguments, as_json)
    if not as_json:
        show_import(result)


@main.command()
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show whether this site agrees with the central, and what waits or is held."""
    result = _do(directory, "status", {}, as_json)
    if not as_json:
        show_fields(result)
        _show_held(result)


def _do(directory: Path, command: str, arguments: dict[str, Any], as_json: bool) -> dict[str, Any]:
    from site_node.configuration import read_configuration  # noqa: PLC0415 - keeps --help quick

    async def directly() -> dict[str, Any]:
        from site_node import commands  # noqa: PLC0415 - where a daemon does it, nothing of this is needed

        return await commands.directly(directory, command, arguments)

    async def work() -> dict[str, Any]:
        read_configuration(directory)
        return await do_command(directory, command, arguments, directly)

    result = run(work(), as_json)
    if as_json:
        show_json(result)
    return result


@contextmanager
def _progress(as_json: bool) -> Iterator[local_channel.Progress]:
    """Shows on a terminal what happens and how many records are to come; silent elsewhere."""
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda _phase, _remaining: None
        return
    with console.status("connecting") as shown:
        yield lambda phase, left: shown.update(progress_in_words(phase, left))


def _end_of_sync(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(result)
    else:
        click.echo(f"pushed {result['pushed']}, pulled {result['pulled']}, held {result['held']}")
        _show_held(result)
        if result["error"]:
            click.echo(f"ERROR: {result['error']['sentence']} [{result['error']['code']}]", err=True)
        click.echo("Both sides agree." if result["in_agreement"] else "The sides do not agree yet.")
    sys.exit(0 if result["in_agreement"] else 1)


def _show_held(result: dict[str, Any]) -> None:
    for held in result["held_documents"]:
        click.echo(f"held: {held['sentence']} [{held['code']}]")

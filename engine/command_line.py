"""What the command lines of both nodes share: errors for people, JSON for programs, logs, the import command's options.

Exit codes: 0 done; 1 not done (the sentence says why); 2 wrong usage.
"""

import asyncio
import errno
import gc
import io
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from engine.catalogue.descriptors import catalogue
from engine.directory import DirectoryLock
from engine.errors import Code, PackhorseError, Refused
from engine.reporting import count_in_words
from engine.rpc import local_channel
from engine.storage.csv_import import ImportPlan, read_import

Result = TypeVar("Result")
Arguments = dict[str, Any]

_OWNER_SECONDS, _LOOK_SECONDS = 20.0, 0.1


class _Text(click.ParamType[str]):
    """Text that can be stored: the bytes of a command line need not be UTF-8."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See click."""
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8.", param, ctx)
        return str(value)


class _Directory(click.Path):
    """The name of a directory. An empty one is a variable that was not set, not the directory one is in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        if not os.fspath(value):
            self.fail("the name of the directory is empty.", param, ctx)
        return super().convert(value, param, ctx)


_GARBAGE_THRESHOLD = 10_000, 10, 10
"""Python's own looks for cycles after 700 objects, several times in each frame, and finds none: a tenth of an apply. Of
the sessions that ended, 50,000 objects would be 20 MiB."""
TEXT = _Text()
DIRECTORY = _Directory(file_okay=False, path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


def run(work: Coroutine[Any, Any, Result], as_json: bool = False) -> Result:
    """Runs a command; an error of the catalogue becomes one line on stderr (and JSON on stdout) and exit code 1."""
    configure_logs("text", lowest="warning")
    try:
        return asyncio.run(work)
    except PackhorseError as error:
        report(error, as_json)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def start(command: click.Command) -> None:
    """Runs a program's command line. Interrupted, or where nobody takes its output, it ends with a sentence."""
    gc.set_threshold(*_GARBAGE_THRESHOLD)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # the name of a file need not be UTF-8
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        click.echo(f"ERROR: What this command says could not be written ({os.strerror(error.errno)}).", err=True)
        sys.exit(1)


def report(error: PackhorseError, as_json: bool) -> None:
    """Tells a person, or a program, of an error."""
    click.echo(f"ERROR: {error.sentence} [{error.code}]", err=True)
    if as_json:
        advice = error.advice
        told = {"code": error.code, "sentence": error.sentence, "who_acts": advice.who_acts, "retry": advice.retry}
        click.echo(json.dumps({"error": told}))


def show_json(result: Mapping[str, Any]) -> None:
    """Prints a result for a program."""
    click.echo(json.dumps(result, indent=2))


def show_fields(result: Mapping[str, Any]) -> None:
    """Prints a result for a person, a line per field; lists and objects are left to the caller."""
    width = max((len(name) for name in result), default=0)
    for name, value in result.items():
        if not isinstance(value, list | dict) and not name.endswith(("_capped", "_estimated")):
            told = count_in_words(result, name) if f"{name}_capped" in result else ""
            click.echo(f"{name.replace('_', ' '):<{width}}  {told or _told(value)}")


def _told(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


async def through_daemon_or_directly(
    directory: Path,
    through: Callable[[], Coroutine[Any, Any, Arguments]],
    directly: Callable[[], Coroutine[Any, Any, Arguments]],
) -> Arguments:
    """Has the daemon do something where one runs, and does it here, owning the directory meanwhile, where none does.

    Raises:
        Refused: DIRECTORY_IN_USE where another command, which is no daemon, keeps the directory for too long.
    """
    for _ in range(round(_OWNER_SECONDS / _LOOK_SECONDS)):
        if local_channel.is_served(directory):
            return await through()
        try:
            with DirectoryLock(directory):
                return await directly()
        except PackhorseError as error:
            if error.code is not Code.DIRECTORY_IN_USE:
                raise
        await asyncio.sleep(_LOOK_SECONDS)
    raise Refused(Code.DIRECTORY_IN_USE, f"Another process works with {directory} at the moment.")


async def do_command(
    directory: Path, command: str, arguments: Arguments, directly: Callable[[], Coroutine[Any, Any, Arguments]]
) -> Arguments:
    """Does a command through the daemon, or here where none runs."""
    through = partial(local_channel.execute, directory, command, arguments)
    return await through_daemon_or_directly(directory, through, directly)


def configure_logs(log_format: str, lowest: str = "info") -> None:
    """JSON lines on stderr, or readable ones where stderr is a terminal; `log_format` json or text decides instead."""
    as_json = log_format == "json" or (log_format != "text" and not sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def import_options(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options of `import`, the same at both nodes."""
    for option in (
        json_option,
        click.option(
            "--last-wins", type=TEXT, default="", metavar="CSV_COLUMN",
            help="Of rows with one id, take the one with the greatest value in this column of the file.",
        ),
        click.option(
            "--set", "settings", type=TEXT, multiple=True, metavar="COLUMN=VALUE",
            help="Give a column one value in every row.",
        ),
        click.option(
            "--map", "mapping", type=TEXT, multiple=True, metavar="COLUMN=CSV_COLUMN",
            help="Take a column of the table from this column of the file.",
        ),
        click.argument("file", type=click.Path(dir_okay=False, path_type=Path)),
        click.argument("table", type=TEXT),
        click.argument("directory", type=DIRECTORY),
    ):  # fmt: skip
        command = option(command)
    return command


def import_arguments(
    table: str, file: Path, mapping: tuple[str, ...], settings: tuple[str, ...], last_wins: str
) -> Arguments:
    """The arguments of the command `import` as they travel to a daemon. Raises click.UsageError."""
    return {
        "table": table,
        "file": str(file.absolute()),
        "mapping": _pairs(mapping, "--map"),
        "settings": _pairs(settings, "--set"),
        "last_wins": last_wins,
    }


def plan_import(arguments: Arguments) -> ImportPlan:
    """Reads the file that the arguments name. Raises as `read_import`, and Refused with COMMAND_WRONG."""
    local_channel.check_arguments(arguments, table=str, file=Path, mapping=dict, settings=dict, last_wins=str)
    return read_import(
        catalogue(),
        arguments["table"],
        Path(arguments["file"]),
        arguments["mapping"],
        arguments["settings"],
        arguments["last_wins"],
    )


def show_import(result: Arguments) -> None:
    """Tells a person what was imported."""
    click.echo(f"{result['imported']} records into {result['table']} from {result['rows_read']} rows.")
    if result["ignored_columns"]:
        click.echo(f"Ignored columns: {', '.join(result['ignored_columns'])}.")


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} wants COLUMN=..., not {text!r}.")
        if name in pairs:
            raise click.UsageError(f"{option} names the column {name!r} twice.")
        pairs[name] = value
    return pairs

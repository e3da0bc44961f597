"""Does one command for the command line: through the running daemon, or on the database where none runs."""

from collections.abc import Mapping
from pathlib import Path

from engine.command_line import do_command, run, show_json


def do(directory: Path, command: str, arguments: Mapping[str, object], as_json: bool) -> dict[str, object]:
    """Does a command; prints its result with `as_json`, or the error that ends the program."""
    from central_node.configuration import read_configuration  # noqa: PLC0415 - keeps --help quick

    given = dict(arguments)

    async def directly() -> dict[str, object]:
        from central_node import commands  # noqa: PLC0415 - where a daemon does it, nothing of this is needed

        return await commands.directly(directory, command, given)

    async def work() -> dict[str, object]:
        read_configuration(directory)
        return await do_command(directory, command, given, directly)

    result = run(work(), as_json)
    if as_json:
        show_json(result)
    return result

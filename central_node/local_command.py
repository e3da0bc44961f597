"""Does one command for the command line: through the running daemon, or on the database where none runs."""

from collections.abc import Mapping
from pathlib import Path

from engine.command_line import do_command, run, show_json


def do(directory: Path, command: str, arguments: Mapping[str, object], as_json: bool) -> dict[str, object]:
    """Does a command; prints its result with `as_json`, or the error that ends the program."""
    from central_node.commands import directly  # noqa: PLC0415 - keeps --help quick
    from central_node.configuration import read_configuration  # noqa: PLC0415 - keeps --help quick

    given = dict(arguments)

    async def work() -> dict[str, object]:
        read_configuration(directory)
        return await do_command(directory, command, given, lambda: directly(directory, command, given))

    result = run(work(), as_json)
    if as_json:
        show_json(result)
    return result

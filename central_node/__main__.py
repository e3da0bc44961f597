"""`central-node`, also as `python -m central_node`."""

import sys


def run() -> None:
    """Runs the command line. Ctrl-C while it is being loaded ends it like later."""
    try:
        from central_node.cli import main  # noqa: PLC0415 - so that loading can be interrupted
        from engine.command_line import start  # noqa: PLC0415 - so that loading can be interrupted
    except KeyboardInterrupt:
        sys.exit(130)
    start(main)


if __name__ == "__main__":
    run()

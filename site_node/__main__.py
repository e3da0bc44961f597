"""`site-node`, also as `python -m site_node`."""

import sys


def run() -> None:
    """Runs the command line. Ctrl-C while it is being loaded ends it like later."""
    try:
        from engine.command_line import start  # noqa: PLC0415 - so that loading can be interrupted
        from site_node.cli import main  # noqa: PLC0415 - so that loading can be interrupted
    except KeyboardInterrupt:
        sys.exit(130)
    start(main)


if __name__ == "__main__":
    run()

"""The program `field-lab`: try Packhorse under the conditions of the field.

Exit codes: 0 done, 1 not done (for example, the port is in use), 2 wrong usage.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
from importlib import metadata
from pathlib import Path

import click

from field_lab.link import Address, LinkConditions, SpoiledLink

SECONDS_MAX = 10**9


def _address(text: str, port_min: int) -> Address:
    """Take HOST:PORT apart. Raises click.BadParameter with a sentence, which ends the program with exit code 2."""
    parts = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text, re.ASCII)
    if parts is None:
        raise click.BadParameter(f"'{text}' is not HOST:PORT, for example 127.0.0.1:7000 or [::1]:7000.")
    host, port = parts[1] or parts[2], int(parts[3])
    if not port_min <= port <= 65535:
        raise click.BadParameter(f"the port must be from {port_min} to 65535, not {port}.")
    try:
        host.encode("idna")
    except UnicodeError:
        raise click.BadParameter(f"'{host}' cannot be the name of a host.") from None
    return host, port


def _listen_address(_: click.Context, __: click.Parameter, text: str) -> Address:
    return _address(text, port_min=0)


def _target_address(_: click.Context, __: click.Parameter, text: str) -> Address:
    return _address(text, port_min=1)


def _seconds_range(_: click.Context, __: click.Parameter, text: str) -> tuple[float, float]:
    """Read the shortest and the longest time in seconds; the longest is 0 where only one time is given."""
    number = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
    parts = re.fullmatch(f"{number}(?:-{number})?", text, re.ASCII)
    if parts is None:
        raise click.BadParameter(f"'{text}' is not SECONDS or SECONDS-SECONDS, for example 1 or 0.5-3.")
    return float(parts[1]), float(parts[2] or 0)


def _finite_seconds(_: click.Context, __: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= SECONDS_MAX:
        raise click.BadParameter(f"the time must be above 0 and at most {SECONDS_MAX} seconds, not {seconds}.")
    return seconds


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    try:
        version = metadata.version("packhorse")
    except metadata.PackageNotFoundError:
        version = "unknown, because the distribution is not installed"
    click.echo(f"field-lab, packhorse {version}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def main() -> None:
    """Try Packhorse under the conditions of the field."""


@main.command()
@click.option(
    "--listen",
    required=True,
    callback=_listen_address,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--to",
    "target",
    required=True,
    callback=_target_address,
    metavar="HOST:PORT",
    help="Where to pass connections on to.",
)
@click.option("--latency-ms", type=float, default=0, metavar="N", help="Delay of each direction, in milliseconds.")
@click.option("--jitter-ms", type=float, default=0, metavar="N", help="Further delay, drawn from 0 to this.")
@click.option("--rate", type=int, default=0, metavar="BYTES_PER_SECOND", help="Rate of each direction. 0: unlimited.")
@click.option(
    "--cut-every",
    default="0",
    callback=_seconds_range,
    metavar="SECONDS[-SECONDS]",
    help="Cut all connections so often; of two times, one in between is drawn each time. 0: never.",
)
@click.option("--cut-after-bytes", type=int, default=0, metavar="N", help="Cut when a connection has passed so much.")
@click.option("--black-hole", is_flag=True, help="Accept connections, pass nothing, close nothing.")
@click.option("--reset", is_flag=True, help="Cut with a reset (RST) instead of an orderly end (FIN).")
@click.option("--refuse", is_flag=True, help="Close every new connection at once.")
@click.option("--seed", type=int, metavar="N", help="Start of everything drawn at random. Default: any, and shown.")
@click.option("--seconds", type=float, callback=_finite_seconds, metavar="N", help="Stop by itself after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON; the first line goes to stderr.")
def link(
    *,
    listen: Address,
    target: Address,
    latency_ms: float,
    jitter_ms: float,
    rate: int,
    cut_every: tuple[float, float],
    cut_after_bytes: int,
    black_hole: bool,
    reset: bool,
    refuse: bool,
    seed: int | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Pass TCP connections on over a link that is spoiled as the options say, until SIGINT or SIGTERM."""
    if listen == target:
        raise click.UsageError("--listen and --to are the same address: the link would lead back into itself.")
    try:
        conditions = LinkConditions(
            latency_ms=latency_ms,
            jitter_ms=jitter_ms,
            rate_bytes_per_second=rate,
            cut_every_seconds=cut_every[0],
            cut_every_seconds_max=cut_every[1],
            cut_after_bytes=cut_after_bytes,
            black_hole=black_hole,
            reset=reset,
            refuse=refuse,
            seed=random.randrange(10**6) if seed is None else seed,
        )
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    asyncio.run(_run_link(SpoiledLink(target, conditions, listen), listen[0], seconds, as_json))


async def _run_link(spoiled: SpoiledLink, listen_host: str, seconds: float | None, as_json: bool) -> None:
    """Run a link until a signal comes or the seconds are over, and print what happened."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        await spoiled.start()
    except OSError as error:
        # The numbers of name resolution are negative and are not the system's.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise click.ClickException(f"cannot listen on {_text((listen_host, spoiled.port))}: {reason}.") from None
    here, there, seed = _text((listen_host, spoiled.port)), _text(spoiled.target), spoiled.conditions.seed
    try:
        click.echo(f"listening on {here}, spoils the way to {there}, seed {seed}", err=as_json)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended.wait()
    finally:
        await spoiled.stop()
    counts = dataclasses.asdict(spoiled.counters)
    if as_json:
        click.echo(json.dumps({"listen": here, "to": there, "seed": seed, **counts}))
    else:
        click.echo(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()


@main.command()
def demo() -> None:
    """Watch a central node and two sites come into agreement over a link that keeps breaking; about a minute."""
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick

    from field_lab.demo import demonstrate  # noqa: PLC0415 - keeps --help quick

    console = Console(highlight=False, soft_wrap=True)
    raise SystemExit(0 if asyncio.run(demonstrate(console.print)) else 1)


@main.command()
@click.option("--seeds", type=click.IntRange(min=1), default=100, show_default=True, help="How many seeds to run.")
@click.option("--first-seed", default=1, show_default=True, help="The first of them.")
def simulate(seeds: int, first_seed: int) -> None:
    """Run whole nodes through bad links, crashes, power cuts and full disks in virtual time, in two processes; a seed
    that fails fails again."""
    from field_lab.simulation.run import SIMULATION  # noqa: PLC0415 - keeps --help quick
    from field_lab.simulation.seeds import run_seeds  # noqa: PLC0415 - keeps --help quick

    raise SystemExit(0 if run_seeds(SIMULATION, range(first_seed, first_seed + seeds), click.echo) else 1)


@main.command()
@click.option("--seeds", type=click.IntRange(min=1), default=50, show_default=True, help="How many seeds to run.")
@click.option("--first-seed", default=1, show_default=True, help="The first of them.")
def oracle(seeds: int, first_seed: int) -> None:
    """Have people edit, and administrators move and share stores, in whole countries in virtual time; then judge all
    databases by the specification, in SQL of its own; in two processes."""
    from field_lab.simulation.countries.run import ORACLE  # noqa: PLC0415 - keeps --help quick
    from field_lab.simulation.seeds import run_seeds  # noqa: PLC0415 - keeps --help quick

    raise SystemExit(0 if run_seeds(ORACLE, range(first_seed, first_seed + seeds), click.echo) else 1)


@main.command()
@click.option("--rows", type=click.IntRange(1_000), default=100_000, show_default=True, help="Rows of each transfer.")
@click.option("--sites", type=click.IntRange(2), default=20, show_default=True, help="How many sites push at once.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs; the median counts.")
@click.option("--edits", type=click.IntRange(2), default=200, show_default=True, help="Edits whose latency is taken.")
@click.option("--seed", type=int, default=1, show_default=True, help="Start of everything drawn at random.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("build/bench.json"),
              show_default=True, help="Where the figures go as JSON.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(*, rows: int, sites: int, runs: int, edits: int, seed: int, output: Path, as_json: bool) -> None:
    """Measure how fast rows travel between real daemons, beside what SQLite alone does on this machine; 6 minutes."""
    from rich.console import Console  # noqa: PLC0415 - keeps --help quick

    from field_lab.bench.run import run_bench  # noqa: PLC0415 - keeps --help quick

    progress = Console(stderr=True)
    with progress.status("beginning") if progress.is_terminal else contextlib.nullcontext() as shown:
        say = shown.update if shown is not None else lambda _step: None
        figures = asyncio.run(run_bench(rows, sites, runs, edits, seed, say))
    figures.write(output)
    if as_json:
        click.echo(json.dumps(figures.values()))
    else:
        Console(width=120).print(figures.table())

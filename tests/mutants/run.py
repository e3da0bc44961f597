"""Runs the mutants: `make mutants`, `make mutants ONLY=name` or ONLY='f14_*'.

For each mutant the sources are copied to a temporary folder, the text is replaced there, and the one test or the seeds
that have to notice run in that copy: they must fail. Before that they run once in a copy that nothing was changed in,
where they must hold. Two runs go at a time. The exit code is 1 when a mutant survives, when its definition does not
fit, or when a run ends in any other way than by a test that holds or fails.

The copy and its `protos` come first on PYTHONPATH, which daemons that a test starts inherit; so the copy is imported
instead of the sources that are installed. That this is so is asked of a fresh process in every copy.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from tests.mutants.definitions import ORACLE, ROOT, SEEDED, SIMULATOR, Mutant, read_mutants

AT_ONCE = 2
RUN_SECONDS = 600
PACKAGES = ("engine", "site_node", "central_node", "field_lab", "packhorse.sync.v1", "tests")
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "*.pyc")


class Ran(NamedTuple):
    """What a run of a test or of seeds has shown."""

    holds: bool | None
    """None when it ended in another way than by a test that holds or fails."""
    says: str
    """The line that tells why it failed."""


def copy_sources(folder: Path) -> Path:
    """Copies everything but generated and hidden files; returns where."""
    return Path(shutil.copytree(ROOT, folder / "copy", ignore=_LEFT_OUT))


def environment_of(copy: Path) -> dict[str, str]:
    """The environment in which Python imports the copy."""
    path = os.pathsep.join((str(copy), str(copy / "protos")))
    return os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def imported_from(copy: Path) -> set[Path]:
    """The folders from which a process that starts elsewhere, as a daemon may, takes the packages."""
    script = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    told = subprocess.run(
        [sys.executable, "-c", script, *PACKAGES],
        cwd=copy.parent, env=environment_of(copy), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {Path(line) for line in told.stdout.splitlines()}


def command_of(caught_by: str, seed: int | None) -> list[str]:
    """What runs one test, or one seed of the simulator or the oracle."""
    if seed is not None:
        command = {SIMULATOR: "simulate", ORACLE: "oracle"}[caught_by]
        return [sys.executable, "-m", "field_lab", command, "--seeds", "1", "--first-seed", str(seed)]
    quiet = ("-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-n", "0")
    return [sys.executable, "-m", "pytest", *quiet, caught_by]


def run(copy: Path, caught_by: str, seeds: Iterable[int]) -> Ran:
    """Runs a test, or seeds until one fails."""
    for seed in seeds if caught_by in SEEDED else (None,):
        try:
            done = subprocess.run(
                command_of(caught_by, seed),
                cwd=copy, env=environment_of(copy), capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Ran(None, f"it did not end within {RUN_SECONDS} s")
        if done.returncode:
            says = _reason(done.stdout + done.stderr)
            return Ran(False if done.returncode == 1 else None, says)
    return Ran(True, "")


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    failures = [line[1:].strip().removeprefix("AssertionError: ") for line in lines if re.match(r"E\s+\S", line)]
    seeds = [line for line in lines if line.startswith("seed ")]
    return (failures or seeds or lines or ["it said nothing"])[0][:160]


def try_unmutated(caught_by: str, seeds: Iterable[int]) -> Ran:
    """Runs what has to notice a mutant where there is none."""
    with tempfile.TemporaryDirectory(prefix="packhorse-mutant-") as folder:
        copy = copy_sources(Path(folder))
        strangers = {path for path in imported_from(copy) if not path.is_relative_to(copy)}
        if strangers:
            return Ran(None, f"imported from elsewhere: {', '.join(map(str, sorted(strangers)))}")
        return run(copy, caught_by, seeds)


def try_mutant(mutant: Mutant) -> Ran:
    """Runs what has to notice the mutant, with the mutant."""
    with tempfile.TemporaryDirectory(prefix="packhorse-mutant-") as folder:
        copy = copy_sources(Path(folder))
        source = copy / mutant.file
        try:
            source.write_text(mutant.mutated(source.read_text()))
        except (OSError, ValueError) as error:
            return Ran(None, str(error))
        return run(copy, mutant.caught_by, mutant.seeds)


def judge(unmutated: Ran, mutated: Ran) -> tuple[bool, str]:
    """Whether a mutant was caught, and how that reads."""
    if unmutated.holds is not True:
        return False, f"WRONG: it does not hold without the mutant: {unmutated.says}"
    if mutated.holds is None:
        return False, f"WRONG: {mutated.says}"
    return not mutated.holds, "SURVIVED" if mutated.holds else f"caught: {mutated.says}"


def main(only: str) -> int:
    """Runs all mutants or one; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        mutants = [mutant for mutant in read_mutants() if fnmatch(mutant.name, only or "*")]
    except ValueError as error:
        console.print(f"[red]{escape(str(error))}")
        return 1
    if not mutants:
        console.print(f"[red]There is no mutant {escape(only)!r}." if only else "[red]There are no mutants.")
        return 1
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = dict.fromkeys((mutant.caught_by, mutant.seeds) for mutant in mutants)
        unmutated = dict(zip(runs, pool.map(lambda wanted: try_unmutated(*wanted), runs), strict=True))
        mutated = list(pool.map(try_mutant, mutants))
    table = Table(Column("mutant", no_wrap=True), "who notices", "what came of it")
    survivors = 0
    for mutant, ran in zip(mutants, mutated, strict=True):
        caught, says = judge(unmutated[mutant.caught_by, mutant.seeds], ran)
        survivors += not caught
        table.add_row(mutant.name, escape(mutant.caught_by), escape(says), style="" if caught else "red")
    console.print(table)
    console.print(f"{len(mutants) - survivors} of {len(mutants)} mutants were caught.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(os.environ.get("ONLY", "")))

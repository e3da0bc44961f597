"""What the mutants are: each breaks one law or finding on purpose in one place, and one test or seed has to notice.

A mutant is a file `<name>.toml` of this folder; its name begins with what it breaks (`f14_...`, `law3_...`), or with
`oracle` where a rule of the specification is broken: who edits, who receives, which copies of stores there are. Keys:

    breaks     one sentence: which law, finding or rule, and how
    file       the source that is changed, from the root of the repository
    old, new   the text that is replaced, exactly once in the file, and what replaces it
    caught_by  the node id of a test, or "simulator", or "oracle"
    seeds      with these two: the seeds of which at least one has to fail
"""

import ast
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
SIMULATOR, ORACLE = "simulator", "oracle"
SEEDED = (SIMULATOR, ORACLE)
"""What runs seeds instead of a test."""
LAWS = tuple(f"law{number}" for number in range(1, 15))
"""The laws of the design, by the beginning of a mutant's name."""
_NUMBERS = (
    "1 2 3 4 5 6 7 8 9 10 11 13 14 15 18 20 21 23 25 26 27 28 34 35 36 38 39 41 42 43 44 45 47 48 49 50 51 55 56 57"
)
FINDINGS = tuple(f"f{int(number):02}" for number in _NUMBERS.split())
"""The findings of the design's review that the core has to stand up to: each has a test of its name."""

_NAME = re.compile(r"(f\d\d|law\d{1,2}|oracle)_[a-z0-9_]+")
_TEST_OF_FINDING = re.compile(r"test_(f\d\d)_")


class Mutant(NamedTuple):
    """One definition."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    caught_by: str
    seeds: tuple[int, ...]

    @property
    def subject(self) -> str:
        """The law or finding that it breaks: "law3", "f14"; or "oracle", for the rules of the specification."""
        return self.name.partition("_")[0]

    def mutated(self, text: str) -> str:
        """The source with the replacement made. Raises ValueError unless `old` is there exactly once."""
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: the old text is in {self.file} {found} times instead of once")
        return text.replace(self.old, self.new)


def parse(name: str, told: Mapping[str, Any]) -> Mutant:
    """A definition from the keys of its file. Raises ValueError with what does not fit."""
    wanted: dict[str, type] = {"breaks": str, "file": str, "old": str, "new": str, "caught_by": str}
    if told.get("caught_by") in SEEDED:
        wanted["seeds"] = list
    if set(told) != set(wanted):
        raise ValueError(f"{name}: the keys are {sorted(told)} instead of {sorted(wanted)}")
    for key, kind in wanted.items():
        if type(told[key]) is not kind or (key != "new" and not told[key]):
            raise ValueError(f"{name}: {key} is empty or no {kind.__name__}")
    seeds = tuple(told.get("seeds", ()))
    if any(type(seed) is not int for seed in seeds):
        raise ValueError(f"{name}: a seed is no integer")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name}: the name begins neither with a finding (f01_), a law (law1_) nor with oracle_")
    if not told["breaks"].endswith(".") or "\n" in told["breaks"]:
        raise ValueError(f"{name}: breaks is no sentence on one line")
    if told["old"] == told["new"]:
        raise ValueError(f"{name}: new is old")
    return Mutant(name, told["breaks"], told["file"], told["old"], told["new"], told["caught_by"], seeds)


def read_mutants(folder: Path = FOLDER) -> list[Mutant]:
    """Every definition: laws, rules, findings, in order. Raises ValueError with the first that does not fit."""
    found = []
    for path in folder.glob("*.toml"):
        try:
            found.append(parse(path.stem, tomllib.loads(path.read_text())))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path.name}: {error}") from error
    return sorted(found, key=lambda mutant: (subject_order(mutant.subject), mutant.name))


def subject_order(subject: str) -> tuple[bool, int]:
    """Laws come first, then the rules that the oracle judges, then findings; each group in the order of its numbers."""
    if subject == ORACLE:
        return False, len(LAWS) + 1
    return not subject.startswith("law"), int(subject.removeprefix("law").removeprefix("f"))


def functions_in(path: Path) -> set[str]:
    """The functions that a file defines, those of a class as Class::function."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = (part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}::{part.name}" for part in inner}
    return found


def findings_with_tests(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Finding -> the node ids of the tests that bear its name (`test_f14_...`)."""
    found: dict[str, list[str]] = {}
    for path in sorted(paths):
        for name in sorted(functions_in(path)):
            if match := _TEST_OF_FINDING.match(name):
                found.setdefault(match[1], []).append(f"{path.relative_to(ROOT)}::{name}")
    return found


def files_with_tests() -> list[Path]:
    """Every file with tests."""
    return list((ROOT / "tests").rglob("test_*.py"))


def document() -> str:
    """`docs/mutants.md`: what is broken on purpose, where, and who notices."""
    mutants, tests = read_mutants(), findings_with_tests(files_with_tests())
    lines = [
        "# Mutants",
        "",
        "Made by `make documents` from `tests/mutants/*.toml`. Each line is one place of the sources that",
        "`make mutants` breaks on purpose; the test or the seeds beside it have to fail then. Laws are those of the",
        "design, findings (F1 to F57) those of its review; a finding's own tests are named `test_fNN_...`. What the",
        "oracle notices are rules of the specification: who edits, who receives, which copies of stores there are.",
        "",
        "| mutant | what is broken | where | who notices |",
        "|---|---|---|---|",
    ]
    for mutant in mutants:
        seeds = f", seeds {', '.join(map(str, mutant.seeds))}" if mutant.seeds else ""
        caught = mutant.caught_by.replace("::", "::<br>")
        lines.append(f"| `{mutant.name}` | {mutant.breaks} | `{mutant.file}` | {caught}{seeds} |")
    lines += ["", "## Tests of findings", "", "| finding | tests |", "|---|---|"]
    for finding in sorted(tests):
        names = "<br>".join(f"`{node.removeprefix('tests/')}`" for node in tests[finding])
        lines.append(f"| F{int(finding[1:])} | {names} |")
    missing = sorted({*LAWS, *tests} - {mutant.subject for mutant in mutants}, key=subject_order)
    lines += ["", f"Without a mutant yet: {', '.join(missing) or 'none'}."]
    return "\n".join(lines) + "\n"

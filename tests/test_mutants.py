"""The mutants fit the sources: every one can be made, names a test that is there, and nothing is left without one.

Whether the tests notice them is for `make mutants`, which takes minutes.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.definitions import (
    FINDINGS,
    LAWS,
    ORACLE,
    ROOT,
    SEEDED,
    SIMULATOR,
    Mutant,
    document,
    files_with_tests,
    findings_with_tests,
    functions_in,
    parse,
    read_mutants,
)
from tests.mutants.run import Ran, copy_sources, imported_from, judge, run

MUTANTS = read_mutants()
GOOD = {"breaks": "Law 3.", "file": "engine/limits.py", "old": "a", "new": "b", "caught_by": "tests/x.py::test_x"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_made_and_names_a_test_that_exists(mutant: Mutant) -> None:
    assert not mutant.file.startswith("tests/"), "what is broken is the product"
    mutated = mutant.mutated((ROOT / mutant.file).read_text())
    if mutant.file.endswith(".py"):
        compile(mutated, mutant.file, "exec")
    if mutant.caught_by not in SEEDED:
        path, _, name = mutant.caught_by.partition("::")
        assert name.partition("[")[0] in functions_in(ROOT / path), f"{mutant.caught_by} does not exist"


def test_every_law_and_every_finding_with_a_test_has_a_mutant() -> None:
    subjects = {mutant.subject for mutant in MUTANTS}
    tested = findings_with_tests(files_with_tests()).keys()
    assert not set(FINDINGS) - tested, "a finding without a test of its name"
    assert not {*LAWS, *FINDINGS, *tested} - subjects, "a law or finding that nobody has broken on purpose"


def test_the_list_of_mutants_has_not_drifted() -> None:
    assert (ROOT / "docs" / "mutants.md").read_text() == document()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("law3_x", {"more": "x"}),
        ("law3_x", {"old": ""}),
        ("law3_x", {"new": 1}),
        ("law3_x", {"new": "a"}),
        ("law3_x", {"breaks": "no sentence"}),
        ("law3_x", {"breaks": "two\nlines."}),
        ("law3_x", {"seeds": [1]}),
        ("law3_x", {"caught_by": SIMULATOR}),
        ("law3_x", {"caught_by": SIMULATOR, "seeds": []}),
        ("oracle_x", {"caught_by": ORACLE}),
        ("law3_x", {"caught_by": SIMULATOR, "seeds": ["1"]}),
        ("x", {}),
        ("F3_x", {}),
    ],
)
def test_a_definition_that_does_not_fit_is_refused(name: str, change: dict[str, Any]) -> None:
    assert parse("law3_x", GOOD).subject == "law3"
    assert parse("oracle_x", GOOD | {"caught_by": ORACLE, "seeds": [1]}).subject == ORACLE
    with pytest.raises(ValueError, match=name):
        parse(name, GOOD | change)


def test_a_text_that_is_not_there_exactly_once_is_refused() -> None:
    mutant = parse("f14_x", GOOD)
    assert mutant.mutated("cat") == "cbt"
    for text in ("", "aa"):
        with pytest.raises(ValueError, match="f14_x"):
            mutant.mutated(text)


def test_only_a_test_that_holds_without_and_fails_with_the_mutant_has_caught_it() -> None:
    held, failed, ended = Ran(True, ""), Ran(False, "why"), Ran(None, "how")
    pairs = product((held, failed, ended), repeat=2)
    assert [pair for pair in pairs if judge(*pair)[0]] == [(held, failed)]


def test_a_copy_is_what_is_imported_and_run(tmp_path: Path) -> None:
    copy = copy_sources(tmp_path)
    assert all(path.is_relative_to(copy) for path in imported_from(copy))
    test = copy / "tests" / "test_of_the_copy.py"
    test.write_text(
        "import engine.limits\n\n\ndef test_changed() -> None:\n    assert engine.limits.ROUNDS == 77\n\n\n"
        "def test_unchanged() -> None:\n    assert engine.limits.ROUNDS == 5\n"
    )
    limits = copy / "engine" / "limits.py"
    limits.write_text(limits.read_text().replace("ROUNDS = 5", "ROUNDS = 77"))
    node = f"tests/{test.name}::"
    assert run(copy, node + "test_changed", ()).holds is True
    assert run(copy, node + "test_unchanged", ()) == Ran(False, "assert 77 == 5")
    assert run(copy, node + "test_missing", ()).holds is None

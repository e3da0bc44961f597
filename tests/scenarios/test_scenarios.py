"""Plays every script of this folder on real daemons; docs/scenarios.md says how to read and add one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.scene import NotDone, Scene
from tests.scenarios.script import ScriptError, Step, read_script
from tests.scenarios.steps import SENTENCES

FOLDER = Path(__file__).parent
SCRIPTS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.processes
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
async def test_a_scenario(path: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    script = read_script(path, SENTENCES)
    assert script.steps
    record_property("later", (script.name, script.later))
    async with Scene(tmp_path) as scene:
        for step in script.steps:
            try:
                await step.do(scene, *step.values)
            except (AssertionError, NotDone) as failed:
                pytest.fail(f"{step.place}: {step.text}\n{failed}", pytrace=False)


@pytest.mark.parametrize(
    "line", ["Store A is eaten", 'It is refused that store A is eaten, because "no"', "store a is created", "Sites:"]
)
def test_a_sentence_that_nobody_understands_is_told_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "strange.txt"
    path.write_text(f"# a comment\n\nSites: sync server\n{line}\n")
    with pytest.raises(ScriptError, match=r"^strange\.txt:4: no sentence is like this one: "):
        read_script(path, SENTENCES)


def test_every_sentence_is_in_the_documents_and_in_a_script() -> None:
    text = (FOLDER.parents[1] / "docs" / "scenarios.md").read_text()
    assert not [sentence.pattern for sentence in SENTENCES if f"`{sentence.pattern}`" not in text]
    steps = [step for path in SCRIPTS for step in read_script(path, SENTENCES).steps]
    inner = [value for step in steps for value in step.values if isinstance(value, Step)]
    used = {step.do for step in (*steps, *inner)}
    assert not [sentence.pattern for sentence in SENTENCES if sentence.do not in used]

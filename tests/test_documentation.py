"""The documents are true: generated parts, commands, configuration keys, codes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

from central_node.cli import main as central_main
from central_node.configuration import CentralConfiguration
from engine.errors import CATALOGUE, Code
from field_lab.cli import main as field_lab_main
from site_node.cli import main as site_main
from site_node.configuration import SiteConfiguration

ROOT = Path(__file__).parents[1]


def generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_generated_parts_have_not_drifted() -> None:
    for path, text in generator().documents().items():
        assert path.read_text() == text, f"{path.name} is not what `make documents` makes"


def commands(name: str, command: click.Command) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        return [found for child, inner in command.commands.items() for found in commands(f"{name} {child}", inner)]
    return [(name, command)]


EVERY = [
    *commands("central-node", central_main),
    *commands("site-node", site_main),
    *commands("field-lab", field_lab_main),
]


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[name for name, _ in EVERY])
def test_a_command_has_help_and_is_in_the_documents(name: str, command: click.Command) -> None:
    assert command.help, f"{name} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("help", "version"):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
    texts = "".join(path.read_text() for path in (ROOT / "README.md", ROOT / "CHANGELOG.md"))
    assert all(word in texts for word in name.split()), f"{name} is in no document"


def test_configuration_keys_are_documented() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    for settings in (CentralConfiguration, SiteConfiguration):
        for key in settings.__struct_fields__:
            assert f"`{key}`" in text or f"`{key}." in text, key


def test_the_error_catalogue_is_closed() -> None:
    assert set(CATALOGUE) == set(Code)
    for advice in CATALOGUE.values():
        assert advice.next_step.endswith(".")

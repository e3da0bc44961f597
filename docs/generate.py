"""Writes the generated parts of the documents between their markers; `make documents`."""

import re
import sys
from pathlib import Path

from engine.catalogue.descriptors import catalogue
from engine.errors import CATALOGUE
from engine.rules.reference_page import catalogue_page
from engine.session.documentation import transition_tables

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.mutants.definitions import document as mutants  # noqa: E402 - the tests are no installed package


def code_table() -> str:
    """A row per code of the error catalogue."""
    return "\n".join(
        f"| {code} | {advice.who_acts} | {'yes' if advice.retry else 'no'} | {advice.next_step} |"
        for code, advice in CATALOGUE.items()
    )


GENERATED = {
    ROOT / "ARCHITECTURE.md": {"transitions": transition_tables},
    ROOT / "docs" / "operating.md": {"codes": code_table},
}


def documents() -> dict[Path, str]:
    """Every document with generated parts, as it should be."""
    made = {}
    for path, parts in GENERATED.items():
        text = path.read_text()
        for name, part in parts.items():
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            text, count = pattern.subn(lambda found, part=part: f"{found[1]}{part()}\n{found[2]}", text)  # type: ignore[misc]
            assert count == 1, f"{path.name} has no place for {name}"
        made[path] = text
    folder = ROOT / "docs"
    return made | {folder / "mutants.md": mutants(), folder / "catalogue.md": catalogue_page(catalogue())}


if __name__ == "__main__":
    for document, text in documents().items():
        document.write_text(text)
    sys.exit(0)

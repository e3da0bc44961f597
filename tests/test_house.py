"""The rules of the house, checked by reading the sources: who may import whom, sizes, where SQL lives."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "site_node", "central_node", "field_lab")
FILE_LINES, FUNCTION_LINES = 400, 50

PURE = ("engine.catalogue", "engine.rules", "engine.session")
ENGINE_TOP = ("engine.errors", "engine.limits")
ALLOWED: dict[str, tuple[str, ...]] = {
    "engine.errors": (),
    "engine.limits": (),
    "engine.reporting": ENGINE_TOP,
    "engine.directory": ENGINE_TOP,
    "engine.node_settings": (*ENGINE_TOP, "engine.directory", "msgspec"),
    "engine.catalogue": (*ENGINE_TOP, "engine.catalogue", "google", "packhorse"),
    "engine.rules": (*ENGINE_TOP, "engine.catalogue", "engine.rules", "google", "packhorse"),
    "engine.session": (
        *ENGINE_TOP, "engine.catalogue", "engine.rules", "engine.session", "google", "packhorse", "zstandard",
    ),
    "engine.storage": (
        *ENGINE_TOP, "engine.directory", "engine.reporting", *PURE, "engine.storage", "aiosqlite", "packhorse",
    ),
    "engine.rpc": (
        *ENGINE_TOP, "engine.directory", *PURE, "engine.rpc", "grpc", "google", "structlog", "cryptography",
        "packhorse",
    ),
    "engine.command_line": ("engine", "click", "structlog"),
    "site_node": ("engine", "site_node", "packhorse", "*"),
    "central_node": ("engine", "central_node", "packhorse", "*"),
    "field_lab.oracle": ("field_lab.oracle",),
    "field_lab": ("engine", "field_lab", "packhorse", "site_node", "central_node", "*"),
}  # fmt: skip
IMPURE_MODULES = frozenset(("asyncio", "time", "random", "os", "logging", "uuid", "sqlite3", "secrets", "socket"))


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def every_file() -> Iterator[Path]:
    yield from sources()
    yield from sorted((ROOT / "tests").rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", tuple(sources()), ids=module_of)
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    module = module_of(path)
    if module == "engine":
        return
    room = next((name for name in ALLOWED if is_within(module, name)), None)
    assert room is not None, f"{module} is in no room of the house"
    for imported in imports(path):
        top = imported.split(".")[0]
        if top in ("site_node", "central_node", "field_lab", "engine", "packhorse"):
            assert any(is_within(imported, allowed) for allowed in ALLOWED[room]), f"{module} imports {imported}"
        elif "*" not in ALLOWED[room]:
            standard = top in __import__("sys").stdlib_module_names
            assert standard or any(is_within(imported, allowed) for allowed in ALLOWED[room]), f"{module}: {imported}"
        if any(is_within(module, pure) for pure in PURE):
            assert top not in IMPURE_MODULES, f"{module} is pure and imports {imported}"


def test_no_package_imports_in_a_circle() -> None:
    graph = {module_of(path): {name for name in imports(path) if name.split(".")[0] in PACKAGES} for path in sources()}
    done: set[str] = set()
    while len(done) < len(graph):
        ready = [name for name, wants in graph.items() if name not in done and not (wants & graph.keys()) - done]
        assert ready, f"a circle among {sorted(graph.keys() - done)}"
        done.update(ready)


def test_only_storage_folders_speak_sql() -> None:
    statement = re.compile(r"\b(SELECT .* FROM|INSERT INTO|DELETE FROM|UPDATE \w+ SET|CREATE TABLE)\b")
    # These stand in for other programs at a site, or say whether a queue is empty.
    exempt = ("field_lab", "site_node.node", "site_node.session", "central_node.node", "central_node.web")
    for path in sources():
        module = module_of(path)
        if ".storage" in module or module.startswith(exempt):
            continue
        assert not statement.search(path.read_text()), f"{module} speaks SQL"


@pytest.mark.parametrize("path", tuple(every_file()), ids=module_of)
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= FUNCTION_LINES, f"{node.name} has {size} lines"


@pytest.mark.parametrize("path", tuple(sources()), ids=module_of)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert path.name == "__init__.py" or ast.get_docstring(tree), "the module says what it is"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_no_module_keeps_state_that_changes() -> None:
    for path in sources():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List | ast.Set):
                names = [ast.unparse(target) for target in getattr(node, "targets", [getattr(node, "target", None)])]
                assert all(name.isupper() or name.startswith("_") for name in names), f"{module_of(path)}: {names}"

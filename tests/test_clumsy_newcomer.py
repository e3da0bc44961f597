"""The command lines in the hands of a newcomer: whatever is typed ends in success or in one plain sentence.

Where a command is refused, nothing in the directory has changed. What needs a process of its own (Ctrl-C, a closed
standard output) is in tests/processes/test_bad_input.py.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from central_node.cli import main as central_main
from engine.errors import Code
from site_node.cli import main as site_main
from tests.garbling import EXAMPLES, SLOW_MACHINES

INSIDE = ("Traceback", "Errno", "sqlite3.", 'File "', "Error(", "<class")
NOT_UTF8 = os.fsdecode(b"caf\xe9")
LONG = "n" * 5_000


class Said(NamedTuple):
    """What a command said."""

    exit_code: int
    text: str


def typed(main: click.Command, *words: str, environment: dict[str, str] | None = None) -> Said:
    """Runs a command line; whatever it ends with, it is no exception."""
    result = CliRunner(env=environment).invoke(main, list(words), prog_name="program")
    told = result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert not [inside for inside in INSIDE if inside in told], told
    return Said(result.exit_code, told)


def refused(said: Said, code: Code) -> str:
    assert said.exit_code == 1 and f"[{code}]" in said.text, said
    assert len(said.text.strip().splitlines()) == 1, "one sentence"
    return said.text


def wrong_usage(said: Said) -> None:
    assert said.exit_code == 2 and ("Usage:" in said.text), said


@pytest.fixture(scope="module", name="made")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("made")
    environment = pytest.MonkeyPatch()
    environment.setenv("PACKHORSE_STATE", str(folder / "state"))
    ports = ("--grpc", "127.0.0.1:17443", "--web", "127.0.0.1:17480")
    assert typed(central_main, "init", str(folder / "central"), *ports).exit_code == 0
    yield folder / "central"
    environment.undo()


@pytest.fixture(name="central")
def central_directory(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a central node, to be spoiled. The present directory is empty."""
    shutil.copytree(made, tmp_path / "central")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "central"


def contents(directory: Path) -> list[str]:
    """Every row of the database, and every other file."""
    with sqlite3.connect(directory / "node.db") as connection:
        found = list(connection.iterdump())
    connection.close()
    files = [path for path in sorted(directory.iterdir()) if not path.name.startswith(("node.db", "node.lock"))]
    return found + [f"{path.name}: {path.read_bytes()!r}" for path in files]


def test_init_on_what_is_no_new_directory(central: Path, tmp_path: Path) -> None:
    before = contents(central)
    assert "node already" in refused(typed(central_main, "init", str(central)), Code.DIRECTORY_TAKEN)
    (central / "node.toml").rename(tmp_path / "kept")
    assert "cut off" in refused(typed(central_main, "init", str(central)), Code.DIRECTORY_TAKEN)
    (tmp_path / "kept").rename(central / "node.toml")
    assert contents(central) == before
    (tmp_path / "file").touch()
    wrong_usage(typed(central_main, "init", str(tmp_path / "file")))
    refused(typed(central_main, "init", str(tmp_path / "file" / "below")), Code.DIRECTORY_WRONG)
    refused(typed(central_main, "init", str(tmp_path / LONG)), Code.DIRECTORY_WRONG)
    wrong_usage(typed(central_main, "init", ""))
    assert not list(Path().iterdir()), "an empty name is not the directory one is in"


@pytest.mark.parametrize(
    "address", ["nowhere", ":7443", "a:-1", "a:0", "127.0.0.1:99999", "::1:1", "a b:1", "a:\u0661", ""]
)
def test_init_with_a_wrong_address_leaves_nothing_behind(central: Path, tmp_path: Path, address: str) -> None:
    for option in ("--grpc", "--web"):
        refused(typed(central_main, "init", str(tmp_path / "new"), option, address), Code.ADDRESS_WRONG)
        assert not (tmp_path / "new").exists()
    assert typed(central_main, "init", str(tmp_path / "new")).exit_code == 0


@pytest.mark.parametrize("name", ["", "  ", " x", "a\nb", "a\x00b", "\x1b[31m", LONG])
def test_names_that_are_none(central: Path, tmp_path: Path, name: str) -> None:
    before = contents(central)
    refused(typed(central_main, "init", str(tmp_path / "new"), "--name", name), Code.NAME_WRONG)
    refused(typed(central_main, "site", "add", str(central), "--", f"x\n{name}x"), Code.NAME_WRONG)
    assert not (tmp_path / "new").exists() and contents(central) == before


def test_what_is_not_utf_8(central: Path, tmp_path: Path) -> None:
    before = contents(central)
    (tmp_path / "items.csv").write_text("id,name\nx,y\n")
    here, file = str(central), str(tmp_path / "items.csv")
    for words in (
        ("init", str(tmp_path / "new"), "--name", NOT_UTF8),
        ("site", "add", here, NOT_UTF8),
        ("store", "assign", here, NOT_UTF8, "--site", "1"),
        ("import", here, NOT_UTF8, file),
        ("import", here, "item", file, "--set", f"name={NOT_UTF8}"),
        ("import", here, "item", file, "--map", f"name={NOT_UTF8}"),
        ("import", here, "item", file, "--last-wins", NOT_UTF8),
    ):
        wrong_usage(typed(central_main, *words))
    for option in ("--central", "--token"):
        given = {"--central": "127.0.0.1:1", "--token": "x"} | {option: NOT_UTF8}
        wrong_usage(typed(site_main, "join", str(tmp_path / "site"), *(w for pair in given.items() for w in pair)))
    assert contents(central) == before
    shutil.copy(tmp_path / "items.csv", tmp_path / f"{NOT_UTF8}.csv")
    said = typed(central_main, "import", here, "item", str(tmp_path / f"{NOT_UTF8}.csv"))
    assert said.exit_code == 0, "a path is what the system allows"


def test_options_that_are_given_twice(central: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,name\nx,y\n")
    words = ("import", str(central), "item", str(tmp_path / "items.csv"))
    wrong_usage(typed(central_main, *words, "--set", "name=a", "--set", "name=b"))
    wrong_usage(typed(central_main, *words, "--map", "name=id", "--map", "name=name"))
    wrong_usage(typed(central_main, *words, "--map", "=x"))


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e300", "soon", ""])
def test_minutes_that_are_none(central: Path, minutes: str) -> None:
    wrong_usage(typed(site_main, "serve", str(central), "--every", minutes))


@pytest.mark.parametrize("number", ["abc", "1.5", "99999999999999999999", "\u0663", ""])
def test_numbers_of_sites_that_are_none(central: Path, number: str) -> None:
    before = contents(central)
    for words in (("site", "show", str(central), number), ("store", "assign", str(central), "x", "--site", number)):
        said = typed(central_main, *words)
        assert said.exit_code == 2 or "[SITE_UNKNOWN]" in said.text or "[STORE_UNKNOWN]" in said.text, said
    assert contents(central) == before


TOKEN = "ph1.AAAA"
CA_FILES: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "rubbish": b"\x00\xff" * 100,
    "PEM around rubbish": b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n",
    "half a PEM": b"-----BEGIN CERTIFICATE-----\n\xe9\xff\n",
}


@pytest.mark.parametrize("case", CA_FILES)
def test_a_ca_file_that_is_none(central: Path, tmp_path: Path, case: str) -> None:
    said = typed(central_main, "site", "add", str(central), "Badili")
    token = said.text.split("--token ")[1].split()[0]
    content, path = CA_FILES[case], tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    words = ("join", str(tmp_path / "site"), "--central", "127.0.0.1:1", "--token", token, "--ca", str(path))
    assert str(path) in refused(typed(site_main, *words), Code.CERTIFICATE_WRONG)
    assert not (tmp_path / "site").exists()
    wrong_usage(typed(site_main, *words[:-1], str(tmp_path)))


def _rubbish(path: Path) -> None:
    path.write_bytes(b"rubbish " * 100)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _anothers(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE shopping (list TEXT)")
    connection.close()


SPOILED: dict[str, tuple[str, Callable[[Path], None], Code]] = {
    "no database": ("node.db", Path.unlink, Code.DATABASE_DAMAGED),
    "database of another program": ("node.db", _anothers, Code.DATABASE_DAMAGED),
    "rubbish as database": ("node.db", _rubbish, Code.DATABASE_DAMAGED),
    "empty database": ("node.db", _empty, Code.DATABASE_DAMAGED),
    "half a database": ("node.db", _cut, Code.DATABASE_DAMAGED),
    "directory as database": ("node.db", _directory, Code.DATABASE_DAMAGED),
    "newer database": ("node.db", _newer, Code.DATABASE_NEWER),
    "no certificate": ("server.pem", Path.unlink, Code.CERTIFICATE_UNUSABLE),
    "rubbish as certificate": ("server.pem", _rubbish, Code.CERTIFICATE_UNUSABLE),
    "no key": ("server.key", Path.unlink, Code.CERTIFICATE_UNUSABLE),
    "directory as key": ("server.key", _directory, Code.CERTIFICATE_UNUSABLE),
    "directory as lock": ("node.lock", _directory, Code.DIRECTORY_WRONG),
    "no configuration": ("node.toml", Path.unlink, Code.DIRECTORY_WRONG),
    "directory as configuration": ("node.toml", _directory, Code.DIRECTORY_WRONG),
    "rubbish as configuration": ("node.toml", _rubbish, Code.CONFIGURATION_WRONG),
    "empty configuration": ("node.toml", _empty, Code.CONFIGURATION_WRONG),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_directory_in_which_something_is_spoiled(central: Path, case: str) -> None:
    name, spoil, code = SPOILED[case]
    spoil(central / name)
    before = {path.name: path.read_bytes() for path in central.iterdir() if path.is_file() and path.name != "node.lock"}
    refused(typed(central_main, "serve", str(central)), code)
    if code not in (Code.CERTIFICATE_UNUSABLE,):
        for words in (("status",), ("site", "add")):
            refused(typed(central_main, *words, str(central), *(["x"] if "add" in words else [])), code)
    after = {path.name: path.read_bytes() for path in central.iterdir() if path.is_file()}
    assert {name: after.get(name) for name in before} == before
    assert name in after or not (central / name).is_file(), "nothing was made in its place"


def test_without_its_ca_no_token_is_made(central: Path) -> None:
    (central / "ca.pem").unlink()
    refused(typed(central_main, "site", "add", str(central), "x"), Code.CERTIFICATE_UNUSABLE)


ENVIRONMENT = {
    "PACKHORSE_GRPC": "nowhere",
    "PACKHORSE_WEB": "127.0.0.1",
    "PACKHORSE_TLS": "yes",
    "PACKHORSE_TLS__KEY": "key.pem",
    "PACKHORSE_LOG_FORMAT": "yaml",
    "PACKHORSE_ROLE": "site",
}


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_an_environment_that_does_not_fit(central: Path, variable: str) -> None:
    before = contents(central)
    said = typed(central_main, "serve", str(central), environment={variable: ENVIRONMENT[variable]})
    assert variable.removeprefix("PACKHORSE_").split("__")[0].lower() in refused(said, Code.CONFIGURATION_WRONG)
    assert contents(central) == before


def test_an_address_of_another_machine(central: Path) -> None:
    for variable in ("PACKHORSE_GRPC", "PACKHORSE_WEB"):
        said = typed(central_main, "serve", str(central), environment={variable: "192.0.2.1:7443"})
        refused(said, Code.ADDRESS_WRONG)


def test_a_trace_that_cannot_be_written(central: Path) -> None:
    environment = {"PACKHORSE_TRACE": str(central / "no" / "such" / "file")}
    refused(typed(central_main, "serve", str(central), environment=environment), Code.CONFIGURATION_WRONG)


WORDS = st.one_of(
    st.sampled_from(["DIR", "FILE", "item", "--json", "--help", "--set", "--map", "name=x", "1", "-1", "--", "", "*"]),
    st.text(max_size=8),
    st.binary(max_size=8).map(os.fsdecode),
).filter(lambda word: "\0" not in word)  # where a word of a command line ends
COMMANDS = st.sampled_from(
    [("import",), ("site", "add"), ("site", "list"), ("site", "show"), ("store", "assign"), ("status",), (), ("site",)]
)


@settings(deadline=None, database=None, max_examples=EXAMPLES, suppress_health_check=SLOW_MACHINES)
@given(command=COMMANDS, words=st.lists(WORDS, max_size=5))
def test_any_words(central: Path, tmp_path: Path, command: tuple[str, ...], words: list[str]) -> None:
    """Without `init`, `join` and `serve`, which make something or stay."""
    file = tmp_path / "items.csv"
    file.write_text("id,name\nx,y\n")
    known = {"DIR": str(central), "FILE": str(file)}
    said = typed(central_main, *command, *(known.get(word, word) for word in words))
    assert said.exit_code in (0, 1, 2)
    assert said.exit_code != 1 or "ERROR: " in said.text

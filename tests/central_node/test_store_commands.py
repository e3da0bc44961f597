"""The commands about stores and visibility as an operator types them, each rehearsed before it is done."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from central_node.cli import main

# What an operator types, in this order; what a rehearsal of it says besides the command's own sentence.
_SESSION = [
    (
        ("store", "add", "DIR", "Lae Base Store", "--id", "lae", "--code", "LAE"),
        "store lae at site 1: none -> transfer",
    ),
    (("store", "add", "DIR", "Badili Store", "--id", "badili"), "store badili at site 1: none -> transfer"),
    (("store", "edit", "DIR", "badili", "--name", "Badili Ward", "--mode", "dispensary"), ""),
    (("store", "assign", "DIR", "lae", "--site", "2"), "site 2 (Lae) gains store-record/lae: 1 record\n"),
    (("store", "assign", "DIR", "badili", "--site", "1"), "store badili at site 1: transfer -> active"),
    (("store", "include-transactions", "DIR", "badili", "off"), ""),
    (("visibility", "add", "DIR", "store", "badili", "--in", "lae"), "store badili at site 2: none -> transfer"),
    (("store", "sync-with", "DIR", "badili", "--site", "2", "active-collector"), "gains store/badili: 0 records"),
    (("visibility", "remove", "DIR", "store", "badili", "--in", "lae"), "site 2 (Lae) loses store-record/badili"),
]


@pytest.fixture(name="directory")
def central_with_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACKHORSE_STATE", str(tmp_path / "state"))
    directory = tmp_path / "central"
    assert typed(directory, "init", "DIR").exit_code == 0
    assert typed(directory, "site", "add", "DIR", "Lae").exit_code == 0
    return directory


def typed(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [str(directory) if word == "DIR" else word for word in words])


def content(directory: Path) -> Sequence[str]:
    connection = sqlite3.connect(directory / "node.db")
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_each_change_is_rehearsed_and_then_done_as_it_was_rehearsed(directory: Path) -> None:
    for words, says in _SESSION:
        before = content(directory)
        shown = typed(directory, *words, "--dry-run")
        assert shown.exit_code == 0 and shown.stdout.endswith("Nothing was changed (--dry-run).\n"), words
        assert says in shown.stdout, (words, shown.stdout)
        rehearsed = told(typed(directory, *words, "--dry-run", "--json"))
        assert content(directory) == before, words
        done = told(typed(directory, *words, "--json"))
        assert content(directory) != before, words
        assert (rehearsed.pop("dry_run"), done.pop("dry_run")) == (True, False)
        assert rehearsed == done, words


def test_stores_and_what_is_visible_are_listed(directory: Path) -> None:
    for words, _ in _SESSION[:-1]:
        assert typed(directory, *words).exit_code == 0
    stores = told(typed(directory, "store", "list", "DIR", "--json"))["stores"]
    assert stores == [
        {"store": "badili", "code": "", "name": "Badili Ward", "mode": "dispensary", "site": 1},
        {"store": "lae", "code": "LAE", "name": "Lae Base Store", "mode": "store", "site": 2},
    ]
    lines = [line.split() for line in typed(directory, "store", "list", "DIR").stdout.splitlines()]
    assert lines == [
        ["store", "code", "name", "mode", "site"],
        ["badili", "Badili", "Ward", "dispensary", "1"],
        ["lae", "LAE", "Lae", "Base", "Store", "store", "2"],
    ]
    seen = ("visibility", "list", "DIR", "store", "--in", "lae")
    assert told(typed(directory, *seen, "--json")) == {"visible": [{"table": "name", "id": "badili"}]}
    assert [line.split() for line in typed(directory, *seen).stdout.splitlines()] == [
        ["table", "id"],
        ["name", "badili"],
    ]

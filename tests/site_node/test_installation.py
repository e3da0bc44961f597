"""The install secret lies outside the directory that it belongs to, and a copy has none (F13)."""

import shutil
import stat
from pathlib import Path

import pytest

from engine.errors import Code, Refused
from site_node.installation import STATE_VARIABLE, Installation, read_installation, state_directory, write_installation

MINE = Installation("a" * 32, bytes(range(32)))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's directory, bound to its secret."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    made = tmp_path / "site"
    made.mkdir()
    (made / "node.toml").write_text("role = 'site'\n")
    write_installation(made, MINE)
    return made


def test_f13_the_secret_is_outside_and_private(directory: Path) -> None:
    secret = state_directory() / MINE.id
    assert not secret.is_relative_to(directory)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert all(MINE.credential.hex() not in path.read_text() for path in directory.iterdir())
    assert read_installation(directory, MINE.id) == MINE


def refusal(directory: Path, installation: str = MINE.id) -> Code:
    with pytest.raises(Refused) as caught:
        read_installation(directory, installation)
    return caught.value.code


def test_f13_what_was_moved_or_restored_in_place_is_the_site_and_a_copy_is_not(directory: Path, tmp_path: Path) -> None:
    moved, copy = tmp_path / "moved", tmp_path / "copy"
    directory.rename(moved)
    assert read_installation(moved, MINE.id) == MINE
    shutil.copytree(moved, copy)
    assert refusal(copy) is Code.COPIED
    shutil.copytree(moved, tmp_path / "backup")
    shutil.rmtree(moved)
    shutil.copytree(tmp_path / "backup", moved)
    assert read_installation(moved, MINE.id) == MINE, "its lineage token tells that it is a backup"
    assert refusal(copy) is Code.COPIED
    moved.rename(directory)
    assert read_installation(directory, MINE.id) == MINE
    assert refusal(copy) is Code.COPIED


@pytest.mark.parametrize("case", ["missing", "empty", "no object", "short", "not hexadecimal", "a path"])
def test_f13_without_its_secret_a_directory_is_no_site(directory: Path, case: str) -> None:
    secret = state_directory() / MINE.id
    contents = {
        "empty": "",
        "no object": "[]",
        "short": '{"credential": "00"}',
        "not hexadecimal": '{"credential": "' + "x" * 64 + '"}',
    }
    if case == "missing":
        secret.unlink()
    elif case in contents:
        secret.write_text(contents[case])
    assert refusal(directory, "../" + MINE.id if case == "a path" else MINE.id) is Code.LINEAGE_BROKEN

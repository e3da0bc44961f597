"""Any node.toml and any environment: the daemon starts with what is written, or says which key does not fit."""

import os
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from central_node.configuration import CentralConfiguration
from central_node.configuration import read_configuration as read_central
from engine.errors import Code, PackhorseError
from site_node.configuration import SiteConfiguration
from site_node.configuration import read_configuration as read_site
from tests.garbling import EXAMPLES, SLOW_MACHINES

FUZZ = settings(deadline=None, database=None, max_examples=EXAMPLES, suppress_health_check=SLOW_MACHINES)
ROLES = {"central": (read_central, CentralConfiguration), "site": (read_site, SiteConfiguration)}
KEYS = ["role", "name", "grpc", "web", "log_format", "tls", "central", "server_name", "nmae", "", "a.b", "R\u00f4le"]
WORDS = [
    "central",
    "site",
    "",
    "json",
    "text",
    "yaml",
    "127.0.0.1:7443",
    "[::1]:1",
    "nowhere",
    ":1",
    "a:99999",
    "x" * 5_000,
]
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(WORDS), st.text(max_size=8), st.integers(-1, 1 << 40), st.booleans(), st.just(float("nan")),
    st.lists(st.integers(0, 1), max_size=2),
    st.dictionaries(st.sampled_from(["certificate", "key", "x"]), st.sampled_from(WORDS)),
)  # fmt: skip
INSIDE = (
    "Traceback", "Error(", "msgspec", "Object contains", "Expected `", "Invalid enum", "<class", "0x", "type=",
    "https:",
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn, role: str) -> bytes:
    """A configuration file with some keys set to anything, or with anything in between; or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=100))
    written: dict[str, Any] = {"role": role, "name": "n"} | ({"central": "a:1"} if role == "site" else {})
    written |= draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2))
    content = tomlkit.dumps(written).encode("utf-8", "replace")
    for _ in range(draw(st.integers(0, 2)) if draw(st.integers(0, 3)) == 0 else 0):
        at = draw(st.integers(0, len(content)))
        noise = draw(st.sampled_from([b"\x00", b"\xff", b'"', b"=", b"[", b"\n", b"]", b"\xef\xbb\xbf", b"." * 9]))
        content = content[:at] + noise + content[at:]
    return content


@pytest.mark.parametrize("role", ROLES)
@FUZZ
@given(data=st.data())
def test_any_file_is_read_or_refused_by_name(tmp_path: Path, role: str, data: st.DataObject) -> None:
    (tmp_path / "node.toml").write_bytes(data.draw(files(role), "file"))
    read, kind = ROLES[role]
    try:
        found = read(tmp_path)
    except PackhorseError as error:
        event(error.code)
        assert error.code in (Code.CONFIGURATION_WRONG, Code.DIRECTORY_WRONG)
        assert_plain(error)
    else:
        event("read")
        assert isinstance(found, kind) and found.role == role


VARIABLES = [
    "NAME",
    "GRPC",
    "WEB",
    "TLS",
    "TLS__KEY",
    "TLS__CERTIFICATE",
    "TLS__KEY__X",
    "CENTRAL",
    "LOG_FORMAT",
    "ROLE",
]
TEXTS = st.one_of(
    st.sampled_from([*WORDS, "{", "{}", "[]", '{"key": 1}', "null", "1", os.fsdecode(b"\xff")]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8),
)


@pytest.mark.parametrize("role", ROLES)
@FUZZ
@given(variables=st.dictionaries(st.sampled_from(VARIABLES), TEXTS, max_size=2))
@example(variables={"TLS": "[" * 100_000})
def test_any_environment_is_read_or_refused_by_name(tmp_path: Path, role: str, variables: dict[str, str]) -> None:
    (tmp_path / "node.toml").write_text(f'role = "{role}"\n' + ('central = "a:1"\n' if role == "site" else ""))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"PACKHORSE_{name}", value)
        try:
            ROLES[role][0](tmp_path)
        except PackhorseError as error:
            event(error.code)
            assert error.code is Code.CONFIGURATION_WRONG
            assert_plain(error)
        else:
            event("read")


def assert_plain(error: PackhorseError) -> None:
    """One sentence that a person can read."""
    assert len(error.sentence) < 1_000 and error.sentence.isprintable(), error.sentence
    assert not [inside for inside in INSIDE if inside in error.sentence], error.sentence


@pytest.mark.parametrize(
    "content", [b"a = " + b"[" * 10_000, b"[" * 10_000, b"a." * 5_000 + b"b = 1", b"x = 1\n" * 2, b"#" * 100_000]
)
def test_a_deep_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.toml").write_bytes(b'role = "central"\n' + content)
    with pytest.raises(PackhorseError) as caught:
        read_central(tmp_path)
    assert caught.value.code is Code.CONFIGURATION_WRONG
    assert_plain(caught.value)

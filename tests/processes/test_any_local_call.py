"""The door of a running daemon in its directory: whatever a local program says there is done, or refused by name."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from packhorse.local.v1 import local_pb2

from engine.errors import Code
from engine.rpc.local_channel import CODE_KEY
from field_lab.country import free_port
from tests.garbling import EXAMPLES

pytestmark = pytest.mark.processes
FUZZ = settings(deadline=None, database=None, max_examples=EXAMPLES)
EXECUTE = "/packhorse.local.v1.LocalService/Execute"
START_SECONDS, ANSWER_SECONDS = 30.0, 20.0


class Daemon:
    """A central node that serves."""

    def __init__(self, folder: Path) -> None:
        self.directory, self.log = folder / "central", folder / "central.log"
        environment = os.environ | {"PACKHORSE_STATE": str(folder / "state")}
        start = [sys.executable, "-m", "central_node"]
        addresses = ("--grpc", f"127.0.0.1:{free_port()}", "--web", f"127.0.0.1:{free_port()}")
        subprocess.run([*start, "init", str(self.directory), *addresses], check=True, env=environment)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*start, "serve", str(self.directory)], stderr=log, env=environment)
        deadline = time.monotonic() + START_SECONDS
        while '"event": "serving"' not in self.log.read_text():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.channel = grpc.insecure_channel(
            f"unix:{self.directory / 'node.sock'}", options=[("grpc.max_send_message_length", -1)]
        )

    def call(self, method: str, request: bytes) -> tuple[grpc.StatusCode, str, str]:
        """(status, the catalogue's code where one was told, what was said)."""
        unary: Any = self.channel.unary_unary(method)
        try:
            unary(request, timeout=ANSWER_SECONDS, wait_for_ready=True)
            return grpc.StatusCode.OK, "", ""
        except grpc.RpcError as error:
            told: Any = error
            metadata = dict(told.trailing_metadata() or ())
            return told.code(), str(metadata.get(CODE_KEY, "")), told.details() or ""

    def status(self) -> dict[str, Any]:
        """What `status` says through the door."""
        request = local_pb2.ExecuteRequest(command="status", arguments_json="{}").SerializeToString()
        unary: Any = self.channel.unary_unary(EXECUTE)
        answer = local_pb2.ExecuteResponse.FromString(unary(request, timeout=ANSWER_SECONDS, wait_for_ready=True))
        told: dict[str, Any] = json.loads(answer.result_json)
        return told

    def stop(self) -> int:
        """Asks it to end; returns its exit code."""
        self.channel.close()
        self.process.terminate()
        return self.process.wait(START_SECONDS)


@pytest.fixture(scope="module", name="daemon")
def daemon_that_serves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("local"))
    try:
        yield daemon
    finally:
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text()


COMMANDS = ["import", "site add", "site list", "site show", "store assign", "status", "", "no such", "x" * 9_000]
NAMES = ["name", "site", "store", "central", "table", "file", "mapping", "settings", "last_wins", "more"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.sampled_from(["", "item", "collector", "active", "/dev/zero", "/etc/passwd",
                         "a\x00b", "a\ud800b", "x" * 9_000]),
        st.sampled_from([0, 1, -1, 1 << 63, 10**400, 1.5, float("nan"), float("inf"), None, True]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["id", "name", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)  # fmt: skip
FITTING: dict[str, Any] = {
    "name": "Badili", "site": 1, "store": "x", "central": "collector", "table": "item", "file": "/missing.csv",
    "mapping": {}, "settings": {}, "last_wins": "",
}  # fmt: skip


@FUZZ
@given(command=st.sampled_from(COMMANDS), changed=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2))
@example(command="site add", changed={"name": "\ud800"})
@example(command="import", changed={"file": "\ud800.csv"})
@example(command="import", changed={"settings": {"name": "\ud800"}})
@example(command="store assign", changed={"store": "\ud800"})
def test_any_arguments(daemon: Daemon, command: str, changed: dict[str, Any]) -> None:
    arguments = {name: value for name, value in (FITTING | changed).items() if value is not None}
    request = local_pb2.ExecuteRequest(command=command, arguments_json=json.dumps(arguments))
    status, code, said = daemon.call(EXECUTE, request.SerializeToString())
    event(f"{command[:9]}: {code or status}")
    if status is not grpc.StatusCode.OK:
        assert status is grpc.StatusCode.FAILED_PRECONDITION, said
        assert code in Code.__members__ and code != "INTERNAL", f"{code}: {said}"
        assert not [inside for inside in ("Traceback", "Error(", "sqlite3", "<class") if inside in said], said


TEXTS = ["", "{", "[]", "null", "1", "[" * 200_000, '{"a":' * 100_000, "9" * 10_000, '"\\ud800"', "\ufeff{}", "NaN"]


@FUZZ
@given(text=st.one_of(st.sampled_from(TEXTS), st.text(max_size=20)))
def test_any_text_as_arguments(daemon: Daemon, text: str) -> None:
    request = local_pb2.ExecuteRequest(command="site show", arguments_json=text)
    status, code, said = daemon.call(EXECUTE, request.SerializeToString())
    assert (status, code) == (grpc.StatusCode.FAILED_PRECONDITION, "COMMAND_WRONG"), said


@FUZZ
@given(raw=st.binary(max_size=60), method=st.sampled_from([EXECUTE, EXECUTE[:-1], "/no.such.Service/X", "/"]))
def test_any_message(daemon: Daemon, raw: bytes, method: str) -> None:
    status, code, said = daemon.call(method, raw)
    assert status in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL), (
        said
    )
    assert "Traceback" not in said and 'File "' not in said
    assert code != "INTERNAL"


def test_what_is_too_large(daemon: Daemon) -> None:
    request = local_pb2.ExecuteRequest(command="status", arguments_json=" " * (48 << 20))
    assert daemon.call(EXECUTE, request.SerializeToString())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert daemon.status()["name"] == "central"


@FUZZ
@given(raw=st.one_of(st.binary(max_size=200), st.binary(max_size=50).map(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".__add__)))
def test_any_bytes_on_the_socket(daemon: Daemon, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(daemon.directory / "node.sock"))
        connection.sendall(raw)
    assert daemon.process.poll() is None


def test_it_goes_on_after_all_that(daemon: Daemon) -> None:
    assert daemon.status()["name"] == "central"

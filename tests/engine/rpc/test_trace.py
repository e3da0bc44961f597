"""The trace tells every message that a session can carry."""

from pathlib import Path

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.rpc.trace import VARIABLE, open_trace
from engine.session.frames import pack

SECTION = document_pb2.FeedSection(scope="central", generation=2, from_position=5, to_position=9)


def told(frame: document_pb2.PullFrame, file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines about a pull frame that is received and applied, without their times."""
    monkeypatch.setenv(VARIABLE, str(file))
    trace = open_trace()(7)
    trace("received", session_pb2.CentralMessage(pull_frame=frame))
    trace("apply_commit", frame)
    return [line.split(" ", 1)[1] for line in file.read_text().splitlines()]


def test_a_pull_frame_is_told_with_its_feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, body_hash = pack(document_pb2.PullBody(sections=[SECTION]))
    frame = document_pb2.PullFrame(sequence=3, body=body, hash=body_hash)
    lines = told(frame, tmp_path / "trace", monkeypatch)
    assert lines == ["frame_received 3 7 pull central:2:5-9", "apply_commit 3 7 pull central:2:5-9"]


def test_a_pull_frame_that_came_in_parts_has_no_body_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, body_hash = pack(document_pb2.PullBody(sections=[SECTION]))
    frame = document_pb2.PullFrame(sequence=3, hash=body_hash, parts_bytes=len(body))
    lines = told(frame, tmp_path / "trace", monkeypatch)
    assert lines == ["frame_received 3 7 pull", "apply_commit 3 7 pull"]

"""Frames that are too large for what a link lets through are taken back and cut anew under new numbers (F27)."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.limits import FRAME_RECORDS_LEAST
from engine.session.frames import unpack
from engine.session.pace import Pace
from tests.partners import Central, Site, connect, pull, synchronise

LARGE, SMALL = (50, 1 << 20), (2, 1 << 20)
STEPS = (
    "edit", "edit", "edit again", "delete", "held", "cut large", "cut small", "answered", "answer lost",
    "session", "session takes back",
)  # fmt: skip


class Sender:
    """A site that sends frames, and every frame that was ever seen of it."""

    def __init__(self, folder: Path) -> None:
        self.central = Central(folder / "node-1.db")
        self.site = self.central.add(folder, 2)
        self.number = 0
        connect(self.central, self.site)
        pull(self.central, self.site)
        self.seen: dict[int, bytes] = {}

    def make(self, step: str) -> None:
        """Makes a step."""
        self.number += 1
        match step:
            case "edit":
                self.site.put_stock(f"s{self.number}", str(self.number))
            case "edit again":
                self.site.put_invoice("i", [str(self.number)], str(self.number))
            case "delete":
                self.site.execute("DELETE FROM stock_line WHERE id = (SELECT min(id) FROM stock_line)")
            case "held":
                self.site.put_stock("h", str(self.number), "item-9")
            case "cut large" | "cut small":
                self._note(self.site.cut(LARGE if step == "cut large" else SMALL), is_new=True)
            case "answered" | "answer lost":
                self._send(step == "answered")
            case "session":
                connect(self.central, self.site)
            case "session takes back":
                self.site.recut(connect(self.central, self.site), 0)
        for frame in self.site.frames():
            self._note(frame)

    def _note(self, frame: document_pb2.Frame | None, is_new: bool = False) -> None:
        if frame is None:
            return
        assert not is_new or frame.number > max(self.seen, default=0), "a number is given once"
        assert self.seen.setdefault(frame.number, frame.hash) == frame.hash, "a frame keeps its bytes"

    def _send(self, is_answered: bool) -> None:
        frame = next(iter(self.site.frames()), None)
        if frame is None:
            return
        (told,) = self.central.take_from(self.site, [frame])
        assert isinstance(told, session_pb2.Acknowledgement), "what is sent continues the chain"
        self.central.route()
        if is_answered:
            self.site.settle(told)
        else:
            connect(self.central, self.site)


@settings(deadline=None, max_examples=40)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_f27_frames_are_cut_anew_without_loss(steps: list[str]) -> None:
    with TemporaryDirectory() as folder:
        sender = Sender(Path(folder))
        for step in steps:
            sender.make(step)
        sender.central.execute("INSERT INTO item (id, name, unit_id) VALUES ('item-9', 'late', 'each')")
        report = synchronise(sender.central, sender.site)
        assert report.in_agreement, report
        for table in ("stock_line", "invoice", "invoice_line"):
            assert sender.site.rows(table) == sender.central.rows(table)


def send_over(central: Central, site: Site, pace: Pace, capacity_bytes: int) -> bool:
    """A session over a link that breaks after so many bytes; returns whether everything got through."""
    site.recut(connect(central, site), pace.records, pace.size_bytes)
    sent = 0
    while frame := next(iter(site.frames()), None) or site.cut((pace.records, pace.size_bytes)):
        sent += len(frame.body)
        if sent > capacity_bytes:
            pace.lost(progressed=sent > len(frame.body))
            return False
        (told,) = central.take_from(site, [frame])
        assert isinstance(told, session_pb2.Acknowledgement)
        site.settle(told)
        pace.acknowledged()
    return True


@pytest.mark.parametrize("capacity_bytes", [64 * 1024, 8 * 1024, 2 * 1024])
def test_f27_a_link_that_breaks_early_lets_everything_through(tmp_path: Path, capacity_bytes: int) -> None:
    """A frame of full size was cut and stored while the link was good; now it would never pass."""
    chance = random.Random(capacity_bytes)
    sender = Sender(tmp_path)
    for number in range(1_200):
        sender.site.put_stock(f"s{number}", chance.randbytes(40).hex())
    full = sender.site.cut()
    assert full is not None and (len(full.body) > capacity_bytes or capacity_bytes == 64 * 1024)
    pace, sessions = Pace(), 0
    while not send_over(sender.central, sender.site, pace, capacity_bytes):
        sessions += 1
        assert sessions < 400, "the link lets no frame through any more"
        assert pace.records >= FRAME_RECORDS_LEAST
    assert sender.central.rows("stock_line") == sender.site.rows("stock_line")


@pytest.mark.parametrize("later_term", [1, 2, 7])
@pytest.mark.parametrize("edits", [[], ["s"], ["other"], ["s", "s"]], ids=len)
def test_f27_a_change_that_is_taken_back_keeps_its_lowest_term(
    tmp_path: Path, later_term: int, edits: list[str]
) -> None:
    """Made under term 1, framed, edited again under a later term, taken back: it still is a change of term 1 (F6)."""
    sender = Sender(tmp_path)
    site = sender.site
    site.put_stock("s", "first")
    assert site.cut() is not None
    site.execute("UPDATE sync_authority SET term = ? WHERE owner = 'store'", later_term)
    for name in edits:
        site.put_stock(name, "later")
    assert site.recut(connect(sender.central, site), 0) == 0, "a single document is no reason to cut anew"
    site.put_stock("filler", "x")
    site.cut()
    site.execute("UPDATE sync_frame SET documents = 2")
    assert site.recut(connect(sender.central, site), 0)
    frame = site.cut()
    assert frame is not None
    body = unpack(document_pb2.FrameBody, frame.body, frame.hash)
    terms = {document.id: document.version.term for document in body.documents}
    assert terms["s"] == 1, "the term under which it was first made"
    assert terms.get("other", later_term) == later_term

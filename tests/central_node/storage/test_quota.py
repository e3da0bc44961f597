"""The held list is bounded and nothing is dropped: what has no room stays with its sender, the rest goes on (F28)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import session_pb2

from engine.storage import held
from tests.partners import Central, Site, connect, pull, push, synchronise

ROOM, ROOM_BYTES = 2, 600
BAD, GOOD = range(5), range(3)
LARGE = "x" * 300
STEPS = (
    *(f"large bad {number}" for number in BAD),
    *(f"bad {number}" for number in BAD), *(f"good {number}" for number in GOOD), *(f"item m{n}" for n in BAD),
    "push", "push", "push frame by frame", "pull", "session", "session", "bad 0 is deleted",
)  # fmt: skip


class Crowd:
    """A site whose documents wait for more items than the central keeps documents."""

    def __init__(self, folder: Path) -> None:
        self.central = Central(folder / "node-1.db")
        self.site = self.central.add(folder, 2)
        self.number = 0
        connect(self.central, self.site)
        pull(self.central, self.site)

    def make(self, step: str) -> None:
        """Makes a step."""
        self.number += 1
        name = step.rpartition(" ")[2]
        what = step.split(maxsplit=1)[0]
        if step == "bad 0 is deleted":
            self.site.execute("DELETE FROM stock_line WHERE id = 'bad 0'")
        elif what == "large":
            self.site.put_stock(f"bad {name}", f"{self.number}{LARGE}", f"m{name}")
        elif what in ("bad", "good"):
            self.site.put_stock(step, str(self.number), f"m{name}" if what == "bad" else "item-0")
        elif what == "item":
            self.central.execute(
                "INSERT INTO item (id, name, unit_id) VALUES (?, 'x', 'each') ON CONFLICT DO NOTHING", name
            )
        elif what == "push":
            push(self.central, self.site, (1, 1 << 20) if step.endswith("frame") else (500, 1 << 20))
            assert not self.site.count("sync_outbox", "token <> framed_token"), "one bad document stops no other"
        elif what == "pull":
            pull(self.central, self.site)
        else:
            connect(self.central, self.site)

    def check(self) -> None:
        """What holds at every moment."""
        assert self.central.count("sync_held") <= ROOM
        (bytes_held,) = self.central.execute("SELECT coalesce(sum(length(document)), 0) FROM sync_held")
        assert bytes_held[0] <= ROOM_BYTES
        there = self.central.rows("stock_line")
        waiting = {row[0] for row in self.site.execute("SELECT id FROM sync_outbox")}
        for row in self.site.rows("stock_line"):
            assert row in there or row[0] in waiting, "what the central has not applied stays at the site"


@pytest.fixture(autouse=True, scope="module")
def little_room() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "HELD_DOCUMENTS_PER_SITE", ROOM)
        patch.setattr(held, "HELD_BYTES_PER_SITE", ROOM_BYTES)
        yield


@settings(deadline=None, max_examples=40)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_f28_nothing_is_dropped_and_nothing_stands_still(steps: list[str]) -> None:
    with TemporaryDirectory() as folder:
        crowd = Crowd(Path(folder))
        for step in steps:
            crowd.make(step)
            crowd.check()
        for number in BAD:
            crowd.make(f"item m{number}")
        crowd.make("session")
        for _ in range(2):
            report = synchronise(crowd.central, crowd.site)
            crowd.check()
        assert report.in_agreement, report
        assert crowd.site.rows("stock_line") == crowd.central.rows("stock_line")


def dispositions(central: Central, site: Site) -> dict[str, str]:
    """What is said of each document of the next push."""
    found = {}
    for frame in [site.cut()] if site.count("sync_outbox", "token <> framed_token") else []:
        assert frame is not None
        names = [
            row[0]
            for row in site.execute("SELECT id FROM sync_in_flight WHERE frame = ? ORDER BY document", frame.number)
        ]
        (told,) = central.take_from(site, [frame])
        assert isinstance(told, session_pb2.Acknowledgement)
        site.settle(told)
        apart = {o.index: session_pb2.Disposition.Name(o.disposition) for o in told.outcomes}
        found = {name: apart.get(place, "APPLIED").removeprefix("DISPOSITION_") for place, name in enumerate(names)}
    return found


def test_f28_an_answer_sorts_the_documents_of_a_frame(tmp_path: Path) -> None:
    crowd = Crowd(tmp_path)
    for step in ("bad 0", "good 0", "bad 1", "bad 2", "good 1"):
        crowd.make(step)
    first = {"bad 0": "HELD", "good 0": "APPLIED", "bad 1": "HELD", "bad 2": "DEFERRED", "good 1": "APPLIED"}
    assert dispositions(crowd.central, crowd.site) == first
    assert dispositions(crowd.central, crowd.site) == {}, "not sent again in this session"
    crowd.make("session")
    assert dispositions(crowd.central, crowd.site) == {"bad 2": "DEFERRED"}, "only what had no room is tried again"
    crowd.make("bad 0")
    assert dispositions(crowd.central, crowd.site) == {"bad 0": "HELD"}, "a newer version takes the place of the older"
    crowd.make("bad 2")
    assert dispositions(crowd.central, crowd.site) == {"bad 2": "DEFERRED"}
    crowd.make("item m1")
    crowd.central.route()
    crowd.make("session")
    assert dispositions(crowd.central, crowd.site) == {"bad 2": "HELD"}, "there is room again"


def test_f28_bytes_are_bounded_as_well_as_documents(tmp_path: Path) -> None:
    crowd = Crowd(tmp_path)
    for step in ("large bad 0", "large bad 1", "good 0"):
        crowd.make(step)
    assert dispositions(crowd.central, crowd.site) == {"bad 0": "HELD", "bad 1": "DEFERRED", "good 0": "APPLIED"}
    crowd.make("session")
    crowd.make("bad 1")
    assert dispositions(crowd.central, crowd.site) == {"bad 1": "HELD"}, "a small one has room"
    crowd.make("large bad 1")
    assert dispositions(crowd.central, crowd.site) == {"bad 1": "DEFERRED"}, "what grows needs room as well"
    crowd.make("large bad 0")
    assert dispositions(crowd.central, crowd.site) == {"bad 0": "HELD"}, "as large as what it replaces"
    crowd.make("item m1")
    crowd.central.route()
    crowd.make("item m0")
    crowd.central.route()
    assert synchronise(crowd.central, crowd.site).in_agreement
    assert crowd.site.rows("stock_line") == crowd.central.rows("stock_line")


def test_f28_a_reference_of_any_length_is_held_in_bounds(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "HELD_BYTES_PER_SITE", 1 << 20)
        crowd = Crowd(tmp_path)
        crowd.site.put_stock("bad 0", item="m" * 100_000)
        assert dispositions(crowd.central, crowd.site) == {"bad 0": "HELD"}
        ((sentence, waits),) = crowd.central.execute("SELECT length(sentence), length(waits_id) FROM sync_held")
        assert sentence < 500 and waits <= 200
        (noted,) = crowd.central.execute("SELECT max(length(acknowledgement)) FROM central_note")
        assert noted[0] < 1_000


@pytest.mark.parametrize("later", ["edited", "deleted"])
@pytest.mark.parametrize("is_pipelined", [True, False], ids=["before the answer", "after the answer"])
def test_f28_what_follows_a_deferred_version_comes_whole(tmp_path: Path, later: str, is_pipelined: bool) -> None:
    crowd = Crowd(tmp_path)
    for step in ("bad 0", "bad 1", "push", "bad 2"):
        crowd.make(step)
    crowd.site.put_invoice("i", ["a", "b"])
    crowd.site.execute("UPDATE invoice_line SET item_id = 'm3' WHERE id = 'i/a'")
    frames = [crowd.site.cut()]

    def edit() -> None:
        if later == "deleted":
            crowd.site.execute("DELETE FROM invoice WHERE id = 'i'")
        else:
            crowd.site.put_invoice("i", ["c"], "more")

    if is_pipelined:
        edit()
        frames.append(crowd.site.cut())
    for frame in frames:
        assert frame is not None
        (told,) = crowd.central.take_from(crowd.site, [frame])
        assert isinstance(told, session_pb2.Acknowledgement)
        crowd.site.settle(told)
    if not is_pipelined:
        edit()
    for number in BAD:
        crowd.make(f"item m{number}")
    crowd.central.route()
    report = synchronise(crowd.central, crowd.site)
    report = synchronise(crowd.central, crowd.site)
    assert report.in_agreement, report
    for table in ("stock_line", "invoice", "invoice_line"):
        assert crowd.site.rows(table) == crowd.central.rows(table)
    assert crowd.central.count("invoice_line") == (0 if later == "deleted" else 3)

"""Agreement is computed: a healthy country never seems to differ, and who is told to agree has the same rows."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.catalogue.codec import codec, record_hash
from engine.errors import Code
from engine.rules.versions import NEVER
from engine.storage.held import Reason, hold
from engine.storage.integrity import Mended
from field_lab.core_catalogue import core_catalogue
from tests.partners import (
    EVERY_TABLE,
    NOW,
    Central,
    checkpoint,
    connect,
    pull,
    push,
    synchronise,
)

SHARED = ("item", "stock_line", "invoice", "invoice_line")
STEPS = (
    "stock", "stock", "hot stock", "held stock", "invoice", "invoice grows", "delete", "item", "unrouted item",
    "missing item", "cut", "push", "push, answer lost", "pull", "pull in small pages", "one page", "connect", "route",
)  # fmt: skip


class Story:
    """A site and a central; each step is something that may happen next."""

    def __init__(self, folder: Path) -> None:
        self.central = Central(folder / "node-1.db")
        self.site = self.central.add(folder, 2)
        self.number = 0
        connect(self.central, self.site)

    def make(self, step: str) -> None:
        """Makes a step."""
        getattr(self, "_" + step.replace(", ", "_").replace(" ", "_"))()

    def _stock(self) -> None:
        self.number += 1
        self._at_site(lambda: self.site.put_stock(f"s{self.number}", f"{self.number}.50"))

    def _hot_stock(self) -> None:
        self.number += 1
        self._at_site(lambda: self.site.put_stock("hot", str(self.number)))

    def _held_stock(self) -> None:
        self.number += 1
        self._at_site(lambda: self.site.put_stock(f"held{self.number % 2}", str(self.number), "item-9"))

    def _invoice(self) -> None:
        self.number += 1
        self._at_site(lambda: self.site.put_invoice(f"i{self.number}", ["a", "b"]))

    def _invoice_grows(self) -> None:
        self.number += 1
        self._at_site(lambda: self.site.put_invoice("i", [str(self.number)], str(self.number)))

    def _delete(self) -> None:
        self._at_site(lambda: self.site.execute("DELETE FROM invoice WHERE id = (SELECT max(id) FROM invoice)"))
        self._at_site(lambda: self.site.execute("DELETE FROM stock_line WHERE id = (SELECT max(id) FROM stock_line)"))

    def _at_site(self, edit: object) -> None:
        try:
            edit()  # type: ignore[operator]
        except sqlite3.IntegrityError as error:
            assert "STORE_DATA_WHERE_ACTIVE" in str(error), "before the first configuration only"

    def _unrouted_item(self) -> None:
        self.number += 1
        self.central.execute("UPDATE item SET name = ? WHERE id = ?", str(self.number), f"item-{self.number % 5}")

    def _item(self) -> None:
        self._unrouted_item()
        self.central.route()

    def _missing_item(self) -> None:
        self.central.execute(
            "INSERT INTO item (id, name, unit_id) VALUES ('item-9', 'n', 'each') ON CONFLICT DO NOTHING"
        )

    def _cut(self) -> None:
        self.site.cut((2, 1 << 20))

    def _push(self) -> None:
        push(self.central, self.site, (2, 1 << 20))

    def _push_answer_lost(self) -> None:
        frame = next(iter(self.site.frames()), None) or self.site.cut((2, 1 << 20))
        if frame is not None:
            self.central.take_from(self.site, [frame])
            connect(self.central, self.site)  # a frame whose answer was lost is followed by a new session

    def _pull(self) -> None:
        pull(self.central, self.site)

    def _pull_in_small_pages(self) -> None:
        pull(self.central, self.site, 2)

    def _one_page(self) -> None:
        self.central.route()
        body, cursors = self.central.pull_body(self.site, 3)
        self.site.apply(body)
        self.central.cursors[2], self.central.changes[2] = cursors, []

    def _connect(self) -> None:
        connect(self.central, self.site)

    def _route(self) -> None:
        self.central.route()


def check(story: Story) -> None:
    """What has to hold at every moment."""
    told = checkpoint(story.central, story.site)
    if told is None:
        return
    assert digests_of_rows(story.central, told) == digests_told(told), "a checkpoint speaks of what is there (F44)"
    found = story.site.compare(told)
    assert not found.differing, "nobody did anything wrong, and yet the digests differ"
    assert story.central.sweep() == story.site.sweep() == Mended(), "nobody did anything wrong"
    report = story.site.report(told)
    if report.in_agreement:
        for table in SHARED:
            assert story.site.rows(table) == story.central.rows(table), table
        assert not story.central.count("sync_held") and not story.site.count("sync_outbox")


def digests_told(told: session_pb2.PullCheckpoint) -> dict[str, dict[str, tuple[int, bytes]]]:
    """Scope -> table -> digest, as a checkpoint has them."""
    return {feed.scope: {d.table: (d.count, d.sum) for d in feed.digests} for feed in told.feeds}


def digests_of_rows(central: Central, told: session_pb2.PullCheckpoint) -> dict[str, dict[str, tuple[int, bytes]]]:
    """The same, computed from the rows as they are now."""
    found: dict[str, dict[str, tuple[int, bytes]]] = {}
    for feed in told.feeds:
        sums: dict[str, tuple[int, int]] = {}
        for name, record_id, *version in central.execute(
            "SELECT r.table_name, r.id, r.term, r.term_id, r.counter FROM sync_membership AS m JOIN sync_scope AS s"
            " USING (scope) JOIN sync_record AS r USING (table_name, id) WHERE s.name = ? AND m.state = 0",
            feed.scope,
        ):
            (row,) = central.execute(f"SELECT * FROM {name} WHERE id = ?", record_id)
            (term, term_id, counter) = version
            one = record_hash(name, record_id, term, term_id, counter, codec(core_catalogue()[name]).canonical(row))
            count, total = sums.get(name, (0, 0))
            sums[name] = (count + 1, (total + int.from_bytes(one, "big")) % (1 << 128))
        found[feed.scope] = {name: (count, total.to_bytes(16, "big")) for name, (count, total) in sums.items()}
    return found


@settings(deadline=None, max_examples=40)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_f25_a_healthy_country_never_seems_to_differ(steps: list[str]) -> None:
    with TemporaryDirectory() as folder:
        story = Story(Path(folder))
        for step in ["pull", *steps]:
            story.make(step)
            check(story)
        story.make("missing item")
        report = synchronise(story.central, story.site)
        assert report.in_agreement, report
        check(story)


@pytest.mark.parametrize("before", [[], ["stock", "push"], ["stock", "cut"], ["item", "one page"]], ids=len)
@pytest.mark.parametrize("under_way", ["own change", "woken document", "new entry"])
def test_f44_a_checkpoint_waits_for_what_is_under_way(tmp_path: Path, before: list[str], under_way: str) -> None:
    """A change that is committed at the central and not in a feed yet is seen by no digest: no checkpoint then."""
    story = Story(tmp_path)
    for step in ("pull", "held stock", "push", *before, "pull"):
        story.make(step)
    assert checkpoint(story.central, story.site) is not None
    match under_way:
        case "own change":
            story.make("unrouted item")
        case "woken document":
            story.central.execute("UPDATE sync_held SET ready = 1")
        case "new entry":
            story.make("item")
    assert checkpoint(story.central, story.site) is None
    story.make("pull")
    assert checkpoint(story.central, story.site) is not None
    check(story)


@pytest.fixture(name="story")
def agreeing_story(tmp_path: Path) -> Iterator[Story]:
    story = Story(tmp_path)
    for step in ("pull", "stock", "invoice", "item"):
        story.make(step)
    assert synchronise(story.central, story.site).in_agreement
    yield story


@pytest.mark.parametrize("quoted", ["generation", "position", "last frame"])
@pytest.mark.parametrize("by", [-1, 1])
def test_f25_digests_of_two_states_are_not_compared(story: Story, quoted: str, by: int) -> None:
    """A checkpoint of another moment says nothing, neither that both agree nor that they differ."""
    told = checkpoint(story.central, story.site)
    assert told is not None and story.site.compare(told).comparable
    for feed in told.feeds:
        for digest in feed.digests:
            digest.count += 1  # would differ, if it were compared
    if quoted == "last frame":
        told.last_frame += by
    for feed in told.feeds:
        feed.generation += by * (quoted == "generation")
        if feed.position:  # an empty feed stands at 0
            feed.position += by * (quoted == "position")
    found = story.site.compare(told)
    assert not found.comparable and not found.differing
    assert not story.site.report(told).in_agreement


@pytest.mark.parametrize("scope", ["central", "store/store-2"])
@pytest.mark.parametrize("of", ["count", "sum"])
def test_f25_a_digest_that_differs_is_named(story: Story, scope: str, of: str) -> None:
    told = checkpoint(story.central, story.site)
    assert told is not None
    for feed in told.feeds:
        if feed.scope == scope and of == "count":
            feed.digests[0].count += 1
        elif feed.scope == scope:
            feed.digests[0].sum = bytes(16)
    report = story.site.report(told)
    assert list(report.differing) == [scope] and not report.in_agreement


@pytest.mark.parametrize("unknown", [["item"], ["stock_line"], ["invoice_line"], ["invoice", "invoice_line"]])
def test_f25_a_site_that_lacks_a_table_can_agree(story: Story, tmp_path: Path, unknown: list[str]) -> None:
    """The central sends an older site neither records nor digests of a table that it does not know."""
    older = story.central.add(tmp_path, 3)
    older.tables = EVERY_TABLE - set(unknown)
    story.central.collect(story.site.store, older)
    report = synchronise(story.central, older)
    assert report.in_agreement, report
    for table in SHARED:
        if table in unknown:
            assert not older.count(table)
        else:
            assert older.rows(table) == story.central.rows(table) != set()


@pytest.mark.parametrize(
    "lacks",
    ["nothing", "comparable", "digests", "pushed", "held here", "held there", "asked for", "asked by the central"],
)
def test_law10_agreement_needs_all_of_it(story: Story, lacks: str) -> None:
    """Equal digests of comparable states, nothing waiting, nothing held: each of them by itself is not enough."""
    if lacks == "pushed":
        story.make("stock")
    told = checkpoint(story.central, story.site)
    assert told is not None
    match lacks:
        case "comparable":
            told.last_frame += 1
        case "digests":
            told.feeds[0].digests[0].count += 1
        case "held here":
            why = Reason(Code.UNREADABLE, "It cannot be read.")
            document = document_pb2.Document(table="item", id="x")
            story.site.write(lambda c: hold(c, document, NEVER, story.site.number, why, NOW))
        case "held there":
            told.held = 1
        case "asked for":
            story.site.execute("INSERT INTO sync_want VALUES ('item', 'item-0')")
        case "asked by the central":
            told.wanted.add(table="item", id="item-0")
    assert story.site.report(told).in_agreement == (lacks == "nothing")

"""What was deleted, or left a scope, is forgotten when it is old and every live subscriber knows of it; who was away
for longer reads the feed again and then lacks what is gone (F38)."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from central_node.storage import purge
from central_node.storage.purge import purge_entries
from engine.limits import PURGE_RECORDS, TOMBSTONE_DAYS
from engine.storage import retention
from engine.storage.retention import last_forgotten, purge_tombstones
from tests.partners import Central, Node, Site, checkpoint, connect, pull, synchronise

DAY = 86_400
WRITES, READS = 2, 3
SCOPE = f"store/store-{WRITES}"


@pytest.fixture
def central(tmp_path: Path) -> Central:
    return Central(tmp_path / "node-1.db")


@pytest.fixture
def sites(central: Central, tmp_path: Path) -> dict[int, Site]:
    """One that writes stock and documents, and one that collects them."""
    made = {number: central.add(tmp_path, number) for number in (WRITES, READS)}
    central.collect(made[WRITES].store, made[READS])
    for site in made.values():
        synchronise(central, site)
    for number in range(3):
        made[WRITES].put_stock(f"s{number}")
        made[WRITES].put_invoice(f"i{number}", ["a", "b"])
    central.execute("INSERT INTO item (id, name, unit_id) VALUES ('unused', 'x', 'each')")
    agree(central, made)
    return made


def agree(central: Central, sites: dict[int, Site]) -> None:
    for _ in range(2):
        reports = [synchronise(central, site) for site in sites.values()]
    assert all(report.in_agreement for report in reports), reports
    for number, site in sites.items():
        stores = f"store_id IN ('{site.store}', 'store-{WRITES}')"
        assert site.count("stock_line") == central.count("stock_line", stores), number
        for table in ("item", "name", "unit"):
            assert site.rows(table) == central.rows(table)


def delete_some(central: Central, site: Site) -> None:
    site.execute("DELETE FROM stock_line WHERE id = 's0'")
    site.execute("DELETE FROM invoice WHERE id = 'i0'")
    central.execute("DELETE FROM item WHERE id = 'unused'")


def pass_days(node: Node, days: int, *heard_of: Site) -> None:
    """So many days pass; the central hears of these sites on each."""
    for _ in range(days):
        node.now += DAY
        if isinstance(node, Central):
            for site in heard_of:
                node.execute("UPDATE central_site SET last_seen = ? WHERE site = ?", node.now, site.number)
            node.write(partial(purge.begin_day, now=node.now))
        else:
            node.write(partial(retention.begin_day, now=node.now))


def forget(node: Node) -> int:
    """A whole purge; returns how many entries and tombstones went."""
    gone = 0
    if isinstance(node, Central):
        entry: purge.Place | None = purge.BEGINNING
        while entry is not None:
            step = node.write(partial(purge_entries, after=entry))
            gone, entry = gone + step.entries, step.after
    place: retention.Place | None = retention.BEGINNING
    while place is not None:
        told = node.write(partial(purge_tombstones, after=place))
        gone, place = gone + told.records, told.after
    return gone


def remembered(node: Node) -> tuple[int, int]:
    """(entries of feeds that ended, tombstones) in a database."""
    return node.count("sync_membership", "state <> 0"), node.count("sync_record", "deleted = 1")


def test_f38_tombstones_are_forgotten_when_they_are_old_and_everybody_has_them(
    central: Central, sites: dict[int, Site]
) -> None:
    delete_some(central, sites[WRITES])
    agree(central, sites)
    before = remembered(central)
    assert min(before) >= 5, "a stock line, a document with two lines, an item"
    for node in (central, *sites.values()):
        pass_days(node, TOMBSTONE_DAYS - 1, *sites.values())
        assert forget(node) == 0, "they are not old enough"
        pass_days(node, 1, *sites.values())
        assert forget(node) > 0
        assert remembered(node) == (0, 0)
    agree(central, sites)


def test_f38_a_live_subscriber_that_lags_keeps_them(central: Central, sites: dict[int, Site]) -> None:
    delete_some(central, sites[WRITES])
    synchronise(central, sites[WRITES])
    pass_days(central, TOMBSTONE_DAYS, *sites.values())
    forget(central)
    kept = {row[0] for row in central.execute("SELECT DISTINCT table_name FROM sync_membership WHERE state <> 0")}
    assert kept == {"item", "stock_line", "invoice", "invoice_line"}, "the reader has not read any of it"
    agree(central, sites)
    forget(central)
    assert remembered(central) == (0, 0)


@pytest.mark.parametrize("dead_days", [TOMBSTONE_DAYS - 1, TOMBSTONE_DAYS])
def test_f38_one_that_was_silent_for_too_long_holds_nothing_up(
    central: Central, sites: dict[int, Site], dead_days: int
) -> None:
    delete_some(central, sites[WRITES])
    synchronise(central, sites[WRITES])
    pass_days(central, dead_days, sites[WRITES])
    central.execute("UPDATE sync_membership SET ended_on = 1 WHERE state <> 0")
    pass_days(central, 1, *([sites[READS]] if dead_days < TOMBSTONE_DAYS else []), sites[WRITES])
    forget(central)
    stays = dead_days < TOMBSTONE_DAYS
    assert bool(central.count("sync_membership", "state <> 0")) is stays
    before = central.cursors[READS]
    agree(central, sites)
    again = {scope for scope, cursor in central.cursors[READS].items() if before[scope].generation != cursor.generation}
    assert again == (set() if stays else {"central", SCOPE}), "only feeds with a floor above its position begin again"


def test_f38_what_the_silent_one_has_not_sent_is_never_touched(central: Central, sites: dict[int, Site]) -> None:
    """Of others' records those that are gone go; its own, and what waits or is under way, stays, even if nothing of it
    can be sent before the feed is read again."""
    reader = sites[READS]
    reader.put_stock("mine")
    agree(central, sites)
    delete_some(central, sites[WRITES])
    synchronise(central, sites[WRITES])
    pass_days(central, TOMBSTONE_DAYS + 1, sites[WRITES])
    forget(central)
    reader.put_stock("mine", "edited while away")
    reader.put_stock("framed", item="unused")
    assert reader.cut() is not None
    reader.put_stock("new", item="unused")
    reader.put_invoice("away", ["l"])
    connect(central, reader)
    pull(central, reader)
    told = checkpoint(central, reader)
    assert told is not None
    reader.report(told)
    assert reader.count("sync_membership", "state = 3") == reader.count("stock_line", "id = 's0'") == 0
    assert reader.count("invoice", "id = 'i0'") == reader.count("invoice_line", "invoice_id = 'i0'") == 0
    assert reader.count("stock_line", "id IN ('mine', 'framed', 'new')") == 3
    assert reader.count("sync_outbox") == 5 and len(reader.frames()) == 1


def test_f38_a_link_that_keeps_breaking_comes_to_the_end_of_a_feed_with_a_floor(
    central: Central, sites: dict[int, Site], tmp_path: Path
) -> None:
    """A subscription that began after a purge needs nothing from before it: it is not begun again and again."""
    agree(central, sites)
    delete_some(central, sites[WRITES])
    agree(central, sites)
    pass_days(central, TOMBSTONE_DAYS, *sites.values())
    assert forget(central)
    late = central.add(tmp_path, 4)
    central.collect(sites[WRITES].store, late)
    connect(central, late)
    generations = {scope: cursor.generation for scope, cursor in central.cursors[4].items()}
    for _ in range(100):
        body, _ = central.pull_body(late, 1)
        if not body.sections and not body.subscriptions:
            break
        late.apply(body)
        connect(central, late)
        assert {scope: cursor.generation for scope, cursor in central.cursors[4].items()} == generations
    else:
        pytest.fail("it never came to the end")
    assert synchronise(central, late).in_agreement
    assert late.rows("stock_line") == central.rows("stock_line")


def owners(central: Central, sites: dict[int, Site]) -> Iterator[tuple[Node, str, str, str]]:
    """(where, delete, write again) of one thing of each owner."""
    yield (
        sites[WRITES],
        "stock_line",
        "s0",
        "INSERT INTO stock_line (id, store_id, item_id) VALUES ('s0', 'store-2', 'item-1')",
    )
    yield central, "item", "unused", "INSERT INTO item (id, name, unit_id) VALUES ('unused', 'again', 'each')"


@pytest.mark.parametrize(("owner_forgets", "central_forgets", "reader_forgets"), [*product([False, True], repeat=3)])
def test_f38_an_id_that_comes_back_is_newer_than_every_tombstone_of_it(
    central: Central, sites: dict[int, Site], owner_forgets: bool, central_forgets: bool, reader_forgets: bool
) -> None:
    for _ in range(3):
        sites[WRITES].execute("UPDATE stock_line SET batch = batch || 'x' WHERE id = 's0'")
        central.execute("UPDATE item SET name = name || 'x' WHERE id = 'unused'")
        agree(central, sites)
    delete_some(central, sites[WRITES])
    agree(central, sites)
    for node, forgets in ((sites[WRITES], owner_forgets), (central, central_forgets), (sites[READS], reader_forgets)):
        if forgets:
            pass_days(node, TOMBSTONE_DAYS, *sites.values())
            assert forget(node)
            assert node.read(last_forgotten).counter >= 4
    for owner, table, record_id, again in owners(central, sites):
        owner.execute(again)
        agree(central, sites)
        for each in (central, *sites.values()):
            assert each.count(table, f"id = '{record_id}'") == 1
    assert not central.count("sync_held")


def test_a_purge_takes_bounded_steps_and_passes_over_what_has_to_stay(central: Central, sites: dict[int, Site]) -> None:
    site = sites[WRITES]
    many = 2 * PURGE_RECORDS + 7
    site.execute("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT ?)"
                 " INSERT INTO stock_line (id, store_id, item_id) SELECT 'many ' || i, 'store-2', 'item-1' FROM n",
                 many)  # fmt: skip
    synchronise(central, site)
    site.execute("DELETE FROM stock_line WHERE id LIKE 'many%'")
    synchronise(central, site)
    pass_days(central, TOMBSTONE_DAYS, *sites.values())
    first = central.write(partial(purge_entries, after=purge.BEGINNING))
    assert first.entries == 0 and first.after is not None, "the reader lags; the step looked at a bounded number"
    central.execute("UPDATE central_subscription SET position = 1000000 WHERE scope = ?", SCOPE)
    steps, place = [], purge.BEGINNING
    while True:
        step = central.write(partial(purge_entries, after=place))
        steps.append(step.entries)
        if step.after is None:
            break
        place = step.after
    assert sum(steps) == many and max(steps) <= PURGE_RECORDS


def test_a_site_forgets_nothing_that_is_under_way(central: Central, sites: dict[int, Site]) -> None:
    site = sites[WRITES]
    site.execute("DELETE FROM stock_line WHERE id = 's0'")
    synchronise(central, site)
    site.execute("INSERT INTO stock_line (id, store_id, item_id) VALUES ('s0', 'store-2', 'item-1')")
    pass_days(site, TOMBSTONE_DAYS)
    assert forget(site) == 0
    assert site.cut() is not None
    assert forget(site) == 0
    agree(central, sites)


@pytest.mark.parametrize("jump", [-10 * 365 * DAY, 10 * 365 * DAY], ids=["back", "ahead"])
def test_f38_however_far_a_clock_jumps_only_one_day_has_passed(
    central: Central, sites: dict[int, Site], jump: int
) -> None:
    delete_some(central, sites[WRITES])
    agree(central, sites)
    before = [remembered(node) for node in (central, *sites.values())]
    for node in (central, *sites.values()):
        for by in (jump, -jump, jump):
            node.now += by
            pass_days(node, 1)
            assert forget(node) == 0
    assert [remembered(node) for node in (central, *sites.values())] == before


def test_f38_a_tombstone_that_is_in_no_feed_is_remembered_as_long(central: Central, sites: dict[int, Site]) -> None:
    """What came and went before it was routed is waited for like anything else (F26)."""
    central.write(lambda c: [c.execute(text) for text in ("INSERT INTO unit (id, name) VALUES ('u', 'u')",
                                                          "DELETE FROM unit WHERE id = 'u'")])  # fmt: skip
    central.route()
    assert not central.count("sync_membership", "id = 'u'")
    pass_days(central, TOMBSTONE_DAYS - 1, *sites.values())
    forget(central)
    assert central.count("sync_record", "id = 'u' AND deleted = 1") == 1
    pass_days(central, 1, *sites.values())
    forget(central)
    assert central.count("sync_record", "id = 'u'") == 0


def test_f26_what_was_taken_with_a_reference_goes_on_with_it_when_the_tombstone_is_forgotten(
    central: Central, sites: dict[int, Site]
) -> None:
    """Stock of an item that is deleted meanwhile, and more than 400 days later somebody counts it again."""
    site = sites[WRITES]

    def agreed() -> bool:
        return all(synchronise(central, node).in_agreement for _ in range(2) for node in sites.values())

    site.put_stock("offline", item="unused")
    site.put_invoice("offline", ["l"])
    site.execute("UPDATE invoice_line SET item_id = 'unused' WHERE invoice_id = 'offline'")
    central.execute("DELETE FROM item WHERE id = 'unused'")
    assert agreed() and site.count("sync_hidden") == 1
    for node in (central, *sites.values()):
        pass_days(node, TOMBSTONE_DAYS + 1, *sites.values())
    assert agreed()
    assert forget(central) > 0 and central.count("sync_record", "table_name = 'item' AND deleted = 1") == 0
    site.put_stock("offline", "counted again", item="unused")
    site.execute("UPDATE invoice_line SET note = 'seen' WHERE invoice_id = 'offline'")
    assert agreed()
    assert central.execute("SELECT batch FROM stock_line WHERE id = 'offline'") == [("counted again",)]
    assert central.execute("SELECT note FROM invoice_line WHERE invoice_id = 'offline'") == [("seen",)]
    site.put_stock("new", item="unused")
    synchronise(central, site)
    assert central.execute("SELECT id, code FROM sync_held") == [("new", "MISSING_REFERENCE")], "that is a new use"

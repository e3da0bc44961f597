"""Counts are estimates with a cap, and say so; nothing is decided by them (F48)."""

from pathlib import Path

import pytest
from packhorse.sync.v1 import session_pb2

from central_node.storage.roster import note_report
from central_node.storage.status import read_sites
from engine.command_line import show_fields
from engine.limits import COUNT_CAP
from engine.reporting import count_in_words, estimated, progress_in_words
from tests.partners import NOW, Central, Site, connect, pull, synchronise


@pytest.fixture(name="nodes")
def agreeing_nodes(tmp_path: Path) -> tuple[Central, Site]:
    central = Central(tmp_path / "node.db")
    site = central.add(tmp_path, 2)
    report = synchronise(central, site)
    assert report.in_agreement
    central.write(lambda c: note_report(c, site.number, report, NOW))
    return central, site


def add_entries(central: Central, count: int) -> None:
    """Puts entries of so many records into the feed that every site has."""

    def add(connection: object) -> None:
        del connection
        scope, head = central.execute("SELECT scope, position FROM sync_scope WHERE name = 'central'")[0]
        rows = [("item", f"more-{n}", scope, head + n) for n in range(1, count + 1)]
        central.connection.executemany(
            "INSERT INTO sync_membership (table_name, id, scope, position) VALUES (?, ?, ?, ?)", rows
        )
        central.execute("UPDATE sync_scope SET position = position + ? WHERE scope = ?", count, scope)

    central.write(add)


@pytest.mark.parametrize(
    ("more", "told", "words"),
    [(0, 0, "0"), (1, 1, "about 1"), (COUNT_CAP, COUNT_CAP, "about 10,000"), (COUNT_CAP + 1, COUNT_CAP, "> 10,000")],
)
def test_f48_what_waits_is_an_estimate_with_a_cap(
    nodes: tuple[Central, Site], capsys: pytest.CaptureFixture[str], more: int, told: int, words: str
) -> None:
    central, _ = nodes
    add_entries(central, more)
    (row,) = central.read(lambda c: read_sites(c, set(), running=True))
    assert row["waiting_to_pull"] == told and row["waiting_to_pull_capped"] == (more > COUNT_CAP)
    assert row["waiting_to_pull_estimated"] is True
    assert count_in_words(row, "waiting_to_pull") == words
    assert row["in_agreement"] == (more == 0), "there is more than what was compared"
    show_fields(row)
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["waiting to pull"].strip() == words


def test_f48_what_waits_is_counted_by_a_range_of_an_index(nodes: tuple[Central, Site]) -> None:
    central, _ = nodes
    asked: list[str] = []
    central.connection.set_trace_callback(asked.append)
    add_entries(central, 1)
    central.read(lambda c: read_sites(c, set(), running=True))
    central.connection.set_trace_callback(None)
    (query,) = [text for text in asked if "count(*)" in text and "sync_membership" in text]
    plan = " ".join(row[3] for row in central.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert "sync_membership_feed (scope=? AND position>?)" in plan and f"LIMIT {COUNT_CAP + 1}" in query


def test_f48_a_record_that_changed_often_counts_once(nodes: tuple[Central, Site]) -> None:
    """The head of the feed minus the position would say five."""
    central, site = nodes
    for number in range(5):
        central.execute("UPDATE item SET name = ? WHERE id = 'item-0'", f"name {number}")
        central.route()
    (row,) = central.read(lambda c: read_sites(c, set(), running=True))
    assert row["waiting_to_pull"] == 1
    connect(central, site)
    assert central.pull_body(site)[0].sections[0].documents[0].id == "item-0"
    pull(central, site)
    assert site.execute("SELECT name FROM item WHERE id = 'item-0'") == [("name 4",)]


def test_f48_nothing_waiting_is_no_agreement(nodes: tuple[Central, Site]) -> None:
    """Agreement is what a checkpoint found, never what a count says (law 10)."""
    central, site = nodes
    differs = session_pb2.CheckpointReport(round=1, comparable=True, differing=["central"])
    central.write(lambda c: note_report(c, site.number, differs, NOW))
    (row,) = central.read(lambda c: read_sites(c, set(), running=True))
    assert row["waiting_to_pull"] == row["waiting_to_push"] == 0 and not row["in_agreement"]


@pytest.mark.parametrize(
    ("remaining", "words"),
    [
        (None, "pulling"),
        (0, "pulling, about 0 records to come"),
        (COUNT_CAP, "pulling, about 10,000 records to come"),
        (COUNT_CAP + 1, "pulling, more than 10,000 records to come"),
    ],
)
def test_f48_progress_is_told_as_an_estimate(remaining: int | None, words: str) -> None:
    assert progress_in_words("pulling", remaining) == words


def test_f48_what_is_not_known_is_not_told_as_a_number() -> None:
    assert count_in_words(estimated("waiting_to_pull", None), "waiting_to_pull") == ""

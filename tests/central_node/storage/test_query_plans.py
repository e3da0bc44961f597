"""What grows with the data is read by an index: no statement of a synchronisation goes through a whole table.

A partial index is used only where a statement repeats its condition; nothing but the plan tells that it does not.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.limits import COUNT_CAP
from engine.storage.integrity import sweep_rows
from field_lab.core_catalogue import core_catalogue
from tests.partners import Central, Node, Site, connect, pull, push, synchronise

GROWING = ("sync_membership", "sync_record", "sync_outbox", "sync_held", "sync_in_flight", *core_catalogue().tables)
SMALL = ("site", "store_copy")
"""Configuration: read whole where it changes."""


class Statements:
    """Every different statement that a node's connection is given."""

    def __init__(self, node: Node) -> None:
        self.node, self.seen = node, dict[str, str]()
        node.connection.set_trace_callback(self._note)

    def _note(self, text: str) -> None:
        if text.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
            self.seen.setdefault(re.sub(r"'[^']*'|\b\d+\b|x'[^']*'|(\?, *)+", "?", text), text)

    def scans(self) -> Iterator[str]:
        """The statements that go through a whole table that grows, with what they go through."""
        self.node.connection.set_trace_callback(None)
        for text in self.seen.values():
            if f"LIMIT {COUNT_CAP + 1})" in text:  # what waits is counted up to there
                continue
            plan = [row[3] for row in self.node.connection.execute(f"EXPLAIN QUERY PLAN {text}")]
            for step in plan:
                match = re.match(r"SCAN (\w+)", step)
                if match and match[1] in GROWING and match[1] not in SMALL and "INDEX" not in step:
                    yield f"{step}: {text}"


@pytest.fixture(name="nodes")
def nodes_at_work(tmp_path: Path) -> tuple[Central, Site]:
    central = Central(tmp_path / "node.db")
    site = central.add(tmp_path, 2)
    assert synchronise(central, site).in_agreement
    return central, site


def work(central: Central, site: Site) -> None:
    """Everything that a session does, with documents of lines, documents that wait, deletes, and wants."""
    connect(central, site)
    for number in range(3):
        site.put_stock(f"s{number}", "b")
        site.put_invoice(f"i{number}", ["a", "b"])
    site.put_stock("waits", "b", "item-9")
    push(central, site, (2, 1 << 20))
    pull(central, site, 2)
    site.execute("DELETE FROM invoice WHERE id = 'i0'")
    site.execute("UPDATE stock_line SET batch = 'c'")
    central.execute("INSERT INTO item (id, name, unit_id) VALUES ('item-9', 'n', 'each')")
    assert synchronise(central, site).in_agreement
    site.apply(central.wanted(site, [("invoice", "i1"), ("stock_line", "s1")]))


def test_no_statement_of_a_synchronisation_goes_through_a_whole_table(nodes: tuple[Central, Site]) -> None:
    central, site = nodes
    watched = [Statements(node) for node in nodes]
    work(central, site)
    for node in nodes:
        node.read(lambda c: sweep_rows(c, core_catalogue(), ("", "")))
    assert min(len(statements.seen) for statements in watched) > 40
    found = [scan for statements in watched for scan in statements.scans()]
    assert not found, "\n".join(found)

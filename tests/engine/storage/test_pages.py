"""Pages of a feed are bounded, however the documents that they touch are spread over it (law 12), and whole (F14)."""

from functools import partial
from pathlib import Path

import pytest

from engine.storage.pages import read_wanted
from field_lab.core_catalogue import core_catalogue
from tests.partners import Central, Site, connect, pull, synchronise

DOCUMENTS, LINES, PAGE = 30, 40, 50


@pytest.fixture
def two_sites(tmp_path: Path) -> tuple[Central, Site, Site]:
    """A central with the documents of a site, each begun by one line before any got its others; and a new collector."""
    central = Central(tmp_path / "node-1.db")
    site, reader = central.add(tmp_path, 2), central.add(tmp_path, 3)
    for each in (site, reader):
        synchronise(central, each)
    for lines in (1, LINES):
        for number in range(DOCUMENTS):
            site.put_invoice(f"i{number:02}", [f"{line:02}" for line in range(lines)])
        synchronise(central, site)
    central.collect(site.store, reader)
    connect(central, reader)
    return central, site, reader


def test_a_page_that_touches_many_documents_carries_few_of_them(two_sites: tuple[Central, Site, Site]) -> None:
    central, site, reader = two_sites
    sizes = []
    while True:
        body, cursors = central.pull_body(reader, PAGE)
        if not body.sections and not body.subscriptions:
            break
        sizes.append(sum(len(document.records) for section in body.sections for document in section.documents))
        reader.apply(body)
        central.cursors[reader.number], central.changes[reader.number] = cursors, []
        half = "SELECT count(*) FROM invoice_line GROUP BY invoice_id HAVING count(*) < ?"
        assert reader.execute(half, LINES) == [], "a document comes whole"
    assert max(sizes) <= PAGE + LINES + 1, "a page is at most one document more than was asked for"
    assert reader.rows("invoice_line") == site.rows("invoice_line")


def test_one_document_that_is_larger_than_a_page_still_comes(two_sites: tuple[Central, Site, Site]) -> None:
    central, site, reader = two_sites
    pull(central, reader, records=3)
    assert reader.rows("invoice_line") == site.rows("invoice_line")


def test_what_was_wanted_comes_page_by_page_and_only_what_fits_is_read(two_sites: tuple[Central, Site, Site]) -> None:
    central, site, reader = two_sites
    pull(central, reader)
    roots = [("invoice", f"i{number:02}") for number in range(DOCUMENTS)]
    whole = central.wanted(reader, roots)
    assert len(whole.wanted) == DOCUMENTS
    scopes = frozenset(central.cursors[reader.number])
    limit, rest, found = whole.ByteSize() // 5, [("item", "nowhere"), *roots], []
    while rest:
        queries: list[str] = []
        central.connection.set_trace_callback(queries.append)
        work = partial(read_wanted, catalogue=core_catalogue(), roots=rest, scopes=scopes, limit_bytes=limit)
        page = central.read(work)
        assert sum(document.ByteSize() for document in page.documents) <= limit
        assert 0 < sum("FROM invoice WHERE" in query for query in queries) <= len(page.documents) + 1
        found += [document for document in page.documents if document.records]
        rest = page.later
    assert found == list(whole.wanted)
    assert site.count("invoice_line") == DOCUMENTS * LINES


def test_a_page_costs_what_is_in_it_and_not_what_the_feed_has(two_sites: tuple[Central, Site, Site]) -> None:
    central, site, reader = two_sites

    def steps_of_the_next_page() -> int:
        """Counts the steps of SQLite's machine."""
        site.put_stock("one", f"edited {len(steps)}")
        site.put_invoice("i00", ["00"], f"edited {len(steps)}")
        synchronise(central, site)
        counted: list[None] = []
        central.connection.set_progress_handler(lambda: counted.append(None), 1)
        central.pull_body(reader)
        central.connection.set_progress_handler(None, 1)
        pull(central, reader)
        return len(counted)

    steps: list[int] = []
    pull(central, reader)
    steps.append(steps_of_the_next_page())
    for number in range(3_000):
        site.put_stock(f"stock-{number}")
    synchronise(central, site)
    pull(central, reader)
    steps.append(steps_of_the_next_page())
    assert max(steps) <= min(steps) * 1.2, steps

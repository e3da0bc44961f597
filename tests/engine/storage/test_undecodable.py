"""Ids that are no UTF-8: refused by the triggers, and where those are gone they stop nothing but themselves."""

import sqlite3

import pytest

from engine.rules.authority import Rule
from engine.storage.held import held_list
from engine.storage.integrity import mend, sweep_rows
from engine.storage.push import cut_frame
from engine.storage.records import write_meta
from engine.storage.schema import repair_schema
from engine.storage.undecodable import note_undecodable
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import HERE, execute, undone

BAD = "CAST(x'6361ff' AS TEXT)"
BEHIND = {
    "a root": f"INSERT INTO invoice (id, store_id) VALUES ({BAD}, 'own')",
    "a line": f"INSERT INTO invoice_line (id, invoice_id) VALUES ({BAD}, 'invoice-1-own')",
    "a line of such a root": f"INSERT INTO invoice_line (id, invoice_id) VALUES ('line', {BAD})",
}
WELL = "UPDATE stock_line SET batch = 'well' WHERE id = 'stock-own'"


def without_triggers(node: sqlite3.Connection, sql: str) -> None:
    """What a program does that drops the triggers; the next session finds them gone and makes them again."""
    for (name,) in node.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        node.execute(f"DROP TRIGGER {name}")
    assert execute(node, sql) == ""
    repair_schema(node, core_catalogue())
    write_meta(node, site=str(HERE))


def sweep(node: sqlite3.Connection) -> None:
    """What a sweep of few rows does, inside the caller's transaction."""
    after = ("", "")
    while (swept := sweep_rows(node, core_catalogue(), after)).last != ("", ""):
        mend(node, core_catalogue(), swept.damaged, 0)
        after = swept.last
    note_undecodable(node, core_catalogue(), 0)


def sentences(node: sqlite3.Connection) -> list[str]:
    return [entry["sentence"] for entry in held_list(node)]


def test_an_edit_with_such_an_id_is_refused_by_name(site: sqlite3.Connection) -> None:
    for sql in (BEHIND["a root"], BEHIND["a line"]):
        with undone(site):
            assert execute(site, sql) == Rule.ID_REQUIRED.text


@pytest.mark.parametrize("case", BEHIND)
def test_behind_the_triggers_it_stops_nothing_else(site: sqlite3.Connection, case: str) -> None:
    table = BEHIND[case].split()[2]
    with undone(site):
        without_triggers(site, BEHIND[case])
        sweep(site)
        (told,) = sentences(site)
        assert f"1 of the rows of {table} cannot be sent: an id is no UTF-8" in told
        assert execute(site, WELL) == ""
        assert execute(site, "UPDATE invoice SET comment = 'well' WHERE id = 'invoice-2-own'") == ""
        while cut_frame(site, core_catalogue(), HERE, 0) is not None:
            pass
        sent = {row[0] for row in site.execute("SELECT id FROM sync_in_flight")}
        assert {"stock-own", "invoice-2-own"} <= sent


def test_a_whole_document_with_such_a_line_is_set_aside(site: sqlite3.Connection) -> None:
    with undone(site):
        assert execute(site, "INSERT INTO invoice (id, store_id) VALUES ('new', 'own')") == ""
        without_triggers(site, f"INSERT INTO invoice_line (id, invoice_id) VALUES ({BAD}, 'new')")
        assert execute(site, WELL) == ""
        while cut_frame(site, core_catalogue(), HERE, 0) is not None:
            pass
        assert site.execute("SELECT 1 FROM sync_in_flight WHERE id = 'new'").fetchone() is None
        assert site.execute("SELECT 1 FROM sync_in_flight WHERE id = 'stock-own'").fetchone() is not None
        (told,) = sentences(site)
        assert "invoice new cannot be sent: an id of invoice_line in it is no UTF-8" in told


def test_such_a_row_can_be_deleted_and_then_nothing_is_left_of_it(site: sqlite3.Connection) -> None:
    with undone(site):
        without_triggers(site, BEHIND["a root"])
        sweep(site)
        assert execute(site, f"DELETE FROM invoice WHERE id = {BAD}") == ""
        assert execute(site, WELL) == ""
        while cut_frame(site, core_catalogue(), HERE, 0) is not None:
            pass
        assert site.execute("SELECT 1 FROM sync_in_flight WHERE id = 'stock-own'").fetchone() is not None
        assert site.execute("SELECT count(*) FROM sync_outbox WHERE token <> framed_token").fetchone() == (0,)
        assert sentences(site) == []

"""Change capture cannot be swallowed, and a token names one edit for ever (law 2, F2, F6)."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rules.versions import Term
from engine.storage.push import cut_frame
from engine.storage.records import Key, write_states
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import (
    HERE,
    TERMS,
    capture_flaws,
    execute,
    read_contents,
    undone,
)
from tests.engine.storage.settings import EVERY_PAIR, RECURSION, Settings
from tests.engine.storage.statements import CLAUSES, INSERTS, UPDATES

INVOICE: Key = ("invoice", "invoice-1-own")
LINE: Key = ("invoice_line", "invoice-1-own-a")
FRAMED = "UPDATE sync_outbox SET framed_token = token"
EDIT = "UPDATE invoice SET comment = comment || '.' WHERE id = 'invoice-1-own'"


def entry_term(connection: sqlite3.Connection, term: Term | None = None) -> Term:
    """Puts another term in force for the own store, where one is given; returns that of the invoice's entry."""
    if term is not None:
        connection.execute("UPDATE sync_authority SET term = ?, term_id = ? WHERE key = 'own'", term)
    assert execute(connection, EDIT) == ""
    return read_contents(connection).outbox[INVOICE].term


EDITS_OF_A_LINE = (
    *(f"{verb} invoice_line SET note = 'x' WHERE id = 'invoice-1-own-a'" for verb in UPDATES),
    *(f"{verb} invoice_line SET note = note WHERE id = 'invoice-1-own-a'" for verb in UPDATES),
    "REPLACE INTO invoice_line (id, invoice_id) VALUES ('invoice-1-own-a', 'invoice-1-own')",
    "INSERT OR REPLACE INTO invoice_line (id, invoice_id) VALUES ('invoice-1-own-a', 'invoice-1-own')",
    *(
        f"{verb} invoice_line (id, invoice_id) VALUES ('invoice-1-own-a', 'invoice-1-own')"
        " ON CONFLICT (id) DO UPDATE SET note = 'x'"
        for verb in INSERTS[:-1]
    ),
    "DELETE FROM invoice_line WHERE id = 'invoice-1-own-a'",
    "DELETE FROM invoice_line WHERE invoice_id = 'invoice-1-own'",
    "DELETE FROM invoice WHERE id = 'invoice-1-own'",
)


@pytest.mark.parametrize("edit", EDITS_OF_A_LINE)
def test_f02_an_edit_of_a_framed_change_is_pending_again(node: sqlite3.Connection, edit: str) -> None:
    """The acknowledgement of the frame must not take an edit along that came after it."""
    for chosen in EVERY_PAIR:
        chosen.apply(node)
        with undone(node):
            chosen.apply_in_transaction(node)
            assert execute(node, "UPDATE invoice_line SET note = 'sent' WHERE id = 'invoice-1-own-a'") == ""
            node.execute(FRAMED)
            before = read_contents(node)
            assert execute(node, edit) == ""
            after = read_contents(node)
            old, new = before.outbox[LINE], after.outbox[LINE]
            assert new.token > before.last_token, chosen
            assert (new.framed_token, new.queued_at) == (old.framed_token, old.queued_at), chosen


@pytest.mark.parametrize("clause", CLAUSES)
def test_f02_a_program_with_triggers_of_its_own_is_captured(node: sqlite3.Connection, clause: str) -> None:
    """The conflict clause of the outermost statement reaches into every trigger below it."""
    changed = "UPDATE invoice SET comment = NEW.note WHERE id = 'invoice-1-own';"
    added = "INSERT INTO invoice_line (id, invoice_id) VALUES (NEW.note, 'invoice-1-own');"
    for chosen in RECURSION.values():
        chosen.apply(node)
        with undone(node):
            node.execute("CREATE TABLE shop_event (note TEXT UNIQUE)")
            node.execute(f"CREATE TRIGGER shop_event_noted AFTER INSERT ON shop_event BEGIN {changed} {added} END")
            assert execute(node, EDIT) == ""
            node.execute(FRAMED)
            before = read_contents(node)
            assert execute(node, f"INSERT {clause}INTO shop_event VALUES ('new-1')") == ""
            expected = [INVOICE, ("invoice_line", "new-1")]
            assert capture_flaws(before, read_contents(node), expected) == []


def test_several_records_in_one_statement_are_captured_one_by_one(node: sqlite3.Connection) -> None:
    before = read_contents(node)
    open_invoices = [("invoice", f"invoice-{number}-{store}") for number in (1, 2) for store in ("own", "second")]
    for clause in CLAUSES:
        with undone(node):
            edit = (
                f"UPDATE {clause}invoice SET comment = 'x' WHERE store_id IN ('own', 'second') AND status = 'confirmed'"
            )
            assert execute(node, edit) == ""
            assert capture_flaws(before, read_contents(node), open_invoices) == []


def test_what_is_rolled_back_was_never_captured(node: sqlite3.Connection) -> None:
    with undone(node):
        before = read_contents(node)
        node.execute("SAVEPOINT attempt")
        assert execute(node, EDIT) == ""
        node.execute("ROLLBACK TO attempt")
        assert read_contents(node) == before


def test_f02_an_entry_keeps_its_place_in_the_queue_while_it_waits(node: sqlite3.Connection) -> None:
    with undone(node):
        assert execute(node, EDIT) == ""
        first = read_contents(node).outbox[INVOICE]
        assert execute(node, EDIT) == ""
        second = read_contents(node).outbox[INVOICE]
    assert (first.queued_at, first.token) == (second.queued_at, second.token - 1)


OLDER, OLD, NEW = Term(1, 11), TERMS["own"], Term(7, 77)


@pytest.mark.parametrize(
    ("terms", "counted"),
    [((OLD, OLD), OLD), ((OLD, NEW), OLD), ((NEW, OLD), OLD), ((OLD, NEW, OLDER), OLDER), ((NEW, OLDER, OLD), OLDER)],
)
def test_the_lowest_term_of_a_waiting_change_counts(
    site: sqlite3.Connection, terms: tuple[Term, ...], counted: Term
) -> None:
    with undone(site):
        assert [entry_term(site, term) for term in terms][-1] == counted


def test_an_edit_of_a_framed_change_starts_with_the_term_in_force(site: sqlite3.Connection) -> None:
    with undone(site):
        assert entry_term(site, OLD) == OLD
        site.execute(FRAMED)
        assert entry_term(site, NEW) == NEW
        assert entry_term(site, OLDER) == OLDER


def test_a_right_that_is_lost_leaves_the_change_and_refuses_the_next(site: sqlite3.Connection) -> None:
    with undone(site):
        assert execute(site, EDIT) == ""
        waiting = read_contents(site).outbox[INVOICE]
        site.execute("DELETE FROM sync_authority WHERE key = 'own'")
        assert "STORE_DATA_WHERE_ACTIVE" in execute(site, EDIT)
        assert read_contents(site).outbox[INVOICE] == waiting


@pytest.mark.parametrize("is_known_to_the_peer", [False, True])
@pytest.mark.parametrize("chosen", RECURSION.values(), ids=RECURSION.keys())
def test_f21_lines_that_lost_their_header_are_deleted_with_it(
    site: sqlite3.Connection, chosen: Settings, is_known_to_the_peer: bool
) -> None:
    """The one case that triggers cannot tell from INSERT OR REPLACE (triggers.py): the engine ends it."""
    document: set[Key] = {INVOICE, LINE, ("invoice_line", "invoice-1-own-b")}
    chosen.apply(site)
    with undone(site):
        if is_known_to_the_peer:
            write_states(site, [(*key, INVOICE[1], 3, 33, 1, b"h" * 16, 0, HERE, "epoch") for key in document])
        again = "INSERT OR IGNORE INTO invoice (id, store_id) VALUES ('invoice-1-own', 'own')"
        for sql in (again, again, "DELETE FROM invoice WHERE id = 'invoice-1-own'"):
            assert execute(site, sql) == ""
        cut_frame(site, core_catalogue(), HERE, 0)
        told = {(row[0], row[1]) for row in site.execute("SELECT table_name, id FROM sync_in_flight WHERE deleted = 1")}
        rows = read_contents(site).rows
    assert document & rows.keys() == set()
    assert told == document, "also where the peer never heard of it: something else may wait for it"


STEPS = {
    "edit": EDIT,
    "ignore": EDIT.replace("UPDATE", "UPDATE OR IGNORE"),
    "replace": "REPLACE INTO invoice (id, store_id) VALUES ('invoice-1-own', 'own')",
    "line": "UPDATE invoice_line SET note = note || '.' WHERE id = 'invoice-1-own-a'",
    "insert": "INSERT OR IGNORE INTO invoice_line (id, invoice_id) VALUES ('new-1', 'invoice-1-own')",
    "delete": "DELETE FROM invoice_line WHERE id = 'new-1'",
    "refused": "UPDATE item SET id = 'x'",
    "framed": FRAMED,
    "acknowledged": "DELETE FROM sync_outbox WHERE token = framed_token",
    "emptied": "DELETE FROM sync_outbox",
}


def tokens_of(connection: sqlite3.Connection, steps: list[str]) -> list[int]:
    """Every token that an outbox entry had after one of these steps, each named once per edit."""
    seen: list[int] = []
    known: set[tuple[Key, int]] = set()
    for step in steps:
        execute(connection, STEPS[step])
        entries = {(key, entry.token) for key, entry in read_contents(connection).outbox.items()}
        seen += sorted(token for key, token in entries - known)
        known |= entries
    return seen


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_f02_tokens_never_repeat(site: sqlite3.Connection, central: sqlite3.Connection, steps: list[str]) -> None:
    """Not even when the outbox was emptied in between: an old acknowledgement never matches a new change."""
    for connection in (site, central):
        with undone(connection):
            first = read_contents(connection).last_token
            tokens = tokens_of(connection, steps)
            assert tokens == sorted(set(tokens))
            assert all(token > first for token in tokens)


@settings(deadline=None, max_examples=80)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=8), nested=st.booleans())
def test_whatever_went_before_a_replaced_header_keeps_its_lines(
    site: sqlite3.Connection, steps: list[str], nested: bool
) -> None:
    replace = "REPLACE INTO invoice (id, store_id, comment) VALUES ('invoice-1-own', 'own', 'replaced')"
    for chosen in RECURSION.values():
        chosen.apply(site)
        with undone(site):
            site.execute("CREATE TABLE shop_event (note TEXT UNIQUE)")
            site.execute(f"CREATE TRIGGER shop_event_noted AFTER INSERT ON shop_event BEGIN {replace}; END")
            for step in steps:
                execute(site, STEPS[step])
            before = read_contents(site)
            assert execute(site, "INSERT OR REPLACE INTO shop_event VALUES ('x')" if nested else replace) == ""
            assert capture_flaws(before, read_contents(site), [INVOICE]) == []

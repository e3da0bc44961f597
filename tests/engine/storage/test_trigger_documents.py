"""Documents: lines need their header, a header takes its lines along, what is final stays as it is (F21)."""

import sqlite3

import pytest

from engine.rules.authority import Rule
from engine.storage.records import Key, applying
from tests.engine.storage.nodes import PARENTS, capture_flaws, execute, read_contents, undone
from tests.engine.storage.settings import EVERY_COMBINATION, EVERY_PAIR, RECURSION, Settings
from tests.engine.storage.statements import INSERTS, UPDATES

LINES = {root: line for line, root in PARENTS.items()}
recursion = pytest.mark.parametrize("settings", RECURSION.values(), ids=RECURSION.keys())
every_document = pytest.mark.parametrize("root", LINES)


def document(root: str, name: str = "1-own") -> list[Key]:
    """The keys of a document of the sample, the header first."""
    return [(root, f"{root}-{name}"), *((LINES[root], f"{root}-{name}-{line}") for line in "ab")]


def says(node: sqlite3.Connection, *statements: str) -> list[str]:
    """The name of the rule that refused each statement, or nothing."""
    errors = [execute(node, sql) for sql in statements]
    return [error.rpartition("(rule ")[2].removesuffix(").") for error in errors]


@every_document
def test_a_replaced_header_keeps_its_lines_and_is_one_change(node: sqlite3.Connection, root: str) -> None:
    header = (f"{root} (id, store_id, status, comment)", f"('{root}-1-own', 'own', 'confirmed', 'replaced')")
    for settings in EVERY_COMBINATION:
        settings.apply(node)
        before = read_contents(node, [root, LINES[root]])
        for verb in ("REPLACE INTO", "INSERT OR REPLACE INTO"):
            with undone(node):
                settings.apply_in_transaction(node)
                assert says(node, f"{verb} {header[0]} VALUES {header[1]}") == [""]
                after = read_contents(node, [root, LINES[root]])
            assert capture_flaws(before, after, [(root, f"{root}-1-own")]) == [], settings
            assert after.rows[root, f"{root}-1-own"] != before.rows[root, f"{root}-1-own"]


@every_document
@recursion
def test_headers_replaced_together_keep_their_lines(node: sqlite3.Connection, root: str, settings: Settings) -> None:
    settings.apply(node)
    before = read_contents(node)
    with undone(node):
        columns = "id, store_id, status, comment"
        several = f"REPLACE INTO {root} ({columns}) SELECT id, store_id, status, 'x' FROM {root} WHERE store_id = 'own'"
        names = ["1", "2", "final"]
        if settings.recursive_triggers:  # a final header could be deleted by mistake then: it is updated, not replaced
            assert says(node, several) == ["FINAL_IS_FINAL"]
            several, names = f"{several} AND status <> 'finalised'", names[:2]
        assert says(node, several) == [""]
        keys = [(root, f"{root}-{name}-own") for name in names]
        assert capture_flaws(before, read_contents(node), keys) == []


@every_document
def test_a_replaced_line_is_one_change(node: sqlite3.Connection, root: str) -> None:
    line, key = LINES[root], (LINES[root], f"{root}-1-own-a")
    values = f"{line} (id, {root}_id, note) VALUES ('{key[1]}', '{root}-1-own', 'replaced')"
    for settings in EVERY_PAIR:
        settings.apply(node)
        before = read_contents(node)
        with undone(node):
            assert says(node, f"REPLACE INTO {values}") == [""]
            assert capture_flaws(before, read_contents(node), [key]) == []


@every_document
def test_f21_a_deleted_header_takes_its_lines_along(node: sqlite3.Connection, root: str) -> None:
    before = read_contents(node)
    for settings in EVERY_PAIR:
        settings.apply(node)
        with undone(node):
            assert says(node, f"DELETE FROM {root} WHERE id = '{root}-1-own'") == [""]
            assert capture_flaws(before, read_contents(node), document(root)) == []
        with undone(node):  # several at once, the second of another store
            assert says(node, f"DELETE FROM {root} WHERE id IN ('{root}-1-own', '{root}-2-second')") == [""]
            expected = document(root) + document(root, "2-second")
            assert capture_flaws(before, read_contents(node), expected) == []


THERE = "{root} (id, store_id) VALUES ('{root}-1-own', 'own')"
OTHER = "INSERT OR IGNORE INTO {root} (id, store_id) VALUES ('{root}-2-own', 'own')"
EDITED = "UPDATE {root} SET comment = 'y' WHERE id = '{root}-2-own'"
BEFORE_A_DELETE = {
    "replace": (EDITED, f"REPLACE INTO {THERE}"),
    "ignored insert": (EDITED, f"INSERT OR IGNORE INTO {THERE}"),
    "ignored insert of another": (OTHER, OTHER),
    "upsert": (EDITED, f"INSERT INTO {THERE} ON CONFLICT (id) DO UPDATE SET comment = 'x'"),
    "update": (EDITED, "UPDATE {root} SET comment = 'x' WHERE id = '{root}-1-own'"),
    "failed insert": (EDITED, f"INSERT INTO {THERE}"),
}


@every_document
@recursion
@pytest.mark.parametrize("first", BEFORE_A_DELETE)
def test_a_delete_after_another_edit_is_a_delete(
    node: sqlite3.Connection, root: str, settings: Settings, first: str
) -> None:
    settings.apply(node)
    with undone(node):
        for sql in BEFORE_A_DELETE[first]:
            execute(node, sql.format(root=root))
        assert execute(node, f"DELETE FROM {root} WHERE id = '{root}-1-own'") == ""
        after = read_contents(node)
    assert set(document(root)) & after.rows.keys() == set()
    assert set(document(root)) <= after.outbox.keys()


@every_document
def test_one_refused_record_refuses_the_whole_statement(node: sqlite3.Connection, root: str) -> None:
    foreign, final = Rule.STORE_DATA_WHERE_ACTIVE.name, Rule.FINAL_IS_FINAL.name
    cases = [
        *((f"{verb} {root} SET comment = 'x'", foreign) for verb in UPDATES),
        (f"DELETE FROM {root}", ""),
        (f"DELETE FROM {root} WHERE store_id = 'own'", final),
        (f"DELETE FROM {root} WHERE store_id = 'far'", foreign),
        (f"DELETE FROM {LINES[root]} WHERE {root}_id IN ('{root}-1-own', '{root}-final-own')", final),
        *(
            (f"{verb} {root} (id, store_id) VALUES ('new-1', 'own'), ('new-2', 'far'), ('new-3', 'own')", foreign)
            for verb in INSERTS
        ),
    ]
    before = read_contents(node)
    for settings in EVERY_PAIR:
        settings.apply(node)
        with undone(node):
            for sql, rule in cases:
                said = says(node, sql)[0]
                assert said == rule or (not rule and said), sql
            assert read_contents(node) == before


@every_document
def test_f21_a_line_needs_its_document(node: sqlite3.Connection, root: str) -> None:
    line = LINES[root]
    parents = ("'nowhere'", "''", "NULL", f"CAST('{root}-1-own' AS BLOB)", f"'{root}-1-OWN'")
    for settings in EVERY_PAIR:
        settings.apply(node)
        before = read_contents(node)
        with undone(node):
            for verb in INSERTS:
                for parent in parents:
                    sql = f"{verb} {line} (id, {root}_id) VALUES ('new-1', {parent})"
                    assert says(node, sql) == [Rule.PARENT_REQUIRED.name], sql
            assert says(node, f"INSERT INTO {line} (id) VALUES ('new-1')") == [Rule.PARENT_REQUIRED.name]
            assert read_contents(node) == before


@every_document
def test_a_document_is_written_in_its_order(node: sqlite3.Connection, root: str) -> None:
    line = LINES[root]
    for settings in EVERY_PAIR:
        settings.apply(node)
        before = read_contents(node)
        with undone(node):
            assert (
                says(
                    node,
                    f"INSERT INTO {root} (id, store_id) VALUES ('new-1', 'own')",
                    f"INSERT INTO {line} (id, {root}_id, item_id) VALUES ('new-1-a', 'new-1', 'item-1')",
                    f"INSERT INTO {line} (id, {root}_id, item_id) VALUES ('new-1-b', 'new-1', 'item-1')",
                    f"UPDATE {root} SET status = 'finalised' WHERE id = 'new-1'",
                )
                == [""] * 4
            )
            keys = [(root, "new-1"), (line, "new-1-a"), (line, "new-1-b")]
            assert capture_flaws(before, read_contents(node), keys) == []


@every_document
def test_f21_a_new_header_is_not_final(node: sqlite3.Connection, root: str) -> None:
    new = f"{root} (id, store_id, status) VALUES ('new-1', 'own', 'finalised')"
    for settings in EVERY_PAIR:
        settings.apply(node)
        before = read_contents(node)
        with undone(node):
            statements = [f"{verb} {new}" for verb in INSERTS]
            statements += [f"INSERT INTO {new} ON CONFLICT (id) DO UPDATE SET status = excluded.status"]
            assert says(node, *statements) == [Rule.FINALISE_LAST.name] * len(statements)
            assert read_contents(node) == before


def final_edits(root: str) -> list[str]:
    """Edits that a final document does not take."""
    line, header = LINES[root], f"{root}-final-own"
    new, there = f"('new-1', '{header}')", f"('{header}-a', '{header}')"
    status = f"{root} (id, store_id, status) VALUES ('{header}', 'own', 'confirmed')"
    upsert = "ON CONFLICT (id) DO UPDATE SET"
    return [
        *(f"{verb} {line} (id, {root}_id) VALUES {values}" for verb in INSERTS for values in (new, there)),
        *(f"{verb} {line} SET note = 'x' WHERE id = '{header}-a'" for verb in UPDATES),
        f"INSERT INTO {line} (id, {root}_id) VALUES {there} {upsert} note = 'x'",
        f"UPDATE {line} SET note = 'x' FROM {root} AS r WHERE r.id = {root}_id AND r.id = '{header}'",
        f"DELETE FROM {line} WHERE id = '{header}-a'",
        f"DELETE FROM {line} WHERE {root}_id = '{header}'",
        *(f"{verb} {root} SET status = 'confirmed' WHERE id = '{header}'" for verb in UPDATES),
        f"UPDATE {root} SET status = 'unspecified' WHERE id = '{header}'",
        *(f"{verb} {status}" for verb in INSERTS),
        f"INSERT INTO {status} {upsert} status = excluded.status",
        f"DELETE FROM {root} WHERE id = '{header}'",
        f"DELETE FROM {root} WHERE status = 'finalised' AND store_id = 'own'",
    ]


@every_document
def test_f21_what_is_final_stays_as_it_is(node: sqlite3.Connection, root: str) -> None:
    statements = final_edits(root)
    for settings in EVERY_COMBINATION:
        settings.apply(node)
        before = read_contents(node, [root, LINES[root]])
        with undone(node):
            settings.apply_in_transaction(node)
            said = dict(zip(statements, says(node, *statements), strict=True))
            assert said == dict.fromkeys(statements, Rule.FINAL_IS_FINAL.name), settings
            assert read_contents(node, [root, LINES[root]]) == before


@every_document
def test_f21_lines_stop_changing_with_the_statement_that_finalises(node: sqlite3.Connection, root: str) -> None:
    line = LINES[root]
    with undone(node):
        assert says(
            node,
            f"UPDATE {line} SET note = 'last' WHERE id = '{root}-1-own-a'",
            f"UPDATE {root} SET status = 'finalised' WHERE id = '{root}-1-own'",
            f"UPDATE {line} SET note = 'late' WHERE id = '{root}-1-own-a'",
            f"INSERT INTO {line} (id, {root}_id) VALUES ('new-1', '{root}-1-own')",
        ) == ["", "", Rule.FINAL_IS_FINAL.name, Rule.FINAL_IS_FINAL.name]


@every_document
@pytest.mark.parametrize("verb", ["INSERT OR IGNORE", "INSERT OR FAIL", "INSERT"])
@recursion
def test_no_insert_before_it_lets_a_final_document_be_deleted(
    node: sqlite3.Connection, root: str, verb: str, settings: Settings
) -> None:
    """An INSERT that meets its own id, then a DELETE of it: not to be taken for INSERT OR REPLACE."""
    settings.apply(node)
    header = f"{root}-final-own"
    there = f"{verb} INTO {root} (id, store_id, status) VALUES ('{header}', 'own', 'finalised')"
    before = read_contents(node)
    with undone(node):
        execute(node, there)
        execute(node, there)
        assert says(node, f"DELETE FROM {root} WHERE id = '{header}'") == [Rule.FINAL_IS_FINAL.name]
        after = read_contents(node)
    assert (after.rows, after.outbox) == (before.rows, before.outbox)


@every_document
def test_f23_what_a_peer_sends_is_neither_checked_nor_captured(node: sqlite3.Connection, root: str) -> None:
    line = LINES[root]
    before = read_contents(node)
    with undone(node):
        with applying(node):
            assert (
                says(
                    node,
                    f"INSERT INTO {root} (id, store_id, status) VALUES ('new-1', 'far', '99')",
                    f"INSERT INTO {line} (id, {root}_id, pack_size) VALUES ('new-1-a', 'later', 'odd')",
                    f"UPDATE {line} SET note = 'x' WHERE {root}_id = '{root}-final-far'",
                    f"DELETE FROM {root} WHERE id = '{root}-final-own'",
                    "UPDATE item SET name = 'other'",
                )
                == [""] * 5
            )
        after = read_contents(node)
        assert (after.outbox, after.last_token) == (before.outbox, before.last_token)
        assert (line, f"{root}-final-own-a") in after.rows  # the peer says which lines go
        assert says(node, f"UPDATE {root} SET comment = 'x' WHERE id = 'new-1'") == [Rule.STORE_DATA_WHERE_ACTIVE.name]

"""While a peer's records are applied triggers are off, for that one transaction and for nobody else (F23)."""

import re
import sqlite3
from pathlib import Path

import pytest

from engine.storage.records import applying
from engine.storage.schema import prepare, repair_schema, schema_is_whole
from engine.storage.sqlite_file import open_writer
from engine.storage.triggers import triggers_of
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.exchange import exchange
from tests.engine.storage.nodes import execute, site_database

FLAGS = ("applying", "administering")
EDIT = "UPDATE invoice SET comment = 'x' WHERE id = 'invoice-1-own'"
_WORDS = frozenset(
    [
        "as",
        "in",
        "values",
        "exists",
        "select",
        "and",
        "or",
        "not",
        "where",
        "when",
        "cast",
        "sync_outbox",
        "sync_work",
        "conflict",
        "raise",
    ]
)


def test_f23_triggers_use_built_in_functions_only() -> None:
    """Any program that opens the file can write; none has to define, or can redefine, what a trigger asks."""
    plain = sqlite3.connect(":memory:")
    known = {row[0] for row in plain.execute("SELECT name FROM pragma_function_list WHERE builtin = 1")}
    plain.close()
    for name, sql in triggers_of(core_catalogue()).items():
        code = re.sub(r"'(?:[^']|'')*'", "''", sql)
        called = {word.lower() for word in re.findall(r"\b([A-Za-z_]\w*)\s*\(", code)}
        assert called <= known | _WORDS, f"{name} calls {sorted(called - known - _WORDS)}"


def test_f23_nobody_ever_reads_a_flag_that_is_set() -> None:
    """Another program looks at every statement of a whole exchange in which both nodes apply."""
    with exchange() as country:
        seen: set[tuple[int, int]] = set()
        looked = 0
        nodes = (country.central, country.site)
        others = [sqlite3.connect(node.path, isolation_level=None) for node in nodes]

        def look(_: str) -> None:
            nonlocal looked
            looked += 1
            for other in others:
                seen.add(other.execute("SELECT applying, administering FROM sync_flag").fetchone())

        for node in nodes:
            node.connection.set_trace_callback(look)
        country.central.edit("UPDATE item SET code = 'changed'")
        country.site.edit("INSERT INTO location (id, store_id) VALUES ('x', 'store-2')")
        country.synchronise(country.site)
        for node in nodes:
            node.connection.set_trace_callback(None)
        for other in others:
            other.close()
        assert looked > 100
        assert seen == {(0, 0)}


def test_f23_what_fails_while_applying_leaves_the_triggers_on(site: sqlite3.Connection) -> None:
    """A part of a transaction is taken back; what follows in the same transaction is checked and captured."""
    site.execute("BEGIN IMMEDIATE")
    site.execute("SAVEPOINT part")
    with pytest.raises(RuntimeError), applying(site):
        site.execute(EDIT)
        raise RuntimeError("a document that cannot be applied")
    site.execute("ROLLBACK TO part")
    assert site.execute("SELECT applying FROM sync_flag").fetchone() == (0,)
    assert execute(site, EDIT) == ""
    assert site.execute("SELECT count(*) FROM sync_outbox").fetchone() == (1,)
    assert "STORE_DATA_WHERE_ACTIVE" in execute(site, EDIT.replace("1-own", "1-far"))
    site.execute("ROLLBACK")


@pytest.mark.parametrize("when", ["at the start", "at a session"])
@pytest.mark.parametrize("flag", FLAGS)
def test_f23_a_flag_that_somebody_committed_is_cleared_and_noted(tmp_path: Path, flag: str, when: str) -> None:
    """Otherwise every edit from then on would be neither checked nor captured."""
    path = tmp_path / "node.db"
    connection = site_database(path)
    assert schema_is_whole(connection, core_catalogue())
    connection.execute(f"UPDATE sync_flag SET {flag} = 1")
    assert not schema_is_whole(connection, core_catalogue())
    if when == "at the start":
        connection.close()
        connection = open_writer(path)
        assert prepare(connection, core_catalogue())
    else:
        repair_schema(connection, core_catalogue())
    assert connection.execute("SELECT applying, administering FROM sync_flag").fetchone() == (0, 0)
    noted = connection.execute("SELECT value FROM sync_status WHERE key = 'schema_repaired'").fetchone()
    assert "sync_flag" in noted[0]
    assert execute(connection, EDIT) == ""
    assert connection.execute("SELECT count(*) FROM sync_outbox").fetchone() == (1,)
    connection.close()

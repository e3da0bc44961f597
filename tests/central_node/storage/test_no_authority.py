"""A site pushes edits that it has no authority for, of every table of the catalogue: each document is held with the
right code, nothing at the central changes, and no feed of any other site shows a trace of it."""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.catalogue.codec import codec, record_hash
from engine.catalogue.model import ColumnType, Kind, Row, RowValue, Table
from engine.rules.routing import scopes_of
from engine.rules.versions import NEVER, Version
from engine.session.frames import to_wire
from engine.storage.configuration import read_topology
from engine.storage.database import transact
from engine.storage.feeds import Routed, publish
from engine.storage.pages import Cursor, read_page
from engine.storage.records import Change, Writer, applying, write_changes
from field_lab.core_catalogue import core_catalogue
from tests.central_node.storage.centrals import (
    EPOCHS,
    TABLES,
    flaws,
    frame_of,
    rows_of,
    serving_central,
    take,
)
from tests.central_node.storage.centrals import term_of as term_at
from tests.engine.storage.nodes import undone

HOSTILE, OTHER = 2, 3
HERS, HIS, CENTRALS, NOWHERE = "far", "third", "own", "no-such-store"
CANARY = "canary-7f3a"
"""In the id of what is inserted, and in a text column of everything."""
FIRST = Version(1, 7, 1)
ROOTS = tuple(table for table in core_catalogue() if not table.parent)
PER_STORE = (Kind.STORE, Kind.PATIENT)
EXISTING = {"site": "3", "store_copy": "third@3", "store": "third"}
"""Records that cannot be made up: the topology is read from them."""


class Case(NamedTuple):
    """What is pushed, and what becomes of it. `code` empty: it is applied, and reaches nobody."""

    table: Table
    operation: str
    store: str
    term: str
    code: str


def cases() -> Iterator[Case]:
    """Every table x every edit x whose it is, as the specification says it."""
    for table in ROOTS:
        for operation in ("insert", "update", "delete", "delete unknown"):
            yield from _cases(table, operation)


def _cases(table: Table, operation: str) -> Iterator[Case]:
    if table.kind is Kind.MESSAGE:
        for store in (HERS, HIS, NOWHERE) if operation != "insert" else ():
            yield Case(table, operation, store, "hers", "NO_AUTHORITY")
        return
    if table.kind not in PER_STORE:
        for term in ("hers", "theirs"):
            yield Case(table, operation, HIS, term, "NO_AUTHORITY")
        return
    for store in (HIS, CENTRALS, NOWHERE):
        for term in ("hers", "theirs"):
            # Whose a document was that never got here can be proved by nobody: its tombstone is kept, in no feed.
            yield Case(table, operation, store, term, "NO_AUTHORITY" if operation != "delete unknown" else "")
    if operation != "delete unknown":
        yield Case(table, operation, HERS, "an older one", "STALE_TERM")
        yield Case(table, operation, HERS, "one that never was", "NO_AUTHORITY")


CASES = tuple(cases())


@pytest.fixture(scope="module", name="central")
def central_with_every_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A record of every table for every store, in the feeds that it belongs to."""
    connection = serving_central(tmp_path_factory.mktemp("central") / "node.db")

    def fill(_: sqlite3.Connection) -> None:
        topology = read_topology(connection)
        for table in ROOTS:
            for store in (HERS, HIS, CENTRALS, NOWHERE) if table.name not in EXISTING else ():
                row = row_of(table, f"{table.name}/{store}", store)
                told = record_hash(table.name, str(row[0]), *FIRST, codec(table).canonical(row, b""))
                root_id = str(row[0]) if core_catalogue().members_of(table.name) else ""
                change = Change(table, str(row[0]), root_id, FIRST, row, b"", told)
                with applying(connection):
                    write_changes(connection, [change], Writer(OTHER, EPOCHS[OTHER].hex()))
                if table.kind is not Kind.LOCAL:
                    publish(connection, [Routed(change, scopes_of(table, row, topology), None)])

    transact(connection, fill)
    yield connection
    connection.close()


def row_of(table: Table, record_id: str, store: str, text: str = "") -> Row:
    """A row of a store; the canary stands in a column of free text where there is one."""
    values: dict[str, RowValue] = {"id": record_id}
    for column in (table.store_column, table.receiving_store_column):
        if column and column != "id":
            values[column] = store
    if table.name == "store_copy":
        values |= {"store_id": HIS, "site": OTHER, "type": "active"}
    free = [
        column.name
        for column in table.columns
        if column.type is ColumnType.TEXT and not column.refers_to and column.name not in values
    ]
    if text and free:
        values[free[0]] = text
    return tuple(values.get(column.name, column.default) for column in table.columns)


def document_of(connection: sqlite3.Connection, case: Case) -> document_pb2.Document:
    """What the hostile site pushes."""
    table, existing = case.table, EXISTING.get(case.table.name, f"{case.table.name}/{case.store}")
    record_id = existing if case.operation in ("update", "delete") else CANARY
    base = NEVER
    if case.operation in ("update", "delete"):
        found = connection.execute(
            "SELECT term, term_id, counter FROM sync_record WHERE table_name = ? AND id = ?", (table.name, record_id)
        )
        base = Version(*found.fetchone())
    version = Version(*terms(connection)[case.term], base.counter + 1)
    record = document_pb2.Record()
    if case.operation in ("insert", "update"):
        record.content = codec(table).encode(row_of(table, record_id, case.store, CANARY))
    else:
        record.deleted = True
    return document_pb2.Document(
        table=table.name, id=record_id, version=to_wire(version), base=to_wire(base), whole=True, records=[record]
    )


def terms(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    hers = term_at(connection, HOSTILE)
    return {
        "hers": hers,
        "theirs": term_at(connection, OTHER),
        "an older one": (hers[0] - 1, 5),
        "one that never was": (hers[0], hers[1] ^ 1),
    }


def pushed(connection: sqlite3.Connection, *documents: document_pb2.Document) -> dict[int, str]:
    """Place -> code of what was not applied."""
    (told,) = take(connection, [frame_of(connection, HOSTILE, documents)], HOSTILE).acknowledgements
    assert isinstance(told, session_pb2.Acknowledgement), told
    return {outcome.index: outcome.code for outcome in told.outcomes}


def told_to_others(connection: sqlite3.Connection) -> bytes:
    """Every byte that any feed has for the other site."""
    scopes = [row[0] for row in connection.execute("SELECT name FROM sync_scope ORDER BY name")]
    other = Writer(OTHER, "another epoch")
    page = read_page(
        connection,
        core_catalogue(),
        [Cursor(scope, 1, 0) for scope in scopes],
        other,
        frozenset(TABLES),
        1 << 20,
        1 << 30,
    )
    return document_pb2.PullBody(sections=page.sections).SerializeToString()


NAMES = [f"{c.operation} {c.table.name} of {c.store} under {c.term} term" for c in CASES]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_an_edit_without_authority_is_held_and_nobody_hears_of_it(central: sqlite3.Connection, case: Case) -> None:
    with undone(central):
        before, told = rows_of(central), told_to_others(central)
        assert pushed(central, document_of(central, case)).get(0, "") == case.code
        assert rows_of(central) == before
        assert told_to_others(central) == told and CANARY.encode() not in told
        held = central.execute("SELECT code, sentence, document FROM sync_held").fetchall()
        assert [row[0] for row in held] == ([case.code] if case.code else [])
        assert all("Site 2" in row[1] or "term" in row[1] for row in held), "who may not, and why"
        assert flaws(central) == []


@pytest.mark.parametrize("table", [t for t in ROOTS if t.kind in PER_STORE], ids=lambda table: table.name)
@pytest.mark.parametrize(("whose", "into"), [(HERS, HIS), (HIS, HERS), (HERS, NOWHERE)])
def test_a_record_cannot_be_carried_into_another_store(
    central: sqlite3.Connection, table: Table, whose: str, into: str
) -> None:
    with undone(central):
        before, told = rows_of(central), told_to_others(central)
        message = document_of(central, Case(table, "update", whose, "hers", ""))
        message.records[0].content = codec(table).encode(row_of(table, f"{table.name}/{whose}", into, CANARY))
        assert pushed(central, message) == {0: "NO_AUTHORITY"}
        assert (rows_of(central), told_to_others(central)) == (before, told)


@pytest.mark.parametrize("table", [t for t in core_catalogue() if t.parent], ids=lambda table: table.name)
def test_lines_do_not_travel_alone(central: sqlite3.Connection, table: Table) -> None:
    with undone(central):
        before, told = rows_of(central), told_to_others(central)
        row = row_of(table, CANARY, HIS, CANARY)
        record = document_pb2.Record(content=codec(table).encode(row))
        version = to_wire(Version(*term_at(central, HOSTILE), 1))
        alone = document_pb2.Document(table=table.name, id=CANARY, version=version, whole=True, records=[record])
        assert pushed(central, alone) == {0: "UNREADABLE"}
        assert (rows_of(central), told_to_others(central)) == (before, told)


@pytest.mark.parametrize("table", [t for t in core_catalogue() if t.parent], ids=lambda table: table.name)
def test_lines_of_another_document_cannot_be_taken_along(central: sqlite3.Connection, table: Table) -> None:
    """In a document of her own, a line of a document that is his; and lines of her own in his document."""
    root, theirs = core_catalogue().root_of(table), f"{table.name}-of-his"
    parent = f"{root.name}/{HIS}"
    if root.kind not in PER_STORE:
        return
    with undone(central):
        row = list(row_of(table, theirs, HIS))
        row[table.index[table.parent_column]] = parent
        told = record_hash(table.name, theirs, *FIRST, codec(table).canonical(tuple(row), b""))
        with applying(central):
            change = Change(table, theirs, parent, FIRST, tuple(row), b"", told)
            write_changes(central, [change], Writer(OTHER, EPOCHS[OTHER].hex()))
        before, feeds = rows_of(central), told_to_others(central)
        hers = document_of(central, Case(root, "update", HERS, "hers", ""))
        stolen = list(row_of(table, theirs, HERS, CANARY))
        stolen[table.index[table.parent_column]] = f"{root.name}/{HERS}"
        hers.records.add(table=table.name, id=theirs, content=codec(table).encode(tuple(stolen)))
        his = document_of(central, Case(root, "update", HIS, "hers", ""))
        slipped = list(row_of(table, CANARY, HIS, CANARY))
        slipped[table.index[table.parent_column]] = parent
        his.records.add(table=table.name, id=CANARY, content=codec(table).encode(tuple(slipped)))
        assert pushed(central, hers, his) == {0: "UNREADABLE", 1: "NO_AUTHORITY"}
        assert (rows_of(central), told_to_others(central)) == (before, feeds)


def test_every_kind_is_tried_in_every_way() -> None:
    kinds = {table.kind for table in core_catalogue()}
    assert {case.table.kind for case in CASES} == kinds
    assert {case.operation for case in CASES} == {"insert", "update", "delete", "delete unknown"}
    assert {case.table.name for case in CASES} == {table.name for table in ROOTS}
    assert len(set(NAMES)) == len(NAMES)

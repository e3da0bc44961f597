"""What people and programs do at the nodes: edits that they may make, that they may not make, and that no rule stops.

An edit that a node's own configuration allows must be taken, every other one must be refused. Whoever edits under a
right that has moved on meanwhile, or behind the triggers, reaches nobody else.
"""

import sqlite3
from collections.abc import Callable

from field_lab.oracle.data_types import DATA_TYPES, Kind, lines_of, root_of, roots
from field_lab.oracle.editing import Standing, may_edit
from field_lab.simulation.countries.country import Country
from field_lab.simulation.countries.names import OFFICES, ROGUES
from field_lab.simulation.countries.rows import Writing
from field_lab.simulation.machine import CENTRAL
from field_lab.simulation.truth import Broken

_WEIGHTS = {
    Kind.CENTRAL: 6, Kind.DISPENSARY: 3, Kind.STORE_RECORD: 2, Kind.CENTRAL_STORE: 8, Kind.STORE: 16, Kind.PATIENT: 12,
    Kind.MESSAGE: 4, Kind.LOCAL: 1,
}  # fmt: skip
_NAMES_OF_STORES = "id NOT IN (SELECT name_id FROM store)"


def edit(country: Country, number: int) -> None:
    """Somebody at a node edits what may be edited there, as far as is known there."""
    standing = country.standing_there(number)
    table, store = _draw(country, number, standing)
    if not table or not country.is_guarded(number, table):
        return
    if country.keeps(number, store) != country.keeps(CENTRAL, store):
        return  # what it would send while it does not know that would be held until that changes again
    work = _draw_work(country, table, store)
    kind = DATA_TYPES[table].kind
    try:
        delta = country.write(number, work)
    except sqlite3.IntegrityError as error:
        raise Broken(f"an edit of {table} of {store!r} at node {number} was refused: {error}") from error
    if not delta:
        return
    if not may_edit(country.standing(number), table, store, is_there=False):
        country.counters.count("edit under a right that has moved on")
        return
    country.edits += kind is not Kind.LOCAL  # what goes nowhere is no proof of anything
    country.counters.count(f"edit taken: {kind}, {standing.relation_to(kind, store)}")
    country.note(number, delta)


def _draw(country: Country, number: int, standing: Standing) -> tuple[str, str]:
    """A table and a store of which the node may edit records; none where there is none."""
    active = sorted(store for store, copy in standing.copies.items() if copy == "active")
    known = [row[0] for row in country.program(number).execute("SELECT id FROM store ORDER BY id")]
    kinds = [Kind.LOCAL]
    if standing.is_known and known:
        kinds.append(Kind.MESSAGE)
    if active:
        kinds += [Kind.STORE, Kind.PATIENT]
    if standing.is_primary and known:
        kinds += [Kind.CENTRAL, Kind.DISPENSARY, Kind.STORE_RECORD, Kind.CENTRAL_STORE]
    kind = country.chance.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]
    table = country.chance.choice([table for table in roots() if DATA_TYPES[table].kind is kind])
    if not DATA_TYPES[table].store:
        return table, ""
    stores = active if kind in (Kind.STORE, Kind.PATIENT) else known
    if kind is Kind.STORE:
        stores = [store for store in stores if store not in OFFICES]
    return (table, country.chance.choice(stores)) if stores else ("", "")


def _draw_work(country: Country, table: str, store: str) -> Callable[[Writing], None]:
    """What is done with records of a table of a store."""
    drawn = country.chance.random()

    def work(writing: Writing) -> None:
        there = writing.one_of(table, store)
        if table == "store":
            writing.change(table, store)
        elif DATA_TYPES[table].kind is Kind.MESSAGE or there is None or drawn < 0.4:
            _enter(writing, table, store, comes_and_goes=drawn < 0.04)
        elif drawn < 0.6:
            writing.change(table, there)
        elif drawn < 0.7:
            writing.add_lines(table, there, store)
        elif drawn < 0.8:
            writing.change_line(table, there)
        elif drawn < 0.85:
            writing.finalise(table, there)
        elif table != "name":
            writing.delete_unless_used(table, there)
        elif (of_no_store := writing.any_of("name", _NAMES_OF_STORES)) is not None:
            writing.delete_unless_used(table, of_no_store)

    return work


def _enter(writing: Writing, table: str, store: str, comes_and_goes: bool) -> None:
    record_id = writing.insert(table, store)
    if record_id is None:
        return
    writing.add_lines(table, record_id, store)
    if table == "invoice":  # there may be a note of it from the beginning
        writing.insert("transaction_note", store, {"invoice_id": record_id})
    if comes_and_goes and table != "message":
        writing.delete(table, record_id)


# --- what must be refused ---------------------------------------------------------------------------------------------


def try_forbidden(country: Country, number: int) -> None:
    """Somebody tries what may not be done there; the node must refuse it."""
    chance, program, standing = country.chance, country.program(number), country.standing_there(number)
    kind = chance.choice([kind for kind in Kind if kind is not Kind.LOCAL])
    table = chance.choice([table for table in DATA_TYPES if DATA_TYPES[root_of(table)].kind is kind])
    data = DATA_TYPES[table]
    there = program.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()
    record_id = str(chance.choice(there)[0]) if there and chance.random() < 0.7 else ""
    store = _store_of(program, table, record_id) if record_id else _any_store(country, standing)
    if data.parent and not record_id:  # a line of a document that is not there is refused for that
        return
    if may_edit(standing, table, store, bool(record_id)) or not country.is_guarded(number, table):
        return

    def work(writing: Writing) -> None:
        if not record_id:
            columns = f"id, {data.store}" if data.store not in ("", "id") else "id"
            values = ("forbidden", store) if data.store not in ("", "id") else ("forbidden",)
            marks = ", ".join("?" * len(values))
            writing.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)
        elif chance.random() < 0.5:
            writing.change(table, record_id)
        else:
            writing.delete(table, record_id)

    try:
        country.write(number, work)
    except sqlite3.IntegrityError as error:
        if "Packhorse:" not in str(error):
            raise
        country.counters.count(f"edit refused: {kind}, {standing.relation_to(kind, store)}")
    else:
        raise Broken(f"node {number} took an edit of {table} {record_id!r} of {store!r}: it may not")


def _any_store(country: Country, standing: Standing) -> str:
    """More often one of which there is a copy at the node."""
    if standing.copies and country.chance.random() < 0.7:
        return country.chance.choice(sorted(standing.copies))
    return f"store-{country.chance.randrange(1, 13)}"


def _store_of(program: sqlite3.Connection, table: str, record_id: str) -> str:
    data = DATA_TYPES[table]
    if data.parent:
        query = f"SELECT {data.parent_column} FROM {table} WHERE id = ?"
        return _store_of(program, data.parent, str(program.execute(query, (record_id,)).fetchone()[0]))
    if not data.store:
        return ""
    row = program.execute(f"SELECT {data.store} FROM {table} WHERE id = ?", (record_id,)).fetchone()
    return str(row[0]) if row else ""


# --- what nothing refuses ---------------------------------------------------------------------------------------------


def go_rogue(country: Country, number: int) -> None:
    """A program edits what others own: under a right that it gives itself, or with the triggers out of its way."""
    chance, program, standing = country.chance, country.program(number), country.standing_there(number)
    tables = [table for table in roots() if DATA_TYPES[table].kind not in (Kind.LOCAL, Kind.MESSAGE, Kind.SYNC)]
    table = chance.choice(tables)
    rows = [row[0] for row in program.execute(f"SELECT id FROM {table} ORDER BY id")]
    foreign = [row for row in rows if not may_edit(standing, table, _store_of(program, table, row), is_there=True)]
    record_id = chance.choice(foreign) if foreign and chance.random() < 0.8 else ""
    store = _store_of(program, table, record_id) if record_id else _any_store(country, standing)
    if store in OFFICES or any(may_edit(known, table, store, False) for known in (standing, country.standing(number))):
        return  # it has that right, or may have it soon
    drawn, way = chance.random(), chance.choice(ROGUES)
    if way == "behind dropped triggers":
        if country.modes[number] == "calls":
            return  # only a daemon looks for what was not captured
        if DATA_TYPES[table].kind in (Kind.STORE, Kind.PATIENT) and not country.has_data(store):
            return  # the store may come to this site before anybody looks, and what it has of it is a change then

    def work(writing: Writing) -> None:
        writing.is_rogue = True
        _put_out_of_the_way(writing.connection, table, way)
        if not record_id:
            writing.insert(table, store, {"id": "rogue"} if table == "store" else None)
        elif drawn < 0.5:
            writing.change(table, record_id)
        elif drawn < 0.7 and lines_of(table):
            writing.change_line(table, record_id)
        else:
            writing.delete(table, record_id)
        writing.connection.execute("DELETE FROM sync_authority WHERE term_id = 666")

    try:
        country.write(number, work)
    except sqlite3.IntegrityError:
        return  # for another reason than its right: it is final, or refers to nothing
    country.counters.count(f"rogue edit: {way}")


def _put_out_of_the_way(connection: sqlite3.Connection, table: str, way: str) -> None:
    if way == "behind dropped triggers":
        names = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name IN ({tables})"
        tables = ", ".join(f"'{name}'" for name in (table, *lines_of(table)))
        for (name,) in connection.execute(names.format(tables=tables)).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        return
    rights = [("central", "")]
    for owner in ("store", "patient"):
        rights += [(owner, f"store-{number}") for number in range(1, 13)]
    connection.executemany("INSERT OR IGNORE INTO sync_authority VALUES (?, ?, 1, 666)", rights)

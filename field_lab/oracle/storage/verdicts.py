"""The verdicts as SQL over the databases of all nodes, attached as node1, node2, ...

`stands` has a row for each record and node: which node owns the record, what the node is to it (data_types.RELATIONS)
and whether the node has to hold it. The owner's row is the record; the central's configuration says who owns what.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from field_lab.oracle.data_types import DATA_TYPES, DataType, Kind, lines_of, roots, uses_of

Key = tuple[str, str]
"""(table, id)."""

_TABLES = (
    "CREATE TABLE node (number INTEGER PRIMARY KEY, is_primary, is_central, has_dispensary)",
    "CREATE TABLE copy (store, site, type, withholds, PRIMARY KEY (store, site))",
    "CREATE TABLE author (table_name, id, node, PRIMARY KEY (table_name, id))",
    "CREATE TABLE stands (table_name, id, owner, node, relation, holds, PRIMARY KEY (table_name, id, node))",
    "CREATE INDEX stands_by_node ON stands (table_name, node, holds)",
)
_COPY_TYPE = "ifnull((SELECT type FROM copy WHERE store = {store} AND site = n.number), 'none')"
_RELATION = (
    "CASE WHEN {copy} = 'active' THEN 'active' WHEN n.is_primary THEN 'primary' WHEN n.is_central THEN 'central'"
    " ELSE {copy} END"
)
_NO_STORE = (
    "CASE WHEN n.is_primary THEN 'primary' WHEN n.is_central THEN 'central' WHEN n.has_dispensary THEN 'dispensary'"
    " ELSE 'none' END"
)
_ACTIVE_AT = "(SELECT site FROM copy WHERE store = r.{store} AND type = 'active')"
_EVERYTHING = "n.is_primary OR n.is_central"


def set_up(connection: sqlite3.Connection, numbers: Iterable[int], authors: Mapping[Key, int]) -> None:
    """Makes `stands`. `authors`: who wrote each message and each local record."""
    numbers = list(numbers)
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO node SELECT CAST(id AS INTEGER), is_primary, id = '1', 0 FROM node1.site"
        f" WHERE CAST(id AS INTEGER) IN ({', '.join(map(str, numbers))})"
    )
    connection.executemany("INSERT INTO author VALUES (?, ?, ?)", [(*key, node) for key, node in authors.items()])
    primary = int(connection.execute("SELECT number FROM node WHERE is_primary").fetchone()[0])
    connection.execute(
        "INSERT INTO copy SELECT c.store_id, c.site, c.type, a.excludes_transactions AND s.mode = 'dispensary'"
        f" FROM node1.store_copy AS c JOIN node{primary}.store AS s ON s.id = c.store_id"
        " LEFT JOIN node1.store_copy AS a ON a.store_id = c.store_id AND a.type = 'active'"
    )
    connection.execute(
        f"UPDATE node SET has_dispensary = EXISTS (SELECT 1 FROM copy AS c JOIN node{primary}.store AS s"
        " ON s.id = c.store WHERE c.site = number AND c.type = 'active' AND s.mode = 'dispensary')"
    )
    for table in roots():
        for owner, query in _stands(table, DATA_TYPES[table], numbers, primary):
            connection.execute(f"INSERT INTO stands {query}")
            for line in lines_of(table):
                connection.execute(
                    "INSERT INTO stands SELECT ?, l.id, s.owner, s.node, s.relation, s.holds FROM"
                    f" node{owner}.{line} AS l JOIN stands AS s ON s.table_name = ? AND s.owner = ?"
                    f" AND s.id = l.{DATA_TYPES[line].parent_column}",
                    (line, table, owner),
                )


def _stands(table: str, data: DataType, numbers: list[int], primary: int) -> Iterator[tuple[int, str]]:
    """(owner, SELECT of the rows of `stands`) for the documents of a table."""
    copy = _COPY_TYPE.format(store=f"r.{data.store}")
    relation, active = _RELATION.format(copy=copy), _ACTIVE_AT.format(store=data.store)
    match data.kind:
        case Kind.CENTRAL:
            yield _select(table, primary, _NO_STORE, "1")
        case Kind.DISPENSARY:
            yield _select(table, primary, _NO_STORE, f"{_EVERYTHING} OR n.has_dispensary")
        case Kind.STORE_RECORD:
            yield _select(table, primary, relation, f"{_EVERYTHING} OR {copy} <> 'none'")
        case Kind.CENTRAL_STORE:
            yield _select(table, primary, relation, f"{_EVERYTHING} OR {copy} = 'active'")
        case Kind.STORE:
            holds = f"{copy} = 'active' OR ({copy} = 'collector' AND {_leaves_its_site(data)})"
            yield from (_select(table, owner, relation, holds, f"{active} = {owner}") for owner in numbers)
        case Kind.PATIENT:
            relation, holds = _of_patients(table, data, primary)
            for owner in numbers:
                # Deleted by an earlier owner and referred to here: that the store came here since does not revive it.
                hidden = f"SELECT id FROM node{owner}.sync_hidden WHERE table_name = '{table}' AND why = 'not_visible'"
                yield _select(table, owner, relation, holds, f"{active} = {owner} AND r.id NOT IN ({hidden})")
        case _:
            yield from _without_owner(table, data, numbers)


def _leaves_its_site(data: DataType) -> str:
    """SQL: the central collects the store, and what follows its transactions is not left out."""
    collects = f"SELECT 1 FROM copy WHERE store = r.{data.store} AND site = 1 AND type IN ('active', 'collector')"
    if not data.follows_transactions:
        return f"EXISTS ({collects})"
    withheld = f"SELECT withholds FROM copy WHERE store = r.{data.store} AND type = 'active'"
    return f"EXISTS ({collects}) AND NOT ({withheld})"


def _of_patients(table: str, data: DataType, primary: int) -> tuple[str, str]:
    """SQL of relation and holds: a patient goes where a store is active or collected in which the patient is visible,
    the home store included."""
    copy = _COPY_TYPE.format(store=f"r.{data.store}")
    seen = (
        f"SELECT r.{data.store} UNION SELECT v.store_id FROM node{primary}.{data.visibility} AS v"
        f" WHERE v.{table}_id = r.id"
    )
    best = (
        f"SELECT c.type FROM copy AS c WHERE c.site = n.number AND c.store IN ({seen})"
        " ORDER BY c.type = 'active' DESC, c.type = 'collector' DESC LIMIT 1"
    )
    relation = (
        f"CASE WHEN {copy} = 'active' THEN 'home' WHEN n.is_primary THEN 'primary' WHEN n.is_central THEN 'central'"
        f" ELSE replace(ifnull(({best}), 'none'), 'active', 'visible') END"
    )
    return relation, f"{_EVERYTHING} OR ({best}) IN ('active', 'collector')"


def _without_owner(table: str, data: DataType, numbers: list[int]) -> Iterator[tuple[int, str]]:
    """Messages and sync data, of which the central has everything, and local data, of which everybody has the own."""
    if data.kind is Kind.LOCAL:
        for owner in numbers:
            written = f"(SELECT node FROM author WHERE table_name = '{table}' AND id = r.id) = {owner}"
            itself = f"CASE WHEN n.number = {owner} THEN 'itself' ELSE 'none' END"
            yield _select(table, owner, itself, f"n.number = {owner}", written)
    elif data.kind is Kind.MESSAGE:
        sent, received = (_COPY_TYPE.format(store=f"r.{column}") for column in (data.store, "to_store_id"))
        best = f"CASE WHEN {received} = 'active' THEN 'active' ELSE {sent} END"
        yield _select(table, 1, _RELATION.format(copy=best), f"n.is_central OR {best} = 'active'")
    else:
        own = "r.id = CAST(n.number AS TEXT)"
        if data.store:  # a site knows its copies, and which copy the central has of the stores that are active there
            own = f"r.site = n.number OR (r.site = 1 AND {_ACTIVE_AT.format(store=data.store)} = n.number)"
        itself = f"CASE WHEN n.is_central THEN 'central' WHEN {own} THEN 'itself' ELSE 'none' END"
        yield _select(table, 1, itself, f"n.is_central OR {own}")


def _select(table: str, owner: int, relation: str, holds: str, where: str = "1") -> tuple[int, str]:
    return owner, (
        f"SELECT '{table}', r.id, {owner}, n.number, {relation}, ({holds}) FROM node{owner}.{table} AS r"
        f" CROSS JOIN node AS n WHERE {where}"
    )


def disagreements(connection: sqlite3.Connection, numbers: Iterable[int]) -> Iterator[str]:
    """Each way in which a node does not have what it has to have, or has what it must not have."""
    for number in numbers:
        for table in DATA_TYPES:
            for what, query in _VERDICTS.items():
                text = query.format(
                    table=table, node=f"node{number}", number=number, is_used=_is_used(table, f"node{number}")
                )
                found = [str(row[0]) for row in connection.execute(text)]
                if found:
                    yield f"node {number}, {table}: {what}: {len(found)}, {', '.join(sorted(found)[:4])}"
            yield from _differing(connection, number, table)


def _is_used(table: str, node: str) -> str:
    """SQL: a record at the node refers to the hidden record `h`, or to its document."""
    document = "ifnull(nullif(h.root_id, ''), h.id)"
    places = (f"EXISTS (SELECT 1 FROM {node}.{other} WHERE {column} = {document})" for other, column in uses_of(table))
    return " OR ".join(places) or "0"


_HELD = "SELECT id FROM stands WHERE table_name = '{table}' AND node = {number} AND holds"
_VERDICTS = {
    "it has to be there and is not": _HELD + " EXCEPT SELECT id FROM {node}.{table}",
    "it must not be there and is": (
        "SELECT id FROM {node}.{table} EXCEPT "
        + _HELD
        # Kept for as long as a record here refers to it, and shown to nobody.
        + " EXCEPT SELECT h.id FROM {node}.sync_hidden AS h WHERE h.table_name = '{table}' AND h.why = 'not_visible'"
        + " AND ({is_used})"
        # Whoever writes a message may keep it.
        + " EXCEPT SELECT id FROM author WHERE table_name = '{table}' AND table_name = 'message' AND node = {number}"
    ),
    "it has to be there and is hidden": (
        _HELD + " INTERSECT SELECT id FROM {node}.sync_hidden WHERE table_name = '{table}'"
    ),
}


def _differing(connection: sqlite3.Connection, number: int, table: str) -> Iterator[str]:
    owners = connection.execute(
        "SELECT DISTINCT owner FROM stands WHERE table_name = ? AND node = ? AND holds AND owner <> ?",
        (table, number, number),
    ).fetchall()
    for (owner,) in owners:
        found = connection.execute(
            f"SELECT id FROM (SELECT * FROM node{number}.{table} WHERE id IN (SELECT id FROM stands WHERE"
            f" table_name = ? AND node = ? AND owner = ? AND holds) EXCEPT SELECT * FROM node{owner}.{table})",
            (table, number, owner),
        ).fetchall()
        if found:
            yield f"node {number}, {table}: it is not as node {owner} has made it: {len(found)}, {found[:4]}"


def owned(connection: sqlite3.Connection) -> dict[Key, int]:
    """Every record that somebody owns, with its owner."""
    rows = connection.execute("SELECT DISTINCT table_name, id, owner FROM stands")
    return {(row[0], row[1]): row[2] for row in rows}


def row_at(connection: sqlite3.Connection, number: int, key: Key) -> dict[str, Any]:
    """The columns of a record at a node; empty where it is not there."""
    found = connection.execute(f"SELECT * FROM node{number}.{key[0]} WHERE id = ?", (key[1],))
    row = found.fetchone()
    return dict(zip((column[0] for column in found.description), row, strict=True)) if row else {}


def judged(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """(table, relation, how many records of it were judged at nodes in that relation)."""
    yield from connection.execute("SELECT table_name, relation, count(*) FROM stands GROUP BY table_name, relation")

"""Given the databases of all nodes of a country in which nothing is under way any more, says what disagrees.

Asked of the databases in SQL (storage/verdicts.py): each record is at every node that has to have it as its owner has
it, and at nobody else's. Compared with what people did: each owner's record is what those who may edit it have made it.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from field_lab.oracle.data_types import DATA_TYPES, RELATIONS, Kind, root_of
from field_lab.oracle.storage.verdicts import Key, disagreements, judged, owned, row_at, set_up

JUDGED = tuple(f"judged: {kind}, {relation}" for kind, relations in RELATIONS.items() for relation in relations)
"""Counters: records of a kind that were judged at nodes in a relation to them."""
_SHOWN = 6
_CENTRAL = 1


class Journal(NamedTuple):
    """What people did under rights that they had."""

    records: Mapping[Key, tuple[Any, ...] | None]
    """Each record as it was left; None: it was deleted."""
    authors: Mapping[Key, int]
    """The nodes at which messages and local records were written."""


class Judgement(NamedTuple):
    """What the databases show."""

    faults: list[str]
    judged: Mapping[str, int]
    """By the names in JUDGED."""


def judge(databases: Mapping[int, Path], journal: Journal) -> Judgement:
    """Judges a country; `databases` are the files of its nodes by their numbers, 1 the central's."""
    connection = sqlite3.connect(":memory:", uri=True, isolation_level=None)
    try:
        for number, path in databases.items():
            connection.execute(f"ATTACH ? AS node{number}", (f"file:{path}?mode=ro",))
        connection.execute("BEGIN")
        set_up(connection, databases, journal.authors)
        faults = [*disagreements(connection, databases), *_against(connection, journal)]
        counts: dict[str, int] = {}
        for table, relation, count in judged(connection):
            name = f"judged: {DATA_TYPES[root_of(table)].kind}, {relation}"
            counts[name] = counts.get(name, 0) + count
        return Judgement(faults[:_SHOWN], counts)
    finally:
        connection.close()


def _against(connection: sqlite3.Connection, journal: Journal) -> Iterator[str]:
    """Where the records of owners are not what people have made them."""
    owners = owned(connection)
    for key, left in journal.records.items():
        found = row_at(connection, owners[key], key) if key in owners else {}
        if left is None and found and not _stays(connection, owners[key], key, found):
            yield f"{key} was deleted and is at its owner"
        if left is not None and tuple(found.values()) != left:
            yield f"{key} is {tuple(found.values())} instead of {left}"
    for key in owners:
        if key not in journal.records and DATA_TYPES[root_of(key[0])].kind is not Kind.SYNC:
            yield f"{key} was made by nobody who may"


def _stays(connection: sqlite3.Connection, owner: int, key: Key, row: Mapping[str, Any]) -> bool:
    """Whether a record that was deleted may be there: it, or the document that it is a line of, was in use.

    What a primary that is a site does not see to be in use stays all the same; whether it was cannot be told later.
    """
    data = DATA_TYPES[key[0]]
    if data.parent:
        root = (data.parent, str(row[data.parent_column]))
        return _stays(connection, owner, root, row_at(connection, owner, root))
    if data.switched_off_by:
        return bool(row) and row[data.switched_off_by] == 0
    return data.kind is Kind.CENTRAL and owner != _CENTRAL

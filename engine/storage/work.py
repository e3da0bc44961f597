"""Follow-up work: what must be decided again from the present state, queued in the transaction that made it necessary.

A row is (processor, what about, generation). Queueing raises the generation, finishing deletes only the generation that
was read before the work was done: work that became necessary again meanwhile is never lost (law 11, F19). Work that
fails stays, with the reason, and delays nothing else.
"""

import sqlite3
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from engine.limits import COUNT_CAP
from engine.storage.records import Key


class Processor(StrEnum):
    """Who does a piece of work."""

    COPIES = "copies"
    """Gives and takes copies of stores as visibility says. About everything at once: the key is empty."""
    ROUTE = "route"
    """Finds the scopes of a document again. The key is the document's root."""


class Work(NamedTuple):
    """A piece of work that waits."""

    processor: Processor
    key: Key
    generation: int


QUEUE = (
    "INSERT INTO sync_work (processor, table_name, id, generation) {values}"
    " ON CONFLICT (processor, table_name, id) DO UPDATE SET generation = generation + 1, problem = ''"
)
"""SQL that queues work; triggers use it too."""
EVERYTHING: Key = ("", "")


def queue_work(connection: sqlite3.Connection, processor: Processor, keys: Iterable[Key]) -> None:
    """Notes that work is necessary, once for each key however often that is said."""
    connection.executemany(QUEUE.format(values="VALUES (?, ?, ?, 1)"), [(processor, *key) for key in keys])


def waiting_work(connection: sqlite3.Connection, limit: int) -> list[Work]:
    """Work that can be done, in the order of the processors; what has failed waits until it is queued again."""
    rows = connection.execute(
        "SELECT processor, table_name, id, generation FROM sync_work WHERE problem = '' ORDER BY 1, 2, 3 LIMIT ?",
        (limit,),
    )
    return [Work(Processor(row[0]), (row[1], row[2]), row[3]) for row in rows]


def finish_work(connection: sqlite3.Connection, done: Iterable[Work]) -> None:
    """Takes work out of the queue, unless it has become necessary again since it was read."""
    connection.executemany(
        "DELETE FROM sync_work WHERE processor = ? AND table_name = ? AND id = ? AND generation = ?",
        [(work.processor, *work.key, work.generation) for work in done],
    )


def note_problem(connection: sqlite3.Connection, work: Work, problem: str) -> None:
    """Keeps work that failed, with the reason."""
    connection.execute(
        "UPDATE sync_work SET problem = ? WHERE processor = ? AND table_name = ? AND id = ? AND generation = ?",
        (problem, work.processor, *work.key, work.generation),
    )


def failed_work(connection: sqlite3.Connection) -> list[dict[str, str]]:
    """Work that failed and is not tried again by itself: who should have done it, what about, and what went wrong."""
    rows = connection.execute(
        "SELECT processor, table_name, id, problem FROM sync_work WHERE problem <> '' ORDER BY 1, 2, 3 LIMIT ?",
        (COUNT_CAP,),
    )
    return [dict(zip(("processor", "table", "id", "problem"), row, strict=True)) for row in rows]


def retry_failed(connection: sqlite3.Connection) -> None:
    """Lets failed work be tried once more: at the start of a run, which may be that of another program."""
    connection.execute("UPDATE sync_work SET problem = '' WHERE problem <> ''")

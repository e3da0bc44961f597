"""What follows from changes of the topology and of visibility: which copies there are, and where documents go.

The work is queued in the transaction that makes it necessary and done in one of its own, from the present state; doing
it twice changes nothing (law 11, F35).
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from itertools import product

import structlog

from central_node.storage.copies import automatic_changes, visible_at, write_copies
from central_node.storage.routing import Router
from engine.catalogue.model import Catalogue, Kind, Row, Table
from engine.rules.topology import CENTRAL_SITE, CopyType, Topology
from engine.storage.configuration import TOPOLOGY_TABLES
from engine.storage.feeds import Routed, publish
from engine.storage.records import (
    Change,
    Key,
    State,
    by_table,
    chunks,
    read_meta,
    read_rows,
    read_states,
    write_meta,
)
from engine.storage.work import (
    EVERYTHING,
    QUEUE,
    Processor,
    Work,
    finish_work,
    note_problem,
    queue_work,
    waiting_work,
)

_WORK_AT_ONCE = 200
_log = structlog.get_logger("central")


def has_follow_up(catalogue: Catalogue, table: Table) -> bool:
    """Whether anything can become necessary because of what is written into a table."""
    name, subjects = table.name, catalogue.subjects
    return name in TOPOLOGY_TABLES or name in subjects or bool(catalogue.going_along_with(name))


def queue_follow_up(
    connection: sqlite3.Connection, catalogue: Catalogue, applied: Iterable[tuple[Table, Row | None]]
) -> None:
    """Queues what becomes necessary because these root records were written, deleted or replaced.

    Args:
        connection: inside the transaction that wrote them.
        catalogue: the tables.
        applied: the table, and the record as it is and as it was; None where it is not there or that is not known.
    """
    names, documents, arrived = set[str](), list[Key](), list[Key]()
    subjects = catalogue.subjects
    for table, row in applied:
        names.add(table.name)
        if row is not None and catalogue.going_along_with(table.name):
            arrived.append((table.name, str(row[0])))
        if table.name not in subjects or row is None:
            continue
        subject, column = subjects[table.name]
        if subject.kind is Kind.PATIENT:
            documents.append((subject.name, str(table.value(row, column))))
    if names & TOPOLOGY_TABLES or catalogue["name"].visibility_table in names:
        queue_work(connection, Processor.COPIES, [EVERYTHING])
    queue_work(connection, Processor.ROUTE, [*documents, *_going_along(connection, catalogue, arrived)])


def _going_along(connection: sqlite3.Connection, catalogue: Catalogue, subjects: Iterable[Key]) -> list[Key]:
    """The documents that are visible with these."""
    found = list[Key]()
    for name, ids in by_table(subjects).items():
        for table, column in catalogue.going_along_with(name):
            for marks, part in chunks(ids):
                rows = connection.execute(f"SELECT id FROM {table.name} WHERE {column} IN ({marks})", part)
                found += [(table.name, row[0]) for row in rows]
    return found


def queue_withheld(connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology) -> None:
    """Queues the documents of the central's own stores that have begun or ceased to leave their transactions out (F32).

    What was decided last stands in the database, so that nothing is missed whoever changed it and whenever.
    """
    own = (copy.store_id for copy in topology.copies_at(CENTRAL_SITE) if copy.type is CopyType.ACTIVE)
    now = {store for store in own if topology.withholds_transactions(store)}
    before = set(json.loads(read_meta(connection).get("withheld", "[]")))
    if now == before:
        return
    for store, table in product(sorted(now ^ before), catalogue.synchronised):
        if table.follows_transactions:
            these = f"SELECT ?, ?, id, 1 FROM {table.name} WHERE {table.store_column} = ?"
            connection.execute(QUEUE.format(values=these), (Processor.ROUTE, table.name, store))
    write_meta(connection, withheld=json.dumps(sorted(now)))


def do_follow_up(connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology) -> tuple[set[str], int]:
    """Does some of the work that waits, each piece for itself; returns (scopes that moved, pieces done).

    The topology that it decides from is the present one: nothing of the central's own changes waits to be routed.
    """
    works = waiting_work(connection, _WORK_AT_ONCE)
    moved: set[str] = set()
    for processor in Processor:
        if pieces := [work for work in works if work.processor is processor]:
            moved |= _attempt(connection, catalogue, topology, pieces)
    return moved, len(works)


def _attempt(
    connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, pieces: Sequence[Work]
) -> set[str]:
    """Does pieces of one processor together; where that fails, one by one, and keeps the culprit with its reason."""
    connection.execute("SAVEPOINT work")
    try:
        moved = _do(connection, catalogue, topology, pieces)
    except sqlite3.OperationalError:
        raise  # the disk or another program: nothing can be done now
    except Exception as error:
        connection.execute("ROLLBACK TO work")
        if len(pieces) > 1:
            moved = set().union(*(_attempt(connection, catalogue, topology, [piece]) for piece in pieces))
        else:
            _log.exception("follow-up work could not be done", processor=pieces[0].processor, about=pieces[0].key)
            note_problem(connection, pieces[0], type(error).__name__)
            moved = set()
    connection.execute("RELEASE work")
    return moved


def _do(connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, pieces: Sequence[Work]) -> set[str]:
    finish_work(connection, pieces)
    if pieces[0].processor is Processor.COPIES:
        write_copies(connection, automatic_changes(topology, visible_at(connection, catalogue)))
        return set()  # what was written is in the outbox and is routed like any other change
    documents = [work.key for work in pieces]
    documents += _going_along(connection, catalogue, documents)
    return _route_again(connection, catalogue, topology, dict.fromkeys(documents))


def _route_again(
    connection: sqlite3.Connection, catalogue: Catalogue, topology: Topology, roots: Collection[Key]
) -> set[str]:
    """Brings documents into the scopes that they belong to now. Versions stay: nothing of them was edited."""
    router = Router(connection, catalogue, topology)
    router.read(roots)
    routed: list[Routed] = []
    for name, record_id in roots:
        table = catalogue[name]
        row = read_rows(connection, table, [record_id]).get(record_id)
        if row is None:
            continue
        scopes = router.scopes(table, row)
        for key, state in live_records(connection, catalogue, table, record_id).items():
            member_of = record_id if catalogue.members_of(name) else ""
            same = Change(catalogue[key[0]], key[1], member_of, state.version, (), b"", state.hash)
            routed.append(Routed(same, scopes, state))
    return publish(connection, routed)


def live_records(connection: sqlite3.Connection, catalogue: Catalogue, root: Table, root_id: str) -> dict[Key, State]:
    """What is known of the records of a document that are not deleted."""
    keys = [(root.name, root_id)]
    names = {member.name for member in catalogue.members_of(root.name)}
    if names:
        query = "SELECT table_name, id FROM sync_record WHERE root_id <> '' AND root_id = ?"
        found = connection.execute(query, (root_id,))
        keys += [(row[0], row[1]) for row in found if row[0] in names]
    return {key: state for key, state in read_states(connection, keys).items() if not state.deleted}

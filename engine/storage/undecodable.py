"""Ids that are no UTF-8: no message can carry them, and SQLite's own driver cannot read them.

Triggers refuse them. A program that has dropped the triggers can still write them; such rows stay where they are, a
person is told, and everything else flows.
"""

import sqlite3

from packhorse.sync.v1 import document_pb2

from engine.catalogue.model import Catalogue, Table
from engine.errors import Code
from engine.rules.versions import NEVER
from engine.storage.held import Reason, hold, let_go
from engine.storage.records import read_meta
from engine.storage.triggers import not_unicode


def pass_over_undecodable(connection: sqlite3.Connection, catalogue: Catalogue) -> bool:
    """Takes changes of records with such ids out of the outbox and notes them; returns whether there were any."""
    wrong = f"{not_unicode('id')} OR {not_unicode('root_id')}"
    if not connection.execute(f"DELETE FROM sync_outbox WHERE {wrong}").rowcount:
        return False
    note_undecodable(connection, catalogue, int(connection.execute("SELECT unixepoch()").fetchone()[0]))
    return True


def note_undecodable(connection: sqlite3.Connection, catalogue: Catalogue, now: int) -> None:
    """Tells a person which tables have rows that cannot leave this node, one note a table, and takes back the notes of
    those that have none any more."""
    site = int(read_meta(connection)["site"])
    for table in catalogue.synchronised:
        query = f"SELECT count(*), min(hex(id)) FROM {table.name} WHERE {undecodable(table)}"
        count, first = connection.execute(query).fetchone()
        let_go(connection, [(table.name, "")], site)
        if count:
            says = f"{count} of the rows of {table.name} cannot be sent: an id is no UTF-8, first that of x'{first}'."
            document, why = document_pb2.Document(table=table.name), Reason(Code.UNREADABLE, says)
            hold(connection, document, NEVER, site, why, now, keeps_to_quota=False)


def undecodable(table: Table) -> str:
    """SQL that is true for a row whose id, or whose document's id, is no UTF-8."""
    columns = ["id", *([table.parent_column] if table.parent_column else [])]
    return " OR ".join(not_unicode(f"{table.name}.{column}") for column in columns)

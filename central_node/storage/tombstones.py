"""What a pushed document may be put on where all that is known of it is that it was deleted, and what is said of one
that continues nothing that is stored."""

import sqlite3

from packhorse.sync.v1 import document_pb2

from engine.errors import Code
from engine.rules.versions import NEVER, Version
from engine.storage.held import Reason
from engine.storage.records import Key, State
from engine.storage.retention import last_forgotten


def is_foreign(connection: sqlite3.Connection, key: Key, state: State | None, site: int) -> bool:
    """Whether all that is stored is that another site has deleted a document of this id that never got here."""
    if state is None or not state.deleted or state.writer_site == site:
        return False
    query = "SELECT 1 FROM sync_membership WHERE table_name = ? AND id = ?"
    return connection.execute(query, key).fetchone() is None


def is_forgotten(
    connection: sqlite3.Connection, message: document_pb2.Document, base: Version, state: State | None
) -> bool:
    """Whether all that one end has of a whole document is a tombstone, and the other end has forgotten that (F38)."""
    if not message.whole:
        return False
    if state is None:
        return base.counter <= last_forgotten(connection).counter
    return state.deleted and base == NEVER


def conflict(name: str, base: Version, stored: Version, is_gone: bool) -> Reason:
    """Why a document is held that does not continue the stored version.

    Args:
        name: of the document.
        base: the version that it continues.
        stored: the version that is stored.
        is_gone: both are deletes. Nothing is to be compared then; the site takes the one that is here.
    """
    if is_gone:
        return Reason(Code.NO_AUTHORITY, f"{name} was not deleted: it has been deleted before.")
    return Reason(
        Code.DIVERGED,
        f"{name} continues version {base.counter} of term {base.term}; stored is version {stored.counter} of term"
        f" {stored.term}. Both are kept.",
    )

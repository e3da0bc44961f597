"""What a pushed document may be put on where all that is known of it is that it was deleted, and what is said of one
that continues nothing that is stored."""

import sqlite3

from packhorse.sync.v1 import document_pb2

from engine.catalogue.model import Table
from engine.errors import Code
from engine.rules.authority import RIGHT_OF_KIND, rights_of
from engine.rules.topology import Topology
from engine.rules.versions import NEVER, Term, Version
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


def is_without_right(site: int, root: Table, version: Version, topology: Topology) -> bool:
    """Whether a site holds no right at all of that sort under the term of a version. Of a record that is gone this is
    what can be proved: whose it was is not known any more."""
    right, term = RIGHT_OF_KIND[root.kind], Term(version.term, version.term_id)
    return not any(owner.right is right and held == term for owner, held in rights_of(site, topology).items())


def conflict(name: str, base: Version, stored: Version, is_forged: bool) -> Reason:
    """Why a document is held that does not continue the stored version.

    Args:
        name: of the document.
        base: the version that it continues.
        stored: the version that is stored.
        is_forged: it is a delete of what has been deleted, by a site without a right: the site takes what is here.
    """
    if is_forged:
        says = f"{name} was not deleted: it has been deleted before, and this site had no right to do it."
        return Reason(Code.NO_AUTHORITY, says)
    return Reason(
        Code.DIVERGED,
        f"{name} continues version {base.counter} of term {base.term}; stored is version {stored.counter} of term"
        f" {stored.term}. Both are kept.",
    )

"""The database of site 2 of `centrals.serving_central`, fed with pages that the real central has read for it."""

import sqlite3
from pathlib import Path

from packhorse.sync.v1 import document_pb2

from central_node.storage.stores import STORE_AS_SUBJECT, add_visibility
from central_node.storage.topology import set_sync_with
from engine.rules.copies import SyncWith
from engine.rules.routing import subscriptions_of
from engine.storage.configuration import read_topology
from engine.storage.database import transact
from engine.storage.pages import Cursor, read_page, read_wanted
from engine.storage.positions import read_positions
from engine.storage.receive import Received, apply_pull
from engine.storage.records import Writer
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from field_lab.core_catalogue import core_catalogue
from site_node.storage.notes import found_site
from tests.central_node.storage.centrals import EPOCHS, NOW, STORE_OF, TABLES, settle

SITE = 2
ME = Writer(SITE, EPOCHS[SITE].hex())


def follow_third(central: sqlite3.Connection) -> None:
    """Gives site 2 a collector copy of the store of site 3, so that it is sent documents with content."""

    def add(_: sqlite3.Connection) -> None:
        add_visibility(central, core_catalogue(), STORE_AS_SUBJECT, "third", STORE_OF[SITE])
        set_sync_with(central, core_catalogue(), "third", SITE, SyncWith.ACTIVE_COLLECTOR)
        settle(central)

    transact(central, add)


def joined_site(path: Path, central: sqlite3.Connection) -> sqlite3.Connection:
    """Site 2 with everything that the central has for it."""
    connection = open_writer(path)
    prepare(connection, core_catalogue())
    transact(connection, lambda c: found_site(c, SITE, "site 2", "0" * 32, EPOCHS[SITE]))
    transact(connection, lambda c: pull(c, central))
    # What site 2 wrote itself comes as a hash; its database is new, so it asks for the documents.
    wanted = [tuple(row) for row in connection.execute("SELECT table_name, id FROM sync_want")]
    scopes = frozenset(subscriptions_of(SITE, read_topology(central)))
    body = document_pb2.PullBody(wanted=read_wanted(central, core_catalogue(), list(wanted), scopes).documents)
    transact(connection, lambda c: apply_pull(c, core_catalogue(), ME, body, NOW))
    return connection


def next_page(connection: sqlite3.Connection, central: sqlite3.Connection) -> document_pb2.PullBody:
    """What the central sends to the site next."""
    there = {position.scope: position for position in read_positions(connection)}
    cursors, changes = [], []
    for scope in subscriptions_of(SITE, read_topology(central)):
        if scope in there:
            cursors.append(Cursor(scope, there[scope].generation, there[scope].position))
        else:
            cursors.append(Cursor(scope, 1, 0))
            changes.append(document_pb2.SubscriptionChange(scope=scope, generation=1))
    page = read_page(central, core_catalogue(), cursors, ME, frozenset(TABLES), 10_000)
    return document_pb2.PullBody(subscriptions=changes, sections=page.sections)


def pull(connection: sqlite3.Connection, central: sqlite3.Connection) -> Received:
    """Applies what the central sends next, inside the caller's transaction."""
    return apply_pull(connection, core_catalogue(), ME, next_page(connection, central), NOW)

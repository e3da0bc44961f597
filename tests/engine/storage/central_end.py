"""A central node whose messages are carried by hand; see exchange.py."""

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.attempts import Submitted
from central_node.storage.copies import administering
from central_node.storage.eras import begin_era
from central_node.storage.follow_up import do_follow_up
from central_node.storage.roster import (
    check_current,
    configuration_cursor,
    note_positions,
    open_session,
    reconcile_subscriptions,
    take_positions,
)
from central_node.storage.steps import refresh_topology, route_own, take_frames, wake_held
from engine.catalogue.codec import codec, record_hash
from engine.errors import PackhorseError
from engine.rules.topology import CENTRAL_SITE, CopyType
from engine.rules.versions import Term, Version
from engine.session.frames import pack
from engine.storage.configuration import read_topology
from engine.storage.feeds import Routed, publish
from engine.storage.pages import Cursor, advanced, read_page, read_wanted
from engine.storage.records import Change, Key, Writer, applying, read_states, write_changes
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.site_end import NOW, PLENTY, Node

Told = session_pb2.Acknowledgement | PackhorseError | None
"""What becomes of a frame: an acknowledgement, an error that ends the session, or nothing."""


class Session(NamedTuple):
    """A session at the central. `cursors` is what was sent."""

    site: int
    id: str
    writer: Writer
    welcome: session_pb2.Welcome
    cursors: dict[str, Cursor]
    changes: list[document_pb2.SubscriptionChange]


class CentralEnd(Node):
    """The central."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.era = 1

    def start(self) -> None:
        """A run of the central begins, in an era that never was."""
        self.era += 1
        era = self.era
        self.write(lambda c: begin_era(c, era))
        self.write(lambda c: refresh_topology(c, core_catalogue()))

    def restart(self) -> None:
        """See Node."""
        super().restart()
        self.start()

    def restore(self, backup: Path) -> None:
        """See Node."""
        super().restore(backup)
        self.start()

    def edit(self, *statements: str) -> None:
        """See Node; the edits are routed."""
        super().edit(*statements)
        self.route()

    def administer(self, *statements: str) -> None:
        """One transaction of a command that changes the topology; it is routed."""

        def work(connection: sqlite3.Connection) -> None:
            with administering(connection):
                for statement in statements:
                    connection.execute(statement)

        self.write(work)
        self.route()

    def write_for_another(self, scope: str, root: Key, version: Version, *records: document_pb2.Record) -> None:
        """Writes records of another owner, as a restored central that creates them anew would."""
        every = [(record.table, record.id) for record in records]
        in_document = root[1] if core_catalogue().members_of(root[0]) else ""

        def work(connection: sqlite3.Connection) -> None:
            before = read_states(connection, every)
            changes = []
            for record in records:
                table = core_catalogue()[record.table]
                row = None if record.deleted else codec(table).decode(record.content).row
                canonical = codec(table).canonical(row, b"") if row is not None else b""
                told = record_hash(record.table, record.id, *version, canonical)
                changes.append(Change(table, record.id, in_document, version, row, b"", told))
            with applying(connection):
                write_changes(connection, changes, Writer(CENTRAL_SITE, "another epoch"))
            publish(connection, [Routed(c, (scope,), before.get((c.table.name, c.id))) for c in changes])

        self.write(work)

    def put_copy(self, store: str, site: int, kind: CopyType, term: Term | None = None) -> None:
        """Gives a site a copy of a store; NONE takes it away. A copy that is not active is visible to `beside-N`, a
        store that is active there too."""
        delete = f"DELETE FROM store_copy WHERE id = '{store}@{site}'"
        counter, random = term or Term()
        insert = (
            f"INSERT INTO store_copy VALUES ('{store}@{site}', '{store}', {site}, '{kind}', {counter}, {random}, 0)"
        )
        update = f"ON CONFLICT (id) DO UPDATE SET type = '{kind}', term = {counter}, term_id = {random}"
        beside = f"beside-{site}"
        visible = (
            f"INSERT INTO name_visibility (id, store_id, name_id) VALUES ('{store}@{beside}', '{beside}', '{store}')"
        )
        see = (
            f"INSERT INTO store (id, name, mode) VALUES ('{beside}', '{beside}', 'store') ON CONFLICT DO NOTHING",
            "INSERT INTO store_copy (id, store_id, site, type, term, term_id)"
            f" VALUES ('{beside}@{site}', '{beside}', {site}, 'active', 1, 1) ON CONFLICT DO NOTHING",
            f"{visible} ON CONFLICT DO NOTHING",
        )
        unsee = (f"DELETE FROM name_visibility WHERE id = '{store}@{beside}'",)
        match kind:
            case CopyType.NONE:
                self.administer(*unsee, delete)
            case CopyType.ACTIVE:
                self.administer(f"{insert} {update}")
            case _:
                self.administer(*see, f"{insert} {update}")

    def route(self) -> None:
        """Routes what was edited here, and does what follows, to the end."""
        waits = "SELECT 1 FROM sync_outbox WHERE token <> framed_token UNION SELECT 1 FROM sync_work WHERE problem = ''"
        while self.one(waits):
            self.write(lambda c: route_own(c, core_catalogue(), read_topology(c), NOW))
            self.write(lambda c: do_follow_up(c, core_catalogue(), read_topology(c)))

    def wake(self) -> None:
        """Judges documents again whose wait is over."""
        while self.one("SELECT 1 FROM sync_held WHERE ready = 1"):
            self.write(lambda c: wake_held(c, core_catalogue(), read_topology(c), NOW))

    def open(self, hello: session_pb2.Hello) -> Session:
        """Judges a Hello; configuration comes inside Welcome. Raises Refused."""
        session, token = secrets.token_hex(16), secrets.token_bytes(32)
        writer = Writer(hello.site, hello.epoch.hex())

        def judge(connection: sqlite3.Connection) -> Session:
            opened = open_session(connection, hello, session, token, read_topology(connection), NOW)
            made = Session(hello.site, session, writer, opened.welcome, dict(opened.cursors), list(opened.changes))
            cursor = configuration_cursor(connection, opened, hello)
            if cursor is not None:
                changes = [change for change in made.changes if change.scope == cursor.scope]
                made.changes[:] = [change for change in made.changes if change.scope != cursor.scope]
                page = read_page(
                    connection, core_catalogue(), [cursor], writer, frozenset(core_catalogue().tables), PLENTY
                )
                if changes or page.sections:
                    body, told = pack(document_pb2.PullBody(subscriptions=changes, sections=page.sections))
                    made.welcome.configuration.body, made.welcome.configuration.hash = body, told
                if page.sections and made.cursors:
                    made.cursors[cursor.scope] = cursor._replace(position=page.sections[-1].to_position)
            return made

        return self.write(judge)

    def take_positions(self, session: Session, shown: list[session_pb2.FeedPosition], era: int) -> Session:
        """Takes the position table of a site. Raises Refused."""

        def take(connection: sqlite3.Connection) -> Session:
            check_current(connection, session.site, session.id)
            cursors, changes = take_positions(connection, session.site, era, shown, read_topology(connection))
            return session._replace(cursors=cursors, changes=changes)

        return self.write(take)

    def follow_topology(self, session: Session) -> None:
        """Opens and closes subscriptions in a session, as the topology says now."""

        def reconcile(connection: sqlite3.Connection) -> None:
            check_current(connection, session.site, session.id)
            topology = read_topology(connection)
            cursors, changes = reconcile_subscriptions(connection, session.site, dict(session.cursors), topology)
            session.cursors.clear()
            session.cursors.update(cursors)
            session.changes.extend(changes)

        self.write(reconcile)

    def take(self, session: Session, *frames: document_pb2.Frame) -> list[Told]:
        """Takes frames of one session, all in one transaction."""
        submitted = [Submitted(session.writer, session.id, frame) for frame in frames]
        return self.take_together(submitted)

    def push(self, session: Session, *documents: document_pb2.Document) -> session_pb2.Acknowledgement:
        """Takes a frame with documents that no site of ours has made."""
        last = self.connection.execute(
            "SELECT frame_number, frame_hash FROM central_site WHERE site = ?", (session.site,)
        ).fetchone()
        body, told = pack(document_pb2.FrameBody(documents=documents))
        frame = document_pb2.Frame(
            number=last[0] + 1, hash=told, previous_number=last[0], previous_hash=last[1], body=body
        )
        (taken,) = self.take(session, frame)
        assert isinstance(taken, session_pb2.Acknowledgement), taken
        return taken

    def term_of(self, store: str) -> Term:
        """The term of a store's active copy."""
        query = "SELECT term, term_id FROM store_copy WHERE store_id = ? AND type = 'active'"
        return Term(*self.connection.execute(query, (store,)).fetchone())

    def take_together(self, submitted: Sequence[Submitted]) -> list[Told]:
        """Takes frames of any sessions, all in one transaction."""
        taken = self.write(lambda c: take_frames(c, core_catalogue(), read_topology(c), submitted, NOW))
        return taken.acknowledgements

    def page(self, session: Session, records: int = PLENTY) -> document_pb2.PullBody | None:
        """The next page for a session, which counts as sent; None when there is nothing."""
        tables = frozenset(core_catalogue().tables)
        every = list(session.cursors.values())
        page = self.read(lambda c: read_page(c, core_catalogue(), every, session.writer, tables, records))
        body = document_pb2.PullBody(subscriptions=session.changes, sections=page.sections)
        session.changes.clear()
        session.cursors.update(advanced(session.cursors, page.sections))
        return body if body.subscriptions or body.sections else None

    def wanted(self, session: Session, keys: Iterable[Key]) -> document_pb2.PullBody:
        """The documents that a site has asked for."""
        asked, scopes = list(keys), frozenset(session.cursors)
        found = self.read(lambda c: read_wanted(c, core_catalogue(), list(asked), scopes, limit_bytes=1 << 30))
        return document_pb2.PullBody(wanted=found.documents)

    def note(self, session: Session) -> None:
        """What was sent in a session is applied at the site."""
        self.write(lambda c: note_positions(c, session.site, list(session.cursors.values())))

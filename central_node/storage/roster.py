"""The sites that the central knows: enrolment, credentials, lineage, and what each said last."""

import hashlib
import hmac
import sqlite3
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.backfills import note_backfills, note_tables, open_backfills
from central_node.storage.eras import check_era, check_position, current_era
from central_node.storage.purge import floors_of
from engine.errors import Code, PackhorseError, PeerProblem, Refused
from engine.limits import LINEAGE_TOKENS, TOKEN_DAYS
from engine.rules.routing import site_scope, subscriptions_of
from engine.rules.topology import Topology
from engine.storage.pages import Cursor
from engine.storage.positions import positions_hash
from engine.storage.records import write_meta


def digest(secret: bytes) -> bytes:
    """How secrets with 256 random bits are stored."""
    return hashlib.sha256(secret).digest()


def expect_site(connection: sqlite3.Connection, name: str, secret: bytes, now: int) -> int:
    """Notes a site that may enrol with this secret; returns its number. One that has not enrolled yet gets a new token
    in place of the old one. Raises Refused with NAME_TAKEN."""
    row = connection.execute("SELECT site, installation FROM central_site WHERE name = ?", (name,)).fetchone()
    if row is not None and row[1]:
        raise Refused(Code.NAME_TAKEN, f"There is a site named {name} already.")
    if row is not None:
        connection.execute(
            "UPDATE central_site SET token_hash = ?, token_expires = ? WHERE site = ?",
            (digest(secret), now + TOKEN_DAYS * 86_400, row[0]),
        )
        return int(row[0])
    number = int(connection.execute("SELECT max(2, 1 + ifnull(max(site), 1)) FROM central_site").fetchone()[0])
    connection.execute(
        "INSERT INTO central_site (site, name, token_hash, token_expires) VALUES (?, ?, ?, ?)",
        (number, name, digest(secret), now + TOKEN_DAYS * 86_400),
    )
    return number


class Enrolled(NamedTuple):
    """The site that an installation has become."""

    site: int
    name: str


def enrol(
    connection: sqlite3.Connection, secret: bytes, installation: str, credential_hash: bytes, epoch: bytes, now: int
) -> Enrolled:
    """Binds an installation to the site that the token stands for. May be repeated by the same installation.

    Raises:
        Refused: TOKEN_UNKNOWN, TOKEN_USED, TOKEN_EXPIRED.
    """
    row = connection.execute(
        "SELECT site, name, token_expires, installation, credential_hash, epoch FROM central_site WHERE token_hash = ?",
        (digest(secret),),
    ).fetchone()
    if row is None:
        raise Refused(
            Code.TOKEN_UNKNOWN, "This central node never gave out that token, or has given out a newer one since."
        )
    site, name, expires, bound, bound_credential, bound_epoch = row
    if bound:
        if (bound, bound_credential, bound_epoch) == (installation, credential_hash, epoch):
            return Enrolled(site, name)
        raise Refused(Code.TOKEN_USED, f"The token of site {site} ({name}) was used by another installation.")
    if now > expires:
        raise Refused(Code.TOKEN_EXPIRED, f"The token of site {site} ({name}) has expired.")
    connection.execute(
        "UPDATE central_site SET installation = ?, credential_hash = ?, epoch = ?, enrolled_at = ? WHERE site = ?",
        (installation, credential_hash, epoch, now, site),
    )
    return Enrolled(site, name)


def is_credential(connection: sqlite3.Connection, site: int, installation: str, credential: bytes) -> bool:
    """Whether the credential belongs to that installation of the site. Compared in constant time."""
    row = connection.execute(
        "SELECT installation, credential_hash FROM central_site WHERE site = ? AND installation <> ''", (site,)
    ).fetchone()
    return bool(row) and row[0] == installation and hmac.compare_digest(row[1], digest(credential))


class Opened(NamedTuple):
    """A session that may begin."""

    welcome: session_pb2.Welcome
    cursors: dict[str, Cursor]
    changes: list[document_pb2.SubscriptionChange]


def open_session(
    connection: sqlite3.Connection, hello: session_pb2.Hello, session: str, token: bytes, topology: Topology, now: int
) -> Opened:
    """Judges a Hello and makes this session the current one of its site (F1, F10, F13).

    Raises:
        Refused: LINEAGE_BROKEN, CHAIN_BROKEN, CENTRAL_RESTORED; nothing is changed then.
    """
    epoch, lineage, frame_number, frame_hash = connection.execute(
        "SELECT epoch, lineage, frame_number, frame_hash FROM central_site WHERE site = ?", (hello.site,)
    ).fetchone()
    if epoch != hello.epoch:
        raise Refused(Code.LINEAGE_BROKEN, "The site's database is not the one that was enrolled.")
    _take_lineage(connection, hello, lineage, token)
    if hello.last_acknowledged > frame_number:
        raise Refused(
            Code.CENTRAL_RESTORED,
            f"The site has an acknowledgement of frame {hello.last_acknowledged};"
            f" this database ends at {frame_number}.",
        )
    era = current_era(connection)
    assert era is not None, "a serving central has begun an era"
    if hello.position_count:
        check_era(connection, hello.era)
    connection.execute(
        "UPDATE central_site SET session = ?, last_seen = ?, waiting_to_push = ?, software_version = ?,"
        " clock_difference_milliseconds = ? WHERE site = ?",
        (session, now, hello.waiting_to_push, hello.software_version[:40],
         _storable(hello.clock_milliseconds - now * 1000), hello.site),
    )  # fmt: skip
    note_tables(connection, hello.site, hello.tables)
    connection.execute("DELETE FROM central_note WHERE site = ? AND number <= ?", (hello.site, hello.last_acknowledged))
    notes = connection.execute(
        "SELECT acknowledgement FROM central_note WHERE site = ? ORDER BY number", (hello.site,)
    ).fetchall()
    remembered = _subscriptions(connection, hello.site)
    same = hello.positions_hash == positions_hash((c.scope, c.generation, c.position) for c in remembered.values())
    welcome = session_pb2.Welcome(
        lineage_token=token,
        era=era,
        last_applied=frame_number,
        last_applied_hash=frame_hash,
        missed=[session_pb2.Acknowledgement.FromString(note[0]) for note in notes],
        send_positions=not same and hello.position_count > 0,
    )
    if welcome.send_positions:
        return Opened(welcome, {}, [])
    known = remembered if same else {}
    return Opened(welcome, *reconcile_subscriptions(connection, hello.site, known, topology))


def _storable(difference: int) -> int:
    """A clock may stand at any number of 64 bits."""
    return max(min(difference, (1 << 63) - 1), -(1 << 63))


def _take_lineage(connection: sqlite3.Connection, hello: session_pb2.Hello, lineage: bytes, token: bytes) -> None:
    """Judges the lineage token of a Hello and notes the one that its Welcome will bring.

    A site shows the token that it has stored: the last one that it has proved to have, or any that was offered since,
    because a Welcome may be lost and Hellos of sessions that were given up may be judged late, in any order.
    """
    shown = digest(hello.lineage_token) if hello.lineage_token else b""
    if shown != lineage:
        query = "SELECT 1 FROM central_offered WHERE site = ? AND token_hash = ?"
        if connection.execute(query, (hello.site, shown)).fetchone() is None:
            raise Refused(
                Code.LINEAGE_BROKEN,
                f"Another database of site {hello.site} has been here since: this one was restored or copied.",
            )
        _confirm(connection, hello.site, shown)
    query = "SELECT 1 + ifnull(max(number), 0) FROM central_offered WHERE site = ?"
    newest = connection.execute(query, (hello.site,)).fetchone()[0]
    connection.execute("INSERT INTO central_offered VALUES (?, ?, ?)", (hello.site, newest, digest(token)))
    _make_older(connection, hello.site, f"number <= {newest - LINEAGE_TOKENS}")


def _confirm(connection: sqlite3.Connection, site: int, token_hash: bytes) -> None:
    """The site has shown that it stored this token: every other one is of a database that was restored or copied."""
    connection.execute(
        "INSERT OR IGNORE INTO central_lineage SELECT site, lineage FROM central_site WHERE site = ?", (site,)
    )
    _make_older(connection, site, "true")
    connection.execute("DELETE FROM central_lineage WHERE site = ? AND token_hash = ?", (site, token_hash))
    connection.execute("UPDATE central_site SET lineage = ? WHERE site = ?", (token_hash, site))


def _make_older(connection: sqlite3.Connection, site: int, which: str) -> None:
    these = f"FROM central_offered WHERE site = ? AND {which}"
    connection.execute(f"INSERT OR IGNORE INTO central_lineage SELECT site, token_hash {these}", (site,))
    connection.execute(f"DELETE {these}", (site,))


def check_current(connection: sqlite3.Connection, site: int, session: str, confirms: bool = True) -> None:
    """Raises PeerProblem with SUPERSEDED unless this is the site's current session.

    `confirms`: the session has spoken after its Welcome, so the site has stored the lineage token in it.
    """
    row = connection.execute("SELECT session FROM central_site WHERE site = ?", (site,)).fetchone()
    if row is None or row[0] != session:
        raise PeerProblem(Code.SUPERSEDED, f"A newer session of site {site} took over.")
    if not confirms:
        return
    newest = connection.execute(
        "SELECT token_hash FROM central_offered WHERE site = ? ORDER BY number DESC LIMIT 1", (site,)
    ).fetchone()
    if newest is not None:  # the newest was offered to the current session
        _confirm(connection, site, newest[0])


def _subscriptions(connection: sqlite3.Connection, site: int) -> dict[str, Cursor]:
    rows = connection.execute("SELECT scope, generation, position FROM central_subscription WHERE site = ?", (site,))
    return {row[0]: Cursor(*row) for row in rows}


def take_positions(
    connection: sqlite3.Connection, site: int, era: int, positions: list[session_pb2.FeedPosition], topology: Topology
) -> tuple[dict[str, Cursor], list[document_pb2.SubscriptionChange]]:
    """Takes the site's own position table for the truth. Raises Refused with CENTRAL_RESTORED."""
    for position in positions:
        check_position(connection, era, position)
    known = {p.scope: Cursor(p.scope, p.generation, p.position) for p in positions}
    return reconcile_subscriptions(connection, site, known, topology)


def reconcile_subscriptions(
    connection: sqlite3.Connection, site: int, known: dict[str, Cursor], topology: Topology
) -> tuple[dict[str, Cursor], list[document_pb2.SubscriptionChange]]:
    """What the site follows from now on, in the order of importance, and what to tell it.

    Args:
        connection: inside a write transaction.
        site: the site's number.
        known: what the site follows as far as it was told, with its positions.
        topology: who follows what.
    """
    known = {scope: cursor for scope, cursor in known.items() if not cursor.table}
    stored, floors = _subscriptions(connection, site), floors_of(connection, site)
    cursors: dict[str, Cursor] = {}
    changes: list[document_pb2.SubscriptionChange] = []
    for scope in subscriptions_of(site, topology):
        there, mine = known.get(scope), stored.get(scope)
        floor = floors.get(scope, 0)
        if there and mine and there.generation == mine.generation and there.position >= floor:
            cursors[scope] = there
            continue
        generation = mine.generation if mine is not None and there is None else _next_generation(connection)
        cursors[scope] = Cursor(scope, generation, 0)
        changes.append(document_pb2.SubscriptionChange(scope=scope, generation=generation))
    for scope in [*known, *stored]:
        if scope not in cursors:
            connection.execute("DELETE FROM central_subscription WHERE site = ? AND scope = ?", (site, scope))
            if scope in known:
                changes.append(document_pb2.SubscriptionChange(scope=scope, closed=True))
                known = {name: cursor for name, cursor in known.items() if name != scope}
    _subscribe(connection, site, [c for c in cursors.values() if stored.get(c.scope) != c])
    return cursors | open_backfills(connection, site), changes


def _subscribe(connection: sqlite3.Connection, site: int, cursors: list[Cursor]) -> None:
    connection.executemany(
        "INSERT INTO central_subscription (site, scope, generation, position, begun) VALUES"
        " (?1, ?2, ?3, ?4, ifnull((SELECT position FROM sync_scope WHERE name = ?2), 0))"
        " ON CONFLICT (site, scope) DO UPDATE SET position = excluded.position,"
        " begun = iif(generation = excluded.generation, begun, excluded.begun), generation = excluded.generation",
        [(site, cursor.scope, cursor.generation, cursor.position) for cursor in cursors],
    )


def note_positions(connection: sqlite3.Connection, site: int, cursors: list[Cursor]) -> None:
    """Remembers how far a site is. What it acknowledges of a subscription that was closed meanwhile, or has begun
    again, says nothing of the present one."""
    connection.executemany(
        "UPDATE central_subscription SET position = ? WHERE site = ? AND scope = ? AND generation = ?",
        [(cursor.position, site, cursor.scope, cursor.generation) for cursor in cursors if not cursor.table],
    )
    note_backfills(connection, site, (cursor for cursor in cursors if cursor.table))


def _next_generation(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM sync_meta WHERE key = 'generation'").fetchone()
    generation = int(row[0]) + 1 if row else 1
    write_meta(connection, generation=str(generation))
    return generation


def note_report(connection: sqlite3.Connection, site: int, report: session_pb2.CheckpointReport, now: int) -> None:
    """Remembers what a site found at a checkpoint."""
    connection.execute(
        "UPDATE central_site SET last_seen = ?, agreed = ?, differing = ?, waiting_to_push = ?, held_there = ?,"
        " last_success = ?, last_error = '', last_error_code = '' WHERE site = ?",
        (now, report.in_agreement, ", ".join(report.differing), report.waiting_to_push, report.held, now, site),
    )


def note_error(connection: sqlite3.Connection, site: int, error: PackhorseError, now: int) -> None:
    """Remembers why a session of a site ended."""
    connection.execute(
        "UPDATE central_site SET last_seen = ?, last_error_code = ?, last_error = ? WHERE site = ?",
        (now, error.code, error.sentence, site),
    )


def configuration_cursor(connection: sqlite3.Connection, opened: Opened, hello: session_pb2.Hello) -> Cursor | None:
    """From where the configuration inside Welcome is read; None where the site does not follow its feed yet."""
    scope = site_scope(hello.site)
    if not opened.welcome.send_positions:
        return opened.cursors.get(scope)
    if hello.era != opened.welcome.era:
        return None  # its positions are of an earlier run: they must show first that this database was not restored
    cursor = Cursor(scope, hello.configuration.generation, hello.configuration.position)
    stored = _subscriptions(connection, hello.site).get(scope)
    return cursor if stored is not None and stored.generation == cursor.generation else None

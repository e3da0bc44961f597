"""A central's database with two sites that have joined and pushed; and what may never be true of it.

Stores: `far` is active at site 2, `third` at site 3; the central holds collectors of both. `own` is active at the
central. Each site has a location, a stock line and an invoice with two lines.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.attempts import Submitted
from central_node.storage.eras import begin_era
from central_node.storage.follow_up import do_follow_up
from central_node.storage.roster import enrol, expect_site, open_session
from central_node.storage.steps import Taken, refresh_topology, route_own, take_frames
from central_node.storage.tables import CENTRAL_TABLES
from central_node.storage.topology import add_site, assign_store, found_central
from engine.catalogue.codec import codec, record_hash
from engine.rules.topology import CopyType
from engine.rules.versions import NEVER, Version
from engine.session.frames import Link, pack, to_wire
from engine.storage.configuration import read_topology
from engine.storage.database import transact
from engine.storage.echoes import MARKED
from engine.storage.feeds import PUT
from engine.storage.records import Key, Writer
from engine.storage.schema import prepare
from engine.storage.sqlite_file import open_writer
from field_lab.core_catalogue import core_catalogue

NOW = 1_800_000_000
STORE_OF = {1: "own", 2: "far", 3: "third"}
EPOCHS = {site: bytes([site]) * 16 for site in STORE_OF}
SECRETS = {site: bytes([site]) * 32 for site in STORE_OF}
TABLES = tuple(table.name for table in core_catalogue())


def serving_central(path: Path) -> sqlite3.Connection:
    """See the module."""
    connection = open_writer(path)
    prepare(connection, core_catalogue(), CENTRAL_TABLES)

    def fill(_: sqlite3.Connection) -> None:
        found_central(connection, core_catalogue(), "central")
        connection.execute("INSERT INTO unit (id, name) VALUES ('unit-1', 'tablet')")
        connection.execute("INSERT INTO item (id, name, unit_id) VALUES ('item-1', 'amoxicillin', 'unit-1')")
        for site, store in STORE_OF.items():
            connection.execute("INSERT INTO name (id, name) VALUES (?, ?)", (f"name-{store}", store))
            connection.execute(
                "INSERT INTO store (id, code, name, name_id) VALUES (?, ?, ?, ?)",
                (store, store, store, f"name-{store}"),
            )
            if site > 1:
                assert expect_site(connection, f"site {site}", SECRETS[site], NOW) == site
                add_site(connection, site, f"site {site}")
                enrol(connection, SECRETS[site], f"{site:032}", b"c" * 32, EPOCHS[site], NOW)
        begin_era(connection, 77)
        settle(connection)
        for site, store in STORE_OF.items():
            assign_store(connection, core_catalogue(), read_topology(connection), store, site, CopyType.COLLECTOR)
        settle(connection)
        for site in (2, 3):
            open_site(connection, site)
            taken = take(connection, [frame_of(connection, site, documents_of(connection, site))], site)
            assert not taken.acknowledgements[0].outcomes, taken  # type: ignore[union-attr]

    transact(connection, fill)
    return connection


def settle(connection: sqlite3.Connection) -> None:
    """Routes what was edited at the central, and does what follows."""
    while (
        route_own(connection, core_catalogue(), refresh_topology(connection, core_catalogue()), NOW)[0].records
        or do_follow_up(connection, core_catalogue(), read_topology(connection))[1]
    ):
        pass


def open_site(connection: sqlite3.Connection, site: int) -> None:
    """Opens the session `session-N` of a site for the first time."""
    hello = session_pb2.Hello(site=site, epoch=EPOCHS[site])
    open_session(connection, hello, f"session-{site}", b"t" * 32, read_topology(connection), NOW)


def term_of(connection: sqlite3.Connection, site: int) -> tuple[int, int]:
    """The term under which a site has its store."""
    return read_topology(connection).active_copies[STORE_OF[site]].term


def document(
    table: str, version: Version, *rows: tuple[str, Mapping[str, Any]], base: Version = NEVER, whole: bool = True
) -> document_pb2.Document:
    """A document as a correct site pushes it: the root first, then (member table, fields)."""
    root_id = rows[0][1]["id"]
    made = document_pb2.Document(table=table, id=root_id, version=to_wire(version), base=to_wire(base), whole=whole)
    for place, (name, fields) in enumerate(rows):
        content = core_catalogue()[name].message(**fields).SerializeToString()
        made.records.add(table=name if place else "", id=fields["id"] if place else "", content=content)
    return made


def documents_of(
    connection: sqlite3.Connection, site: int, base: Version = NEVER, suffix: str = ""
) -> list[document_pb2.Document]:
    """Documents of every shape that a site may push."""
    store, version = STORE_OF[site], Version(*term_of(connection, site), base.counter + 1)
    invoice = f"invoice-{store}{suffix}"
    lines = [("invoice_line", {"id": f"{invoice}-{n}", "invoice_id": invoice, "item_id": "item-1"}) for n in (1, 2)]
    root = ("invoice", {"id": invoice, "store_id": store, "name_id": "name-own", "status": 1})
    stock = {"id": f"stock-{store}{suffix}", "store_id": store, "item_id": "item-1", "number_of_packs": "7.50"}
    return [
        document("location", version, ("location", {"id": f"location-{store}{suffix}", "store_id": store}), base=base),
        document("stock_line", version, ("stock_line", stock), base=base),
        document("invoice", version, root, *lines, base=base, whole=base == NEVER),
    ]


def chain_end(connection: sqlite3.Connection, site: int) -> Link:
    """The last frame of a site that was taken."""
    query = "SELECT frame_number, frame_hash FROM central_site WHERE site = ?"
    return Link(*connection.execute(query, (site,)).fetchone())


def frame_of(
    connection: sqlite3.Connection, site: int, documents: Iterable[document_pb2.Document]
) -> document_pb2.Frame:
    """The next frame of a site."""
    body, body_hash = pack(document_pb2.FrameBody(documents=documents))
    last = chain_end(connection, site)
    return document_pb2.Frame(
        number=last.number + 1, hash=body_hash, previous_number=last.number, previous_hash=last.hash, body=body
    )


def take(connection: sqlite3.Connection, frames: Sequence[document_pb2.Frame], site: int) -> Taken:
    """Has the central take frames of a site, as its loop does."""
    writer = Writer(site, EPOCHS[site].hex())
    submitted = [Submitted(writer, f"session-{site}", frame) for frame in frames]
    return take_frames(connection, core_catalogue(), read_topology(connection), submitted, NOW)


def rows_of(connection: sqlite3.Connection) -> dict[Key, tuple[Any, ...]]:
    """Every row of the synchronised tables."""
    return {(table, row[0]): row for table in TABLES for row in connection.execute(f"SELECT * FROM {table}")}


def everything_in(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of the database."""
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()]
    return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}


def flaws(connection: sqlite3.Connection) -> list[str]:
    """What is not as it must be after any transaction of a node: hashes, digests, feeds, whole documents, flags."""
    found = []
    hashes = {
        (row[0], row[1]): row[2:]
        for row in connection.execute(
            "SELECT table_name, id, hash, term, term_id, counter FROM sync_record WHERE deleted = 0"
        )
    }
    unknown = {(row[0], row[1]): row[2] for row in connection.execute("SELECT * FROM sync_unknown")}
    pending = {tuple(row) for row in connection.execute("SELECT table_name, id FROM sync_outbox")}
    rows = rows_of(connection)
    for key, (stored, term, term_id, counter) in hashes.items():
        if key in pending:
            continue
        if key not in rows:
            found.append(f"{key} has a state and no row")
            continue
        canonical = codec(core_catalogue()[key[0]]).canonical(rows[key], unknown.get(key, b""))
        if record_hash(*key, term, term_id, counter, canonical) != stored:
            found.append(f"{key} is not what its hash says")
    found += [f"{key} has a row and no state" for key in rows.keys() - hashes.keys() - pending]
    for key, row in rows.items():
        table = core_catalogue()[key[0]]
        if table.parent and (table.parent, str(table.value(row, table.parent_column))) not in rows:
            found.append(f"{key} has lost its document")
    found += _digest_flaws(connection, hashes)
    query = "SELECT count(*) FROM sync_membership AS m JOIN sync_scope AS s USING (scope) WHERE m.position > s.position"
    if connection.execute(query).fetchone()[0]:
        found.append("an entry lies beyond the head of its feed")
    if connection.execute("SELECT applying OR administering FROM sync_flag").fetchone()[0]:
        found.append("a flag was left set")
    return found


def _digest_flaws(connection: sqlite3.Connection, hashes: Mapping[Key, Sequence[Any]]) -> list[str]:
    counts: Counter[tuple[int, str]] = Counter()
    sums: Counter[tuple[int, str]] = Counter()
    for table, record_id, scope in connection.execute(
        "SELECT table_name, id, scope FROM sync_membership WHERE state IN (?, ?)", (PUT, MARKED)
    ):
        if (table, record_id) in hashes:
            counts[scope, table] += 1
            sums[scope, table] += int.from_bytes(hashes[table, record_id][0], "big")
    stored = {
        (row[0], row[1]): (row[2], int.from_bytes(row[3], "big"))
        for row in connection.execute("SELECT scope, table_name, count, sum FROM sync_digest")
    }
    return [
        f"the digest of scope {key[0]}, table {key[1]} says {stored.get(key)}"
        for key in counts.keys() | stored.keys()
        if stored.get(key, (0, 0)) != (counts[key], sums[key] % (1 << 128))
    ]

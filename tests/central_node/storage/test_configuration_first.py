"""Configuration is committed before anything else: it changes rights at once, never data, never a term (F57, F6)."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.storage.copies import administering
from engine.errors import Code
from engine.rpc.trace import open_trace
from engine.session.frames import pack
from engine.session.machine import Message
from engine.session.pace import Pace
from engine.storage.aiosqlite_database import open_database
from engine.storage.pages import read_page
from engine.storage.records import read_meta
from field_lab.core_catalogue import core_catalogue
from site_node.session import SiteSession
from tests.engine.storage.nodes import execute, undone
from tests.partners import Central, Site, connect, greet, pull, push, synchronise

PENDING = "SELECT table_name, id, token, queued_at, term, term_id, framed_token FROM sync_outbox ORDER BY 1, 2"
FLIGHTS = "SELECT number, hash, body FROM sync_frame ORDER BY 1"
TABLES = ("stock_line", "invoice", "invoice_line", "item")
CHANGES = ("moved away", "new term", "not collected")
BEFORE: tuple[list[str], ...] = (
    [], ["edit"], ["edit", "cut"], ["edit", "cut", "answer lost"], ["edit", "cut", "edit"],
    ["edit", "cut", "answer lost", "edit"], ["delete", "cut", "edit"], ["edit", "cut", "cut", "delete"],
)  # fmt: skip


def two_nodes(folder: Path) -> tuple[Central, Site]:
    central = Central(folder / "node-1.db")
    site = central.add(folder, 2)
    central.add(folder, 3)
    connect(central, site)
    pull(central, site)
    for name in ("s", "t"):
        site.put_stock(name)
    site.put_invoice("i", ["a", "b"])
    assert synchronise(central, site).in_agreement
    return central, site


def happen(central: Central, site: Site, event: str, number: int) -> None:
    match event:
        case "edit":
            site.put_stock("s", str(number))
            site.put_invoice("i", [str(number)], str(number))
        case "delete":
            site.execute("DELETE FROM stock_line WHERE id = 't'")
        case "cut":
            site.cut()
        case "answer lost":
            central.take_from(site, site.frames())
            central.route()


def reassign(central: Central, change: str) -> None:
    """Writes another topology, as an operation of the central does."""

    def write(connection: sqlite3.Connection) -> None:
        with administering(connection):
            match change:
                case "moved away":
                    connection.execute("DELETE FROM store_copy WHERE id = 'store-2@2'")
                    connection.execute(
                        "INSERT INTO store_copy (id, store_id, site, type, term, term_id)"
                        " VALUES ('store-2@3', 'store-2', 3, 'active', 2, 22)"
                    )
                case "new term":
                    connection.execute("UPDATE store_copy SET term = 2, term_id = 22 WHERE id = 'store-2@2'")
                case "not collected":
                    connection.execute("UPDATE store_copy SET type = 'transfer' WHERE id = 'store-2@1'")

    central.write(write)
    central.route()


def configuration(central: Central, site: Site) -> document_pb2.PullBody:
    """What Welcome would bring."""
    cursor = central.cursors[site.number][f"site/{site.number}"]
    page = central.read(lambda c: read_page(c, core_catalogue(), [cursor], site.me, site.tables, 1 << 30))
    return document_pb2.PullBody(sections=page.sections)


def refusal(site: Site) -> str:
    """Why an edit is refused now."""
    with undone(site.connection):
        return execute(site.connection, "UPDATE stock_line SET batch = 'now' WHERE id = 's'")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before", BEFORE, ids=", ".join)
def test_f57_configuration_changes_rights_at_once_and_nothing_else(
    tmp_path: Path, change: str, before: list[str]
) -> None:
    central, site = two_nodes(tmp_path)
    for number, event in enumerate(before):
        happen(central, site, event, number)
    reassign(central, change)
    kept: list[Any] = [site.execute(PENDING), site.execute(FLIGHTS), *(site.rows(table) for table in TABLES)]
    assert refusal(site) == ""
    site.apply(configuration(central, site))
    assert [site.execute(PENDING), site.execute(FLIGHTS), *(site.rows(table) for table in TABLES)] == kept
    if change == "moved away":
        assert "STORE_DATA_WHERE_ACTIVE" in refusal(site), "the right is gone with the commit that brought it"
    else:
        site.put_stock("new", "later")
        terms = {row[0]: row[1] for row in site.execute("SELECT id, term FROM sync_outbox")}
        assert terms.pop("new") == (2 if change == "new term" else 1)
        assert set(terms.values()) <= {1}, "what waits keeps the term under which it was made"


@pytest.mark.parametrize("change", ["moved away", "new term"])
@pytest.mark.parametrize("before", BEFORE, ids=", ".join)
def test_f57_what_was_pending_is_judged_by_its_own_term(tmp_path: Path, change: str, before: list[str]) -> None:
    """It is held at the central under its old term, and stays at the site; not a record is swept before that."""
    central, site = two_nodes(tmp_path)
    for number, event in enumerate(before):
        happen(central, site, event, number)
    is_taken = "answer lost" in before and before[-1] == "answer lost"
    reassign(central, change)
    edited = {row[:2] for row in site.execute("SELECT table_name, id FROM sync_outbox")}
    rows = {key: site.execute(f"SELECT * FROM {key[0]} WHERE id = ?", key[1]) for key in edited}
    connect(central, site)
    site.apply(configuration(central, site))
    told = [outcome.code for answer in push(central, site) for outcome in answer.outcomes]
    assert set(told) <= {"NO_AUTHORITY", "STALE_TERM", ""}
    assert is_taken or bool(edited) == bool(told), "an edit of an older term is not applied"
    central.cursors[2][f"site/{site.number}"] = central.cursors[2][f"site/{site.number}"]._replace(
        position=site.execute("SELECT position FROM sync_scope WHERE name = ?", f"site/{site.number}")[0][0]
    )
    pull(central, site)
    for key in edited - {("invoice_line", "")}:
        still = site.execute(f"SELECT * FROM {key[0]} WHERE id = ?", key[1])
        assert is_taken or still == rows[key], "what nobody has applied is never swept"


class Script:
    """A central that says what it was told to, and looks at the site's database at each message of the site."""

    def __init__(self, site: Site, answers: list[session_pb2.CentralMessage]) -> None:
        self._site, self._answers = site, answers
        self._token, self._last_applied = answers[0].welcome.lineage_token, answers[0].welcome.last_applied
        self.heard: list[str] = []
        self._heard_all = asyncio.Event()

    async def send(self, message: Message) -> None:
        """A message of the site."""
        name = str(message.WhichOneof("message"))
        self.heard.append(name)
        if name == "push_checkpoint":
            self._heard_all.set()
        if name != "hello":
            meta = self._site.read(read_meta)
            assert meta["lineage_token"] == self._token.hex(), "the token is durable before anything is said"
            assert not self._site.count("sync_authority", "owner = 'store'"), "and so is the configuration"
            assert int(meta["acknowledged"]) == self._last_applied, "and what was acknowledged meanwhile"

    async def receive(self) -> Message | None:
        """A message of the central."""
        if self._answers:
            return self._answers.pop(0)
        await asyncio.wait_for(self._heard_all.wait(), 20)
        return None


async def test_f57_welcome_is_durable_before_the_site_says_anything(tmp_path: Path) -> None:
    central, site = two_nodes(tmp_path)
    for number, event in enumerate(["edit", "cut", "answer lost", "edit", "cut"]):
        happen(central, site, event, number)
    reassign(central, "moved away")
    body, body_hash = pack(configuration(central, site))
    welcome = greet(central, site)
    welcome.protocol_version = 1
    welcome.configuration.body, welcome.configuration.hash = body, body_hash
    welcome.limits.CopyFrom(
        session_pb2.Limits(window_frames=8, frame_bytes=1 << 20, frame_records=500, patience_seconds=120)
    )
    script = Script(site, [session_pb2.CentralMessage(welcome=welcome)])
    site.connection.close()
    database = await open_database(site.path, core_catalogue())
    site.connection = sqlite3.connect(site.path, isolation_level=None)
    try:
        session = SiteSession(
            database, core_catalogue(), site.me, False, Pace(), lambda _phase, _remaining: None, open_trace()(2)
        )
        error = await session.run(script.send, script.receive)
    finally:
        await database.close()
    assert error is not None and error.code is Code.LINK_CUT, error
    assert script.heard == ["hello", "frame", "push_checkpoint"]

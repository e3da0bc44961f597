"""A hostile client with a valid credential against a real central: what it says ends by name and changes nothing.

Nothing of the synchronised tables, of versions, feeds and digests changes; what is held is what it pushed without
authority. The site whose credential it stole, and every other site, go on.
"""

import hashlib
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard
from google.protobuf.message import Message
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.catalogue.descriptors import catalogue
from engine.limits import FRAME_BYTES_MAX, MESSAGE_BYTES_MAX
from engine.session.frames import pack
from field_lab.country import Country, SiteNode
from tests.processes.hostile_client import HostileClient
from tests.processes.supplies import BADILI, LAE, one, opened, write_stock
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes
KEPT = (*(table.name for table in catalogue()), "sync_record", "sync_membership", "sync_scope", "sync_digest",
        "sync_outbox", "sync_unknown")  # fmt: skip
INSIDE = ("Traceback", "Error", "sqlite", "Errno", ".py", "0x")


def contents(database: Path) -> dict[str, list[Any]]:
    """The synchronised tables and everything that feeds and digests are made of."""
    with opened(database) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in KEPT}


class Known:
    """What the hostile client has found out about a site: enough to say Hello as the site would."""

    def __init__(self, country: Country, site: SiteNode) -> None:
        self._country, self._site = country, site
        self.term = one(site.database, "SELECT term || ' ' || term_id FROM store_copy WHERE type = 'active'")

    def hello(self, **changed: Any) -> session_pb2.SiteMessage:
        """As the site would say it now."""
        meta = dict(_rows(self._site.database, "SELECT key, value FROM sync_meta"))
        said: dict[str, Any] = {
            "site": self._site.number,
            "epoch": bytes.fromhex(meta["epoch"]),
            "lineage_token": bytes.fromhex(meta["lineage_token"]),
            "protocol_version": 1,
            "tables": [table.name for table in catalogue()],
            "last_acknowledged": int(meta["acknowledged"]),
        }
        return session_pb2.SiteMessage(hello=session_pb2.Hello(**said | changed))

    def after(self, told: session_pb2.Welcome) -> None:
        """Writes the new lineage token into the site's database, as a thief would not: so that the site can go on."""
        with opened(self._site.database) as connection:
            connection.execute(
                "UPDATE sync_meta SET value = ? WHERE key = 'lineage_token'", (told.lineage_token.hex(),)
            )

    def frame(self, *documents: document_pb2.Document, **changed: Any) -> session_pb2.SiteMessage:
        """The next frame of the site."""
        query = "SELECT frame_number, frame_hash FROM central_site WHERE site = ?"
        ((number, last_hash),) = _rows(self._country.central.database, query, self._site.number)
        body, body_hash = pack(document_pb2.FrameBody(documents=documents))
        said: dict[str, Any] = {
            "number": number + 1,
            "hash": body_hash,
            "previous_number": number,
            "previous_hash": last_hash,
            "body": body,
        }
        return session_pb2.SiteMessage(frame=document_pb2.Frame(**said | changed))

    def location(self, record: str, store: str) -> document_pb2.Document:
        """A new location in a store, under the term of this site's own."""
        term, term_id = map(int, str(self.term).split())
        version = document_pb2.Version(term=term, term_id=term_id, counter=1)
        content = catalogue()["location"].message(id=record, store_id=store).SerializeToString()
        records = [document_pb2.Record(content=content)]
        return document_pb2.Document(table="location", id=record, version=version, whole=True, records=records)


def _rows(database: Path, query: str, *values: Any) -> list[Any]:
    with opened(database) as connection:
        return connection.execute(query, values).fetchall()


def _sha(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


async def test_whatever_it_says_first(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    write_stock(site.database, BADILI, 5)
    assert (await site.sync()).exit_code == 0
    client, known = HostileClient(country, site), Known(country, site)
    before = contents(country.central.database)
    cases: list[tuple[str, tuple[bytes | Message, ...], str]] = [
        ("nothing that any program knows", (b"\xfa\x3e\x03abc",), "PROTOCOL_BROKEN"),
        ("an empty message", (b"",), "PROTOCOL_BROKEN"),
        ("a frame before Hello", (known.frame(),), "PROTOCOL_BROKEN"),
        ("a goodbye", (session_pb2.SiteMessage(goodbye=session_pb2.Goodbye()),), ""),
        ("another site's number", (known.hello(site=3),), "CREDENTIAL_UNKNOWN"),
        ("another epoch", (known.hello(epoch=b"e" * 16),), "LINEAGE_BROKEN"),
        ("no lineage", (known.hello(lineage_token=b""),), "LINEAGE_BROKEN"),
        ("a wrong lineage", (known.hello(lineage_token=b"t" * 32),), "LINEAGE_BROKEN"),
        ("an old protocol", (known.hello(protocol_version=0),), "PROTOCOL_TOO_OLD"),
        ("an acknowledgement of what never was", (known.hello(last_acknowledged=1 << 40),), "CENTRAL_RESTORED"),
        ("an era that never was", (known.hello(era=(1 << 64) - 1, position_count=1),), "CENTRAL_RESTORED"),
    ]
    for what, messages, code in cases:
        answer = await client.says(*messages, until="problem" if code else "goodbye")
        assert answer.code == code, f"{what}: {answer}"
        assert answer.status is grpc.StatusCode.OK, f"{what}: {answer.details}"
        assert not [inside for inside in INSIDE if inside in answer.text], answer.text
    for raw in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", bytes(range(256))):
        assert (await client.says(raw)).code == "PROTOCOL_BROKEN"
    assert contents(country.central.database) == before
    assert (await site.sync()).exit_code == 0, "the site whose credential it was goes on"
    assert "Traceback" not in country.central.log.read_text()


async def test_frames_that_no_site_sends(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    write_stock(site.database, BADILI, 5)
    assert (await site.sync()).exit_code == 0
    client, known = HostileClient(country, site), Known(country, site)
    bomb = zstandard.ZstdCompressor().compress(b"\x00" * (FRAME_BYTES_MAX + 1))
    rubbish = zstandard.ZstdCompressor().compress(b"\xff" * 100)
    cases: list[tuple[str, session_pb2.SiteMessage, str]] = [
        ("a wrong checksum", known.frame(hash=b"h" * 32), "FRAME_DAMAGED"),
        ("a body that is not compressed", known.frame(body=b"plain", hash=_sha(b"plain")), "FRAME_DAMAGED"),
        ("a body that swells", known.frame(body=bomb, hash=_sha(bomb)), "FRAME_DAMAGED"),
        ("a body that is no message", known.frame(body=rubbish, hash=_sha(rubbish)), "FRAME_DAMAGED"),
        ("a gap in the chain", known.frame(previous_number=7), "CHAIN_BROKEN"),
        ("another history", known.frame(previous_hash=b"h" * 32), "CHAIN_BROKEN"),
        ("a number that went down", known.frame(number=0), "CHAIN_BROKEN"),
        ("a number beyond any database", known.frame(number=(1 << 64) - 1), "PROTOCOL_BROKEN"),
    ]
    before = contents(country.central.database)
    for what, frame, code in cases:
        answer = await client.says(known.hello(), frame)
        known.after(answer.last("welcome"))
        assert answer.code == code, f"{what}: {answer.text}"
        assert not [inside for inside in INSIDE if inside in answer.text], answer.text
        assert contents(country.central.database) == before
    answer = await client.says(known.hello(), b"\x1a" + b"\x00" * (MESSAGE_BYTES_MAX + 1))
    known.after(answer.last("welcome"))
    assert answer.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert contents(country.central.database) == before
    done = await site.sync()
    assert done.exit_code == 0, done.stdout
    assert "Traceback" not in country.central.log.read_text()


async def test_documents_it_has_no_right_to(country: Country) -> None:
    site, other = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    client, known = HostileClient(country, site), Known(country, site)
    foreign, unknown, good = (
        known.location("taken", LAE),
        known.location("new table", BADILI),
        known.location("g", BADILI),
    )
    unknown.table = "table_of_tomorrow"
    no_store = known.location("nowhere", "no-such-store")
    answer = await client.says(known.hello(), known.frame(foreign, unknown, no_store, good), until="acknowledgement")
    known.after(answer.last("welcome"))
    told = {outcome.index: outcome for outcome in answer.last("acknowledgement").outcomes}
    assert {index: outcome.code for index, outcome in told.items()} == {
        0: "NO_AUTHORITY", 1: "UNREADABLE", 2: "NO_AUTHORITY",
    }  # fmt: skip
    assert "location taken" in told[0].sentence and "assigned" in told[0].sentence, "which record, and what to do"
    assert _rows(country.central.database, "SELECT id FROM location") == [("g",)], "everything else flows on"
    kept = _rows(country.central.database, "SELECT document FROM sync_held ORDER BY id")
    assert {document_pb2.Document.FromString(row[0]).id for row in kept} == {"taken", "new table", "nowhere"}
    assert (await country.central.status())["held"] == 3
    assert (await other.sync()).exit_code == 0
    assert not _rows(other.database, "SELECT id FROM location")


async def test_the_same_identity_twice(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    await site.start()
    client, known = HostileClient(country, site), Known(country, site)
    stale = known.hello()
    write_stock(site.database, BADILI, 3)
    assert await country.until_agreed(20)
    answer = await client.says(known.hello(lineage_token=b"t" * 32))
    assert answer.code == "LINEAGE_BROKEN"
    await site.stop()
    await site.start()
    write_stock(site.database, BADILI, 3, "again")
    assert await country.until_agreed(20)
    answer = await client.says(stale)
    assert answer.code == "LINEAGE_BROKEN", "what it stole is out of date"
    assert _rows(country.central.database, "SELECT count(*) FROM stock_line") == [(6,)]
    assert (await site.status())["state"] != "lineage_broken", "the site itself is not thrown out by it"


async def test_credentials_that_are_none(country: Country) -> None:
    site, other = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    own = HostileClient(country, site).metadata
    before = contents(country.central.database)
    wrong: list[tuple[tuple[str, str | bytes], ...]] = [
        (),
        own[:2],
        (("packhorse-site", "x"), *own[1:]),
        (("packhorse-site", "9" * 5_000), *own[1:]),
        (("packhorse-site", "-1"), *own[1:]),
        (("packhorse-site", str(other.number)), *own[1:]),
        (own[0], ("packhorse-installation", "f" * 32), own[2]),
        (*own[:2], ("packhorse-credential-bin", b"c" * 32)),
        (*own[:2], ("packhorse-credential-bin", b"")),
    ]
    for metadata in wrong:
        answer = await HostileClient(country, site, metadata).says(Known(country, site).hello())
        # A call that is refused while the client still writes may end there with gRPC's own "Internal error from Core".
        assert answer.status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INTERNAL), metadata
        assert not answer.messages, metadata
        assert not [inside for inside in INSIDE if inside in answer.text], answer.text
    client = HostileClient(country, site)
    for method, message in (
        ("/packhorse.enrolment.v1.EnrolmentService/Enrol", b""),
        ("/packhorse.enrolment.v1.EnrolmentService/Enrol", b"\xff" * 50),
        ("/packhorse.sync.v1.SyncService/NoSuchMethod", b""),
        ("/packhorse.local.v1.LocalService/Execute", b""),
    ):
        assert (await client.calls(method, message))[0] not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN), method
    for method in ("Push", "Pull"):
        status, response = await client.calls(f"/packhorse.sync.v1.SyncService/{method}", b"\xff" * 50)
        assert status is not grpc.StatusCode.UNKNOWN and b"Error" not in response
    assert contents(country.central.database) == before
    assert "Traceback" not in country.central.log.read_text()
    assert (await site.sync()).exit_code == 0

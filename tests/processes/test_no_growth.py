"""Many wrong inputs of every kind to running daemons: their memory, descriptors, threads and tables do not grow."""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from packhorse.enrolment.v1 import enrolment_pb2
from packhorse.local.v1 import local_pb2

from engine.errors import PackhorseError
from engine.rpc.local_channel import execute
from field_lab.country import Country, Node, SiteNode
from tests.processes.hostile_client import HostileClient
from tests.processes.supplies import BADILI, opened, write_stock
from tests.processes.test_hostile_client import Known
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes
WARMING, ROUNDS = 10, 10
MEMORY_KIB, DESCRIPTORS, THREADS = 4 * 1024, 4, 2
ONE_ROW_A_SESSION = "central_lineage"
"""Tokens of earlier sessions, kept so that a restored database is known."""
GARBAGE = (
    b"",
    b"\x00" * 3_000,
    b"GET / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
    b"\x16\x03\x01\xff",
)


class Size(NamedTuple):
    """What a daemon takes."""

    memory_kib: int
    descriptors: int
    threads: int
    rows: dict[str, int]


def size_of(node: Node) -> Size:
    """What a node's daemon takes now, and the rows of every table of its database."""
    process = Path("/proc") / str(node.process_id)
    said = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    with opened(node.database) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    rows.pop(ONE_ROW_A_SESSION, None)
    return Size(int(said["VmRSS"].split()[0]), len(list((process / "fd").iterdir())), int(said["Threads"]), rows)


def throw(address: tuple[str, int] | Path, with_tls: bool = False) -> None:
    """Says garbage of every kind to a socket, and goes without a word."""
    for garbage in GARBAGE:
        with suppress(OSError), socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET) as plain:
            plain.settimeout(5)
            plain.connect(str(address) if isinstance(address, Path) else address)
            if not with_tls:
                plain.sendall(garbage)
                continue
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(plain) as wrapped:
                wrapped.sendall(garbage)


async def refused(directory: Path, command: str, arguments: dict[str, object]) -> None:
    """Asks a daemon at its own door for what it cannot do."""
    with pytest.raises(PackhorseError):
        await execute(directory, command, arguments)


async def speak_wrongly(country: Country, site: SiteNode, client: HostileClient, known: Known) -> None:
    """One round of everything that is wrong at the central's door for sites."""
    for first in (
        b"\xfa\x3e\x03abc",
        known.hello(epoch=b"e" * 16),
        known.hello(lineage_token=b"t" * 32),
        known.frame(),
    ):
        assert (await client.says(first)).code
    for frame in (known.frame(hash=b"h" * 32), known.frame(previous_number=1 << 40), known.frame(body=b"x" * 100_000)):
        answer = await client.says(known.hello(), frame)
        known.after(answer.last("welcome"))
        assert answer.code in ("FRAME_DAMAGED", "CHAIN_BROKEN")
    answer = await client.says(
        known.hello(), known.frame(known.location("taken", "no-such-store")), until="acknowledgement"
    )
    known.after(answer.last("welcome"))
    with opened(site.database) as connection:  # as the site does; its next Hello then says that it has this answer
        number = answer.last("acknowledgement").number
        connection.execute("UPDATE sync_meta SET value = ? WHERE key = 'acknowledged'", (str(number),))
    enrol = enrolment_pb2.EnrolRequest(secret=b"s" * 32, installation="i" * 32, epoch=b"e" * 16)
    for message in (b"\xff" * 50, enrol.SerializeToString()):
        status, _ = await client.calls("/packhorse.enrolment.v1.EnrolmentService/Enrol", message)
        assert status is not grpc.StatusCode.OK
    stranger = HostileClient(country, site, (("packhorse-site", "9"),))
    assert (await stranger.says(known.hello())).status is not grpc.StatusCode.OK


async def knock_wrongly(country: Country, site: SiteNode, file: Path) -> None:
    """One round of everything that is wrong at the doors of both daemons for local programs, and at their ports."""
    for node in (country.central, site):
        missing: dict[str, object] = {
            "table": "item",
            "file": str(file),
            "mapping": {},
            "settings": {},
            "last_wins": "",
        }
        await refused(node.directory, "import", missing)
        await refused(node.directory, "import", missing | {"table": "no_such"})
        await refused(node.directory, "no such command", {"x": "x" * 10_000})
        await refused(node.directory, "site show", {"site": json.dumps("x")})
        await asyncio.to_thread(throw, node.directory / "node.sock")
    await refused(country.central.directory, "store assign", {"store": "none", "site": 1, "central": "collector"})
    for port, with_tls in ((country.grpc_port, False), (country.grpc_port, True), (country.web_port, False)):
        await asyncio.to_thread(throw, ("127.0.0.1", port), with_tls)
    async with grpc.aio.insecure_channel(f"unix:{site.directory / 'node.sock'}") as channel:
        stream: Any = channel.unary_stream("/packhorse.local.v1.LocalService/Sync")
        call: Any = stream(local_pb2.SyncRequest().SerializeToString())
        call.cancel()  # a command that was interrupted


async def grown(nodes: dict[str, Node], play: Callable[[], Awaitable[None]]) -> dict[str, Size]:
    """What each daemon takes more after many rounds than after the first ones."""
    for _ in range(WARMING):
        await play()
    before = {name: size_of(node) for name, node in nodes.items()}
    for _ in range(ROUNDS):
        await play()
    await asyncio.sleep(2.0)  # what is being closed
    found = {}
    for name, node in nodes.items():
        old, new = before[name], size_of(node)
        rows = {table: count - old.rows.get(table, 0) for table, count in new.rows.items()}
        more = {table: count for table, count in rows.items() if count > 0}
        found[name] = Size(
            new.memory_kib - old.memory_kib, new.descriptors - old.descriptors, new.threads - old.threads, more
        )
    print(f"after {ROUNDS} rounds more: {found}")
    return found


def assert_small(found: dict[str, Size]) -> None:
    for name, more in found.items():
        assert more.memory_kib < MEMORY_KIB and more.threads <= THREADS and more.descriptors <= DESCRIPTORS, name
        assert not more.rows, f"{name}: {more.rows}"


async def test_wrong_words_at_the_doors_of_daemons_leave_nothing(country: Country, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    await site.start()
    assert await country.until_agreed(20)
    file = tmp_path / "items.csv"
    file.write_text("id,name,is_active\n" + "a,b,maybe\n" * 2_000)
    nodes: dict[str, Node] = {"central": country.central, "site": site}
    assert_small(await grown(nodes, lambda: knock_wrongly(country, site, file)))
    write_stock(site.database, BADILI, 5)
    assert await country.until_agreed(20)
    for node in nodes.values():
        assert "Traceback" not in node.log.read_text()


async def test_wrong_sessions_leave_nothing(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    client, known = HostileClient(country, site), Known(country, site)
    found = await grown({"central": country.central}, lambda: speak_wrongly(country, site, client, known))
    assert_small(found)
    assert "Traceback" not in country.central.log.read_text()
    assert (await country.central.status())["held"] == 1, "what it pushed again and again is held once"

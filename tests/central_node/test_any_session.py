"""Any messages of a site with a valid credential to a real central session: it ends by name and harms nothing.

What is sent is the script of a correct session, with messages garbled, left out, repeated or swapped. Afterwards the
site's next session has to work as if nothing had been.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.node import CentralNode
from central_node.session import CentralSession
from central_node.storage.tables import CENTRAL_TABLES
from engine.errors import Code, PackhorseError
from engine.rules.versions import Version
from engine.session.frames import unpack
from engine.session.machine import Message
from field_lab.core_catalogue import core_catalogue
from field_lab.simulation.inline_database import Calm, InlineDatabase
from tests.central_node.storage.centrals import (
    EPOCHS,
    TABLES,
    documents_of,
    flaws,
    frame_of,
    rows_of,
    serving_central,
    term_of,
)
from tests.garbling import EXAMPLES, INT64_MAX, UINT32_MAX, UINT64_MAX, Garbler

FUZZ = settings(deadline=None, database=None, max_examples=EXAMPLES)
SITE = 2
WORDS = [
    *TABLES,
    "far",
    "third",
    "central",
    "store/far",
    "site/2",
    "stock-far",
    "invoice-third",
    "DRAINING",
    "INTERNAL",
]


GARBLER = Garbler(WORDS, {})


class World:
    """A central's database to copy, and what a correct site would say to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        connection = serving_central(path)
        self.scripts = self._scripts(connection)
        """With and without positions that the central asks for."""
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _scripts(self, connection: Any) -> dict[bool, list[session_pb2.SiteMessage]]:
        known = Version(*term_of(connection, SITE), 1)
        frame = frame_of(connection, SITE, documents_of(connection, SITE, base=known))
        want = [document_pb2.RecordKey(table="item", id="item-1"), document_pb2.RecordKey(table="stock_line", id="x")]
        position = session_pb2.FeedPosition(scope="central", generation=1, position=1)
        asked = hello()
        asked.MergeFrom(session_pb2.Hello(era=77, position_count=1, configuration=position))
        opening = {
            False: [session_pb2.SiteMessage(hello=hello())],
            True: [
                session_pb2.SiteMessage(hello=asked),
                session_pb2.SiteMessage(positions=session_pb2.Positions(positions=[position], last=True)),
            ],
        }
        rest = [
            session_pb2.SiteMessage(frame=frame),
            session_pb2.SiteMessage(push_checkpoint=session_pb2.PushCheckpoint(round=1, last_frame=2)),
            session_pb2.SiteMessage(want=session_pb2.Want(documents=want)),
            session_pb2.SiteMessage(pull_acknowledgement=session_pb2.PullAcknowledgement(sequence=1)),
            session_pb2.SiteMessage(checkpoint_report=session_pb2.CheckpointReport(round=1, comparable=True)),
            session_pb2.SiteMessage(push_checkpoint=session_pb2.PushCheckpoint(round=2, last_frame=2)),
            session_pb2.SiteMessage(goodbye=session_pb2.Goodbye()),
        ]
        return {with_positions: [*first, *rest] for with_positions, first in opening.items()}


def hello(token: bytes = b"t" * 32) -> session_pb2.Hello:
    """As the site would say it now: with the token that `centrals.open_site` gave it."""
    return session_pb2.Hello(
        site=SITE,
        epoch=EPOCHS[SITE],
        lineage_token=token,
        protocol_version=1,
        tables=TABLES,
        last_acknowledged=1,
        clock_milliseconds=1_800_000_000_000,
        software_version="1",
    )


@pytest.fixture(scope="module", name="world")
def world_of_a_central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield World(tmp_path_factory.mktemp("world") / "node.db")


class Told:
    """What the central said, and how the session ended."""

    def __init__(self) -> None:
        self.messages: list[session_pb2.CentralMessage] = []
        self.error: PackhorseError | None = None

    def last(self, name: str) -> Any:
        """The last message of a name, or None."""
        found = [getattr(message, name) for message in self.messages if message.WhichOneof("message") == name]
        return found[-1] if found else None


async def session(node: CentralNode, messages: list[session_pb2.SiteMessage], pause: float = 0.0) -> Told:
    """Plays messages to a session of site 2; the stream ends behind them."""
    told, waiting = Told(), list(messages)

    async def send(message: Message) -> None:
        assert isinstance(message, session_pb2.CentralMessage)
        told.messages.append(session_pb2.CentralMessage.FromString(message.SerializeToString()))

    async def receive() -> Message | None:
        for _ in range(20):
            await asyncio.sleep(pause)
        return waiting.pop(0) if waiting else None

    central = CentralSession(node, SITE, send, receive, lambda _word, _value: None)
    told.error = await asyncio.wait_for(central.run(), 30)
    return told


def played(world: World, messages: list[session_pb2.SiteMessage], copy: Path) -> tuple[Told, Told, list[str], int]:
    """(the session, an honest one after it, what is wrong in the database, frames that wait in the node)."""
    shutil.copyfile(world.path, copy)

    async def work() -> tuple[Told, Told, list[str], int]:
        database = InlineDatabase(core_catalogue(), CENTRAL_TABLES, Calm(copy))
        node = CentralNode(database, core_catalogue())
        await node.start()
        try:
            told = await session(node, messages)
            welcome = told.last("welcome")
            token = welcome.lineage_token if welcome is not None else b"t" * 32
            frame = await database.read(lambda c: frame_of(c, SITE, documents_of(c, SITE, suffix="-good")))
            honest = [
                session_pb2.SiteMessage(hello=hello(token)),
                session_pb2.SiteMessage(frame=frame),
                session_pb2.SiteMessage(push_checkpoint=session_pb2.PushCheckpoint(round=1)),
                session_pb2.SiteMessage(goodbye=session_pb2.Goodbye()),
            ]
            after = await session(node, honest, 0.001)
            await node.settle()
            rows = await database.read(rows_of)
            assert ("stock_line", "stock-far-good") in rows
            assert node.counters["errors"] == 0 and not node.sessions
            return told, after, await database.read(flaws), len(node._frames)
        finally:
            await node.stop()
            await database.close()

    return asyncio.run(work())


def assert_plain(told: Told) -> None:
    """Whatever ended the session is named, and the peer hears no exception's text."""
    if told.error is not None and told.error.code is Code.INTERNAL:  # a code of the site's that nobody knows
        assert told.error.what == "The site ended the session."
    for message in told.messages:
        text = message.problem.sentence
        assert not any(inside in text for inside in ("Traceback", "Error", "sqlite", "Python", "0x", "<class")), text
        assert len(text) < 2_000


@pytest.mark.parametrize("with_positions", [False, True])
def test_the_script_is_that_of_a_correct_session(world: World, tmp_path: Path, with_positions: bool) -> None:
    told, after, found, _ = played(world, world.scripts[with_positions], tmp_path / "node.db")
    assert told.error is None and after.error is None and not found
    assert told.last("acknowledgement").number == 2 and told.last("goodbye") is not None


@FUZZ
@given(data=st.data())
def test_any_script_ends_by_name_and_the_site_goes_on(
    world: World, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    messages = list(world.scripts[data.draw(st.booleans(), "with positions")])
    for _ in range(data.draw(st.integers(0, 3), "changes of the script")):
        place = data.draw(st.integers(0, len(messages) - 1), "place")
        match data.draw(st.sampled_from(["garble", "garble", "garble", "leave out", "repeat", "swap"]), "how"):
            case "garble":
                messages[place] = GARBLER.garbled(data, messages[place], 2)
            case "leave out" if len(messages) > 1:
                del messages[place]
            case "repeat":
                messages.insert(place, messages[place])
            case _:
                messages[0], messages[place] = messages[place], messages[0]
    copy = tmp_path_factory.getbasetemp() / "any session.db"
    for leftover in copy.parent.glob(copy.name + "*"):
        leftover.unlink()
    told, after, found, waiting = played(world, messages, copy)
    event(str(told.error.code if told.error else "goodbye"))
    assert_plain(told)
    assert_plain(after)
    assert after.error is None and after.last("acknowledgement") is not None, after.error
    assert not found and not waiting


EXTREMES: dict[str, dict[str, Any]] = {
    "era": {"era": UINT64_MAX},
    "era at the sign": {"era": INT64_MAX + 1},
    "position count": {"position_count": UINT32_MAX},
    "last acknowledged": {"last_acknowledged": UINT64_MAX},
    "a clock at the end of time": {"clock_milliseconds": INT64_MAX},
    "a clock before time": {"clock_milliseconds": -INT64_MAX - 1},
    "waiting": {"waiting_to_push": UINT32_MAX},
    "protocol": {"protocol_version": UINT32_MAX},
    "no protocol": {"protocol_version": 0},
    "another site": {"site": 3},
    "site": {"site": UINT32_MAX},
    "generation": {"configuration": session_pb2.FeedPosition(scope="site/2", generation=UINT64_MAX)},
    "position": {"configuration": session_pb2.FeedPosition(scope="site/2", generation=1, position=UINT64_MAX)},
    "no epoch": {"epoch": b""},
    "a long epoch": {"epoch": b"e" * 100_000},
    "a long token": {"lineage_token": b"t" * 100_000},
    "many tables": {"tables": ["x" * 100] * 10_000},
    "a long version": {"software_version": "\x00" * 100_000},
}


@pytest.mark.parametrize("with_positions", [False, True])
@pytest.mark.parametrize("case", EXTREMES)
def test_a_hello_with_extreme_values(world: World, tmp_path: Path, case: str, with_positions: bool) -> None:
    messages = list(world.scripts[with_positions])
    changed = session_pb2.SiteMessage()
    changed.CopyFrom(messages[0])
    extreme = session_pb2.Hello(**EXTREMES[case])
    for field in changed.hello.DESCRIPTOR.fields:
        if field.name in EXTREMES[case]:
            changed.hello.ClearField(field.name)  # type: ignore[arg-type]
    changed.hello.MergeFrom(extreme)
    told, after, found, _ = played(world, [changed, *messages[1:]], tmp_path / "node.db")
    assert_plain(told)
    assert after.error is None and not found


POSITIONS = {
    "generation": session_pb2.FeedPosition(scope="central", generation=UINT64_MAX, position=1),
    "position": session_pb2.FeedPosition(scope="central", generation=1, position=UINT64_MAX),
    "scope": session_pb2.FeedPosition(scope="s" * 100_000, generation=1, position=0),
    "another's scope": session_pb2.FeedPosition(scope="store/third", generation=1, position=1),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_positions_with_extreme_values(world: World, tmp_path: Path, case: str) -> None:
    messages = list(world.scripts[True])
    shown = session_pb2.Positions(positions=[POSITIONS[case]], last=True)
    messages[1] = session_pb2.SiteMessage(positions=shown)
    told, after, found, _ = played(world, messages, tmp_path / "node.db")
    assert_plain(told)
    assert after.error is None and not found
    pulled = [message.pull_frame for message in told.messages if message.WhichOneof("message") == "pull_frame"]
    bodies = [unpack(document_pb2.PullBody, frame.body, frame.hash) for frame in pulled]
    assert not [section for body in bodies for section in body.sections if section.scope == "store/third"]

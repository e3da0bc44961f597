"""A site whose device cannot hold a stream: it pushes and pulls in single calls, with the engine's own storage.

Its rules, beyond those of a stream: the answers of a call are taken as if Welcome had come last of them, because it was
written first; frames that were cut are never taken back, because a call that was given up may still arrive.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PackhorseError, Unavailable
from engine.limits import POSITIONS_PER_PAGE, WANT_DOCUMENTS, WINDOW_FRAMES
from engine.session.machine import Action, problem_error
from engine.session.pace import Pace
from engine.session.site_machine import Loaded, Wanted
from engine.storage.outbox import has_pushable
from engine.storage.positions import read_positions
from engine.storage.records import Writer, read_meta
from engine.storage.wants import read_wants
from site_node.node import SiteNode
from site_node.session import SiteSession

Call = Callable[[Sequence[session_pb2.SiteMessage]], Awaitable[list[session_pb2.CentralMessage]]]
"""Push or Pull: the same round at the central. Raises Unavailable where no answer came."""
_PULLS_MAX = 200


class RoundSite:
    """See the module. `begun` is told of each round of push and pull."""

    def __init__(self, node: SiteNode, call: Call, begun: Callable[[], None]) -> None:
        self._node, self._call, self._begun = node, call, begun
        self._report: session_pb2.CheckpointReport | None = None

    async def run_forever(self, chance: random.Random) -> None:
        """A round now and then; one that fails is tried again."""
        while True:
            try:
                await self._round()
            except PackhorseError as error:
                if not isinstance(error, Unavailable) and not error.advice.retry:
                    raise
            await asyncio.sleep(chance.uniform(0.5, 6.0))

    async def _round(self) -> None:
        meta = await self._node.database.read(read_meta)
        me = Writer(int(meta["site"]), meta["epoch"])
        session = _RoundSession(
            self._node.database, self._node.catalogue, me, False, Pace(), lambda _phase, _left: None,
            lambda _word, _value: None,
        )  # fmt: skip
        session.on_left = self._node.evict
        self._begun()
        while await session.push(self._call):
            pass
        for _ in range(_PULLS_MAX):
            self._report = await session.pull(self._call, self._report)
            if self._report is not None and not await self._node.database.read(read_wants):
                return


class _RoundSession(SiteSession):
    """The rounds of a site; what is stored is stored by the same code as in a session."""

    async def push(self, call: Call) -> bool:
        """Sends a window of frames; returns whether there may be more."""
        hello = await self._database.read(self._hello)
        frames = await self._frames(hello.last_acknowledged)
        if not frames:
            return False
        sent = [session_pb2.SiteMessage(hello=hello), *(session_pb2.SiteMessage(frame=frame) for frame in frames)]
        await self._take(await call(sent))
        return await self._database.read(has_pushable)

    async def _frames(self, after: int) -> list[document_pb2.Frame]:
        frames: list[document_pb2.Frame] = []
        while (room := WINDOW_FRAMES - len(frames)) > 0:
            last = frames[-1].number if frames else after
            wanted = Wanted(last, room, self._pace.records, self._pace.size_bytes)
            loaded: Loaded = (await self._do_load_frames(Action("load_frames", wanted))).value
            frames += loaded.frames
            if loaded.exhausted:
                break
        return frames

    async def pull(
        self, call: Call, report: session_pb2.CheckpointReport | None
    ) -> session_pb2.CheckpointReport | None:
        """Fetches what waits, up to a window; returns the report on the checkpoint, where one came."""
        hello = await self._database.read(self._hello)
        positions = await self._database.read(read_positions)
        wants = await self._database.read(read_wants)
        sent = [session_pb2.SiteMessage(hello=hello)]
        for place in range(0, len(positions), POSITIONS_PER_PAGE):
            page = positions[place : place + POSITIONS_PER_PAGE]
            last = place + POSITIONS_PER_PAGE >= len(positions)
            sent.append(session_pb2.SiteMessage(positions=session_pb2.Positions(positions=page, last=last)))
        checkpoint = session_pb2.PushCheckpoint(round=1, last_frame=hello.last_acknowledged)
        sent.append(session_pb2.SiteMessage(push_checkpoint=checkpoint))
        if wants:
            documents = [document_pb2.RecordKey(table=table, id=name) for table, name in wants[:WANT_DOCUMENTS]]
            sent.append(session_pb2.SiteMessage(want=session_pb2.Want(documents=documents)))
        if report is not None:
            sent.append(session_pb2.SiteMessage(checkpoint_report=report))
        return await self._take(await call(sent))

    async def _take(self, answers: Sequence[session_pb2.CentralMessage]) -> session_pb2.CheckpointReport | None:
        report: session_pb2.CheckpointReport | None = None
        for message in answers:
            match message.WhichOneof("message"):
                case "welcome":
                    await self._do_store_welcome(Action("store_welcome", _after(message.welcome, answers)))
                case "pull_frame":
                    await self._do_store_pull(Action("store_pull", [message.pull_frame]))
                case "part":
                    await self._do_stage_part(Action("stage_part", message.part))
                case "pull_checkpoint":
                    report = (await self._do_compare(Action("compare", message.pull_checkpoint))).value
                case "busy":
                    raise Unavailable(Code.BUSY, "The central node cannot take frames now.")
                case "problem":
                    raise problem_error(message.problem)
        return report


def _after(welcome: session_pb2.Welcome, answers: Sequence[session_pb2.CentralMessage]) -> session_pb2.Welcome:
    """Welcome as it would be after what the rest of the call has brought."""
    told = [message.acknowledgement for message in answers if message.WhichOneof("message") == "acknowledgement"]
    welcome.missed.extend(told)
    if told:
        welcome.last_applied, welcome.last_applied_hash = told[-1].number, told[-1].hash
    return welcome

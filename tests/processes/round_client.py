"""A client as a mobile developer would write it: generated stubs, unary calls, and nothing of Packhorse's own code.

It keeps in memory what a real one keeps durably. Any response can be lost on its way back: `lost` calls are made and
their answer is thrown away, as a phone that leaves the network does.
"""

import hashlib
import secrets
from typing import Any, Final

import grpc
import zstandard
from packhorse.enrolment.v1 import enrolment_pb2, enrolment_pb2_grpc
from packhorse.records.v1 import configuration_pb2, stock_pb2
from packhorse.sync.v1 import document_pb2, session_pb2, sync_service_pb2, sync_service_pb2_grpc

TABLES: Final = ("site", "store_copy", "unit", "item", "name", "store", "stock_line")


def pack(body: Any) -> tuple[bytes, bytes]:
    """The compressed bytes of a body and their hash."""
    packed = zstandard.ZstdCompressor(level=1).compress(body.SerializeToString())
    return packed, hashlib.sha256(packed).digest()


class RoundClient:
    """A tablet with one store.

    Args:
        channel: TLS, to the central.
        secret: from the enrolment token.
    """

    def __init__(self, channel: grpc.aio.Channel, secret: bytes) -> None:
        self._channel, self._secret = channel, secret
        self._sync: Any = sync_service_pb2_grpc.SyncServiceStub(channel)
        self._installation, self._credential = secrets.token_hex(16), secrets.token_bytes(32)
        self.site, self.epoch, self.token, self.era = 0, secrets.token_bytes(16), b"", 0
        self.positions: dict[str, session_pb2.FeedPosition] = {}
        self.records: dict[tuple[str, str], bytes] = {}
        self.acknowledged, self.last = 0, (0, b"")
        self.frames: list[document_pb2.Frame] = []
        self.outcomes: list[session_pb2.Outcome] = []
        self.wants: list[document_pb2.RecordKey] = []
        self.checkpoint: session_pb2.PullCheckpoint | None = None

    async def enrol(self) -> None:
        """Becomes a site."""
        stub: Any = enrolment_pb2_grpc.EnrolmentServiceStub(self._channel)
        request = enrolment_pb2.EnrolRequest(
            secret=self._secret, installation=self._installation, epoch=self.epoch,
            credential_hash=hashlib.sha256(self._credential).digest(),
        )  # fmt: skip
        self.site = (await stub.Enrol(request)).site

    # --- a round ------------------------------------------------------------------------------------------------------

    async def push(self, lost: bool = False) -> list[session_pb2.CentralMessage]:
        """Sends every frame that is not acknowledged."""
        messages = [self._hello(), *(session_pb2.SiteMessage(frame=frame) for frame in self.frames)]
        request = sync_service_pb2.PushRequest(messages=messages)
        return self._take(await self._sync.Push(request, metadata=self._metadata()), lost)

    async def pull(self, lost: bool = False) -> list[session_pb2.CentralMessage]:
        """Fetches a window of what waits."""
        positions = session_pb2.Positions(positions=self.positions.values(), last=True)
        messages = [self._hello()]
        if self.positions:
            messages.append(session_pb2.SiteMessage(positions=positions))
        messages.append(session_pb2.SiteMessage(push_checkpoint=session_pb2.PushCheckpoint(round=1)))
        if self.wants:
            messages.append(session_pb2.SiteMessage(want=session_pb2.Want(documents=self.wants)))
        self.checkpoint = None
        request = sync_service_pb2.PullRequest(messages=messages)
        return self._take(await self._sync.Pull(request, metadata=self._metadata()), lost)

    async def pull_all(self) -> None:
        """Pulls until the central says that that was all."""
        for _ in range(100):
            await self.pull()
            if self.checkpoint is not None and not self.wants:
                return
        raise AssertionError("no checkpoint came")

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return (
            ("packhorse-site", str(self.site)),
            ("packhorse-installation", self._installation),
            ("packhorse-credential-bin", self._credential),
        )

    def _hello(self) -> session_pb2.SiteMessage:
        positions = sorted(f"{p.scope} {p.generation} {p.position}" for p in self.positions.values())
        hello = session_pb2.Hello(
            site=self.site,
            epoch=self.epoch,
            lineage_token=self.token,
            protocol_version=1,
            tables=TABLES,
            era=self.era,
            position_count=len(positions),
            positions_hash=hashlib.sha256("\n".join(positions).encode()).digest(),
            configuration=self.positions.get(f"site/{self.site}"),
            last_acknowledged=self.acknowledged,
        )
        return session_pb2.SiteMessage(hello=hello)

    def _take(self, response: Any, lost: bool) -> list[session_pb2.CentralMessage]:
        answers = list(response.messages)
        for message in [] if lost else answers:
            getattr(self, f"_on_{message.WhichOneof('message')}")(getattr(message, message.WhichOneof("message")))
        return answers

    def _on_welcome(self, welcome: session_pb2.Welcome) -> None:
        self.token, self.era = welcome.lineage_token, welcome.era
        for told in welcome.missed:
            self._on_acknowledgement(told)
        if welcome.HasField("configuration"):
            self._on_pull_frame(welcome.configuration)

    def _on_acknowledgement(self, told: session_pb2.Acknowledgement) -> None:
        assert self.frames and (self.frames[0].number, self.frames[0].hash) == (told.number, told.hash)
        del self.frames[0]
        self.acknowledged = told.number
        self.outcomes += told.outcomes

    def _on_pull_frame(self, frame: document_pb2.PullFrame) -> None:
        assert hashlib.sha256(frame.body).digest() == frame.hash
        body = document_pb2.PullBody.FromString(zstandard.ZstdDecompressor().decompress(frame.body))
        for change in body.subscriptions:
            self.positions[change.scope] = session_pb2.FeedPosition(scope=change.scope, generation=change.generation)
        for section in body.sections:
            mine = self.positions[section.scope]
            assert (mine.generation, mine.position) == (section.generation, section.from_position)
            mine.position = section.to_position
            for document in section.documents:
                self._apply(document)
            for told in section.echoes:
                missing = [record_id for record_id in told.ids if (told.table, record_id) not in self.records]
                self.wants += [document_pb2.RecordKey(table=told.table, id=record_id) for record_id in missing]
        for document in body.wanted:
            self._apply(document)
        wanted = {document.id for document in body.wanted}
        self.wants = [key for key in self.wants if key.id not in wanted]

    def _apply(self, document: document_pb2.Document) -> None:
        for record in document.records:
            key = (record.table or document.table, record.id or document.id)
            if record.WhichOneof("body") == "content":
                self.records[key] = record.content
            elif record.deleted:
                self.records.pop(key, None)
            elif key not in self.records:
                self.wants.append(document_pb2.RecordKey(table=document.table, id=document.id))

    def _on_pull_checkpoint(self, checkpoint: session_pb2.PullCheckpoint) -> None:
        self.checkpoint = checkpoint

    # --- work on the tablet -------------------------------------------------------------------------------------------

    def count(self, store: str, names: list[str]) -> None:
        """Somebody counts some stock: a frame of new stock lines."""
        copy = configuration_pb2.StoreCopy.FromString(self.records["store_copy", f"{store}@{self.site}"])
        version = document_pb2.Version(term=copy.term, term_id=copy.term_id, counter=1)
        body = document_pb2.FrameBody()
        for name in names:
            stock = stock_pb2.StockLine(id=name, store_id=store, item_id=min(i for t, i in self.records if t == "item"))
            document = body.documents.add(table="stock_line", id=name, version=version, whole=True)
            document.records.add(content=stock.SerializeToString())
            self.records["stock_line", name] = stock.SerializeToString()
        packed, packed_hash = pack(body)
        number = self.last[0] + 1
        self.frames.append(
            document_pb2.Frame(
                number=number, hash=packed_hash, previous_number=self.last[0], previous_hash=self.last[1], body=packed
            )
        )
        self.last = (number, packed_hash)

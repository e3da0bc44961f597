"""A site with a valid credential whose program means harm: whatever it says, nobody's data change.

It forges documents of others, plays what other sites have said again and in any order, claims to be somebody else, and
says the right things at the wrong time. Every answer must be an error of the catalogue by its name, and what it is sent
is its own. That nobody's data change is seen by the invariants: what it writes is marked.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from packhorse.records.v1 import central_pb2, configuration_pb2, invoice_pb2, stock_pb2
from packhorse.sync.v1 import document_pb2, session_pb2

from central_node.node import CentralNode
from central_node.session import CentralSession
from central_node.welcome import PROTOCOL_VERSION
from engine.errors import Code
from engine.session.frames import Link, pack, unpack
from engine.session.machine import Message
from field_lab.core_catalogue import core_catalogue
from field_lab.simulation.checks import MARK
from field_lab.simulation.truth import Broken

_NAMED = frozenset(Code) - {Code.INTERNAL}


class HostileSite:
    """See the module.

    Args:
        number, store, epoch: those of its own enrolment.
        others: the stores of the sites that it wants to harm, by their numbers.
        heard: what other sites have said lately.
    """

    def __init__(
        self, number: int, store: str, epoch: bytes, others: dict[int, str], heard: Sequence[session_pb2.SiteMessage],
        chance: random.Random,
    ) -> None:  # fmt: skip
        self.number, self.store, self._epoch, self._others, self._heard = number, store, epoch, others, heard
        self._chance, self._token, self._link, self._era = chance, b"", Link(), 0

    async def attack(self, central: CentralNode) -> None:
        """One session. Raises Broken where an answer is no named error, or tells what is not its own."""
        draw: Callable[[], Iterator[session_pb2.SiteMessage]] = self._chance.choice(
            (self._forge, self._forge, self._replay, self._pretend, self._confuse)
        )
        script = draw()

        async def send(message: Message) -> None:
            assert isinstance(message, session_pb2.CentralMessage)
            self._hear(message)

        async def receive() -> Message | None:
            await session.until(lambda: not session.machine.is_busy)
            return next(script, None)

        trace: Callable[[str, object], None] = lambda _word, _value: None  # noqa: E731 - typed here
        session = CentralSession(central, self.number, send, receive, trace)
        error = await session.run()
        if error is not None and error.code not in _NAMED:
            raise Broken(f"a hostile session ended by {error.code}: {error.what}")

    def _hear(self, message: session_pb2.CentralMessage) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                welcome = message.welcome
                self._token, self._era = welcome.lineage_token, welcome.era
                self._link = Link(welcome.last_applied, welcome.last_applied_hash)
            case "acknowledgement":
                self._link = Link(message.acknowledgement.number, message.acknowledgement.hash)
            case "problem" if message.problem.code not in _NAMED:
                raise Broken(f"a hostile site was told {message.problem.code}: {message.problem.sentence}")
            case "pull_frame" if not message.pull_frame.parts_bytes:
                body = unpack(document_pb2.PullBody, message.pull_frame.body, message.pull_frame.hash)
                foreign = [s.scope for s in body.sections for store in self._others.values() if store in s.scope]
                told = [d.id for d in body.wanted if d.table in ("stock_line", "invoice") and d.records]
                if foreign or any(not name.startswith(self.store) for name in told):
                    raise Broken(f"a hostile site was sent what is not its own: {foreign} {told}")

    # --- what it says -------------------------------------------------------------------------------------------------

    def _hello(self, **instead: Any) -> session_pb2.SiteMessage:
        hello = session_pb2.Hello(
            site=self.number, epoch=self._epoch, lineage_token=self._token, protocol_version=PROTOCOL_VERSION,
            tables=[table.name for table in core_catalogue()], era=self._era, last_acknowledged=self._link.number,
        )  # fmt: skip
        for name, value in instead.items():
            setattr(hello, name, value)
        return session_pb2.SiteMessage(hello=hello)

    def _forge(self) -> Iterator[session_pb2.SiteMessage]:
        """Frames of its own, in order, with documents of others in them; now and then one of its own store."""
        yield self._hello()
        for _ in range(self._chance.randrange(1, 4)):
            documents = [self._document() for _ in range(self._chance.randrange(1, 6))]
            body, body_hash = pack(document_pb2.FrameBody(documents=documents))
            link = self._link
            yield session_pb2.SiteMessage(
                frame=document_pb2.Frame(
                    number=link.number + 1, hash=body_hash, previous_number=link.number, previous_hash=link.hash,
                    body=body,
                )
            )  # fmt: skip
        yield session_pb2.SiteMessage(push_checkpoint=session_pb2.PushCheckpoint(round=1))

    def _document(self) -> document_pb2.Document:
        chance, victim = self._chance, self._chance.choice(list(self._others.values()))
        version = document_pb2.Version(term=chance.choice((0, 1, 2)), term_id=chance.getrandbits(62), counter=9_000)
        name = f"{victim}-{chance.choice(('stock', 'invoice'))}-{chance.randrange(1, 30)}-1"
        content: dict[str, Any] = {
            "stock_line": stock_pb2.StockLine(id=name, store_id=victim, item_id="item-1", batch=MARK),
            "invoice": invoice_pb2.Invoice(id=name, store_id=victim, name_id="name", their_reference=MARK),
            "item": central_pb2.Item(id="item-1", name=MARK, unit_id="each"),
            "store": central_pb2.Store(id=victim, name=MARK, name_id="name"),
            "store_copy": configuration_pb2.StoreCopy(id=f"{victim}@{self.number}", store_id=victim, term=9),
            "site": configuration_pb2.Site(id="1", name=MARK),
        }
        table = chance.choice(list(content))
        message = content[table]
        document = document_pb2.Document(table=table, id=message.id, version=version, whole=chance.random() < 0.8)
        if chance.random() < 0.2:
            document.records.add(deleted=True)
        else:
            document.records.add(content=message.SerializeToString())
        return document

    def _replay(self) -> Iterator[session_pb2.SiteMessage]:
        """What others have said, in any order, doubled and left out."""
        yield self._hello() if self._chance.random() < 0.8 else self._chance.choice([self._hello(), *self._heard])
        for _ in range(self._chance.randrange(1, 10)):
            if self._heard:
                yield self._chance.choice(self._heard)

    def _pretend(self) -> Iterator[session_pb2.SiteMessage]:
        """To be somebody else, or somebody earlier."""
        yield self._chance.choice(
            (
                self._hello(site=self._chance.choice(list(self._others))),
                self._hello(site=1),
                self._hello(epoch=self._chance.randbytes(16)),
                self._hello(lineage_token=self._chance.randbytes(32)),
                self._hello(last_acknowledged=self._link.number + 7),
                self._hello(position_count=3, era=self._chance.getrandbits(60)),
                self._hello(protocol_version=0),
            )
        )
        yield session_pb2.SiteMessage(push_checkpoint=session_pb2.PushCheckpoint(round=1))

    def _confuse(self) -> Iterator[session_pb2.SiteMessage]:
        """The right things at the wrong time."""
        yield self._hello()
        victim = self._chance.choice(list(self._others.values()))
        wanted = [document_pb2.RecordKey(table="stock_line", id=f"{victim}-stock-{n}-1") for n in range(1, 20)]
        positions = session_pb2.Positions(
            positions=[session_pb2.FeedPosition(scope=f"store/{victim}", generation=1, position=5)], last=True
        )
        said = [
            session_pb2.SiteMessage(push_checkpoint=session_pb2.PushCheckpoint(round=1)),
            session_pb2.SiteMessage(want=session_pb2.Want(documents=wanted)),
            session_pb2.SiteMessage(pull_acknowledgement=session_pb2.PullAcknowledgement(sequence=99)),
            session_pb2.SiteMessage(positions=positions),
            session_pb2.SiteMessage(part=document_pb2.Part(hash=b"h" * 32, total_bytes=9, offset=4, content=b"x")),
            session_pb2.SiteMessage(checkpoint_report=session_pb2.CheckpointReport(round=9, in_agreement=True)),
            session_pb2.SiteMessage(),
        ]
        self._chance.shuffle(said)
        yield from said

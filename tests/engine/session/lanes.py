"""Both ends of what goes in parts, in memory: as little as the protocol needs, durable across restarts."""

from dataclasses import dataclass
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.errors import Code, PeerProblem
from engine.session.lane import LaneState, PartWanted

NEED_WHOLE, WANT, REQUEUE, LARGE = "need-whole", "want", "requeue", "large"
PART_BYTES = 30


class Item(NamedTuple):
    """One change or feed entry."""

    number: int
    depth: int = 0
    trait: str = ""
    """NEED_WHOLE: the central takes it only as a whole document. WANT: the site has to ask for its content.
    REQUEUE: the site queues a change of its own because of it, without anybody noticing. LARGE: it goes in parts."""

    def document(self) -> document_pb2.Document:
        """As it travels."""
        return document_pb2.Document(table="item", id=f"{self.number} {self.depth} {self.trait}".strip())

    @classmethod
    def of(cls, document: document_pb2.Document) -> "Item":
        """As it arrived."""
        number, depth, *trait = document.id.split(" ")
        return cls(int(number), int(depth), *trait)


@dataclass
class LaneOut:
    """A body that goes in parts, and, at a site, the number of the frame that closed it."""

    body: bytes
    body_hash: bytes
    item: Item
    frame: int = 0

    def state(self, staged: document_pb2.PartStored) -> LaneState | None:
        """Where it stands, given what the other end has."""
        there = staged.size_bytes if staged.hash == self.body_hash else 0
        return LaneState(self.body_hash, len(self.body), there) if not self.frame else None

    def part(self, wanted: PartWanted) -> document_pb2.Part | None:
        """A slice."""
        if wanted.hash != self.body_hash:
            return None
        content = self.body[wanted.offset : wanted.offset + min(wanted.size_bytes, PART_BYTES)]
        return document_pb2.Part(hash=self.body_hash, total_bytes=len(self.body), offset=wanted.offset, content=content)


@dataclass
class LaneIn:
    """What came of a body in parts; durable."""

    hash: bytes = b""
    content: bytes = b""
    taken_bytes: int = 0
    """Every byte that was ever staged: none twice."""

    def stage(self, part: document_pb2.Part) -> document_pb2.PartStored:
        """Takes a slice."""
        if part.hash != self.hash:
            self.hash, self.content = part.hash, b""
        if not part.hash:
            return document_pb2.PartStored()
        assert part.offset <= len(self.content), "a gap"
        new = part.content[len(self.content) - part.offset :]
        self.content += new
        self.taken_bytes += len(new)
        return document_pb2.PartStored(hash=self.hash, size_bytes=len(self.content))

    def staged(self) -> document_pb2.PartStored | None:
        """What the other end is told of it."""
        return document_pb2.PartStored(hash=self.hash, size_bytes=len(self.content)) if self.hash else None

    def close(self, frame: document_pb2.Frame | document_pb2.PullFrame) -> bytes:
        """The body of a frame whose parts came before."""
        if (self.hash, len(self.content)) != (frame.hash, frame.parts_bytes):
            raise PeerProblem(Code.FRAME_DAMAGED, "A frame came before its parts.")
        content, self.hash, self.content = self.content, b"", b""
        return content

"""Frames: compressed, checksummed, chained groups of whole documents.

A frame's identity is (site, epoch, number, hash, hash of its predecessor): equal number with another hash is another
history and never an acknowledgement (F1). The hash is taken over the compressed body, so that a repeat is the same
bytes whatever library compresses them later.
"""

import hashlib
import threading
from functools import lru_cache
from typing import NamedTuple, TypeVar

import zstandard
from google.protobuf.message import DecodeError, Message
from packhorse.sync.v1 import document_pb2

from engine.errors import Code, PeerProblem
from engine.limits import FRAME_BYTES_MAX
from engine.rules.versions import Version

_LEVEL = 1
_of_thread = threading.local()
"""A compressor and a decompressor for each thread, which must not share them: making one takes longer than a small
frame does."""
MessageType = TypeVar("MessageType", bound=Message)


class Link(NamedTuple):
    """A place in the chain: the last frame's number and hash. (0, b"") is the start of an epoch."""

    number: int = 0
    hash: bytes = b""


def pack(body: Message) -> tuple[bytes, bytes]:
    """Serialises and compresses a body; returns (bytes, their SHA-256)."""
    packed = _compressor().compress(body.SerializeToString())
    return packed, hashlib.sha256(packed).digest()


def unpack(kind: type[MessageType], packed: bytes, packed_hash: bytes) -> MessageType:
    """Checks, decompresses and parses a body.

    Raises:
        PeerProblem: FRAME_DAMAGED when the hash does not fit, the bytes do not decompress, the body is larger than
            FRAME_BYTES_MAX, or it does not parse.
    """
    if hashlib.sha256(packed).digest() != packed_hash:
        raise PeerProblem(Code.FRAME_DAMAGED, "A frame arrived with a checksum that does not fit its bytes.")
    try:
        parameters = zstandard.get_frame_parameters(packed)
        if parameters.content_size > FRAME_BYTES_MAX:  # a missing size is a huge number here
            raise PeerProblem(Code.FRAME_DAMAGED, "A frame claims to be larger than what is accepted.")
        return kind.FromString(_decompressor().decompress(packed, max_output_size=FRAME_BYTES_MAX))
    except (zstandard.ZstdError, DecodeError) as error:
        raise PeerProblem(Code.FRAME_DAMAGED, "A frame arrived with a body that cannot be read.") from error


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
    compressor: zstandard.ZstdCompressor = _of_thread.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_of_thread, "decompressor"):
        _of_thread.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _of_thread.decompressor
    return decompressor


@lru_cache(maxsize=1024)
def to_wire(version: Version) -> document_pb2.Version:
    """A version as it travels. Most records of a frame share theirs, so it is made once: copy it, never change it."""
    return document_pb2.Version(term=version.term, term_id=version.term_id, counter=version.counter)


def from_wire(version: document_pb2.Version) -> Version:
    """A version that travelled. An absent one is (0, 0)."""
    return Version(version.term, version.term_id, version.counter)

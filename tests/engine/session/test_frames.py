"""Frames: what was packed is unpacked, and whatever else arrives is FRAME_DAMAGED, never another error."""

import hashlib
import struct
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PeerProblem
from engine.limits import FRAME_BYTES_MAX
from engine.rules.versions import Version
from engine.session.frames import Link, from_wire, pack, to_wire, unpack

ANY = settings(deadline=None, database=None, max_examples=300)
ZSTD_MAGIC = bytes.fromhex("28b52ffd")
UINT32, UINT64, FIXED63 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 63) - 1)

records = st.builds(document_pb2.Record, table=st.text(max_size=8), id=st.text(max_size=8), content=st.binary())
documents = st.builds(
    document_pb2.Document, table=st.text(max_size=8), id=st.text(max_size=8), records=st.lists(records, max_size=4)
)
bodies = st.builds(document_pb2.FrameBody, documents=st.lists(documents, max_size=4))
PACKED, PACKED_HASH = pack(
    document_pb2.FrameBody(documents=[document_pb2.Document(table="item", id=str(number)) for number in range(50)])
)


def sealed(packed: bytes) -> tuple[bytes, bytes]:
    """What a hostile peer sends: the hash fits, whatever the bytes are."""
    return packed, hashlib.sha256(packed).digest()


def assert_damaged(packed: bytes, packed_hash: bytes) -> None:
    with pytest.raises(PeerProblem) as caught:
        unpack(document_pb2.FrameBody, packed, packed_hash)
    assert caught.value.code is Code.FRAME_DAMAGED


@ANY
@given(bodies)
def test_what_is_packed_is_unpacked(body: document_pb2.FrameBody) -> None:
    packed, packed_hash = pack(body)
    assert packed_hash == hashlib.sha256(packed).digest()
    assert unpack(document_pb2.FrameBody, packed, packed_hash) == body
    assert pack(body) == (packed, packed_hash), "a repeat is the same bytes"


def test_a_body_of_another_kind_is_packed_alike() -> None:
    body = document_pb2.PullBody(wanted=[document_pb2.Document(table="item", id="1")])
    assert unpack(document_pb2.PullBody, *pack(body)) == body


def test_unknown_fields_are_kept() -> None:
    """Law 13: what a newer program adds passes through."""
    newer = document_pb2.FrameBody.FromString(bytes.fromhex("9a060548656c6c6f"))
    assert unpack(document_pb2.FrameBody, *pack(newer)).SerializeToString() == newer.SerializeToString()


@ANY
@given(bodies, st.one_of(st.binary(max_size=64), st.binary(min_size=32, max_size=32)))
def test_another_hash(body: document_pb2.FrameBody, other: bytes) -> None:
    packed, packed_hash = pack(body)
    if other != packed_hash:
        assert_damaged(packed, other)
    assert_damaged(packed, b"")


@ANY
@given(st.integers(0, len(PACKED) - 1))
def test_truncated(kept: int) -> None:
    assert_damaged(PACKED[:kept], PACKED_HASH)
    assert_damaged(*sealed(PACKED[:kept]))


@ANY
@given(st.lists(st.integers(0, 8 * len(PACKED) - 1), min_size=1, max_size=4, unique=True))
def test_flipped_bits(places: list[int]) -> None:
    damaged = bytearray(PACKED)
    for place in places:
        damaged[place // 8] ^= 1 << place % 8
    assert_damaged(bytes(damaged), PACKED_HASH)
    assert_nothing_but_damaged(bytes(damaged))


def assert_nothing_but_damaged(packed: bytes) -> None:
    """Bytes that a hostile peer sealed are read, within bounds, or refused with the one code."""
    try:
        body = unpack(document_pb2.FrameBody, *sealed(packed))
    except PeerProblem as problem:
        assert problem.code is Code.FRAME_DAMAGED
    else:
        assert body.ByteSize() <= FRAME_BYTES_MAX


@ANY
@given(st.one_of(st.binary(), st.binary().map(lambda tail: ZSTD_MAGIC + tail)))
def test_garbage(packed: bytes) -> None:
    assert_nothing_but_damaged(packed)


@ANY
@given(st.binary(min_size=1))
def test_a_body_that_is_no_message(body: bytes) -> None:
    assert_nothing_but_damaged(zstandard.compress(body))


def test_a_body_that_is_cut_inside_a_field() -> None:
    whole = document_pb2.FrameBody(documents=[document_pb2.Document(table="item", id="1")]).SerializeToString()
    assert_damaged(*sealed(zstandard.compress(whole[:-1])))


def test_text_that_is_no_text() -> None:
    assert_damaged(*sealed(zstandard.compress(bytes.fromhex("0a040a02fffe"))))


@pytest.mark.parametrize("beyond", [1, FRAME_BYTES_MAX])
def test_a_bomb_is_refused_before_it_unfolds(beyond: int) -> None:
    packed, packed_hash = sealed(zstandard.compress(bytes(FRAME_BYTES_MAX + beyond)))
    assert len(packed) < 10_000
    tracemalloc.start()
    assert_damaged(packed, packed_hash)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < FRAME_BYTES_MAX // 8


def test_the_largest_body_that_is_accepted() -> None:
    filler = document_pb2.FrameBody(documents=[document_pb2.Document(id="x" * (FRAME_BYTES_MAX - 10))])
    assert filler.ByteSize() == FRAME_BYTES_MAX
    assert unpack(document_pb2.FrameBody, *pack(filler)) == filler


def test_a_bomb_without_a_size() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    assert_damaged(*sealed(compressor.compress(bytes(2 * FRAME_BYTES_MAX))))
    stream = zstandard.ZstdCompressor().compressobj()
    assert_damaged(*sealed(stream.compress(bytes(1_000)) + stream.flush()))


@ANY
@given(claimed=st.one_of(UINT32, st.integers(0, 70_000), st.just(FRAME_BYTES_MAX)))
def test_a_bomb_that_lies_about_its_size(claimed: int) -> None:
    """The header says another size than the body has; the descriptor a0 announces four bytes of size."""
    honest = zstandard.ZstdCompressor(write_checksum=False).compress(bytes(70_000))
    assert honest[:5] == ZSTD_MAGIC + b"\xa0"
    assert_nothing_but_damaged(honest[:5] + struct.pack("<I", claimed) + honest[9:])


def test_a_dictionary_that_nobody_has() -> None:
    dictionary = zstandard.ZstdCompressionDict(bytes(range(256)) * 8)
    compressed = zstandard.ZstdCompressor(dict_data=dictionary).compress(bytes(range(256)) * 4)
    assert_nothing_but_damaged(compressed)


def test_frames_that_carry_no_content() -> None:
    """Legal for zstd: a skippable frame, and nothing at all."""
    assert_nothing_but_damaged(bytes.fromhex("502a4d1804000000deadbeef"))
    assert_damaged(*sealed(b""))


def test_what_follows_the_first_content_is_not_another_body() -> None:
    """Whatever is made of it, it is not silently joined."""
    more = document_pb2.FrameBody(documents=[document_pb2.Document(id="hidden")])
    packed, packed_hash = sealed(PACKED + pack(more)[0])
    assert all(document.id != "hidden" for document in unpack(document_pb2.FrameBody, packed, packed_hash).documents)


@given(UINT32, FIXED63, UINT64)
def test_a_version_travels(term: int, term_id: int, counter: int) -> None:
    version = Version(term, term_id, counter)
    wire = to_wire(version).SerializeToString()
    assert from_wire(document_pb2.Version.FromString(wire)) == version


def test_an_absent_version_is_the_first() -> None:
    assert from_wire(document_pb2.Document().base) == Version(0, 0, 0)


def test_the_start_of_a_chain_is_what_an_empty_message_says() -> None:
    welcome = session_pb2.Welcome()
    assert Link() == (welcome.last_applied, welcome.last_applied_hash)

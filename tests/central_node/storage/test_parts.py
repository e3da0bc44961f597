"""Documents in parts (F27, F42): slices of one stored body, resumed, beside the frames, closed by a frame."""

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PeerProblem
from engine.limits import FRAME_BYTES_MAX
from engine.rules.topology import CENTRAL_SITE
from engine.session.frames import Link
from engine.session.lane import PartWanted
from engine.storage.chain import close_lane, frames_exceed, lane_is_overtaken, lane_lost_its_parts, void_frames
from engine.storage.outbox import has_pushable
from engine.storage.parts import body_for, read_part, stage, staged_for
from tests.partners import Central, Site, connect, pull

SMALL = (500, 4_000)
"""A link that lets 4 kB through."""
GOOD = (500, 1 << 20)
PART_BYTES = 1_500


class Country(NamedTuple):
    """A central with one site that is connected."""

    central: Central
    site: Site


@pytest.fixture
def country(tmp_path: Path) -> Country:
    central = Central(tmp_path / "central.db")
    site = central.add(tmp_path, 2)
    connect(central, site)
    pull(central, site)
    return Country(central, site)


def large(seed: int = 1) -> str:
    """Text that no compression makes small."""
    return random.Random(seed).randbytes(8_000).hex()


def parts(site: Site, offset: int = 0) -> Iterator[document_pb2.Part]:
    """The slices of what goes in parts, as it stands now."""
    body = site.read(lambda c: body_for(c, CENTRAL_SITE))
    assert body is not None
    while offset < body.total_bytes:
        wanted = PartWanted(body.hash, offset, PART_BYTES)
        part = site.read(partial(read_part, peer=CENTRAL_SITE, wanted=wanted))
        assert part is not None
        yield part
        offset += len(part.content)


def send(country: Country, part: document_pb2.Part) -> document_pb2.PartStored:
    return country.central.write(lambda c: stage(c, country.site.number, part))


def carry(country: Country) -> None:
    """All parts, the frame that closes them, its acknowledgement."""
    for part in parts(country.site):
        send(country, part)
    country.site.write(close_lane)
    take(country)


def take(country: Country) -> None:
    """Every frame that is not settled, and its acknowledgement."""
    for frame in country.site.frames():
        (told,) = country.central.take_from(country.site, [frame])
        assert isinstance(told, session_pb2.Acknowledgement), told
        country.site.settle(told)


def same_invoices(country: Country) -> bool:
    return all(country.central.rows(t) == country.site.rows(t) for t in ("invoice", "invoice_line"))


# --- the way of a large document --------------------------------------------------------------------------------------


def test_f42_a_large_document_arrives_in_parts_and_the_rest_flows_beside_it(country: Country) -> None:
    central, site = country
    site.put_invoice("large", ["a", "b"], comment=large())
    site.put_stock("small")
    frame = site.cut(SMALL)
    assert frame is not None and site.cut(SMALL) is None, "the large document takes no part in frames"
    (first, *others) = parts(site)
    assert len(others) > 3
    send(country, first)
    take(country)
    assert central.count("stock_line") == 1, "the part of a large document keeps nothing else from arriving"
    assert central.count("invoice") == 0
    for part in others:
        send(country, part)
    site.write(close_lane)
    assert not central.count("invoice"), "parts alone apply nothing"
    take(country)
    assert same_invoices(country) and central.count("invoice_line") == 2
    assert not site.count("sync_outbox") and not site.count("sync_lane") and not central.count("sync_staged")


def test_f42_what_is_staged_is_not_sent_again(country: Country) -> None:
    """The link is cut after every part; the central is asked what it has, and that is passed over."""
    central, site = country
    site.put_invoice("large", [], comment=large())
    site.cut(SMALL)
    sent = 0
    for _ in range(100):
        staged = central.read(lambda c: staged_for(c, site.number)) or document_pb2.PartStored()
        for part in list(parts(site, staged.size_bytes))[:1]:
            send(country, part)
            sent += len(part.content)
    body = site.read(lambda c: body_for(c, CENTRAL_SITE))
    assert body is not None and sent == body.total_bytes
    site.write(close_lane)
    take(country)
    assert same_invoices(country)


@pytest.mark.parametrize("edits", [1, 2, 5])
def test_f42_later_versions_wait_behind_what_is_under_way(country: Country, edits: int) -> None:
    """An edited document does not begin again from its first byte, and no part of another version is mixed in."""
    site = country.site
    site.put_invoice("large", ["a"], comment=large())
    site.cut(SMALL)
    before = site.read(lambda c: body_for(c, CENTRAL_SITE))
    for number in range(edits):
        send(country, next(parts(site, number * PART_BYTES)))
        site.put_invoice("large", [f"more {number}"], comment=large(number + 2))
        assert site.cut(SMALL) is None and not site.read(has_pushable)
        assert site.read(lambda c: body_for(c, CENTRAL_SITE)) == before
    carry(country)
    assert country.central.count("invoice_line") == 1, "what arrived is the version that was under way"
    assert site.read(has_pushable)
    site.cut(SMALL)
    carry(country)
    assert same_invoices(country) and not site.count("sync_outbox") and not country.central.count("sync_held")


@pytest.mark.parametrize("after_parts", [0, 2, None])
def test_f42_a_delete_does_not_wait(country: Country, after_parts: int | None) -> None:
    central, site = country
    site.put_invoice("large", ["a"])
    site.cut(SMALL)
    take(country)
    site.put_invoice("large", ["b"], comment=large())
    site.cut(SMALL)
    for part in list(parts(site))[:after_parts]:
        send(country, part)
    site.execute("DELETE FROM invoice WHERE id = 'large'")
    assert site.read(lane_is_overtaken)
    site.cut(SMALL)
    assert not site.count("sync_lane")
    take(country)
    assert central.count("invoice") == central.count("invoice_line") == central.count("sync_held") == 0
    assert not site.count("sync_outbox") and not site.count("sync_in_flight")


def test_f42_a_second_large_document_waits_for_the_lane(country: Country) -> None:
    site = country.site
    for name in ("one", "two", "three"):
        site.put_invoice(name, ["a"], comment=large(len(name)))
    for left in (3, 2, 1):
        assert site.count("sync_outbox", "table_name = 'invoice'") == left
        assert site.cut(SMALL) is None
        assert site.count("sync_lane") == 1, "one body at a time"
        carry(country)
    assert same_invoices(country) and not site.count("sync_outbox") and not site.count("sync_lane_waiting")


def test_f42_an_earlier_version_may_still_be_under_way(country: Country) -> None:
    """v1 travels in a frame, v2 in parts, and both arrive in either order of acknowledgement and closing."""
    site = country.site
    site.put_invoice("large", ["a"])
    first = site.cut(SMALL)
    assert first is not None
    site.put_invoice("large", ["b"], comment=large())
    assert site.cut(SMALL) is None and site.count("sync_lane") == 1
    for part in parts(site):
        send(country, part)
    site.write(close_lane)
    take(country)
    assert same_invoices(country) and not site.count("sync_outbox") and not country.central.count("sync_held")


# --- taking frames back -----------------------------------------------------------------------------------------------


def test_f27_a_stored_frame_that_is_too_large_for_the_link_is_cut_anew_and_goes_in_parts(country: Country) -> None:
    site = country.site
    site.put_invoice("large", ["a"], comment=large())
    site.put_stock("small")
    stored = site.cut(GOOD)
    assert stored is not None and not site.count("sync_lane")
    assert site.read(lambda c: frames_exceed(c, *SMALL)) and not site.read(lambda c: frames_exceed(c, *GOOD))
    site.write(lambda c: void_frames(c, Link()))
    new = site.cut(SMALL)
    assert new is not None and new.number > stored.number and site.count("sync_lane") == 1
    carry(country)
    assert same_invoices(country) and country.central.count("stock_line") == 1 and not site.count("sync_outbox")


@pytest.mark.parametrize("closed", [False, True])
def test_f27_what_goes_in_parts_survives_the_voiding_of_frames(country: Country, closed: bool) -> None:
    site = country.site
    site.put_invoice("large", ["a"], comment=large())
    site.put_stock("small")
    site.cut(SMALL)
    before = site.read(lambda c: body_for(c, CENTRAL_SITE))
    for part in parts(site):
        send(country, part)
    if closed:
        site.write(close_lane)
    site.write(lambda c: void_frames(c, Link()))
    assert site.read(lambda c: body_for(c, CENTRAL_SITE)) == before, "it goes on with the bytes that are staged"
    site.write(close_lane)
    site.cut_all(SMALL)
    take(country)
    assert same_invoices(country) and country.central.count("stock_line") == 1 and not site.count("sync_outbox")


def test_f27_what_continues_a_voided_version_is_taken_back_too(country: Country) -> None:
    """Else the central would get v2, based on a v1 that never came, and hold it as diverged."""
    central, site = country
    site.put_invoice("large", ["a"])
    site.cut(SMALL)
    site.put_invoice("large", ["b"], comment=large())
    site.cut(SMALL)
    send(country, next(parts(site)))
    site.write(lambda c: void_frames(c, Link()))
    assert not site.count("sync_lane") and not site.count("sync_in_flight")
    site.cut(SMALL)
    carry(country)
    assert same_invoices(country) and not central.count("sync_held") and not site.count("sync_outbox")


def test_f42_parts_that_the_central_lost_are_sent_again(country: Country) -> None:
    central, site = country
    site.put_invoice("large", ["a"], comment=large())
    site.cut(SMALL)
    every = list(parts(site))
    for part in every:
        told = send(country, part)
    site.write(close_lane)
    assert not site.read(lambda c: lane_lost_its_parts(c, told, 0))
    central.execute("DELETE FROM sync_staged")
    (refused,) = central.take_from(site, site.frames())
    assert isinstance(refused, PeerProblem) and refused.code is Code.FRAME_DAMAGED and not central.count("invoice")
    assert site.read(lambda c: lane_lost_its_parts(c, document_pb2.PartStored(), 0))
    site.write(lambda c: void_frames(c, Link()))
    carry(country)
    assert same_invoices(country)


# --- hostile parts ----------------------------------------------------------------------------------------------------


def mended(part: document_pb2.Part, **changes: object) -> document_pb2.Part:
    other = document_pb2.Part()
    other.CopyFrom(part)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"content": b"other"}, Code.FRAME_DAMAGED),
        ({"content_hash": b""}, Code.FRAME_DAMAGED),
        ({"content": b""}, Code.PROTOCOL_BROKEN),
        ({"offset": 2 * PART_BYTES}, Code.PROTOCOL_BROKEN),
        ({"offset": (1 << 64) - 1}, Code.PROTOCOL_BROKEN),
        ({"total_bytes": 3}, Code.PROTOCOL_BROKEN),
        ({"total_bytes": FRAME_BYTES_MAX + 1}, Code.PROTOCOL_BROKEN),
        ({"hash": b"short"}, Code.PROTOCOL_BROKEN),
    ],
)
def test_f42_a_part_that_does_not_fit_changes_nothing(country: Country, changes: dict[str, object], code: Code) -> None:
    country.site.put_invoice("large", [], comment=large())
    country.site.cut(SMALL)
    first, second, *_ = parts(country.site)
    send(country, first)
    before = country.central.rows("sync_staged")
    with pytest.raises(PeerProblem) as refused:
        send(country, mended(second, **changes))
    assert refused.value.code is code
    assert country.central.rows("sync_staged") == before


def test_f42_a_body_that_does_not_fit_its_hash_has_to_come_again(country: Country) -> None:
    country.site.put_invoice("large", [], comment=large())
    country.site.cut(SMALL)
    for part in parts(country.site):
        told = send(country, mended(part, hash=bytes(32)))
    assert told.size_bytes == 0 and not country.central.count("sync_staged")


def test_f42_parts_may_be_doubled_and_another_body_takes_their_place(country: Country) -> None:
    """At most one body of a site is staged, however many are begun: staging is bounded."""
    site = country.site
    site.put_invoice("large", ["a"], comment=large())
    site.cut(SMALL)
    first, second, *_ = parts(site)
    sizes = [send(country, part).size_bytes for part in (first, first, second, first, second)]
    assert sizes == [PART_BYTES, PART_BYTES, 2 * PART_BYTES, 2 * PART_BYTES, 2 * PART_BYTES]
    send(country, mended(first, hash=b"\1" * 32))
    assert country.central.count("sync_staged") == 1
    send(country, document_pb2.Part())
    assert country.central.count("sync_staged") == 0
    carry(country)
    assert same_invoices(country)


def test_a_document_beyond_every_bound_stays_and_says_so(country: Country) -> None:
    site = country.site
    site.put_invoice("huge", [], comment="x" * (17 << 20))
    site.put_stock("small")
    frame = site.cut(GOOD)
    assert frame is not None
    take(country)
    ((sentence,),) = site.execute("SELECT sentence FROM sync_held")
    assert "huge" in sentence and "16 MiB" in sentence
    assert country.central.count("stock_line") == 1 and not country.central.count("invoice")

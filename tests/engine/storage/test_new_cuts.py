"""New records are cut by a short way: the frames are those that the long way would cut, byte for byte."""

import random
from itertools import chain, pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
from packhorse.sync.v1 import document_pb2

from engine.catalogue.codec import codec
from engine.errors import Code
from engine.session.frames import unpack
from engine.storage import push
from engine.storage.chain import stored_frames
from engine.storage.new_cuts import NewCuts
from engine.storage.push import FULL_SIZE, cut_frame
from tests.engine.storage.nodes import undone
from tests.partners import Central, Site, central_and_two_sites, connect, synchronise

Cut = tuple[list[bytes], list[tuple[object, ...]]]


@pytest.fixture(name="nodes")
def central_and_a_site(tmp_path: Path) -> tuple[Central, Site]:
    central, site, _ = central_and_two_sites(tmp_path)
    connect(central, site)
    return central, site


def edit(site: Site, chance: random.Random) -> None:
    """Something that people do: most of it is new, some of it was sent before."""
    name = f"s{chance.randrange(40)}"
    match chance.randrange(8):
        case 0:
            site.put_invoice(f"i{chance.randrange(6)}", ["x", "y"], str(chance.random()))
        case 1:
            site.execute("DELETE FROM stock_line WHERE id = ?", name)
        case 2:
            site.execute("INSERT OR IGNORE INTO location (id, store_id) VALUES (?, ?)", name, site.store)
        case 3:
            site.execute("DELETE FROM invoice WHERE id = ?", f"i{chance.randrange(6)}")
        case _:
            site.put_stock(name, str(chance.random()))


def cut(site: Site, size: tuple[int, int] = FULL_SIZE) -> Cut:
    """Every frame that would be cut now, and what would be noted of it."""
    with undone(site.connection):
        while cut_frame(site.connection, site.catalogue, site.number, site.now, size):
            pass
        frames = [frame.SerializeToString() for frame in stored_frames(site.connection, 0, 1_000)]
        return frames, [*sorted(site.rows("sync_in_flight")), *sorted(site.rows("sync_outbox"))]


def cut_the_long_way(site: Site) -> Cut:
    with patch.object(push, "cut_new", lambda _connection, _catalogue, records, _limit_bytes: NewCuts([], 0, records)):
        return cut(site)


@pytest.mark.parametrize("seed", range(30))
def test_both_ways_cut_the_same(nodes: tuple[Central, Site], seed: int) -> None:
    central, site = nodes
    chance = random.Random(seed)
    for _ in range(4):
        for _ in range(chance.randrange(1, 30)):
            edit(site, chance)
        assert cut(site) == cut_the_long_way(site)
        if chance.random() < 0.7:
            synchronise(central, site)
        else:
            site.cut()


def test_fields_that_this_program_does_not_know_go_along(nodes: tuple[Central, Site]) -> None:
    _, site = nodes
    site.put_stock("a")
    site.execute("INSERT INTO sync_unknown VALUES ('stock_line', 'a', ?)", b"\xfa\x07\x03new")
    assert cut(site) == cut_the_long_way(site)
    frame = document_pb2.Frame.FromString(cut(site)[0][0])
    (document,) = unpack(document_pb2.FrameBody, frame.body, frame.hash).documents
    assert codec(site.catalogue["stock_line"]).decode(document.records[0].content).unknown == b"\xfa\x07\x03new"


def test_what_cannot_be_encoded_is_set_aside_and_holds_up_nothing(nodes: tuple[Central, Site]) -> None:
    _, site = nodes
    for name in ("a", "b", "c"):
        site.put_stock(name)
    site.behind("UPDATE stock_line SET batch = x'00ff' WHERE id = 'b'")
    assert site.cut() is not None and site.cut() is None
    assert site.execute("SELECT id, code FROM sync_held") == [("b", Code.UNREADABLE)]
    assert {row[2] for row in site.rows("sync_in_flight")} == {"a", "c"}


@pytest.mark.parametrize("records, size_bytes", [(3, 1 << 20), (500, 400)])
def test_frames_are_closed_at_their_size(nodes: tuple[Central, Site], records: int, size_bytes: int) -> None:
    """Also where new records, changed ones and documents with lines wait together; nothing is left behind or twice."""
    central, site = nodes
    site.put_stock("known")
    synchronise(central, site)
    for number in range(7):
        site.put_stock(f"new-{number}")
        site.put_invoice(f"i{number}", ["x", "y"])
    site.put_stock("known", "changed")
    bodies, _ = cut(site, (records, size_bytes))
    frames = [document_pb2.Frame.FromString(body) for body in bodies]
    documents = [[d.id for d in unpack(document_pb2.FrameBody, f.body, f.hash).documents] for f in frames]
    every = list(chain.from_iterable(documents))
    assert sorted(every) == sorted(["known", *(f"{kind}{number}" for kind in ("new-", "i") for number in range(7))])
    assert len(documents) > 3 and all(len(ids) <= records for ids in documents)
    waited = {f"{kind}{number}": number for kind in ("new-", "i") for number in range(7)} | {"known": 7}
    for earlier, later in pairwise(documents):
        assert min(waited[i] for i in later) >= min(waited[i] for i in earlier), "what waits longest is not left behind"

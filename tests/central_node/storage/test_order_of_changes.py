"""What a program did in one transaction may arrive apart: whole document by document, the first edited first (F50)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.session.frames import unpack
from tests.partners import Central, Site, connect, pull

EDITS = st.lists(st.sampled_from(["invoice", "invoice grows", "stock", "hot stock", "cut", "cut"]), max_size=25)


def edit(site: Site, what: str, number: int) -> None:
    """One transaction of a program; an invoice says how many lines it has, and takes stock."""
    name = f"i{number}" if what == "invoice" else "i"
    if what in ("invoice", "invoice grows"):
        lines = site.count("invoice_line", f"invoice_id = '{name}'")
        added = [f"{number}-{place}" for place in range(1 + number % 3)]
        site.put_invoice(name, added, str(lines + len(added)))
    site.put_stock("hot" if what == "hot stock" else f"s{number}", str(number))


@settings(deadline=None, max_examples=50)
@given(edits=EDITS, records=st.integers(1, 6))
def test_f50_documents_arrive_whole_and_the_first_edited_first(edits: list[str], records: int) -> None:
    with TemporaryDirectory() as folder:
        central = Central(Path(folder) / "node-1.db")
        site = central.add(Path(folder), 2)
        connect(central, site)
        pull(central, site)
        for number, what in enumerate([*edits, *["cut"] * 40]):
            if what != "cut":
                edit(site, what, number)
                continue
            queued = {(row[0], row[1]): row[2] for row in site.execute(
                "SELECT root_table, root_id, min(queued_at) FROM sync_outbox WHERE token <> framed_token GROUP BY 1, 2"
            )}  # fmt: skip
            frame = site.cut((records, 1 << 20))
            if frame is None:
                continue
            body = unpack(document_pb2.FrameBody, frame.body, frame.hash)
            sent = {(document.table, document.id) for document in body.documents}
            assert min(queued, key=lambda key: queued[key]) in sent, "what waits longest goes next"
            (told,) = central.take_from(site, [frame])
            assert isinstance(told, session_pb2.Acknowledgement)
            site.settle(told)
            torn = central.execute(
                "SELECT id FROM invoice AS i"
                " WHERE comment <> (SELECT count(*) FROM invoice_line AS l WHERE l.invoice_id = i.id)"
            )
            assert not torn, "no document is ever there in part"
        assert not site.count("sync_outbox")
        assert site.rows("stock_line") == central.rows("stock_line")


@pytest.mark.parametrize("records", [1, 3])
def test_f50_a_record_that_is_edited_all_the_time_keeps_its_place(tmp_path: Path, records: int) -> None:
    """Each sale edits the same stock line: it waits in the queue from its first edit on, not from its last."""
    central = Central(tmp_path / "node-1.db")
    site = central.add(tmp_path, 2)
    connect(central, site)
    pull(central, site)
    for number in range(4):
        site.put_stock(f"before{number}", "x")
    for number in range(20):
        site.put_stock("hot", str(number))
        site.put_stock(f"s{number}", "x")
    sent = []
    for number in range(20, 30):
        frame = site.cut((records, 1 << 20))
        assert frame is not None
        sent += [d.id for d in unpack(document_pb2.FrameBody, frame.body, frame.hash).documents]
        site.put_stock("hot", str(number))
    assert sent.index("hot") == 4, "behind the four that were edited before it"

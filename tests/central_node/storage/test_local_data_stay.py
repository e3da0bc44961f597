"""Local data never leave their site: canary values in every local table are searched for in all that is said, before
it is compressed, in a long run with every local table edited all the time."""

import random
from collections.abc import Iterator
from pathlib import Path

from packhorse.sync.v1 import document_pb2

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import ColumnType, Table
from engine.session.frames import unpack
from tests.partners import Central, Node, Site, checkpoint, connect

SEED, ROUNDS = 20_26, 60
LOCAL = [table for table in catalogue() if not table.travels]
CANARY, CONTROL = "canary-7f3a", "no-secret"


def edit_local(node: Node, table: Table, number: int) -> None:
    """A record whose every text is a canary, and one that is changed or deleted."""
    texts = [column.name for column in table.columns if column.type is ColumnType.TEXT]
    values = [f"{CANARY}-{table.name}-{number}" for _ in texts]
    node.execute(f"INSERT INTO {table.name} ({', '.join(texts)}) VALUES ({', '.join('?' * len(texts))})", *values)
    what = f"UPDATE {table.name} SET {texts[-1]} = '{CANARY}-again'" if number % 2 else f"DELETE FROM {table.name}"
    node.execute(f"{what} WHERE id = ?", f"{CANARY}-{table.name}-{max(0, number - 2)}")


def session(central: Central, site: Site) -> Iterator[bytes]:
    """Everything that both ends say in a session."""
    yield site.hello().SerializeToString()
    yield connect(central, site).SerializeToString()
    for frame in site.cut_all():
        yield frame.SerializeToString()
        yield unpack(document_pb2.FrameBody, frame.body, frame.hash).SerializeToString()
        for told in central.take_from(site, [frame]):
            yield told.SerializeToString()  # type: ignore[union-attr]
            site.settle(told)  # type: ignore[arg-type]
        central.route()
    while True:
        body, cursors = central.pull_body(site)
        yield body.SerializeToString()
        if not body.sections and not body.subscriptions:
            break
        site.apply(body)
        central.cursors[site.number], central.changes[site.number] = cursors, []
    told_at_the_end = checkpoint(central, site)
    assert told_at_the_end is not None
    yield told_at_the_end.SerializeToString()
    yield site.report(told_at_the_end).SerializeToString()


def test_no_value_of_a_local_table_is_ever_on_the_wire(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    central = Central(tmp_path / "node-1.db", catalogue())
    sites = [central.add(tmp_path, number, catalogue()) for number in (2, 3)]
    central.collect(sites[0].store, sites[1])
    said = bytearray()
    for site in sites:
        said += b"".join(session(central, site))
    for number in range(ROUNDS):
        for node in (central, *sites):
            for table in LOCAL:
                edit_local(node, table, number)
        site = chance.choice(sites)
        site.put_stock(f"stock-{number}", CONTROL)
        site.put_invoice(f"invoice-{number}", ["a", "b"], CONTROL)
        for site in sites:
            said += b"".join(session(central, site))
    assert said.count(CONTROL.encode()) > ROUNDS, "the search would have found something"
    assert CANARY.encode() not in said
    for table in LOCAL:
        assert not any(node.count("sync_outbox", f"table_name = '{table.name}'") for node in (central, *sites))
        assert all(node.count(table.name) > ROUNDS // 3 for node in (central, *sites)), table.name
    names = ", ".join(f"'{table.name}'" for table in LOCAL)
    for engines_table in ("sync_record", "sync_membership"):
        assert all(node.count(engines_table, f"table_name IN ({names})") == 0 for node in (central, *sites))
    print(f"seed {SEED}: {len(said)} bytes said in {2 + ROUNDS * 2} sessions")

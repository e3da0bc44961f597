"""A hostile site pushes a record of every table of the catalogue for others: all of it is held, nobody hears of it, and
a site that refuses to put back what was refused harms nobody but itself."""

import pytest
from packhorse.sync.v1 import document_pb2

from engine.catalogue.codec import codec
from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import ColumnType, Kind, RowValue, Table
from field_lab.country import Country
from tests.processes.hostile_client import HostileClient
from tests.processes.supplies import BADILI, LAE, opened, write_stock
from tests.processes.test_hostile_client import Known, contents
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes
CANARY = "canary-7f3a"


def forged(table: Table, store: str, version: document_pb2.Version) -> document_pb2.Document:
    """A new record that another site would have to write, with the canary in its id and in a text."""
    values: dict[str, RowValue] = {"id": f"{CANARY}-{table.name}"}
    if table.store_column and table.store_column != "id":
        values[table.store_column] = store
    text = next((c.name for c in table.columns[1:] if c.type is ColumnType.TEXT and c.name not in values), "")
    if text and not table.column(text).refers_to:
        values[text] = CANARY
    row = tuple(values.get(column.name, column.default) for column in table.columns)
    record = document_pb2.Record(content=codec(table).encode(row))
    return document_pb2.Document(table=table.name, id=str(row[0]), version=version, whole=True, records=[record])


async def test_a_record_of_every_table_that_it_may_not_write(country: Country) -> None:
    site, other = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    write_stock(other.database, LAE, 5)
    assert (await other.sync()).exit_code == 0
    client, known = HostileClient(country, site), Known(country, site)
    version = known.location("", LAE).version
    tables = [table for table in catalogue() if not table.parent and table.kind is not Kind.MESSAGE]
    before = contents(country.central.database)
    answer = await client.says(
        known.hello(), known.frame(*(forged(table, LAE, version) for table in tables)), until="acknowledgement"
    )
    known.after(answer.last("welcome"))
    told = {tables[outcome.index].name: outcome.code for outcome in answer.last("acknowledgement").outcomes}
    assert told == {table.name: "NO_AUTHORITY" for table in tables}
    assert contents(country.central.database) == before
    with opened(country.central.database) as connection:
        held = connection.execute("SELECT table_name, code FROM sync_held").fetchall()
    assert dict(held) == told
    assert (await other.sync()).exit_code == 0, "the others are in agreement, and have nothing of it"
    with opened(other.database) as connection:
        assert not [line for line in connection.iterdump() if CANARY in line]
    assert CANARY.encode() not in other.database.read_bytes()
    assert (await other.status())["state"] in ("in_agreement", "stopped")


async def test_a_site_that_refuses_to_heal_changes_nothing_elsewhere(country: Country) -> None:
    """It asks for nothing that was refused, and pushes it again and again."""
    site, other = await joined(country, "Badili", BADILI), await joined(country, "Lae", LAE)
    client, known = HostileClient(country, site), Known(country, site)
    write_stock(other.database, LAE, 5)
    assert (await other.sync()).exit_code == 0
    before = contents(country.central.database)
    for counter in range(1, 4):
        forgery = known.location(CANARY, LAE)
        forgery.version.counter = counter
        answer = await client.says(known.hello(), known.frame(forgery), until="acknowledgement")
        known.after(answer.last("welcome"))
        assert [outcome.code for outcome in answer.last("acknowledgement").outcomes] == ["NO_AUTHORITY"]
        assert contents(country.central.database) == before
        assert (await country.central.status())["held"] == 1, "the newest of it, once"
        done = await other.sync()
        assert done.exit_code == 0 and done.json["in_agreement"]
        with opened(other.database) as connection:
            assert not [line for line in connection.iterdump() if CANARY in line]

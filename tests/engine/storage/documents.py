"""Documents as another program might send them."""

from packhorse.sync.v1 import document_pb2

from engine.catalogue.codec import codec
from engine.catalogue.model import RowValue
from engine.rules.versions import NEVER, Version
from engine.session.frames import to_wire
from field_lab.core_catalogue import core_catalogue


def record(table: str, **values: RowValue) -> document_pb2.Record:
    """A record with content; the columns that are not named have their defaults."""
    columns = core_catalogue()[table].columns
    row = tuple(values.get(column.name, None if column.optional else column.default) for column in columns)
    return document_pb2.Record(table=table, id=str(values["id"]), content=codec(core_catalogue()[table]).encode(row))


def gone(table: str, record_id: str) -> document_pb2.Record:
    """A record that was deleted."""
    return document_pb2.Record(table=table, id=record_id, deleted=True)


def document(
    version: Version,
    root: document_pb2.Record,
    *members: document_pb2.Record,
    base: Version = NEVER,
    whole: bool = True,
) -> document_pb2.Document:
    """A document of these records."""
    made = document_pb2.Document(
        table=root.table,
        id=root.id,
        version=to_wire(version),
        base=to_wire(base),
        whole=whole,
        records=[root, *members],
    )
    made.records[0].ClearField("table")
    made.records[0].ClearField("id")
    return made

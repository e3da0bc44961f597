"""Old and new talk (law 13): a field that one side does not know survives there, and both hash the record alike."""

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.catalogue.v1 import options_pb2

from engine.catalogue.codec import Unreadable, codec
from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Row, RowValue, Table
from tests.engine.catalogue.dynamic import changed_catalogue, field
from tests.engine.catalogue.rows import rows_of

DECIMAL = options_pb2.FORMAT_DECIMAL


def _optional(name: str, number: int, **more: Any) -> FieldDescriptorProto:
    made = field(name, number, **more)
    made.proto3_optional = True
    return made


ADDED = (
    field("added_text", 100),
    field("added_number", 101, FieldDescriptorProto.TYPE_INT64),
    field("added_flag", 102, FieldDescriptorProto.TYPE_BOOL),
    field("added_word", 103, FieldDescriptorProto.TYPE_ENUM, type_name=".packhorse.records.v1.StoreMode"),
    field("added_unsigned", 2_000, FieldDescriptorProto.TYPE_UINT64),
)
NEWER = changed_catalogue(ADDED)
NEWER_WORD = changed_catalogue(words={"InvoiceStatus": {"INVOICE_STATUS_LOST": 77}})
NEWER_DECIMAL = changed_catalogue([field("added_decimal", 100, written=DECIMAL)])
OLDER = changed_catalogue(
    removed=("comment", "batch", "default_pack_size", "note", "on_hold", "number", "mode", "type")
)
TABLES = sorted(catalogue().tables)
tables = st.sampled_from(TABLES)
UNIT = ("u", *(column.default for column in catalogue()["unit"].columns[1:]))


def passed_on(new: Table, old: Table, row: Row) -> tuple[bytes, bytes]:
    """The canonical form at the newer program, and at the older one that was sent the row."""
    received = codec(old).decode(codec(new).encode(row))
    assert received.row == tuple(row[new.index[name]] for name in old.column_names)
    sent_on = codec(old).encode(received.row, received.unknown)
    assert codec(new).decode(sent_on)[:2] == (row, b"")
    assert codec(old).decode(sent_on) == received
    return codec(new).canonical(row), codec(old).canonical(received.row, received.unknown)


@settings(deadline=None, max_examples=200)
@given(name=tables, data=st.data())
def test_added_fields_survive_at_an_older_program(name: str, data: st.DataObject) -> None:
    known, unknown = passed_on(NEWER[name], catalogue()[name], data.draw(rows_of(NEWER[name])))
    assert known == unknown


@settings(deadline=None, max_examples=200)
@given(name=tables, data=st.data())
def test_fields_in_the_middle_survive_at_an_older_program(name: str, data: st.DataObject) -> None:
    known, unknown = passed_on(catalogue()[name], OLDER[name], data.draw(rows_of(catalogue()[name])))
    assert known == unknown


@pytest.mark.parametrize("text", ["", "x", None])
def test_an_added_optional_field_survives(text: RowValue) -> None:
    newer = changed_catalogue([_optional("added_note", 100)])
    table = newer["unit"]
    known, unknown = passed_on(table, catalogue()["unit"], (*UNIT, text))
    assert known == unknown


@settings(deadline=None, max_examples=200)
@given(name=tables, data=st.data())
def test_f25_an_added_decimal_hashes_alike_however_it_is_written(name: str, data: st.DataObject) -> None:
    """A program that does not know the field cannot know that `1.50` is a number: every way to write it counts."""
    row = data.draw(rows_of(NEWER_DECIMAL[name]))
    known, unknown = passed_on(NEWER_DECIMAL[name], catalogue()[name], row)
    assert known == unknown


@pytest.mark.parametrize("text", ["1.50", "1.5", "01.5", "-3", "0", "0.00", "-0", "1.000"])
@pytest.mark.parametrize("optional", [False, True], ids=["always there", "optional"])
def test_f25_no_way_to_write_a_number_divides_two_versions(text: str, optional: bool) -> None:
    newer = changed_catalogue([_optional("added", 100, written=DECIMAL)]) if optional else NEWER_DECIMAL
    known, unknown = passed_on(newer["unit"], catalogue()["unit"], (*UNIT, text))
    assert known == unknown


def test_unknown_fields_hash_alike_in_any_order() -> None:
    old, new = catalogue()["unit"], NEWER["unit"]
    fields = [new.message(**values).SerializeToString() for values in ({"added_text": "x"}, {"added_number": -1})]
    row = codec(old).decode(b"\x0a\x01u").row
    assert codec(old).canonical(row, b"".join(fields)) == codec(old).canonical(row, b"".join(reversed(fields)))


def test_unknown_fields_are_part_of_the_hash() -> None:
    unit = catalogue()["unit"]
    row = codec(unit).decode(b"\x0a\x01u").row
    one, other = (NEWER["unit"].message(added_text=text).SerializeToString() for text in ("x", "y"))
    assert len({codec(unit).canonical(row, unknown) for unknown in (b"", one, other)}) == 3


def test_fields_of_fixed_size_survive() -> None:
    """No version of the catalogue has them now; a later one may."""
    unit = catalogue()["unit"]
    fixed = b"\x0a\x01u" + b"\xa1\x06" + b"12345678" + b"\xad\x06" + b"1234"  # fields 100 and 101
    row, unknown, _ = codec(unit).decode(fixed)
    assert codec(unit).encode(row, unknown) == fixed
    assert codec(unit).canonical(row, unknown) == fixed


def test_a_group_is_refused() -> None:
    unit = catalogue()["unit"]
    content = b"\x0a\x01u" + b"\xa3\x06" + b"\xa4\x06"
    with pytest.raises(Unreadable, match="group"):
        codec(unit).decode(content)


def test_a_word_of_a_newer_program_is_kept_as_digits() -> None:
    new, old = NEWER_WORD["invoice"], catalogue()["invoice"]
    content = new.message(id="i", status=77).SerializeToString()
    assert new.value(codec(new).decode(content).row, "status") == "lost"
    row = codec(old).decode(content).row
    assert old.value(row, "status") == "77"
    assert codec(new).canonical(codec(new).decode(content).row) == codec(old).canonical(row)

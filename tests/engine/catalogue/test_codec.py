"""Rows and messages say the same; the canonical form says it in one way only (F25)."""

from itertools import product

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from packhorse.records.v1 import central_pb2, invoice_pb2, stock_pb2

from engine.catalogue.codec import TableCodec, Unreadable, codec, record_hash
from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Column, ColumnType, Row, RowValue, Table
from tests.engine.catalogue.rows import DECIMALS, rows_of

TABLES = list(catalogue())
every_table = pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
tables = st.sampled_from(TABLES)
INVOICE, LINE, STOCKTAKE_LINE = (catalogue()[name] for name in ("invoice", "invoice_line", "stocktake_line"))


def row_of(table: Table, **values: RowValue) -> Row:
    """A row with these values; the rest are defaults."""
    return tuple(values.get(column.name, "x" if column.name == "id" else column.default) for column in table.columns)


def other_than_default(column: Column) -> RowValue:
    """A value that a column does not have by itself."""
    match column.type:
        case ColumnType.INTEGER | ColumnType.BOOLEAN:
            return 1
        case ColumnType.WORD:
            return next(word for number, word in column.words.items() if number)
        case ColumnType.DECIMAL:
            return "1.50"
        case ColumnType.DATE:
            return "2026-02-28"
        case ColumnType.TIME:
            return "2026-02-28T23:59:59Z"
        case ColumnType.TEXT:
            return f"text of {column.name}"


def hash_of(table: Table, row: Row) -> bytes:
    return record_hash(table.name, str(row[0]), 1, 2, 3, codec(table).canonical(row))


@settings(deadline=None, max_examples=400)
@given(table=tables, data=st.data())
def test_what_was_encoded_is_decoded(table: Table, data: st.DataObject) -> None:
    row = data.draw(rows_of(table))
    decoded = codec(table).decode(codec(table).encode(row))
    assert decoded == (row, b"", codec(table).canonical(row))


@every_table
def test_each_column_keeps_its_value(table: Table) -> None:
    full = tuple(other_than_default(column) for column in table.columns)
    assert not any(value == column.default for value, column in zip(full, table.columns, strict=True))
    assert codec(table).decode(codec(table).encode(full)).row == full
    for place, column in enumerate(table.columns[1:], 1):
        alone = tuple(value if at in (0, place) else table.columns[at].default for at, value in enumerate(full))
        assert codec(table).decode(codec(table).encode(alone)).row == alone, column.name


@settings(deadline=None, max_examples=200)
@given(table=tables, data=st.data())
def test_f25_equal_rows_have_equal_canonical_forms_and_others_have_not(table: Table, data: st.DataObject) -> None:
    one, other = data.draw(rows_of(table)), data.draw(rows_of(table))
    canonical_one, canonical_other = (codec(table).canonical(row) for row in (one, other))
    assert (canonical_one == canonical_other) == (one == other)
    assert canonical_one == codec(table).decode(codec(table).encode(one)).canonical


@every_table
def test_defaults_are_left_out(table: Table) -> None:
    row = row_of(table)
    assert codec(table).canonical(row) == table.message(id="x").SerializeToString()
    assert codec(table).decode(table.message(id="x").SerializeToString()).row == row


@every_table
def test_absent_is_not_empty(table: Table) -> None:
    for column in table.columns:
        if column.optional:
            absent, empty = row_of(table), row_of(table, **{column.name: ""})
            assert codec(table).decode(codec(table).encode(absent)).row == absent
            assert codec(table).decode(codec(table).encode(empty)).row == empty
            assert hash_of(table, absent) != hash_of(table, empty)


def test_an_absent_decimal_is_not_zero() -> None:
    absent, zero = row_of(STOCKTAKE_LINE), row_of(STOCKTAKE_LINE, counted_number_of_packs="0")
    assert hash_of(STOCKTAKE_LINE, absent) != hash_of(STOCKTAKE_LINE, zero)


@pytest.mark.parametrize("column", ["pack_size", "counted_number_of_packs"])
def test_f25_a_decimal_counts_as_it_is_written(column: str) -> None:
    texts = ("0", "-0", "0.0", "1.5", "1.50", "01.5", "-1.5", "1", "1.0", "100", "12345678901234567890.123456789")
    hashes = {hash_of(STOCKTAKE_LINE, row_of(STOCKTAKE_LINE, **{column: text})) for text in texts}
    assert len(hashes) == len(texts)


@given(text=DECIMALS)
def test_a_decimal_travels_as_it_is_written(text: str) -> None:
    row = row_of(LINE, pack_size=text)
    message = invoice_pb2.InvoiceLine.FromString(codec(LINE).encode(row))
    assert message.pack_size == ("" if text == "0" else text), "only the default is left out"


@pytest.mark.parametrize("number", [5, 9, 1_000_000, 2**31 - 1, -1, -(2**31)])
def test_an_unknown_word_becomes_its_digits_and_goes_back(number: int) -> None:
    content = central_pb2.Store(id="s", mode=number).SerializeToString()  # type: ignore[arg-type]
    table = catalogue()["store"]
    row = codec(table).decode(content).row
    assert table.value(row, "mode") == str(number)
    assert codec(table).encode(row) == content
    assert codec(table).canonical(row) == content


def test_words_are_lower_case_without_prefix() -> None:
    message = invoice_pb2.Invoice(id="i", type=invoice_pb2.INVOICE_TYPE_CUSTOMER_INVOICE)
    row = codec(INVOICE).decode(message.SerializeToString()).row
    assert (INVOICE.value(row, "type"), INVOICE.value(row, "status")) == ("customer_invoice", "unspecified")


HEADS = [
    dict(zip(("table", "record_id", "term", "term_id", "counter"), head, strict=True))
    for head in product(("item", "items"), ("a", "1a"), (1, 11), (2, 0), (3, 1))
]


def test_every_part_of_a_version_and_of_a_key_is_in_the_hash() -> None:
    hashes = {record_hash(**head, canonical=content) for head in HEADS for content in (b"", b"\x01")}  # type: ignore[arg-type]
    assert len(hashes) == 2 * len(HEADS)
    assert {len(found) for found in hashes} == {16}


texts, numbers = st.text(max_size=4), st.integers(0, 30)
heads = st.tuples(texts, texts, numbers, numbers, numbers, st.binary(max_size=4))


@given(one=heads, other=heads)
def test_no_two_records_share_a_hash(
    one: tuple[str, str, int, int, int, bytes], other: tuple[str, str, int, int, int, bytes]
) -> None:
    assert (record_hash(*one) == record_hash(*other)) == (one == other)


UNREADABLE_CONTENT = {
    "random bytes": b"\xff\xff\xff\xff\xff\xff",
    "a cut message": invoice_pb2.Invoice(id="invoice", comment="long comment").SerializeToString()[:-3],
    "no id": invoice_pb2.Invoice(comment="x").SerializeToString(),
    "nothing": b"",
    "text that is no UTF-8": b"\x0a\x02\xc4\xff",
}


@pytest.mark.parametrize("content", UNREADABLE_CONTENT.values(), ids=UNREADABLE_CONTENT.keys())
def test_content_that_is_no_record_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable, match="invoice"):
        codec(INVOICE).decode(content)


@given(content=st.binary(max_size=40))
def test_any_content_is_a_record_or_unreadable(content: bytes) -> None:
    try:
        row, unknown, canonical = codec(INVOICE).decode(content)
    except Unreadable:
        return
    assert canonical == codec(INVOICE).canonical(row, unknown)
    assert codec(INVOICE).decode(codec(INVOICE).encode(row)).row == row


def test_a_default_that_was_written_out_enters_no_hash() -> None:
    table = catalogue()["stock_line"]
    content = stock_pb2.StockLine(id="s", pack_size="0", number_of_packs="2").SerializeToString()
    row, _, canonical = codec(table).decode(content)
    assert canonical == codec(table).canonical(row) != content


UNREADABLE_ROWS: tuple[dict[str, RowValue], ...] = (
    {"number": "twelve"},
    {"number": 2**63},
    {"comment": 12},
    {"comment": "\ud800"},
    {"id": "\udfff"},
    {"status": "done"},
    {"status": ""},
    {"status": str(2**31)},
    {"created_at": 20260101},
)


@pytest.mark.parametrize("values", UNREADABLE_ROWS, ids=str)
def test_a_row_that_does_not_fit_is_unreadable(values: dict[str, RowValue]) -> None:
    row = row_of(INVOICE, **values)
    for form in (codec(INVOICE).encode, codec(INVOICE).canonical):
        with pytest.raises(Unreadable, match="invoice"):
            form(row)


def test_there_is_one_codec_per_table() -> None:
    assert codec(INVOICE) is codec(INVOICE)
    assert isinstance(codec(INVOICE), TableCodec)
    assert issubclass(INVOICE.message, Message)

"""Rows of any table, as hypothesis draws them."""

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from engine.catalogue.model import Column, ColumnType, Row, RowValue, Table

_BOUNDS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**63 - 1),
}
"""What both the field and SQL can hold."""
DECIMALS = st.from_regex(r"-?[0-9]{1,12}(\.[0-9]{1,12})?", fullmatch=True)


def rows_of(table: Table) -> st.SearchStrategy[Row]:
    """Any row that a table can hold."""
    return st.tuples(*(_values(table, column) for column in table.columns))


def _values(table: Table, column: Column) -> st.SearchStrategy[RowValue]:
    values = _given(table, column)
    return st.none() | values if column.optional else values


def _given(table: Table, column: Column) -> st.SearchStrategy[RowValue]:
    match column.type:
        case ColumnType.INTEGER:
            low, high = _BOUNDS[table.message.DESCRIPTOR.fields_by_name[column.name].type]
            return st.integers(low, high) | st.sampled_from([low, max(low, -1), 0, high])
        case ColumnType.BOOLEAN:
            return st.integers(0, 1)
        case ColumnType.DECIMAL:
            return DECIMALS
        case ColumnType.WORD:
            unknown = st.integers(-(2**31), 2**31 - 1).filter(lambda number: number not in column.words)
            return st.sampled_from(sorted(column.words.values())) | unknown.map(str)
        case ColumnType.DATE:
            return st.dates().map(str)
        case ColumnType.TIME:
            return st.datetimes().map(lambda instant: f"{instant.isoformat()}Z")
        case ColumnType.TEXT:
            return st.text(min_size=1 if column.name == "id" else 0, max_size=20)

"""Reads the catalogue from protobuf descriptors. A table is added by a message in packhorse/records, not here."""

import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module

import packhorse.records.v1
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from packhorse.catalogue.v1 import options_pb2

from engine.catalogue.model import Catalogue, Column, ColumnType, Kind, Table, in_dependency_order

_FORMATS: dict[int, ColumnType] = {
    options_pb2.FORMAT_UNSPECIFIED: ColumnType.TEXT,
    options_pb2.FORMAT_DECIMAL: ColumnType.DECIMAL,
    options_pb2.FORMAT_DATE: ColumnType.DATE,
    options_pb2.FORMAT_TIME: ColumnType.TIME,
}
_INTEGERS: dict[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 63) - 1),  # what a column of SQLite can hold
}


@cache
def catalogue() -> Catalogue:
    """The catalogue of this program. The same object at each call; nothing in it can change."""
    return catalogue_of(record_files())


def record_files() -> tuple[FileDescriptor, ...]:
    """Every file of messages in packhorse/records/v1, in the order of their names."""
    modules = sorted(module.name for module in pkgutil.iter_modules(packhorse.records.v1.__path__))
    names = [name for name in modules if name.endswith("_pb2")]
    return tuple(import_module(f"packhorse.records.v1.{name}").DESCRIPTOR for name in names)


def catalogue_of(files: Iterable[FileDescriptor]) -> Catalogue:
    """Builds a catalogue from the messages in `files` that carry the option `table`.

    Raises:
        ValueError: a message breaks a rule of the catalogue (options.proto says which); the text names it.
    """
    tables: list[Table] = []
    for file in files:
        for message in file.message_types_by_name.values():
            if message.GetOptions().HasExtension(options_pb2.table):
                tables.append(_table(message))
    names = [table.name for table in tables]
    if len(names) != len(set(names)):
        raise ValueError("two messages have the same table name")
    ordered = in_dependency_order(tables)
    for table in ordered.values():
        if table.parent and table.kind is not ordered[table.parent].kind:
            raise ValueError(f"{table.name}: a member has the kind of its root, {table.parent}")
        if table.visibility_table and not _is_visibility(ordered.get(table.visibility_table), table):
            raise ValueError(
                f"{table.name}: {table.visibility_table} is no table of kind central_store with one reference to it"
            )
    return Catalogue(ordered)


def _is_visibility(visibility: Table | None, subject: Table) -> bool:
    if visibility is None or visibility.kind is not Kind.CENTRAL_STORE:
        return False
    return [column.refers_to for column in visibility.references].count(subject.name) == 1


def _table(message: Descriptor) -> Table:
    options = message.GetOptions().Extensions[options_pb2.table]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", options.name):
        raise ValueError(f"{message.name}: the table needs a name in snake_case, not {options.name!r}")
    if options.kind == options_pb2.KIND_UNSPECIFIED:
        raise ValueError(f"{message.name}: the table needs a kind")
    columns = tuple(_column(field) for field in message.fields)
    by_name = {column.name: column for column in columns}
    if not columns or columns[0].name != "id" or columns[0].number != 1 or columns[0].type is not ColumnType.TEXT:
        raise ValueError(f"{message.name}: the first field must be `string id = 1`")
    for used in (
        options.store_column, options.parent_column, options.final_when.column, options.active_column,
        options.receiving_store_column,
    ):  # fmt: skip
        if used and used not in by_name:
            raise ValueError(f"{message.name}: the options name the column {used}, which does not exist")
    kind = Kind(options_pb2.Kind.Name(options.kind).removeprefix("KIND_").lower())
    _check_kind(message, options, kind)
    if options.active_column and by_name[options.active_column].type is not ColumnType.BOOLEAN:
        raise ValueError(f"{message.name}: active_column names a boolean")
    if options.parent_column and not by_name[options.parent_column].refers_to:
        raise ValueError(
            f"{message.name}: {options.parent_column} names the parent, so it refers to the parent's table"
        )
    if options.final_when.column and not options.final_when.words:
        raise ValueError(f"{message.name}: final_when needs the words that are final")
    return Table(
        name=options.name,
        kind=kind,
        columns=columns,
        message=message_factory.GetMessageClass(message),
        store_column=options.store_column,
        parent_column=options.parent_column,
        parent=by_name[options.parent_column].refers_to if options.parent_column else "",
        final_column=options.final_when.column,
        final_words=tuple(options.final_when.words),
        is_store_record=options.is_store_record,
        is_dispensary_data=options.is_dispensary_data,
        follows_transactions=options.follows_transactions,
        can_be_centralised=options.can_be_centralised,
        active_column=options.active_column,
        visibility_table=options.visibility_table,
        receiving_store_column=options.receiving_store_column,
        scope_family=options.scope_family,
    )


_NEEDED: tuple[tuple[str, frozenset[Kind]], ...] = (
    ("store_column", frozenset((Kind.STORE, Kind.CENTRAL_STORE, Kind.PATIENT, Kind.MESSAGE))),
    ("receiving_store_column", frozenset((Kind.MESSAGE,))),
    ("scope_family", frozenset((Kind.PATIENT,))),
)
"""Options that root tables of some kinds need and others must not have."""
_ALLOWED: tuple[tuple[str, frozenset[Kind]], ...] = (
    ("is_dispensary_data", frozenset((Kind.CENTRAL,))),
    ("active_column", frozenset((Kind.CENTRAL,))),
    ("follows_transactions", frozenset((Kind.STORE,))),
    ("can_be_centralised", frozenset((Kind.STORE,))),
    ("is_store_record", frozenset((Kind.CENTRAL_STORE,))),
    ("visibility_table", frozenset((Kind.CENTRAL, Kind.PATIENT))),
)
"""Options that only root tables of some kinds may have."""


def _check_kind(message: Descriptor, options: options_pb2.TableOptions, kind: Kind) -> None:
    is_root = not options.parent_column
    for name, kinds in _NEEDED:
        if is_root and kind in kinds and not getattr(options, name):
            raise ValueError(f"{message.name}: a root table of kind {kind} needs {name}")
    for name, kinds in (*_NEEDED, *_ALLOWED):
        if getattr(options, name) and not (is_root and kind in kinds):
            raise ValueError(f"{message.name}: {name} is not for a {'root' if is_root else 'member'} of kind {kind}")


def _column(field: FieldDescriptor) -> Column:
    least, most = _INTEGERS.get(field.type, (0, 0))
    options = field.GetOptions().Extensions[options_pb2.column]
    return Column(
        name=field.name,
        number=field.number,
        type=_type(field, options.format),
        optional=field.has_presence,
        words=_words(field.enum_type) if field.enum_type else {},
        refers_to=options.refers_to,
        required=options.required,
        least=least,
        most=most,
    )


def _type(field: FieldDescriptor, written: int) -> ColumnType:
    if field.is_repeated or field.message_type is not None:
        raise ValueError(f"{field.full_name}: catalogue messages are flat")
    if field.enum_type is not None:
        return ColumnType.WORD
    if field.type == FieldDescriptor.TYPE_BOOL:
        return ColumnType.BOOLEAN
    if field.type in _INTEGERS:
        return ColumnType.INTEGER
    if field.type == FieldDescriptor.TYPE_STRING:
        return _FORMATS[written]
    raise ValueError(f"{field.full_name}: no column can hold this protobuf type")


def _words(enum: EnumDescriptor) -> dict[int, str]:
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.name).strip("_") + "_"
    return {value.number: value.name.removeprefix(prefix).lower() for value in enum.values}

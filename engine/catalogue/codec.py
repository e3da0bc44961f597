"""Row <-> message, and the canonical form that enters a digest. The only place that knows both shapes.

Rows, wire and canonical form carry a value as it was written. The canonical form of a record is its protobuf
serialisation with every field in the order of the numbers, fields at their default left out, and the fields that this
program does not know included as they were received. Two programs of different versions therefore hash a record alike:
normalising decimals would break that, because a program cannot know that a field that it does not know is one (F25).
"""

from collections.abc import Callable
from functools import cache, lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from engine.catalogue.model import Column, ColumnType, Row, RowValue, Table


class Unreadable(ValueError):
    """A record's content or row does not fit its table."""


class Decoded(NamedTuple):
    """A record as it came off the wire."""

    row: Row
    unknown: bytes
    """Serialised fields that this program does not know; kept beside the row and passed on."""
    canonical: bytes
    """What enters the record's hash."""


class TableCodec:
    """Encodes and decodes the records of one table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._message = table.message
        self._names = table.column_names
        self._values = attrgetter(*table.column_names, "id")  # of two names or more it gives a tuple
        places = list(enumerate(table.columns))
        self._optional = [(place, column.name) for place, column in places if column.optional]
        # Of a decimal the default is left out, as of every field: an older program that does not know it hashes alike.
        self._decimals = [
            place for place, column in places if column.type is ColumnType.DECIMAL and not column.optional
        ]
        self._from_row = [(place, convert) for place, column in places if (convert := _from_row(column))]
        self._from_message = [(place, convert) for place, column in places if (convert := _from_message(column))]

    def encode(self, row: Row, unknown: bytes = b"") -> bytes:
        """The content of a record as it travels.

        Raises:
            Unreadable: a value does not fit the field, e.g. text in a number.
        """
        return self._message_of(row).SerializeToString(deterministic=True) + unknown

    def decode(self, content: bytes) -> Decoded:
        """The row of a record that travelled.

        Raises:
            Unreadable: the bytes are no message of this table.
        """
        try:
            message = self._message.FromString(content)
        except DecodeError as error:
            raise Unreadable(f"the content is no {self._table.name}") from error
        values = list(self._values(message))
        values.pop()
        for place, name in self._optional:
            if not values[place] and not message.HasField(name):
                values[place] = None
        writes_default = False
        for place in self._decimals:
            if not values[place]:
                values[place] = "0"
            elif values[place] == "0":
                writes_default = True
        for place, convert in self._from_message:
            if values[place] is not None:
                values[place] = convert(values[place])
        row = tuple(values)
        if not row[0]:
            raise Unreadable(f"a {self._table.name} without an id")
        unknown = _unknown_fields(message)
        if unknown or writes_default:
            return Decoded(row, unknown, self.canonical(row, unknown))
        return Decoded(row, unknown, message.SerializeToString(deterministic=True))

    def canonical(self, row: Row, unknown: bytes = b"") -> bytes:
        """The bytes that enter the record's hash. Raises Unreadable as `encode` does."""
        return canonical_of(self.encode(row), unknown)

    def _message_of(self, row: Row) -> Message:
        values = list(row)
        try:
            for place in self._decimals:
                if values[place] == "0":
                    values[place] = ""
            for place, convert in self._from_row:
                if values[place] is not None:
                    values[place] = convert(values[place])
            return self._message(**dict(zip(self._names, values, strict=True)))  # None leaves a field out
        except (TypeError, ValueError, KeyError) as error:
            raise Unreadable(f"{self._table.name} {row[0]} holds a value that does not fit its column") from error


def canonical_of(content: bytes, unknown: bytes) -> bytes:
    """The bytes that enter a record's hash, from its known fields as `encode` writes them and the unknown ones."""
    return content if not unknown else _sorted_fields(content + unknown)


@cache
def codec(table: Table) -> TableCodec:
    """The codec of a table, made once."""
    return TableCodec(table)


def record_hash(table: str, record_id: str, term: int, term_id: int, counter: int, canonical: bytes) -> bytes:
    """BLAKE2b-128 of (table, id, version, canonical record): 16 bytes."""
    return record_hasher(table, term, term_id, counter)(record_id, canonical)


@lru_cache(maxsize=256)
def record_hasher(table: str, term: int, term_id: int, counter: int) -> Callable[[str, bytes], bytes]:
    """`record_hash` for many records of one table and version: of (id, canonical record)."""
    head, version = f"{len(table)}:{table}", f"{term}:{term_id}:{counter}:"

    def hashed(record_id: str, canonical: bytes) -> bytes:
        told = f"{head}{len(record_id)}:{record_id}{version}".encode("utf-8", "surrogatepass")
        return blake2b(told + canonical, digest_size=16).digest()

    return hashed


def _from_row(column: Column) -> Callable[[RowValue], RowValue] | None:
    """How a value becomes that of a field; None: as it is."""
    if column.type is ColumnType.WORD:
        numbers = {word: number for number, word in column.words.items()}
        return lambda value: numbers[str(value)] if value in numbers else int(str(value))
    if column.type is ColumnType.BOOLEAN:
        return bool
    return None


def _from_message(column: Column) -> Callable[[RowValue], RowValue] | None:
    """How the value of a field becomes that of a row; None: as it is."""
    match column.type:
        case ColumnType.INTEGER:
            return _stored_integer
        case ColumnType.WORD:
            words = dict(column.words)
            return lambda value: words.get(int(value or 0)) or str(value)
        case ColumnType.BOOLEAN:
            return lambda value: 1 if value else 0
        case _:
            return None


def _stored_integer(value: RowValue) -> RowValue:
    if isinstance(value, int) and value >= 1 << 63:
        raise Unreadable("it holds a number beyond 2^63")
    return value


def _unknown_fields(message: Message) -> bytes:
    if not len(UnknownFieldSet(message)):
        return b""
    kept = type(message)()
    kept.CopyFrom(message)
    for field in message.DESCRIPTOR.fields:
        kept.ClearField(field.name)
    return kept.SerializeToString()


def _sorted_fields(content: bytes) -> bytes:
    fields: Any = UnknownFieldSet(Empty.FromString(content))  # iterable, but typed without it
    pieces = []
    for field in fields:
        key = _varint(field.field_number << 3 | field.wire_type)
        match field.wire_type:
            case 0:
                value = _varint(field.data)
            case 1:
                value = field.data.to_bytes(8, "little")
            case 5:
                value = field.data.to_bytes(4, "little")
            case 2:
                value = _varint(len(field.data)) + field.data
            case _:
                raise Unreadable("the record holds a group, which no version of the catalogue uses")
        pieces.append((field.field_number, field.wire_type, key + value))
    return b"".join(piece for _, _, piece in sorted(pieces))


def _varint(number: int) -> bytes:
    pieces = bytearray()
    while number > 0x7F:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)

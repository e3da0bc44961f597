"""Garbles messages: draws a valid message with some of its fields set to anything that the wire can carry.

Texts and numbers come from small pools, so that a garbled field often names something that is there, and from the ends
of what a field can hold.
"""

import os
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("PACKHORSE_FUZZ_EXAMPLES", "30"))
"""How many examples a fuzzer tries; `make fuzz` tries more."""
SLOW_MACHINES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""What hypothesis is not to complain of where files are drawn: each example is undone; other work may slow it down."""
MessageType = TypeVar("MessageType", bound=Message)
UINT32_MAX, INT64_MAX, UINT64_MAX = (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1
_UNSIGNED = (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64)
_SIGNED = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64)
_SMALL = st.integers(0, 5)
TEXTS = st.one_of(
    st.sampled_from(["", "\x00", "'; DROP TABLE item; --", "\ufeff", "é" * 300, "x" * 5_000, "NaN", "1e400"]),
    st.text(max_size=12),
)
BYTES = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\xff" * 32, b"\x00" * 16, b"\x08" * 9_000]))


class Garbler:
    """Garbles messages of one world.

    Args:
        words: texts that name something there: tables, ids, scopes.
        inner: the message that the bytes of a field are, by the full name of the field; such bytes are garbled inside.
    """

    def __init__(self, words: list[str], inner: dict[str, Any]) -> None:
        self._texts = st.one_of(st.sampled_from(words), TEXTS)
        self._inner = inner

    def garbled(self, data: st.DataObject, message: MessageType, most: int = 4) -> MessageType:
        """A copy of the message with up to `most` garbled places."""
        copy = type(message)()
        copy.CopyFrom(message)
        for _ in range(data.draw(st.integers(0, most), "places")):
            self._garble(data, copy)
        return copy

    def _garble(self, data: st.DataObject, message: Message) -> None:
        field: FieldDescriptor = data.draw(st.sampled_from(list[Any](message.DESCRIPTOR.fields)), "field")
        if field.is_repeated:
            self._garble_list(data, message, field)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = getattr(message, field.name)
            if message.HasField(field.name) and data.draw(st.integers(0, 5)) == 0:
                message.ClearField(field.name)
            else:
                inner.SetInParent()
                self._garble(data, inner)
        elif data.draw(st.integers(0, 9)) == 0:
            self._add_unknown(data, message)
        else:
            setattr(message, field.name, self._value(data, message, field))

    def _garble_list(self, data: st.DataObject, message: Message, field: FieldDescriptor) -> None:
        there: Any = getattr(message, field.name)
        what = data.draw(st.sampled_from(["inside", "inside", "inside", "leave out", "twice", "swap", "more"]), "how")
        if what == "more" or not there:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                self._garble(data, there.add())
            else:
                there.append(self._value(data, message, field))
            return
        place = data.draw(st.integers(0, len(there) - 1), "place")
        if what == "inside" and field.type == FieldDescriptor.TYPE_MESSAGE:
            self._garble(data, there[place])
        elif what == "inside":
            there[place] = self._value(data, message, field)
        elif what == "leave out":
            del there[place]
        elif what == "twice":
            there.extend(list(there)[place : place + 1])
        else:
            other = data.draw(st.integers(0, len(there) - 1), "other place")
            items = list(there)
            items[place], items[other] = items[other], items[place]
            message.ClearField(field.name)
            there.extend(items)

    def _value(self, data: st.DataObject, message: Message, field: FieldDescriptor) -> Any:
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return data.draw(self._texts, field.name)
            case FieldDescriptor.TYPE_BYTES:
                return self._garbled_bytes(data, message, field)
            case FieldDescriptor.TYPE_BOOL:
                return data.draw(st.booleans(), field.name)
            case FieldDescriptor.TYPE_ENUM:
                return data.draw(st.integers(-2, 9), field.name)
            case FieldDescriptor.TYPE_UINT32:
                return data.draw(st.one_of(_SMALL, st.sampled_from([UINT32_MAX, UINT32_MAX - 1])), field.name)
            case kind if kind in _UNSIGNED:
                ends = st.sampled_from([INT64_MAX, INT64_MAX + 1, UINT64_MAX])
                return data.draw(st.one_of(_SMALL, ends), field.name)
            case kind if kind in _SIGNED:
                return data.draw(st.one_of(_SMALL, st.sampled_from([-INT64_MAX - 1, INT64_MAX])), field.name)
            case _:
                return data.draw(_SMALL, field.name)

    def _garbled_bytes(self, data: st.DataObject, message: Message, field: FieldDescriptor) -> bytes:
        kind = self._inner.get(field.full_name)
        if kind is None or data.draw(st.integers(0, 3)) == 0:
            return data.draw(BYTES, field.name)
        inner = kind(message)
        try:
            inner.MergeFromString(getattr(message, field.name))
        except DecodeError:
            return data.draw(BYTES, field.name)
        self._garble(data, inner)
        return bytes(inner.SerializeToString())

    def _add_unknown(self, data: st.DataObject, message: Message) -> None:
        """A field that only a newer program knows, or bytes that look like one."""
        number = data.draw(st.integers(900, 903), "unknown field")
        key = number << 3 | 2
        text = data.draw(st.binary(max_size=5), "unknown value")
        message.MergeFromString(bytes([key & 0x7F | 0x80, key >> 7, len(text)]) + text)

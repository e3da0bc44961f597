"""Documents as they came in a frame, and the groups in which they can be taken."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.rules.versions import NEVER, Version
from engine.session.frames import from_wire
from engine.storage.held import Held
from engine.storage.records import Key


class Pushed(NamedTuple):
    """A document as it came, and the base that it counts as continuing."""

    place: int
    """In the frame; of documents that were held: among them."""
    key: Key
    """The root's."""
    message: document_pb2.Document
    version: Version
    base: Version


def pushed_in(messages: Iterable[tuple[int, document_pb2.Document]]) -> list[Pushed]:
    """Documents of a frame, with their places."""
    return [
        Pushed(
            place,
            (message.table, message.id),
            message,
            from_wire(message.version),
            from_wire(message.base) if message.HasField("base") else NEVER,
        )
        for place, message in messages
    ]


def pushed_again(held: Iterable[Held]) -> list[Pushed]:
    """Documents that were held, as if they came now."""
    return [
        Pushed(place, entry.key, entry.document, from_wire(entry.document.version), entry.base)
        for place, entry in enumerate(held)
    ]


def without_repeats(documents: Sequence[Pushed]) -> Iterator[Sequence[Pushed]]:
    """The longest groups in which no record occurs twice: usually one."""
    roots = {document.key for document in documents}
    if len(roots) == len(documents) and all(len(document.message.records) == 1 for document in documents):
        yield documents
        return
    first, seen = 0, set[Key]()
    for place, document in enumerate(documents):
        table, root_id = document.key
        keys = {(record.table or table, record.id or root_id) for record in document.message.records}
        keys.add(document.key)
        if not seen.isdisjoint(keys):
            yield documents[first:place]
            first, seen = place, set()
        seen |= keys
    yield documents[first:]

"""What can happen in a country, by the names of its counters: a run of enough seeds has to show all of it."""

from field_lab.oracle.copies import AUTOMATIC_RULES
from field_lab.oracle.data_types import Kind
from field_lab.oracle.judge import JUDGED
from field_lab.simulation.counters import DOCUMENT_WANTED

OFFICES = ("store-5", "store-7", "store-9", "store-11")
"""Stores without stock and transactions, which may be made active elsewhere at any time."""
ROGUES = ("under a forged right", "behind dropped triggers")
"""How a program gets past the rules of its node."""
CHANGES = (
    "store added",
    "store edited",
    "store becomes a dispensary or ceases to be one",
    "store active for the first time",
    "store without data active elsewhere",
    "sync with none",
    "sync with transfer",
    "sync with active-collector",
    "sync with refused",
    "visibility of a store given",
    "visibility of a store taken away",
    "transactions left out",
    "transactions included again",
)
"""Changes of the topology."""
_COPIES = ("collector", "transfer", "none")
_TAKEN = {
    **dict.fromkeys((Kind.CENTRAL, Kind.DISPENSARY, Kind.STORE_RECORD, Kind.CENTRAL_STORE), ("primary",)),
    Kind.STORE: ("active",),
    Kind.PATIENT: ("home",),
    Kind.MESSAGE: ("active", "primary", "central", *_COPIES),
    Kind.LOCAL: ("itself",),
}
_REFUSED = {
    **dict.fromkeys((Kind.CENTRAL, Kind.DISPENSARY, Kind.SYNC), ("central", "none")),
    **dict.fromkeys((Kind.STORE_RECORD, Kind.CENTRAL_STORE), ("active", "central", *_COPIES)),
    **dict.fromkeys((Kind.STORE, Kind.PATIENT), ("primary", "central", *_COPIES)),
    Kind.MESSAGE: ("active", "primary", "central", "none"),
}
SELDOM = tuple(f"edit refused: {Kind.MESSAGE}, {relation}" for relation in _COPIES[:2])
"""What a run need not show: a message is hardly ever where its sender's copy is a collector or transfer."""
NAMES = (
    *(f"edit taken: {kind}, {relation}" for kind, relations in _TAKEN.items() for relation in relations),
    *(f"edit refused: {kind}, {relation}" for kind, relations in _REFUSED.items() for relation in relations),
    *(f"rogue edit: {way}" for way in ROGUES),
    "edit under a right that has moved on",
    DOCUMENT_WANTED,
    *(f"change: {change}" for change in CHANGES),
    *AUTOMATIC_RULES,
    *JUDGED,
)
"""Of kinds and relations those that there are: where a node has no record of a kind, an insert is refused."""

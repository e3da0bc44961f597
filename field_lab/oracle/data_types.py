"""The specification's table of data types, for the tables that occur in a simulated country.

It is written from the specification and says again what the catalogue says: where the two differ, one of them is wrong.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """Who edits the records of a table and who gets them, by the specification's names."""

    CENTRAL = "central data"
    DISPENSARY = "dispensary data"
    """Central data that only sites with an active dispensary store get."""
    STORE_RECORD = "store record"
    CENTRAL_STORE = "central store data"
    STORE = "store data"
    PATIENT = "patient data"
    MESSAGE = "message"
    SYNC = "sync data"
    LOCAL = "local data"


class DataType(NamedTuple):
    """What a table holds."""

    kind: Kind
    store: str = ""
    """The column that names the store which the record belongs to or is about; of a message: that sends it."""
    parent: str = ""
    """For the lines of a document: the table of the document."""
    parent_column: str = ""
    visibility: str = ""
    """For patient data: the table that says in which stores a record is visible, by a column `<table>_id`."""
    switched_off_by: str = ""
    """The column that says whether a record is still used, where one that is in use is switched off, not deleted."""
    follows_transactions: bool = False
    """Left out of what a dispensary store sends where "include transactions in sync" is off."""


DATA_TYPES: Mapping[str, DataType] = {
    "unit": DataType(Kind.CENTRAL),
    "item": DataType(Kind.CENTRAL, switched_off_by="is_active"),
    "name": DataType(Kind.CENTRAL),
    "location_type": DataType(Kind.CENTRAL),
    "transaction_category": DataType(Kind.CENTRAL, switched_off_by="is_active"),
    "master_list": DataType(Kind.CENTRAL, switched_off_by="is_active"),
    "master_list_line": DataType(Kind.CENTRAL, parent="master_list", parent_column="master_list_id"),
    "master_list_name_link": DataType(Kind.CENTRAL),
    "diagnosis": DataType(Kind.DISPENSARY, switched_off_by="is_active"),
    "store": DataType(Kind.STORE_RECORD, store="id"),
    "name_visibility": DataType(Kind.CENTRAL_STORE, store="store_id"),
    "item_visibility": DataType(Kind.CENTRAL_STORE, store="store_id"),
    "patient_visibility": DataType(Kind.CENTRAL_STORE, store="store_id"),
    "prescriber_visibility": DataType(Kind.CENTRAL_STORE, store="store_id"),
    "location": DataType(Kind.STORE, store="store_id"),
    "stock_line": DataType(Kind.STORE, store="store_id", follows_transactions=True),
    "stocktake": DataType(Kind.STORE, store="store_id", follows_transactions=True),
    "stocktake_line": DataType(Kind.STORE, parent="stocktake", parent_column="stocktake_id"),
    "invoice": DataType(Kind.STORE, store="store_id", follows_transactions=True),
    "invoice_line": DataType(Kind.STORE, parent="invoice", parent_column="invoice_id"),
    "transaction_note": DataType(Kind.STORE, store="store_id", follows_transactions=True),
    "patient": DataType(Kind.PATIENT, store="home_store_id", visibility="patient_visibility"),
    "prescriber": DataType(Kind.PATIENT, store="home_store_id", visibility="prescriber_visibility"),
    "message": DataType(Kind.MESSAGE, store="from_store_id"),
    "site": DataType(Kind.SYNC),
    "store_copy": DataType(Kind.SYNC, store="store_id"),
    "user_account": DataType(Kind.LOCAL),
}

_USES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "unit": (("item", "unit_id"),),
    "item": (
        ("master_list_line", "item_id"), ("item_visibility", "item_id"), ("stock_line", "item_id"),
        ("stocktake_line", "item_id"), ("invoice_line", "item_id"),
    ),
    "name": (
        ("store", "name_id"), ("name_visibility", "name_id"), ("master_list_name_link", "name_id"),
        ("invoice", "name_id"),
    ),
    "location_type": (("location", "location_type_id"),),
    "transaction_category": (("invoice", "category_id"),),
    "master_list": (("master_list_name_link", "master_list_id"),),
    "diagnosis": (("invoice", "diagnosis_id"),),
    "invoice": (("transaction_note", "invoice_id"),),
    "patient": (("patient_visibility", "patient_id"), ("invoice", "patient_id")),
    "prescriber": (("prescriber_visibility", "prescriber_id"), ("invoice", "prescriber_id")),
    "store": (
        *((table, data.store) for table, data in DATA_TYPES.items() if data.store not in ("", "id")),
        ("message", "to_store_id"),
    ),
}  # fmt: skip


def uses_of(table: str) -> tuple[tuple[str, str], ...]:
    """(table, column) of everything that may refer to a record, or to the document that it is a line of."""
    return _USES.get(root_of(table), ())


RELATIONS: Mapping[Kind, tuple[str, ...]] = {
    Kind.CENTRAL: ("primary", "central", "dispensary", "none"),
    Kind.DISPENSARY: ("primary", "central", "dispensary", "none"),
    Kind.STORE_RECORD: ("active", "primary", "central", "collector", "transfer", "none"),
    Kind.CENTRAL_STORE: ("active", "primary", "central", "collector", "transfer", "none"),
    Kind.STORE: ("active", "primary", "central", "collector", "transfer", "none"),
    Kind.PATIENT: ("home", "primary", "central", "visible", "collector", "transfer", "none"),
    Kind.MESSAGE: ("active", "primary", "central", "collector", "transfer", "none"),
    Kind.SYNC: ("itself", "central", "none"),
    Kind.LOCAL: ("itself", "none"),
}
"""What a node can be to a record. The first that fits counts; *central*: it is not the primary too."""


def root_of(table: str) -> str:
    """The table of the document that a record of this table belongs to."""
    return DATA_TYPES[table].parent or table


def lines_of(table: str) -> tuple[str, ...]:
    """The tables of the lines of a document."""
    return tuple(name for name, data in DATA_TYPES.items() if data.parent == table)


def roots() -> tuple[str, ...]:
    """The tables whose records are documents or begin one."""
    return tuple(name for name, data in DATA_TYPES.items() if not data.parent)

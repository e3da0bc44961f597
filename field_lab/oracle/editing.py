"""Who may edit what, from the specification's data types."""

from collections.abc import Mapping
from typing import NamedTuple

from field_lab.oracle.data_types import DATA_TYPES, Kind, root_of

EDITED_BY_PRIMARY = (Kind.CENTRAL, Kind.DISPENSARY, Kind.STORE_RECORD, Kind.CENTRAL_STORE)


class Standing(NamedTuple):
    """What a node knows of itself, from its own database."""

    is_known: bool
    """It has been told that it is a site of this country."""
    is_central: bool
    is_primary: bool
    copies: Mapping[str, str]
    """Store -> "active", "collector" or "transfer"."""

    def relation_to(self, kind: Kind, store: str) -> str:
        """What the node is to a record of a kind that belongs to a store: one of its own, by `RELATIONS`."""
        copy = self.copies.get(store, "none")
        if kind is Kind.LOCAL:
            return "itself"
        if self.is_primary and kind in EDITED_BY_PRIMARY:
            return "primary"
        if kind in (Kind.CENTRAL, Kind.DISPENSARY, Kind.SYNC):
            return "central" if self.is_central else "none"
        if copy == "active":
            return "home" if kind is Kind.PATIENT else "active"
        return "primary" if self.is_primary else "central" if self.is_central else copy


def may_edit(standing: Standing, table: str, store: str, is_there: bool) -> bool:
    """Whether a program at that node may write a record.

    Args:
        standing: of the node.
        table: of the record.
        store: the store that the record belongs to, where its kind has one.
        is_there: the record exists: it would be changed or deleted.
    """
    match DATA_TYPES[root_of(table)].kind:
        case kind if kind in EDITED_BY_PRIMARY:
            return standing.is_primary
        case Kind.STORE | Kind.PATIENT:
            return standing.copies.get(store) == "active"
        case Kind.MESSAGE:
            return standing.is_known and not is_there
        case Kind.LOCAL:
            return True
        case _:  # sync data: by the central's own commands only
            return False

"""What becomes of a document whose records have left a scope (F7, F36).

| in another scope | own here | unsent, or held at the other end | referred to | fate                                  |
|------------------|----------|----------------------------------|-------------|---------------------------------------|
| yes              |          |                                  |             | stays                                 |
| no               | yes      |                                  |             | stays: absence never deletes          |
| no               | no       | yes                              |             | left behind: hidden, told to a person |
| no               | no       | no                               | yes         | not visible: hidden while referred to |
| no               | no       | no                               | no          | goes                                  |

References count in every column of the catalogue that refers to a table, where the record that refers is one that this
site keeps in its own right: not one that goes, or that is only hidden because others refer to it.
"""

from enum import StrEnum

from engine.catalogue.model import Catalogue, Kind, Table
from engine.rules.authority import Right

RIGHTS_THAT_KEEP = frozenset((Right.STORE, Right.PATIENT, Right.CENTRAL))
"""The rights that make a document this node's own. Everybody may write messages, so that right keeps none."""
_OUTLIVE_A_DELETE = frozenset((Kind.CENTRAL, Kind.PATIENT))


class Fate(StrEnum):
    """See the module. The hidden ones are told by these words in `sync_hidden.why`."""

    STAYS = "stays"
    LEFT_BEHIND = "left_behind"
    NOT_VISIBLE = "not_visible"
    GOES = "goes"


def fate_of(in_scope: bool, is_own: bool, is_unsent: bool, is_referred_to: bool) -> Fate:
    """The fate of a document."""
    if in_scope or is_own:
        return Fate.STAYS
    if is_unsent:
        return Fate.LEFT_BEHIND
    return Fate.NOT_VISIBLE if is_referred_to else Fate.GOES


def outlives_delete(catalogue: Catalogue, table: Table) -> bool:
    """Whether a record of the table that was deleted elsewhere is only hidden here while own documents may refer to
    it: central and patient data that any table refers to."""
    if table.kind not in _OUTLIVE_A_DELETE:
        return False
    root = catalogue.root_of(table)
    return any(catalogue.referring_to(name) for name in (root.name, *(m.name for m in catalogue.members_of(root.name))))

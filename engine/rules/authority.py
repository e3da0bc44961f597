"""Law 1: every record has exactly one node that may edit it now. The verdict is a pure function.

The owner of a record is named by (right, key); a node holds some of these rights, each with the term under which it
holds it. A site's triggers read the rights it holds from the table `sync_authority`; the central proves each pushed
document against the same function, `may_edit`. Triggers stop mistakes, not malice.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from engine.catalogue.model import Kind, Row, Table
from engine.errors import Code
from engine.rules.topology import CENTRAL_SITE, CONFIGURATION_TABLES, CopyType, Topology
from engine.rules.versions import Term


class Right(StrEnum):
    """What a node may be allowed to edit."""

    CENTRAL = "central"
    STORE = "store"
    SYNC = "sync"
    PATIENT = "patient"
    MESSAGE = "message"
    LOCAL = "local"
    """Never given to anybody: it is what a record of kind local would need to leave its site."""


RIGHT_OF_KIND: Mapping[Kind, Right] = {
    Kind.CENTRAL: Right.CENTRAL,
    Kind.CENTRAL_STORE: Right.CENTRAL,
    Kind.STORE: Right.STORE,
    Kind.SYNC: Right.SYNC,
    Kind.PATIENT: Right.PATIENT,
    Kind.MESSAGE: Right.MESSAGE,
    Kind.LOCAL: Right.LOCAL,
}
RIGHTS_PER_STORE = frozenset((Right.STORE, Right.PATIENT))
"""The rights that name a store: they are held where that store is active, under the term of its active copy."""
ANYBODY = Term(1, 1)
"""The term of the right to write messages, which every node has."""


class Owner(NamedTuple):
    """Names the one right that covers a record: the key is the store's id for store data, the home store's for patient
    data, else empty."""

    right: Right
    key: str = ""


class Rule(StrEnum):
    """The rules that refuse an edit; each name stands in the sentence that a person reads."""

    CENTRAL_DATA_ON_PRIMARY = "central data are edited on the primary only"
    STORE_RECORD_ON_PRIMARY = "store records are edited on the primary only"
    STORE_SETTINGS_ON_PRIMARY = "store preferences and visibility are edited on the primary only"
    STORE_DATA_WHERE_ACTIVE = "data of a store are edited only at the site where the store is active"
    PATIENT_DATA_AT_HOME = "data of a patient or prescriber are edited only at the site where the home store is active"
    MESSAGE_IS_SENT = "a message does not change once it was written; write another"
    LOCAL_DATA_STAY = "local data never leave their site"
    CONFIGURATION_BY_COMMAND = "sites and copies of stores are changed with central-node commands only"
    SYNC_DATA_ON_CENTRAL = "dashboard reports are edited on the central node only"
    IN_USE = "central data that other records refer to are not deleted; end those uses first"
    STORE_STAYS = "a store is not deleted once anything refers to it, the copy that the central has of it included"
    ID_REQUIRED = "a record needs an id, a text of 1 to 200 bytes in UTF-8"
    ID_IMMUTABLE = "the id of a record cannot change; delete the record and insert another"
    ID_USED = "the id belongs to a record of another document or store, deleted or not; use a new id"
    STORE_IMMUTABLE = "a record cannot move to another store; delete it and insert another"
    SUBJECT_IMMUTABLE = "what is made visible cannot change into something else; delete it and insert another"
    PARENT_IMMUTABLE = "a line cannot move to another document; delete it and insert another"
    PARENT_REQUIRED = "a line needs its document in the same database; insert the document first"
    FINAL_IS_FINAL = "a final document and its lines no longer change, and it stays final"
    FINALISE_LAST = "a new document cannot be final yet; add the lines first, finalise last"
    VALUE_VALID = "a value does not fit its column"

    @property
    def text(self) -> str:
        """The sentence with the rule's name, as triggers raise it."""
        return f"Packhorse: {self.value} (rule {self.name})."


_RULE_OF_KIND: Mapping[Kind, Rule] = {
    Kind.CENTRAL: Rule.CENTRAL_DATA_ON_PRIMARY,
    Kind.CENTRAL_STORE: Rule.STORE_SETTINGS_ON_PRIMARY,
    Kind.STORE: Rule.STORE_DATA_WHERE_ACTIVE,
    Kind.SYNC: Rule.SYNC_DATA_ON_CENTRAL,
    Kind.PATIENT: Rule.PATIENT_DATA_AT_HOME,
    Kind.MESSAGE: Rule.MESSAGE_IS_SENT,
    Kind.LOCAL: Rule.LOCAL_DATA_STAY,
}


def rule_of(table: Table) -> Rule:
    """The rule that says who may edit records of a table."""
    if table.name in CONFIGURATION_TABLES:
        return Rule.CONFIGURATION_BY_COMMAND
    return Rule.STORE_RECORD_ON_PRIMARY if table.is_store_record else _RULE_OF_KIND[table.kind]


def owner_of(root: Table, row: Row) -> Owner:
    """The owner of the document whose root record is `row`."""
    right = RIGHT_OF_KIND[root.kind]
    return Owner(right, str(root.value(row, root.store_column))) if right in RIGHTS_PER_STORE else Owner(right)


def rights_of(site: int, topology: Topology) -> dict[Owner, Term]:
    """Every right that a site holds now, with its term."""
    held: dict[Owner, Term] = {
        Owner(right, copy.store_id): copy.term
        for copy in topology.copies_at(site)
        if copy.type is CopyType.ACTIVE
        for right in (Right.STORE, Right.PATIENT)
    }
    if topology.primary is not None and topology.is_primary(site):
        held[Owner(Right.CENTRAL)] = topology.primary.term
    if site in topology.sites:
        held[Owner(Right.MESSAGE)] = ANYBODY
    return held


class Verdict(NamedTuple):
    """Why an edit is refused."""

    code: Code
    rule: Rule
    says: str


def may_edit(
    site: int, root: Table, owner: Owner, term: Term, topology: Topology, is_new: bool = True
) -> Verdict | None:
    """Whether `site` may have made, under `term`, the edit of a document that `owner` covers. None: it may.

    The rights of kind sync are the central's own and are never pushed by anybody; nor are local data.

    Args:
        site: who edited.
        root: the table of the document's root.
        owner: see `owner_of`.
        term: the one in force at the edit.
        topology: as it is now.
        is_new: the document is not stored yet.
    """
    rule = rule_of(root)
    held = rights_of_owner(site, owner, topology)
    if held is None or (root.kind is Kind.MESSAGE and not is_new):
        return Verdict(Code.NO_AUTHORITY, rule, f"Site {site} has no right to edit it: {rule.value}.")
    if term.counter < held.counter:
        return Verdict(Code.STALE_TERM, rule, f"It was edited under term {term.counter}; term {held.counter} is now.")
    if term != held:
        return Verdict(Code.NO_AUTHORITY, rule, f"It was edited under a term that was never given to site {site}.")
    return None


def rights_of_owner(site: int, owner: Owner, topology: Topology) -> Term | None:
    """The term under which a site holds one right, or None. The same verdict as `rights_of`, without listing."""
    if owner.right in RIGHTS_PER_STORE:
        copy = topology.copies.get((owner.key, site))
        return copy.term if copy is not None and copy.type is CopyType.ACTIVE else None
    if owner.right is Right.CENTRAL:
        return topology.primary.term if topology.primary is not None and topology.is_primary(site) else None
    if owner.right is Right.MESSAGE:
        return ANYBODY if site in topology.sites else None
    return None


def is_collected(root: Table, owner: Owner, topology: Topology) -> bool:
    """Whether the central takes a document: not store data of a store of which it has a mere transfer copy, and not
    what a dispensary store leaves out.

    The same question decides at a site whether a change is pushed and at the central whether it is taken.
    """
    if owner.right is not Right.STORE:
        return True
    if root.follows_transactions and topology.withholds_transactions(owner.key):
        return False
    return topology.copy_type(owner.key, CENTRAL_SITE) in (CopyType.ACTIVE, CopyType.COLLECTOR)

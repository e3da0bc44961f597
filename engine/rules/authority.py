"""Law 1: every record has exactly one node that may edit it now. The verdict is a pure function.

The owner of a record is named by (right, key); a node holds some of these rights, each with the term under which it
holds it. A site's triggers read the rights it holds from the table `sync_authority`; the central proves each pushed
document against the same function. Triggers stop mistakes, not malice.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from engine.catalogue.model import Kind, Row, Table
from engine.errors import Code
from engine.rules.topology import CENTRAL_SITE, CopyType, Topology
from engine.rules.versions import Term


class Right(StrEnum):
    """What a node may be allowed to edit."""

    CENTRAL = "central"
    STORE = "store"
    SYNC = "sync"


RIGHT_OF_KIND: Mapping[Kind, Right] = {
    Kind.CENTRAL: Right.CENTRAL,
    Kind.CENTRAL_STORE: Right.CENTRAL,
    Kind.STORE: Right.STORE,
    Kind.SYNC: Right.SYNC,
}


class Owner(NamedTuple):
    """Names the one right that covers a record: the key is the store's id for store data, else empty."""

    right: Right
    key: str = ""


class Rule(StrEnum):
    """The rules that refuse an edit; each name stands in the sentence that a person reads."""

    CENTRAL_DATA_ON_PRIMARY = "central data are edited on the primary only"
    STORE_RECORD_ON_PRIMARY = "store records are edited on the primary only"
    STORE_DATA_WHERE_ACTIVE = "data of a store are edited only at the site where the store is active"
    CONFIGURATION_BY_COMMAND = "sites and copies of stores are changed with central-node commands only"
    ID_REQUIRED = "a record needs an id, a text of 1 to 200 bytes in UTF-8"
    ID_IMMUTABLE = "the id of a record cannot change; delete the record and insert another"
    ID_USED = "the id belongs to a record of another document or store, deleted or not; use a new id"
    STORE_IMMUTABLE = "a record cannot move to another store; delete it and insert another"
    PARENT_IMMUTABLE = "a line cannot move to another document; delete it and insert another"
    PARENT_REQUIRED = "a line needs its document in the same database; insert the document first"
    FINAL_IS_FINAL = "a final document and its lines no longer change, and it stays final"
    FINALISE_LAST = "a new document cannot be final yet; add the lines first, finalise last"
    VALUE_VALID = "a value does not fit its column"

    @property
    def text(self) -> str:
        """The sentence with the rule's name, as triggers raise it."""
        return f"Packhorse: {self.value} (rule {self.name})."


RULE_OF_KIND: Mapping[Kind, Rule] = {
    Kind.CENTRAL: Rule.CENTRAL_DATA_ON_PRIMARY,
    Kind.CENTRAL_STORE: Rule.STORE_RECORD_ON_PRIMARY,
    Kind.STORE: Rule.STORE_DATA_WHERE_ACTIVE,
    Kind.SYNC: Rule.CONFIGURATION_BY_COMMAND,
}


def owner_of(root: Table, row: Row) -> Owner:
    """The owner of the document whose root record is `row`."""
    right = RIGHT_OF_KIND[root.kind]
    return Owner(right, str(root.value(row, root.store_column))) if right is Right.STORE else Owner(right)


def rights_of(site: int, topology: Topology) -> dict[Owner, Term]:
    """Every right that a site holds now, with its term."""
    held: dict[Owner, Term] = {
        Owner(Right.STORE, copy.store_id): copy.term
        for copy in topology.copies_at(site)
        if copy.type is CopyType.ACTIVE
    }
    primary = topology.primary
    if primary is not None and primary.number == site:
        held[Owner(Right.CENTRAL)] = primary.term
    return held


class Verdict(NamedTuple):
    """Why an edit is refused."""

    code: Code
    rule: Rule
    says: str


def judge(site: int, root: Table, owner: Owner, term: Term, topology: Topology) -> Verdict | None:
    """Whether `site` may have made, under `term`, the edit of a document that `owner` covers. None: it may.

    The rights of kind sync are the central's own and are never pushed by anybody.
    """
    rule = RULE_OF_KIND[root.kind]
    held = rights_of_owner(site, owner, topology)
    if held is None:
        return Verdict(Code.NO_AUTHORITY, rule, f"Site {site} has no right to edit it: {rule.value}.")
    if term.counter < held.counter:
        return Verdict(Code.STALE_TERM, rule, f"It was edited under term {term.counter}; term {held.counter} is now.")
    if term != held:
        return Verdict(Code.NO_AUTHORITY, rule, f"It was edited under a term that was never given to site {site}.")
    return None


def rights_of_owner(site: int, owner: Owner, topology: Topology) -> Term | None:
    """The term under which a site holds one right, or None. The same verdict as `rights_of`, without listing."""
    if owner.right is Right.STORE:
        copy = topology.copies.get((owner.key, site))
        return copy.term if copy is not None and copy.type is CopyType.ACTIVE else None
    if owner.right is Right.CENTRAL:
        primary = topology.primary
        return primary.term if primary is not None and primary.number == site else None
    return None


def is_collected(owner: Owner, topology: Topology) -> bool:
    """Whether the central takes the data that `owner` covers: not of a store of which it has a mere transfer copy.

    The same question decides at a site whether a change is pushed and at the central whether it is taken.
    """
    if owner.right is not Right.STORE:
        return True
    return topology.copy_type(owner.key, CENTRAL_SITE) in (CopyType.ACTIVE, CopyType.COLLECTOR)

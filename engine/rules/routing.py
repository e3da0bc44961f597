"""Which scopes a document is in, and which scopes a site follows. Two tables, to be read beside the specification.

What is in a scope:

| scope          | documents                                                                                       |
|----------------|-------------------------------------------------------------------------------------------------|
| site/N         | the site, its copies of stores, the central's copies of the stores that are active at N         |
| central        | kind central, but for dispensary data                                                           |
| dispensary     | kind central: dispensary data                                                                   |
| store-record/S | the store record of S                                                                           |
| store-config/S | kind central store about S: preferences, visibility                                             |
| store/S        | kind store of S, unless S is a dispensary that leaves its transactions out                      |
| patients/S     | kind patient: those whose home store is S, and those that are visible in S; so prescribers/S    |
| messages/S     | kind message: sent from S or to S                                                               |

Who follows it is `FOLLOWERS`. Members always have the scopes of their root. The central holds everything that reaches
it and follows nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum

from engine.catalogue.model import Kind, Row, Table
from engine.rules.topology import CENTRAL_SITE, CopyType, Topology

CENTRAL_SCOPE = "central"
DISPENSARY_SCOPE = "dispensary"
STORE_RECORD = "store-record"
STORE_CONFIG = "store-config"
STORE = "store"
PATIENTS = "patients"
PRESCRIBERS = "prescribers"
MESSAGES = "messages"


class Relation(StrEnum):
    """What a site is to a scope."""

    ANY = "any site"
    DISPENSARY = "a dispensary store is active there"
    PRIMARY = "primary"
    ACTIVE = "active"
    COLLECTOR = "collector"
    TRANSFER = "transfer"


FOLLOWERS: Mapping[str, frozenset[Relation]] = {
    CENTRAL_SCOPE: frozenset((Relation.ANY,)),
    DISPENSARY_SCOPE: frozenset((Relation.DISPENSARY, Relation.PRIMARY)),
    STORE_RECORD: frozenset((Relation.ACTIVE, Relation.COLLECTOR, Relation.TRANSFER, Relation.PRIMARY)),
    STORE_CONFIG: frozenset((Relation.ACTIVE, Relation.PRIMARY)),
    STORE: frozenset((Relation.ACTIVE, Relation.COLLECTOR)),
    PATIENTS: frozenset((Relation.ACTIVE, Relation.COLLECTOR, Relation.PRIMARY)),
    PRESCRIBERS: frozenset((Relation.ACTIVE, Relation.COLLECTOR, Relation.PRIMARY)),
    MESSAGES: frozenset((Relation.ACTIVE,)),
}
"""Family of scopes -> who follows it; of a family per store: by their copy of that store. The essential first."""

_RELATION_OF_COPY: Mapping[CopyType, Relation] = {
    CopyType.ACTIVE: Relation.ACTIVE,
    CopyType.COLLECTOR: Relation.COLLECTOR,
    CopyType.TRANSFER: Relation.TRANSFER,
}


def site_scope(site: int) -> str:
    """The scope of a site's own configuration."""
    return f"site/{site}"


def scopes_of(root: Table, row: Row, topology: Topology, visible_in: Collection[str] = ()) -> tuple[str, ...]:
    """The scopes of the document whose root record is `row`, each once.

    Empty where the document goes nowhere: local data, a message without stores, transactions that a dispensary store
    leaves out.

    Args:
        root: the root's table.
        row: the root record.
        topology: as it is now.
        visible_in: ids of the stores in which the record is visible, for a root of kind patient.
    """
    match root.kind:
        case Kind.CENTRAL:
            return (DISPENSARY_SCOPE if root.is_dispensary_data else CENTRAL_SCOPE,)
        case Kind.CENTRAL_STORE:
            return (f"{STORE_RECORD if root.is_store_record else STORE_CONFIG}/{_store(root, row)}",)
        case Kind.STORE:
            store = _store(root, row)
            withheld = root.follows_transactions and topology.withholds_transactions(store)
            return () if withheld else (f"{STORE}/{store}",)
        case Kind.PATIENT:
            stores = dict.fromkeys((_store(root, row), *sorted(visible_in)))
            return tuple(f"{root.scope_family}/{store}" for store in stores if store)
        case Kind.MESSAGE:
            stores = dict.fromkeys((_store(root, row), str(root.value(row, root.receiving_store_column))))
            return tuple(f"{MESSAGES}/{store}" for store in stores if store)
        case Kind.SYNC:
            return _scopes_of_configuration(root, row, topology)
        case Kind.LOCAL:
            return ()


def _store(root: Table, row: Row) -> str:
    return str(root.value(row, root.store_column))


def _scopes_of_configuration(root: Table, row: Row, topology: Topology) -> tuple[str, ...]:
    if "site" not in root.index:
        return (site_scope(int(str(row[0]))),)
    site = int(str(root.value(row, "site")))
    if "store_id" not in root.index:
        return (site_scope(site),)
    active = topology.active_copies.get(str(root.value(row, "store_id")))
    if site == CENTRAL_SITE and active is not None and active.site != CENTRAL_SITE:
        return (site_scope(CENTRAL_SITE), site_scope(active.site))
    return (site_scope(site),)


def subscriptions_of(site: int, topology: Topology) -> tuple[str, ...]:
    """The scopes that a site follows, the essential first: configuration, central data, store records, the rest."""
    if site == CENTRAL_SITE or site not in topology.sites:
        return ()
    return (site_scope(site), *_followed(site, topology))


def _followed(site: int, topology: Topology) -> Iterator[str]:
    to_node = {Relation.ANY}
    if topology.has_dispensary(site):
        to_node.add(Relation.DISPENSARY)
    if topology.is_primary(site):
        to_node.add(Relation.PRIMARY)
    to_store = {
        copy.store_id: _RELATION_OF_COPY[copy.type]
        for copy in topology.copies_at(site)
        if copy.type in _RELATION_OF_COPY
    }
    every = sorted({*to_store, *topology.stores}) if topology.is_primary(site) else sorted(to_store)
    for family, followers in FOLLOWERS.items():
        if family in (CENTRAL_SCOPE, DISPENSARY_SCOPE):
            if followers & to_node:
                yield family
            continue
        for store in every:
            if followers & to_node or to_store.get(store) in followers:
                yield f"{family}/{store}"

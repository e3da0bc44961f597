"""Which copies of stores there may be, and which come and go by themselves (specification, "Store sync-with options").

| copy at a site | the store is visible to one active there | it is visible to none |
|----------------|------------------------------------------|-----------------------|
| active         | stays                                    | stays                 |
| collector      | stays                                    | none                  |
| transfer       | stays                                    | none                  |
| none           | transfer                                 | stays                 |

*Visible at a site* means: visible to *another* store that is active there. The central and the primary hold at least a
transfer copy of every store, whatever is visible there. Because the rule looks at the present state, a person can only
choose between collector and transfer where a store is visible, and neither where it is not.
"""

from enum import StrEnum
from typing import NamedTuple

from engine.errors import Code
from engine.rules.topology import CENTRAL_SITE, CopyType, Topology


class SyncWith(StrEnum):
    """What a person chooses for a store and a site. Where the store is active cannot be chosen here."""

    NONE = "none"
    ACTIVE_COLLECTOR = "active-collector"
    TRANSFER = "transfer"

    @classmethod
    def of(cls, copy: CopyType) -> "SyncWith":
        """The same fact as the option that a person sees."""
        return {CopyType.NONE: cls.NONE, CopyType.TRANSFER: cls.TRANSFER}.get(copy, cls.ACTIVE_COLLECTOR)


class Refusal(NamedTuple):
    """Why a change of a copy is refused."""

    code: Code
    says: str


def holds_every_store(site: int, topology: Topology) -> bool:
    """Whether the site has a copy of every store: the central and the primary."""
    return site == CENTRAL_SITE or topology.is_primary(site)


def automatic_copy(current: CopyType, is_visible: bool, holds_every: bool) -> CopyType:
    """What a copy becomes by itself; see the table above.

    Args:
        current: what the site holds of the store now.
        is_visible: the store is visible to another store that is active at the site.
        holds_every: the site is the central or the primary.
    """
    if current is CopyType.ACTIVE:
        return current
    if holds_every or is_visible:
        return CopyType.TRANSFER if current is CopyType.NONE else current
    return CopyType.NONE


def judge_sync_with(
    store: str, site: int, wanted: SyncWith, is_visible: bool, topology: Topology
) -> CopyType | Refusal:
    """What the site will hold when a person chooses `wanted` for a store, or why that cannot be.

    Args:
        store: id of the store.
        site: number of a known site.
        wanted: the choice.
        is_visible: the store is visible to another store that is active at the site.
        topology: as it is now.
    """
    current, holds_every = topology.copy_type(store, site), holds_every_store(site, topology)
    if current is CopyType.ACTIVE:
        if wanted is SyncWith.ACTIVE_COLLECTOR:
            return current
        says = f"Store {store} is active at site {site}; make it active elsewhere first."
        return Refusal(Code.STORE_ACTIVE_THERE, says)
    if wanted is SyncWith.NONE and (holds_every or is_visible):
        if holds_every:
            says = f"Site {site} is the central or the primary, which hold at least a transfer copy of every store."
            return Refusal(Code.COPY_REQUIRED, says)
        says = f"Store {store} is visible to a store that is active at site {site}; take that visibility away instead."
        return Refusal(Code.COPY_REQUIRED, says)
    if wanted is not SyncWith.NONE and not (holds_every or is_visible):
        says = f"Store {store} is not visible to any other store that is active at site {site}."
        return Refusal(Code.NOT_VISIBLE, says)
    return {
        SyncWith.NONE: CopyType.NONE,
        SyncWith.TRANSFER: CopyType.TRANSFER,
        SyncWith.ACTIVE_COLLECTOR: CopyType.COLLECTOR,
    }[wanted]


def topology_faults(topology: Topology) -> list[Refusal]:
    """What is wrong with a topology as a whole; a change that leaves a fault behind is refused.

    Checked: one active copy at most per store, and a copy of every store at the central and at the primary. Whether
    collectors are visible is `judge_sync_with`'s question, because visibility is no part of the topology.
    """
    faults = []
    active: dict[str, int] = {}
    for copy in topology.copies.values():
        if copy.type is not CopyType.ACTIVE:
            continue
        if copy.store_id in active:
            says = f"Store {copy.store_id} would be active at the sites {active[copy.store_id]} and {copy.site}."
            faults.append(Refusal(Code.STORE_ACTIVE_THERE, says))
        active[copy.store_id] = copy.site
    for site in topology.sites:
        if holds_every_store(site, topology):
            faults += [
                Refusal(Code.COPY_REQUIRED, f"Site {site} would have no copy of store {store}.")
                for store in topology.stores
                if topology.copy_type(store, site) is CopyType.NONE
            ]
    return faults

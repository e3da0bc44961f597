"""Sites, stores and the copies of stores that sites hold: one row per (store, site), changed on the central node only.

*Sync type* and *sync-with* of the specification are two views of this one fact. A site knows the part of it that
concerns itself; the central knows all of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from engine.rules.versions import Term

CENTRAL_SITE = 1
"""The central node's own site number."""


CONFIGURATION_TABLES = frozenset(("site", "store_copy"))
"""The tables of kind sync that make up the topology: written by commands, which check the whole."""


class CopyType(StrEnum):
    """What a site holds of a store."""

    ACTIVE = "active"
    COLLECTOR = "collector"
    TRANSFER = "transfer"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Site:
    """One node. `term` is the primary's term, (0, 0) elsewhere."""

    number: int
    name: str
    is_primary: bool = False
    term: Term = Term()


@dataclass(frozen=True, slots=True)
class Store:
    """A store as far as synchronisation asks: its name record, by which it is visible, and whether it dispenses."""

    id: str
    name_id: str = ""
    is_dispensary: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of a store at a site. `term` and `excludes_transactions` are those of the active copy."""

    store_id: str
    site: int
    type: CopyType
    term: Term = Term()
    excludes_transactions: bool = False
    """"Include transactions in sync" is off; without effect on a store that is no dispensary."""


@dataclass(frozen=True)
class Topology:
    """All sites, copies and stores that a node knows."""

    sites: Mapping[int, Site]
    copies: Mapping[tuple[str, int], Copy]
    stores: Mapping[str, Store] = field(default_factory=dict)

    @classmethod
    def of(cls, sites: Iterable[Site], copies: Iterable[Copy], stores: Iterable[Store] = ()) -> "Topology":
        """Builds the lookup tables."""
        return cls(
            {site.number: site for site in sites},
            {(copy.store_id, copy.site): copy for copy in copies},
            {store.id: store for store in stores},
        )

    def copy_type(self, store_id: str, site: int) -> CopyType:
        """What the site holds of the store."""
        copy = self.copies.get((store_id, site))
        return copy.type if copy else CopyType.NONE

    @cached_property
    def active_copies(self) -> Mapping[str, Copy]:
        """Store id -> its active copy."""
        return {copy.store_id: copy for copy in self.copies.values() if copy.type is CopyType.ACTIVE}

    def copies_at(self, site: int) -> tuple[Copy, ...]:
        """The copies that a site holds, in the order of the store ids."""
        return self._copies_by_site.get(site, ())

    @cached_property
    def _copies_by_site(self) -> Mapping[int, tuple[Copy, ...]]:
        found: dict[int, list[Copy]] = {}
        for copy in sorted(self.copies.values(), key=lambda copy: copy.store_id):
            found.setdefault(copy.site, []).append(copy)
        return {site: tuple(copies) for site, copies in found.items()}

    @cached_property
    def primary(self) -> Site | None:
        """The site on which central data are edited, where this node knows it."""
        return next((site for site in self.sites.values() if site.is_primary), None)

    def is_primary(self, site: int) -> bool:
        """Whether central data are edited at this site."""
        return self.primary is not None and self.primary.number == site

    def is_dispensary(self, store_id: str) -> bool:
        """Whether the store dispenses to patients."""
        store = self.stores.get(store_id)
        return store is not None and store.is_dispensary

    def has_dispensary(self, site: int) -> bool:
        """Whether at least one dispensary store is active at the site."""
        return any(copy.type is CopyType.ACTIVE and self.is_dispensary(copy.store_id) for copy in self.copies_at(site))

    def withholds_transactions(self, store_id: str) -> bool:
        """Whether the store's transactions and stock stay at the site where it is active: a dispensary store with
        "include transactions in sync" off (specification, "Dispensary data")."""
        active = self.active_copies.get(store_id)
        return active is not None and active.excludes_transactions and self.is_dispensary(store_id)

"""Sites and the copies of stores that they hold: one row per (store, site), changed on the central node only.

*Sync type* and *sync-with* of the specification are two views of this one fact. A site knows the part of it that
concerns itself; the central knows all of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from engine.rules.versions import Term

CENTRAL_SITE = 1
"""The central node's own site number."""


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
class Copy:
    """The copy of a store at a site. `term` is that of the active copy, (0, 0) elsewhere."""

    store_id: str
    site: int
    type: CopyType
    term: Term = Term()


@dataclass(frozen=True)
class Topology:
    """All sites and copies that a node knows."""

    sites: Mapping[int, Site]
    copies: Mapping[tuple[str, int], Copy]

    @classmethod
    def of(cls, sites: Iterable[Site], copies: Iterable[Copy]) -> "Topology":
        """Builds the lookup tables."""
        return cls({site.number: site for site in sites}, {(copy.store_id, copy.site): copy for copy in copies})

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

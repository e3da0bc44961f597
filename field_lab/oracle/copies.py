"""Which copies of stores there are, from the specification's "Store sync-with options".

A store becomes *transfer* by itself at a site where it becomes visible to another store that is active there, and
*none* where it is visible to no such store any more. A collector needs one. The central and the primary hold every
store.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

Pair = tuple[str, int]
"""(store, site)."""
TYPES = ("active", "collector", "transfer", "none")
_WAYS = ("by visibility", "by activity")
AUTOMATIC_RULES = (
    *(f"a copy that is {copy} {what}, {way}" for copy in TYPES[:3] for what in ("gains", "loses") for way in _WAYS),
    *(f"a copy that is none gains, {way}" for way in _WAYS),
    "a new store comes to a node that holds every store",
    "a node that holds every store keeps what is visible to nobody",
)
"""*Gains*: the store becomes visible to one more store that is active there. *Loses*: it was visible to one, and is to
none. *By visibility*: a record of visibility came or went. *By activity*: a store was made active there or
elsewhere."""


class Copies(NamedTuple):
    """The copies of stores in a country and what they follow from."""

    types: Mapping[Pair, str]
    """Those that are not none."""
    seen_in: Mapping[str, frozenset[str]]
    """Store -> the other stores in which it is visible."""
    stores: frozenset[str]
    sites: frozenset[int]
    holding_all: frozenset[int]
    """The central and the primary."""

    def type_at(self, store: str, site: int) -> str:
        """One of `TYPES`."""
        return self.types.get((store, site), "none")

    def viewers(self, store: str, site: int) -> frozenset[str]:
        """The other stores active at a site in which a store is visible."""
        seen = self.seen_in.get(store, frozenset())
        return frozenset(other for other in seen if self.types.get((other, site)) == "active")


def automatic(copy: str, is_seen: bool, holds_all: bool) -> str:
    """What a copy becomes by itself."""
    if copy == "active":
        return "active"
    if is_seen or holds_all:
        return "transfer" if copy == "none" else copy
    return "none"


def may_choose(copies: Copies, store: str, site: int, wanted: str) -> bool:
    """Whether a person may set "sync with" of a store for a site to none, transfer or active-collector."""
    kept = bool(copies.viewers(store, site)) or site in copies.holding_all
    if copies.type_at(store, site) == "active":
        return wanted == "active-collector"
    return not kept if wanted == "none" else kept


def faults(before: Copies, chosen: Mapping[Pair, str], after: Copies) -> Iterator[str]:
    """What of the copies is not as it must be after a change.

    Args:
        before: as they were when nothing was under way.
        chosen: what people chose since then.
        after: as they are, with nothing under way again.
    """
    for store in sorted(after.stores):
        for site in sorted(after.sites):
            was = chosen.get((store, site), before.type_at(store, site))
            expected = automatic(was, bool(after.viewers(store, site)), site in after.holding_all)
            found = after.type_at(store, site)
            if found != expected:
                yield f"{store} at {site} was {was} and is {found} instead of {expected}"
        active = [site for site in after.sites if after.type_at(store, site) == "active"]
        if len(active) > 1:
            yield f"{store} is active at {active}"


def rules_applied(before: Copies, chosen: Mapping[Pair, str], after: Copies) -> Iterator[str]:
    """Which of AUTOMATIC_RULES a change has brought into play, once for each store and site."""
    between = before._replace(seen_in=after.seen_in)
    for store in after.stores:
        for site in after.sites:
            had, has = before.viewers(store, site), after.viewers(store, site)
            if site in after.holding_all:
                if store not in before.stores and after.type_at(store, site) == "transfer":
                    yield "a new store comes to a node that holds every store"
                if had and not has and after.type_at(store, site) in ("collector", "transfer"):
                    yield "a node that holds every store keeps what is visible to nobody"
                continue
            if not (has - had) and not (had and not has):
                continue
            was, what = chosen.get((store, site), before.type_at(store, site)), "loses" if has < had else "gains"
            way = "by visibility" if between.viewers(store, site) != had else "by activity"
            yield f"a copy that is {was} {what}, {way}"

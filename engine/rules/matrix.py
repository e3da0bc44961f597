"""The rules as a matrix: for each kind of record and each relation of a site to it, who edits and who receives.

Nothing is decided here: every cell is asked of `may_edit`, `scopes_of` and `subscriptions_of` in a small country in
which one site stands in exactly that relation to the record. Documentation and tests read the same cells.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from engine.catalogue.model import Catalogue, Kind, Row, Table
from engine.rules.authority import is_collected, may_edit, owner_of, rights_of_owner
from engine.rules.routing import scopes_of, subscriptions_of
from engine.rules.topology import CENTRAL_SITE, Copy, CopyType, Site, Store, Topology
from engine.rules.versions import Term

OWNER_SITE, EXAMINED_SITE = 2, 9
RECORD_STORE, OTHER_STORE = "record", "other"
_TERM = Term(1, 1)


class Relation(StrEnum):
    """What the examined site is to the record."""

    PRIMARY = "primary"
    CENTRAL = "central"
    ACTIVE = "active"
    COLLECTOR = "collector"
    TRANSFER = "transfer"
    NONE = "none"
    HOME = "home"
    VISIBLE = "visible"
    DISPENSARY = "dispensary"


class Cell(NamedTuple):
    """What the examined site may do with the record, and whether it gets it from somebody else."""

    edits: bool
    receives: bool

    @property
    def text(self) -> str:
        """For a person."""
        return "edits" if self.edits else "receives" if self.receives else "-"


def country(relation: Relation, withholds: bool = False) -> Topology:
    """A country in which one site stands in this relation to the store `record` and to nothing else.

    The site is `EXAMINED_SITE`, or the central. The store is active at `OWNER_SITE` unless the relation says otherwise;
    the store `other` is active at the examined site where the relation is to be visible there or a dispensary.
    `withholds`: the store is a dispensary that leaves its transactions out.
    """
    is_home = relation in (Relation.ACTIVE, Relation.HOME)
    active_at = EXAMINED_SITE if is_home else OWNER_SITE
    # The central as such is examined where it is not the primary.
    primary = {Relation.PRIMARY: EXAMINED_SITE, Relation.CENTRAL: OWNER_SITE}.get(relation, CENTRAL_SITE)
    sites = [
        Site(number, name, number == primary, _TERM if number == primary else Term())
        for number, name in ((CENTRAL_SITE, "central"), (OWNER_SITE, "owner"), (EXAMINED_SITE, "examined"))
    ]
    copies = [
        Copy(RECORD_STORE, CENTRAL_SITE, CopyType.COLLECTOR),
        Copy(RECORD_STORE, active_at, CopyType.ACTIVE, _TERM, withholds),
        Copy(OTHER_STORE, CENTRAL_SITE, CopyType.TRANSFER),
    ]
    if relation in (Relation.COLLECTOR, Relation.TRANSFER):
        copies.append(Copy(RECORD_STORE, EXAMINED_SITE, CopyType(relation.value)))
    if relation is Relation.PRIMARY:
        copies += [Copy(store, EXAMINED_SITE, CopyType.TRANSFER) for store in (RECORD_STORE, OTHER_STORE)]
    if relation in (Relation.VISIBLE, Relation.DISPENSARY):
        copies.append(Copy(OTHER_STORE, EXAMINED_SITE, CopyType.ACTIVE, _TERM))
    stores = [
        Store(RECORD_STORE, RECORD_STORE, withholds),
        Store(OTHER_STORE, OTHER_STORE, relation is Relation.DISPENSARY),
    ]
    return Topology.of(sites, copies, stores)


def example(root: Table) -> Row:
    """A root record of a table that belongs to the store `record`; what has no store of its own is about the owner."""
    values = {column.name: column.default for column in root.columns}
    values["id"] = RECORD_STORE
    if root.store_column:
        values[root.store_column] = RECORD_STORE
    if root.kind is Kind.SYNC:
        values |= {"id": f"{RECORD_STORE}@{OWNER_SITE}" if "site" in root.index else str(OWNER_SITE)}
        values |= {name: value for name, value in (("site", OWNER_SITE), ("store_id", RECORD_STORE)) if name in values}
    return tuple(values[name] for name in root.column_names)


def cell(root: Table, relation: Relation, withholds: bool = False) -> Cell:
    """What the site in that relation may do with a record of a root table, and whether it receives it."""
    topology, row = country(relation, withholds), example(root)
    site = CENTRAL_SITE if relation is Relation.CENTRAL else EXAMINED_SITE
    owner = owner_of(root, row)
    term = rights_of_owner(site, owner, topology) or Term()
    edits = root.kind is Kind.LOCAL or may_edit(site, root, owner, term, topology) is None
    if root.kind is Kind.SYNC:
        edits = site == CENTRAL_SITE
    visible_in = (OTHER_STORE,) if relation is Relation.VISIBLE else ()
    scopes = scopes_of(root, row, topology, visible_in)
    if site == CENTRAL_SITE:
        receives = root.travels and is_collected(root, owner, topology) and bool(scopes)
    else:
        receives = bool(set(scopes) & set(subscriptions_of(site, topology)))
    return Cell(edits, receives)


def matrix(catalogue: Catalogue) -> Mapping[str, Mapping[Relation, Cell]]:
    """Root table -> relation -> cell, for every root table of the catalogue."""
    return {
        table.name: {relation: cell(table, relation) for relation in Relation}
        for table in catalogue.tables.values()
        if not table.parent
    }


def matrix_table(catalogue: Catalogue) -> str:
    """The matrix in Markdown: tables that behave alike share a row."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, cells in matrix(catalogue).items():
        alike.setdefault((_kind(catalogue[name]), *(cells[relation].text for relation in Relation)), []).append(name)
    head = ["| kind | " + " | ".join(Relation) + " | tables |", "|---" * (len(Relation) + 2) + "|"]
    return "\n".join([*head, *(_line(cells, names) for cells, names in sorted(alike.items()))])


def _line(cells: Iterable[str], names: list[str]) -> str:
    return f"| {' | '.join(cells)} | {', '.join(sorted(names))} |"


def _kind(table: Table) -> str:
    special = " (dispensary data)" if table.is_dispensary_data else " (store record)" if table.is_store_record else ""
    return table.kind.value.replace("_", " ") + special

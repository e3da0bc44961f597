"""Whoever receives a record receives the records that it requires (F26), whatever the topology is."""

from collections.abc import Iterator
from itertools import product

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Kind, Row, Table
from engine.rules.routing import scopes_of, subscriptions_of
from engine.rules.topology import Copy, CopyType, Site, Topology

SITES = (1, 2, 3)
STORE, OTHER = "s", "t"


def layouts(store: str) -> Iterator[tuple[Copy, ...]]:
    """Every way to spread the copies of a store over the sites, with one active copy at most."""
    for types in product(CopyType, repeat=len(SITES)):
        if types.count(CopyType.ACTIVE) <= 1:
            yield tuple(
                Copy(store, site, kind) for site, kind in zip(SITES, types, strict=True) if kind is not CopyType.NONE
            )


def topologies() -> Iterator[Topology]:
    others = [
        (),
        (Copy(OTHER, 1, CopyType.COLLECTOR), Copy(OTHER, 2, CopyType.ACTIVE), Copy(OTHER, 3, CopyType.TRANSFER)),
    ]
    for primary, copies, other in product((1, 2), layouts(STORE), others):
        sites = [Site(number, str(number), is_primary=number == primary) for number in SITES]
        yield Topology.of(sites, [*copies, *other])


def row_of(table: Table, **values: str | int) -> Row:
    return tuple(values.get(column.name, column.default) for column in table.columns)


def row_about_the_store(root: Table) -> Row:
    return row_of(root, **{"id": STORE, "store_id": STORE, root.store_column or "id": STORE})


def documents(root: Table, topology: Topology) -> Iterator[Row]:
    """Root records of a table about the store, as many as differ in their routing."""
    match root.name:
        case "site" | "dashboard_report":
            yield from (row_of(root, id=str(number), site=number) for number in SITES)
        case "store_copy":
            for copy in topology.copies.values():
                if copy.store_id == STORE:
                    yield row_of(root, id=f"{STORE}@{copy.site}", store_id=STORE, site=copy.site, type=copy.type.value)
        case _:
            yield row_about_the_store(root)


def receivers(root: Table, row: Row, topology: Topology) -> set[int]:
    """The sites that follow a scope of the document; the central, which has everything, is not counted."""
    scopes = set(scopes_of(root, row, topology))
    assert scopes
    return {site for site in SITES if scopes & set(subscriptions_of(site, topology))}


def test_f26_required_references_are_closed_under_routing() -> None:
    compared = 0
    for topology in topologies():
        for table in catalogue().synchronised:
            root = catalogue().root_of(table)
            required = [catalogue()[column.refers_to] for column in table.references if column.required]
            for row, needed in product(documents(root, topology), required):
                if needed is root and table is not root:
                    continue  # a line and its document are one
                there = receivers(root, row, topology)
                missing = there - receivers(needed, row_about_the_store(needed), topology)
                assert not missing, f"{table.name} needs {needed.name} at {missing}: {topology.copies}"
                compared += len(there)
    assert compared > 1_000


def test_members_require_their_document() -> None:
    for table in catalogue():
        if table.parent:
            assert table.column(table.parent_column).required
            assert table.kind is catalogue().root_of(table).kind


def test_f26_required_references_come_first_and_have_no_cycle() -> None:
    for table in catalogue():
        for column in table.references:
            if column.required:  # never to its own table either: two records could wait for each other
                assert catalogue().order[column.refers_to] < catalogue().order[table.name]


def test_records_about_a_store_require_its_record() -> None:
    for table in catalogue():
        if table.kind is Kind.STORE and not table.parent:
            column = table.column(table.store_column)
            assert (column.refers_to, column.required) == ("store", True)

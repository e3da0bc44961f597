"""Who edits and who receives, in every relation: the cells as the specification has them, beside what the rules say."""

import pytest

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Kind, Table
from engine.rules.matrix import Cell, Relation, cell, matrix

E, R, N = Cell(True, True), Cell(False, True), Cell(False, False)
"""Edits (and, as the owner, has what it edited), receives, nothing."""
ORDER = (
    Relation.PRIMARY, Relation.CENTRAL, Relation.ACTIVE, Relation.COLLECTOR, Relation.TRANSFER, Relation.NONE,
    Relation.HOME, Relation.VISIBLE, Relation.DISPENSARY,
)  # fmt: skip
SPECIFICATION: dict[str, tuple[Cell, ...]] = {
    # "edited or imported on the primary server, and changes are synced to all sites"
    "central": (E, R, R, R, R, R, R, R, R),
    # "editable on the primary, but only synced to sites having at least one active dispensary store"
    "dispensary data": (E, R, N, N, N, N, N, N, R),
    # "to any other sync sites where 'syncs with' is not None"; all stores exist on the primary and the central
    "store record": (E, R, R, R, R, N, R, N, N),
    # "edited on the primary server, but changes are only synced to the site where the store is active"
    "central store": (E, R, R, N, N, N, R, N, N),
    # "edited on the sync site where the store is active, and only synced to any site where it is a collector"
    "store": (N, R, E, R, N, N, E, N, N),
    # "edited on the sync site where its home store is active ... synced to any site where the patient is visible", to
    # "any other site which has an active/collector store in which the patient is visible", and to the primary
    "patient": (R, R, E, R, N, N, E, R, N),
    # "edited on any site and syncs according to the sending/receiving store"
    "message": (Cell(True, False), E, E, *[Cell(True, False)] * 3, E, *[Cell(True, False)] * 2),
    # "edited on any site but doesn't sync anywhere"
    "local": (Cell(True, False),) * 9,
    # "edited on the central server but doesn't directly sync anywhere": the site that it configures learns of it
    "sync": (N, E, N, N, N, N, N, N, N),
}


def row_of(table: Table) -> str:
    if table.is_store_record:
        return "store record"
    if table.is_dispensary_data:
        return "dispensary data"
    return table.kind.value.replace("_", " ")


ROOTS = [table for table in catalogue().tables.values() if not table.parent]


@pytest.mark.parametrize("root", ROOTS, ids=lambda table: table.name)
def test_every_cell_is_as_the_specification_says(root: Table) -> None:
    expected = dict(zip(ORDER, SPECIFICATION[row_of(root)], strict=True))
    found = matrix(catalogue())[root.name]
    if root.kind is Kind.SYNC:  # who is told of a configuration is not a question of copies
        assert {relation: found[relation].edits for relation in Relation} == {
            relation: expected[relation].edits for relation in Relation
        }
        return
    assert found == expected


@pytest.mark.parametrize("root", [root for root in ROOTS if root.kind is Kind.STORE], ids=lambda table: table.name)
@pytest.mark.parametrize("relation", [Relation.CENTRAL, Relation.COLLECTOR])
def test_a_dispensary_may_leave_its_transactions_out(root: Table, relation: Relation) -> None:
    """Transactions, prescriptions, stock lines and stocktakes stay at the site; everything else of the store goes."""
    assert cell(root, relation, withholds=True).receives == (not root.follows_transactions)


def test_every_kind_and_relation_has_a_verdict() -> None:
    assert set(Relation) == set(ORDER)
    assert {row_of(root) for root in ROOTS} <= set(SPECIFICATION)
    for name, cells in matrix(catalogue()).items():
        assert set(cells) == set(Relation), name

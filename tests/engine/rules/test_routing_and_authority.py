"""Who edits, who receives: the specification's tables as cases."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Kind, Row, RowValue, Table
from engine.errors import Code
from engine.rules.authority import (
    ANYBODY,
    RIGHT_OF_KIND,
    Owner,
    Right,
    Rule,
    is_collected,
    may_edit,
    owner_of,
    rights_of,
    rights_of_owner,
    rule_of,
)
from engine.rules.routing import scopes_of, subscriptions_of
from engine.rules.topology import Copy, CopyType, Site, Store, Topology
from engine.rules.versions import NEVER, Term, Version, next_version

ACTIVE, COLLECTOR, TRANSFER, NONE = CopyType.ACTIVE, CopyType.COLLECTOR, CopyType.TRANSFER, CopyType.NONE
PRIMARY_TERM = Term(2, 22)
COUNTRY = Topology.of(
    [Site(1, "central", True, PRIMARY_TERM), Site(2, "highlands"), Site(3, "coast"), Site(4, "empty")],
    [
        Copy("north", 2, ACTIVE, Term(3, 33)), Copy("north", 1, COLLECTOR), Copy("north", 3, COLLECTOR),
        Copy("south", 3, ACTIVE, Term(1, 11)), Copy("south", 1, TRANSFER), Copy("south", 2, TRANSFER),
        Copy("depot", 1, ACTIVE, Term(5, 55)), Copy("depot", 3, TRANSFER), Copy("depot", 2, NONE),
        Copy("closed", 3, COLLECTOR),
    ],
)  # fmt: skip
"""north: edited at 2, read at 1 and 3. south: edited at 3, not collected. depot: edited at 1. closed: nowhere."""
MIRRORED = Topology.of([Site(1, "central"), Site(2, "ministry", True, Term(4, 44))], [])
NOBODY = Topology.of([], [])

CENTRAL = Owner(Right.CENTRAL)


def store(name: str) -> Owner:
    return Owner(Right.STORE, name)


def row_of(table: Table, **values: RowValue) -> Row:
    return tuple(values.get(column.name, column.default) for column in table.columns)


MESSAGES = {Owner(Right.MESSAGE): ANYBODY}


def active(name: str, term: Term) -> dict[Owner, Term]:
    """The rights that an active copy gives."""
    return {store(name): term, Owner(Right.PATIENT, name): term}


RIGHTS: tuple[tuple[Topology, int, dict[Owner, Term]], ...] = (
    (COUNTRY, 1, {CENTRAL: PRIMARY_TERM} | active("depot", Term(5, 55)) | MESSAGES),
    (COUNTRY, 2, active("north", Term(3, 33)) | MESSAGES),
    (COUNTRY, 3, active("south", Term(1, 11)) | MESSAGES),
    (COUNTRY, 4, MESSAGES),
    (COUNTRY, 9, {}),
    (MIRRORED, 1, MESSAGES),
    (MIRRORED, 2, {CENTRAL: Term(4, 44)} | MESSAGES),
    (NOBODY, 1, {}),
)


@pytest.mark.parametrize(("topology", "site", "rights"), RIGHTS)
def test_rights(topology: Topology, site: int, rights: dict[Owner, Term]) -> None:
    assert rights_of(site, topology) == rights


PASSED = None
VERDICTS: tuple[tuple[int, str, Owner, Term, Code | None], ...] = (
    # site, table, owner, term of the edit -> code
    (2, "invoice", store("north"), Term(3, 33), PASSED),
    (2, "stock_line", store("north"), Term(3, 33), PASSED),
    (2, "invoice", store("north"), Term(2, 33), Code.STALE_TERM),
    (2, "invoice", store("north"), Term(0, 0), Code.STALE_TERM),
    (2, "invoice", store("north"), Term(3, 34), Code.NO_AUTHORITY),
    (2, "invoice", store("north"), Term(4, 33), Code.NO_AUTHORITY),
    (3, "invoice", store("north"), Term(3, 33), Code.NO_AUTHORITY),
    (1, "invoice", store("north"), Term(3, 33), Code.NO_AUTHORITY),
    (2, "invoice", store("south"), Term(1, 11), Code.NO_AUTHORITY),
    (3, "invoice", store("south"), Term(1, 11), PASSED),
    (1, "stocktake", store("depot"), Term(5, 55), PASSED),
    (3, "invoice", store("closed"), Term(0, 0), Code.NO_AUTHORITY),
    (2, "invoice", store("nowhere"), Term(0, 0), Code.NO_AUTHORITY),
    (2, "invoice", store(""), Term(0, 0), Code.NO_AUTHORITY),
    (1, "item", CENTRAL, PRIMARY_TERM, PASSED),
    (1, "store", CENTRAL, PRIMARY_TERM, PASSED),
    (1, "item", CENTRAL, Term(1, 22), Code.STALE_TERM),
    (2, "item", CENTRAL, PRIMARY_TERM, Code.NO_AUTHORITY),
    (2, "store", CENTRAL, PRIMARY_TERM, Code.NO_AUTHORITY),
    (1, "site", Owner(Right.SYNC), Term(1, 1), Code.NO_AUTHORITY),
    (2, "store_copy", Owner(Right.SYNC), Term(1, 1), Code.NO_AUTHORITY),
)


@pytest.mark.parametrize(("site", "table", "owner", "term", "code"), VERDICTS)
def test_verdicts(site: int, table: str, owner: Owner, term: Term, code: Code | None) -> None:
    root = catalogue()[table]
    verdict = may_edit(site, root, owner, term, COUNTRY)
    assert (verdict.code if verdict else None) == code
    if verdict is not None:
        assert verdict.rule is rule_of(root)
        assert verdict.says.endswith(".")


def test_a_refusal_names_the_site_and_the_rule() -> None:
    verdict = may_edit(3, catalogue()["invoice"], store("north"), Term(3, 33), COUNTRY)
    assert verdict is not None
    assert "Site 3" in verdict.says
    assert Rule.STORE_DATA_WHERE_ACTIVE.value in verdict.says


terms = st.builds(Term, st.integers(0, 3), st.integers(0, 2))
stores = st.sampled_from(["north", "south", ""])
numbers = st.integers(1, 3)
topologies = st.builds(
    Topology.of,
    st.lists(st.builds(Site, numbers, st.just("site"), st.booleans(), terms), max_size=3),
    st.lists(st.builds(Copy, stores, numbers, st.sampled_from(CopyType), terms), max_size=6),
)
owners = st.builds(Owner, st.just(Right.STORE), stores) | st.sampled_from([CENTRAL, Owner(Right.SYNC)])


@given(topology=topologies, site=numbers, owner=owners, term=terms)
def test_the_judge_allows_exactly_what_rights_cover(topology: Topology, site: int, owner: Owner, term: Term) -> None:
    table = {Right.STORE: "invoice", Right.CENTRAL: "item", Right.SYNC: "site"}[owner.right]
    held = rights_of(site, topology).get(owner)
    verdict = may_edit(site, catalogue()[table], owner, term, topology)
    assert rights_of_owner(site, owner, topology) == held
    assert (verdict is None) == (held is not None and term == held)
    assert (verdict is not None and verdict.code is Code.STALE_TERM) == (
        held is not None and term.counter < held.counter
    )


@given(topology=topologies, owner=owners, term=terms)
def test_one_site_at_most_may_edit_where_copies_are_in_order(topology: Topology, owner: Owner, term: Term) -> None:
    """Law 1, for topologies with one active copy per store and one primary."""
    copies = {copy.store_id: copy for copy in topology.copies.values() if copy.type is ACTIVE}
    sites = [replace(site, is_primary=site.number == 1) for site in topology.sites.values()]
    ordered = Topology.of(sites, copies.values())
    table = {Right.STORE: "invoice", Right.CENTRAL: "item", Right.SYNC: "site"}[owner.right]
    allowed = [site for site in (1, 2, 3) if may_edit(site, catalogue()[table], owner, term, ordered) is None]
    assert len(allowed) <= 1


OWNERS: tuple[tuple[str, dict[str, RowValue], Owner], ...] = (
    ("unit", {}, CENTRAL),
    ("item", {}, CENTRAL),
    ("name", {}, CENTRAL),
    ("store", {"id": "north"}, CENTRAL),
    ("invoice", {"id": "i", "store_id": "north"}, store("north")),
    ("location", {"id": "l", "store_id": "south"}, store("south")),
    ("site", {"id": "2"}, Owner(Right.SYNC)),
    ("store_copy", {"id": "north@2", "store_id": "north"}, Owner(Right.SYNC)),
)


@pytest.mark.parametrize(("table", "values", "owner"), OWNERS)
def test_owners(table: str, values: dict[str, RowValue], owner: Owner) -> None:
    assert owner_of(catalogue()[table], row_of(catalogue()[table], **values)) == owner


SCOPES: tuple[tuple[str, dict[str, RowValue], tuple[str, ...]], ...] = (
    ("unit", {"id": "u"}, ("central",)),
    ("item", {"id": "i"}, ("central",)),
    ("name", {"id": "n"}, ("central",)),
    ("store", {"id": "north"}, ("store-record/north",)),
    ("location", {"id": "l", "store_id": "north"}, ("store/north",)),
    ("stock_line", {"id": "s", "store_id": "depot"}, ("store/depot",)),
    ("invoice", {"id": "i", "store_id": "south"}, ("store/south",)),
    ("stocktake", {"id": "t", "store_id": "nowhere"}, ("store/nowhere",)),
    ("site", {"id": "1"}, ("site/1",)),
    ("site", {"id": "3"}, ("site/3",)),
    ("store_copy", {"id": "north@2", "store_id": "north", "site": 2}, ("site/2",)),
    ("store_copy", {"id": "north@3", "store_id": "north", "site": 3}, ("site/3",)),
    # The site where a store is active learns from the central's copy whether its data are collected.
    ("store_copy", {"id": "north@1", "store_id": "north", "site": 1}, ("site/1", "site/2")),
    ("store_copy", {"id": "south@1", "store_id": "south", "site": 1}, ("site/1", "site/3")),
    ("store_copy", {"id": "depot@1", "store_id": "depot", "site": 1}, ("site/1",)),
    ("store_copy", {"id": "closed@1", "store_id": "closed", "site": 1}, ("site/1",)),
)


@pytest.mark.parametrize(("table", "values", "scopes"), SCOPES)
def test_scopes(table: str, values: dict[str, RowValue], scopes: tuple[str, ...]) -> None:
    root = catalogue()[table]
    assert scopes_of(root, row_of(root, **values), COUNTRY) == scopes


def test_other_records_about_a_store_are_its_configuration() -> None:
    table = replace(catalogue()["store"], is_store_record=False)
    assert scopes_of(table, row_of(table, id="north"), COUNTRY) == ("store-config/north",)


SUBSCRIPTIONS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (1, ()),
    (2, ("site/2", "central", "store-record/north", "store-record/south", "store-config/north", "store/north",
         "patients/north", "prescribers/north", "messages/north")),
    (3, ("site/3", "central", "store-record/closed", "store-record/depot", "store-record/north", "store-record/south",
         "store-config/south", "store/closed", "store/north", "store/south", "patients/closed", "patients/north",
         "patients/south", "prescribers/closed", "prescribers/north", "prescribers/south", "messages/south")),
    (4, ("site/4", "central")),
    (9, ()),
)  # fmt: skip


@pytest.mark.parametrize(("site", "scopes"), SUBSCRIPTIONS)
def test_subscriptions_the_essential_first(site: int, scopes: tuple[str, ...]) -> None:
    assert subscriptions_of(site, COUNTRY) == scopes


def test_a_site_that_is_the_primary_follows_what_is_about_every_store_and_every_patient() -> None:
    """It edits all central data and none of the stores' own: those come with its copies only."""
    sites = [Site(1, "central"), Site(2, "ministry", True, Term(4, 44)), Site(3, "warehouse")]
    stores = [Store("north", "north"), Store("south", "south")]
    copies = [Copy("north", 2, TRANSFER), Copy("south", 2, TRANSFER), Copy("north", 3, ACTIVE, Term(1, 7))]
    topology = Topology.of(sites, copies, stores)
    assert subscriptions_of(2, topology) == (
        "site/2", "central", "dispensary", "store-record/north", "store-record/south", "store-config/north",
        "store-config/south", "patients/north", "patients/south", "prescribers/north", "prescribers/south",
    )  # fmt: skip
    item, stock = catalogue()["item"], catalogue()["stock_line"]
    refused = may_edit(1, item, CENTRAL, Term(4, 44), topology)
    assert refused is not None and refused.code is Code.NO_AUTHORITY
    assert may_edit(2, item, CENTRAL, Term(4, 44), topology) is None
    assert may_edit(2, stock, store("north"), Term(1, 7), topology) is not None
    assert may_edit(3, stock, store("north"), Term(1, 7), topology) is None


COLLECTED = (
    (store("north"), True),
    (store("depot"), True),
    (store("south"), False),
    (store("closed"), False),
    (store("nowhere"), False),
    (CENTRAL, True),
    (Owner(Right.SYNC), True),
)


@pytest.mark.parametrize(("owner", "collected"), COLLECTED)
def test_what_the_central_takes(owner: Owner, collected: bool) -> None:
    root = catalogue()["invoice" if owner.right is Right.STORE else "item"]
    assert is_collected(root, owner, COUNTRY) == collected


@given(topology=topologies, site=st.integers(2, 3))
def test_a_site_receives_the_store_data_that_it_may_edit(topology: Topology, site: int) -> None:
    followed = subscriptions_of(site, topology)
    assert len(set(followed)) == len(followed)
    edited = [f"store/{owner.key}" for owner in rights_of(site, topology) if owner.right is Right.STORE]
    assert set(edited) <= set(followed) or site not in topology.sites


def test_every_kind_has_a_right_and_a_rule() -> None:
    assert set(RIGHT_OF_KIND) == set(Kind)
    assert {rule_of(table).value for table in catalogue()}
    for rule in Rule:
        assert rule.name in rule.text
        assert rule.value in rule.text
        assert "'" not in rule.text  # it stands in SQL


VERSIONS_IN_ORDER = (NEVER, Version(1, 9, 1), Version(1, 5, 2), Version(2, 0, 1), Version(2, 7, 10))


def test_versions_are_ordered_by_term_and_counter_only() -> None:
    for older, newer in pairwise(VERSIONS_IN_ORDER):
        assert newer.is_newer_than(older)
        assert not older.is_newer_than(newer)
    assert not Version(1, 9, 1).is_newer_than(Version(1, 2, 1))
    assert not Version(1, 2, 1).is_newer_than(Version(1, 9, 1))


@given(last=st.builds(Version, *[st.integers(0, 9)] * 3), term=terms)
def test_the_next_version_counts_on(last: Version, term: Term) -> None:
    given_next = next_version(last, term)
    assert (given_next.term, given_next.term_id, given_next.counter) == (*term, last.counter + 1)
    assert given_next.is_newer_than(last) == (term.counter >= last.term)

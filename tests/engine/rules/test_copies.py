"""Which copies may be chosen, and which come and go by themselves: the specification's sentences as cases."""

from itertools import product

import pytest

from engine.errors import Code
from engine.rules.copies import Refusal, SyncWith, automatic_copy, judge_sync_with, topology_faults
from engine.rules.topology import Copy, CopyType, Site, Store, Topology
from engine.rules.versions import Term

ACTIVE, COLLECTOR, TRANSFER, NONE = CopyType.ACTIVE, CopyType.COLLECTOR, CopyType.TRANSFER, CopyType.NONE
AUTOMATIC: tuple[tuple[CopyType, bool, CopyType], ...] = (
    # copy, visible there -> what it becomes
    (ACTIVE, True, ACTIVE),
    (ACTIVE, False, ACTIVE),
    (COLLECTOR, True, COLLECTOR),
    (COLLECTOR, False, NONE),
    (TRANSFER, True, TRANSFER),
    (TRANSFER, False, NONE),
    (NONE, True, TRANSFER),
    (NONE, False, NONE),
)


@pytest.mark.parametrize(("before", "is_visible", "after"), AUTOMATIC)
def test_copies_follow_visibility(before: CopyType, is_visible: bool, after: CopyType) -> None:
    assert automatic_copy(before, is_visible, holds_every=False) is after


@pytest.mark.parametrize(("before", "is_visible"), list(product(CopyType, (True, False))))
def test_the_central_and_the_primary_keep_a_copy_of_every_store(before: CopyType, is_visible: bool) -> None:
    after = automatic_copy(before, is_visible, holds_every=True)
    assert after is (TRANSFER if before is NONE else before)


@pytest.mark.parametrize(("before", "is_visible", "holds_every"), list(product(CopyType, (True, False), (True, False))))
def test_what_became_by_itself_stays(before: CopyType, is_visible: bool, holds_every: bool) -> None:
    after = automatic_copy(before, is_visible, holds_every)
    assert automatic_copy(after, is_visible, holds_every) is after


SITES = [Site(1, "central"), Site(2, "primary", True, Term(1, 1)), Site(3, "district"), Site(4, "clinic")]
COUNTRY = Topology.of(
    SITES,
    [
        Copy("s", 1, COLLECTOR), Copy("s", 2, TRANSFER), Copy("s", 3, ACTIVE, Term(1, 1)), Copy("s", 4, TRANSFER),
    ],
    [Store("s", "name-s")],
)  # fmt: skip
CHOICES: tuple[tuple[int, SyncWith, bool, CopyType | Code], ...] = (
    # site, choice, visible there -> copy or code
    (3, SyncWith.ACTIVE_COLLECTOR, False, ACTIVE),
    (3, SyncWith.NONE, True, Code.STORE_ACTIVE_THERE),
    (3, SyncWith.TRANSFER, True, Code.STORE_ACTIVE_THERE),
    (4, SyncWith.ACTIVE_COLLECTOR, True, COLLECTOR),
    (4, SyncWith.TRANSFER, True, TRANSFER),
    (4, SyncWith.NONE, True, Code.COPY_REQUIRED),
    (4, SyncWith.ACTIVE_COLLECTOR, False, Code.NOT_VISIBLE),
    (4, SyncWith.TRANSFER, False, Code.NOT_VISIBLE),
    (4, SyncWith.NONE, False, NONE),
    *(
        (site, choice, is_visible, result)
        for site in (1, 2)
        for is_visible in (True, False)
        for choice, result in (
            (SyncWith.ACTIVE_COLLECTOR, COLLECTOR), (SyncWith.TRANSFER, TRANSFER), (SyncWith.NONE, Code.COPY_REQUIRED),
        )
    ),
)  # fmt: skip


@pytest.mark.parametrize(("site", "choice", "is_visible", "result"), CHOICES)
def test_what_can_be_chosen(site: int, choice: SyncWith, is_visible: bool, result: CopyType | Code) -> None:
    judged = judge_sync_with("s", site, choice, is_visible, COUNTRY)
    if isinstance(result, Code):
        assert isinstance(judged, Refusal)
        assert judged.code is result
        assert judged.says.endswith(".")
    else:
        assert judged is result


def test_what_was_chosen_does_not_change_by_itself() -> None:
    for site, choice, is_visible in product((1, 2, 4), SyncWith, (True, False)):
        judged = judge_sync_with("s", site, choice, is_visible, COUNTRY)
        if not isinstance(judged, Refusal):
            assert automatic_copy(judged, is_visible, site in (1, 2)) is judged


@pytest.mark.parametrize("copy", CopyType)
def test_a_copy_is_one_fact_in_two_views(copy: CopyType) -> None:
    expected = {NONE: SyncWith.NONE, TRANSFER: SyncWith.TRANSFER}.get(copy, SyncWith.ACTIVE_COLLECTOR)
    assert SyncWith.of(copy) is expected


def test_a_topology_is_checked_as_a_whole() -> None:
    assert topology_faults(COUNTRY) == []
    twice = Topology.of(SITES, [*COUNTRY.copies.values(), Copy("s", 4, ACTIVE, Term(2, 2))], [Store("s")])
    assert [fault.code for fault in topology_faults(twice)] == [Code.STORE_ACTIVE_THERE]
    for missing in (1, 2):
        fewer = Topology.of(SITES, [c for c in COUNTRY.copies.values() if c.site != missing], [Store("s")])
        assert [fault.code for fault in topology_faults(fewer)] == [Code.COPY_REQUIRED]

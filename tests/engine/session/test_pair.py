"""Two machines and a fake link: what holds for every history (F1, F13, F41, F47, F49)."""

import random
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Code
from engine.limits import ROUNDS
from tests.engine.session.lanes import LARGE, NEED_WHOLE, REQUEUE, WANT
from tests.engine.session.pair import SLOW_KINDS, Pair, World

LAGGING: Final = ("reports frames_loaded", "reports compared", "is noticed", "has moved", "reads", "takes a turn")
PLAIN: Final = ("",)
ALL_TRAITS: Final = ("", "", "", NEED_WHOLE, WANT, REQUEUE, LARGE)
SEEDS = st.integers(0, 1 << 32)
FEW = settings(deadline=None, database=None, max_examples=40)
MANY = settings(deadline=None, database=None, max_examples=120)

calm_worlds = st.builds(
    World,
    stay=st.booleans(),
    window=st.integers(1, 4),
    records_per_frame=st.integers(1, 6),
    edits=st.sampled_from((0, 1, 2, 3, 5, 10, 40)),
    depth=st.integers(0, 3),
    traits=st.sampled_from((PLAIN, ALL_TRAITS)),
    edit=st.sampled_from((0.02, 0.3)),
    publish=st.sampled_from((0.02, 0.3)),
    slow=st.frozensets(st.sampled_from(SLOW_KINDS), max_size=3),
)


@st.composite
def stormy_worlds(draw: st.DrawFn) -> World:
    """Where links are cut, ends crash, and the central is busy."""
    return replace(
        draw(calm_worlds),
        cut=draw(st.sampled_from((0.0, 0.02, 0.2))),
        crash=draw(st.sampled_from((0.0, 0.01, 0.1))),
        drain=draw(st.sampled_from((0.0, 0.01))),
        asks=draw(st.sampled_from((0, 5))),
        busy=draw(st.sampled_from((0.0, 0.1, 0.5))),
    )


@MANY
@given(SEEDS, stormy_worlds(), st.integers(0, 600))
def test_f47_everything_is_carried_exactly_once_through_any_storm(seed: int, world: World, moves: int) -> None:
    """Nothing that was committed goes again, and what does is at most a window: see `SiteEnd.watch_sent`."""
    pair = Pair(seed, world)
    pair.storm(moves)
    pair.calm()
    pair.check_carried()
    assert all(ended.error is None for ended in pair.ended if ended.calm), (
        "a session failed although nothing went wrong"
    )


STEPS = range(120)


@pytest.mark.parametrize("stay", [True, False], ids=["stays", "leaves"])
@pytest.mark.parametrize(
    "how", ["the site crashes", "the central crashes", "a cut that takes all", "a cut that takes less"]
)
@pytest.mark.parametrize("seed", range(2))
def test_either_end_may_restart_at_every_step(seed: int, how: str, stay: bool) -> None:
    """One history after the other, the same but for the step at which it is interrupted."""
    world = World(stay=stay, window=2, records_per_frame=2, edits=12, depth=2, traits=ALL_TRAITS)
    for steps in STEPS:
        pair = Pair(seed, world)
        pair.storm(steps)
        pair.break_now(how, kept=1 if "less" in how else 0)
        pair.storm(steps % 7)
        pair.break_now(how, kept=steps % 3)
        pair.calm()
        pair.check_carried()
        assert all(ended.error is None for ended in pair.ended if ended.calm), f"at step {steps}"


@MANY
@given(SEEDS, calm_worlds, st.integers(0, 300))
def test_no_wake_up_is_lost(seed: int, world: World, moves: int) -> None:
    """F49: what is edited or published at any moment goes out in the session that is open, without another trigger."""
    pair = Pair(seed, world)
    pair.storm(moves)
    pair.calm()
    pair.check_carried()
    assert all(ended.error is None for ended in pair.ended), "a session failed although nothing went wrong"
    assert not world.stay or pair.sessions == 1


@pytest.mark.parametrize("seeds", [range(start, start + 300) for start in range(0, 1_200, 300)], ids=str)
def test_no_wake_up_is_lost_where_little_happens(seeds: range) -> None:
    """A few edits and wishes, and reports that lag: nothing comes later that would make up for a forgotten one."""
    for seed in seeds:
        choose = random.Random(seed).choice
        world = World(
            stay=choose((True, False)),
            window=choose((1, 2)),
            records_per_frame=1,
            edits=choose((1, 2, 3, 5)),
            edit=choose((0.03, 0.3)),
            publish=choose((0.0, 0.03)),
            asks=choose((0, 1, 2)),
            depth=choose((0, 1)),
            slow=frozenset((choose(LAGGING), choose(LAGGING))),
        )
        pair = Pair(seed, world)
        pair.storm(choose((30, 60, 100)))
        pair.calm()
        pair.check_carried()
        assert all(ended.error is None for ended in pair.ended), f"a session failed in the world of seed {seed}"


@FEW
@given(SEEDS, calm_worlds, st.integers(1, 5), st.integers(0, 300))
def test_every_round_that_is_wanted_comes(seed: int, world: World, asks: int, moves: int) -> None:
    pair = Pair(seed, replace(world, stay=True, asks=asks))
    pair.storm(moves)
    pair.calm()
    pair.check_carried()
    assert all(ended.error is None for ended in pair.ended), "leaving is a goodbye"


@MANY
@given(SEEDS, calm_worlds, st.sampled_from((0.1, 0.4, 0.8)), st.integers(0, 500))
def test_f41_busy_in_a_window_loses_nothing(seed: int, world: World, busy: float, moves: int) -> None:
    """F41: the window is void from the frame on, nothing is applied twice, and the session goes on."""
    pair = Pair(seed, replace(world, stay=True, busy=busy))
    pair.storm(moves)
    pair.calm()
    pair.check_carried()
    assert pair.sessions == 1, "Busy ended a session"


@FEW
@given(SEEDS, calm_worlds, st.integers(0, 200))
def test_f49_a_scheduled_session_ends_by_itself(seed: int, world: World, moves: int) -> None:
    """F49: rounds until one moves nothing, at most five, then goodbye."""
    pair = Pair(seed, replace(world, stay=False))
    pair.storm(moves)
    pair.calm()
    pair.check_carried()
    assert all(ended.error is None and ended.rounds <= ROUNDS for ended in pair.ended)


@FEW
@given(SEEDS, calm_worlds, st.integers(0, 200))
def test_an_idle_pair_needs_one_round(seed: int, world: World, moves: int) -> None:
    """Once everything is carried, the next session moves nothing and says goodbye after its first round."""
    pair = Pair(seed, replace(world, stay=False))
    pair.storm(moves)
    pair.calm()
    pair.ended.clear()
    pair.calm()
    assert [(ended.error, ended.rounds) for ended in pair.ended] == [(None, 1)]


@FEW
@given(SEEDS, calm_worlds, st.integers(0, 400))
def test_drain_ends_every_session_with_a_goodbye(seed: int, world: World, moves: int) -> None:
    pair = Pair(seed, replace(world, stay=True, drain=0.05))
    pair.storm(moves)
    pair.calm()
    pair.check_carried()
    codes = [ended.error.code for ended in pair.ended if ended.error is not None]
    # A Hello that was being judged when the central drained may be judged after the next one of the site.
    assert set(codes) <= {Code.DRAINING, Code.SUPERSEDED}
    assert "the central drains" in pair.history or not pair.ended


@FEW
@given(SEEDS, calm_worlds, st.integers(50, 400))
def test_a_newer_session_supersedes_one_that_is_half_open(seed: int, world: World, moves: int) -> None:
    """F13: the site comes back before the central has noticed that the older connection is dead."""
    pair = Pair(seed, replace(world, stay=True, crash=0.05))
    pair.storm(moves)
    pair.calm()
    pair.check_carried()
    assert len(pair.centrals) == 1 and pair.registered is pair.centrals[0], "an older session is still there"


@FEW
@given(SEEDS, stormy_worlds())
def test_a_seed_is_a_history(seed: int, world: World) -> None:
    one, other = Pair(seed, world), Pair(seed, world)
    for pair in (one, other):
        pair.storm(100)
    assert one.history == other.history

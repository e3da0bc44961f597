"""An event loop whose time is virtual: when nothing is ready it jumps to the next timer, and it never waits.

The clocks on the wall are virtual too, one for each node, which may be put forward or back; and what the engine draws
at random comes from the seed. Python offers one `time` and one `secrets` to a whole process, so those are replaced for
as long as a run lasts.
"""

import asyncio
import random
import secrets
import selectors
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

EPOCH_SECONDS = 1_800_000_000.0
"""What an undisturbed clock shows when a run begins."""
STEPS_MAX = 3_000_000
"""Steps of the loop after which a run goes round in circles."""


class NothingWillHappen(RuntimeError):
    """Every task waits for something that no timer and no other task will bring: a deadlock."""


class NothingEnds(RuntimeError):
    """The tasks keep each other busy for ever."""


class WallClock:
    """The clock of a node: how far it is from the right time, in seconds."""

    def __init__(self) -> None:
        self.wrong_by_seconds = 0.0


CLOCK: ContextVar[WallClock] = ContextVar("clock")
"""The clock of the node to which the running task belongs."""


class _Selector(selectors.BaseSelector):
    """Passes the time instead of waiting for it."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 0.0
        self._steps = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See BaseSelector."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See BaseSelector."""
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Moves the clock on by the timeout. Nothing outside the process is listened to.

        Raises:
            NothingWillHappen: there is no timer.
            NothingEnds: the run has lasted for too many steps.
        """
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise NothingEnds(f"{STEPS_MAX} steps were made by {self.now:.0f} s")
        if timeout is None:
            raise NothingWillHappen("every task waits and no timer is set")
        self.now += max(timeout, 0.0)
        return []

    def close(self) -> None:
        """See BaseSelector."""
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """See BaseSelector."""
        return self._real.get_map()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module. Time begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual.now


@contextmanager
def virtual_world(loop: VirtualTimeLoop, seed: int) -> Iterator[None]:
    """While it is entered, clocks follow the loop and everything drawn at random follows the seed."""
    drawn = random.Random(seed)

    def wall() -> float:
        clock = CLOCK.get(None)
        return EPOCH_SECONDS + loop.time() + (clock.wrong_by_seconds if clock is not None else 0.0)

    def token(size: int | None = None) -> bytes:
        return drawn.randbytes(size or 32)

    replaced: dict[tuple[Any, str], Any] = {
        (time, "time"): wall,
        (time, "monotonic"): loop.time,
        (secrets, "token_bytes"): token,
        (secrets, "token_hex"): lambda size=None: token(size).hex(),
        (secrets, "randbits"): drawn.getrandbits,
    }
    before = {(module, name): getattr(module, name) for module, name in replaced}
    state = random.getstate()
    random.seed(seed)
    for (module, name), instead in replaced.items():
        setattr(module, name, instead)
    try:
        yield
    finally:
        for (module, name), original in before.items():
            setattr(module, name, original)
        random.setstate(state)

"""An event loop whose time is virtual: when nothing is ready it jumps to the next timer, and it never waits."""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class NothingWillHappen(RuntimeError):
    """Every task waits for something that no timer and no other task will bring: a deadlock."""


class _Selector(selectors.BaseSelector):
    """Passes the time instead of waiting for it."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See BaseSelector."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See BaseSelector."""
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Moves the clock on by the timeout. Raises NothingWillHappen where there is none."""
        ready = self._real.select(0)
        if ready:
            return ready
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

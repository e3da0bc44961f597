"""The lane: a document that is larger than what the link lets through goes in parts, beside the frames (F27, F42).

The parts are slices of one stored body that never changes; what is durable at the other end is never sent again, in
this session or a later one. When all of it is there, a frame without a body closes it. There is one body under way at a
time in each direction; at most `window // 2` of its parts are under way, and each is loaded after a load of frames or
pages, so that the rest flows on beside it.
"""

from typing import NamedTuple

from packhorse.sync.v1 import document_pb2

from engine.session.pace import Pace


class LaneState(NamedTuple):
    """A stored body that goes in parts."""

    hash: bytes
    total_bytes: int
    stored_bytes: int = 0
    """How much of it is durable at the other end, as far as is known."""


class PartWanted(NamedTuple):
    """The slice to be loaded next."""

    hash: bytes
    offset: int
    size_bytes: int


class Lane:
    """The sender's view of the lane. Knows nothing of how parts are stored."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._state: LaneState | None = None
        self._sent = 0
        self._ends: list[int] = []
        self._loading = False
        self.progressed = False
        """Whether a part got through in this session."""

    @property
    def is_open(self) -> bool:
        """Whether a body is on its way."""
        return self._state is not None

    @property
    def is_through(self) -> bool:
        """Whether all of the body is durable at the other end."""
        return self._state is not None and self._state.stored_bytes >= self._state.total_bytes

    @property
    def is_loading(self) -> bool:
        """Whether a part is being read from the store."""
        return self._loading

    @property
    def under_way(self) -> int:
        """Parts that were sent and not answered."""
        return len(self._ends)

    def follow(self, state: LaneState | None) -> None:
        """Takes note of which body is to be sent; goes on with the one that is under way where it is the same."""
        if state is not None and self._state is not None and state.hash == self._state.hash:
            return
        self._state, self._sent, self._ends = state, state.stored_bytes if state else 0, []

    def next_part(self, window_frames: int) -> PartWanted | None:
        """The slice to load now, or None; at most a window of them is under way."""
        if self._state is None or self._loading or self._sent >= self._state.total_bytes:
            return None
        if len(self._ends) >= min(window_frames, max(1, self._pace.window // 2)):
            return None
        self._loading = True
        size = min(self._pace.part_bytes, self._state.total_bytes - self._sent)
        return PartWanted(self._state.hash, self._sent, size)

    def loaded(self, part: document_pb2.Part | None) -> bool:
        """A slice was loaded, or there was none; returns whether it is still to be sent."""
        self._loading = False
        if part is None or self._state is None or (part.hash, part.offset) != (self._state.hash, self._sent):
            return False
        self._sent += len(part.content)
        self._ends.append(self._sent)
        return True

    def stored(self, told: document_pb2.PartStored) -> bool:
        """The other end has so much of a body; returns whether that was news of the one under way."""
        if self._state is None or told.hash != self._state.hash or not self._ends:
            return False
        self._pace.acknowledged()
        self.progressed = True
        if told.size_bytes != self._ends.pop(0):  # it begins again from there
            self._sent, self._ends = min(told.size_bytes, self._state.total_bytes), []
        self._state = self._state._replace(stored_bytes=min(told.size_bytes, self._state.total_bytes))
        return True

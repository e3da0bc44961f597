"""How much is put on a link at once: adapts to what gets through (F27, F47).

A link that is cut every second carries small frames and few of them; a good one carries full frames in a full window.
A site begins with a small window, so that many that come at once do not bury the central under what they have ready.
There is no clock in this: an acknowledged frame lets size and window grow, a session that was lost with frames under
way shrinks the window to one frame, and the size too where not a single frame got through. What is sent again after a
cut is at most one window.
"""

from dataclasses import dataclass

from engine.limits import (
    BUSY_SECONDS,
    FRAME_BYTES,
    FRAME_RECORDS,
    FRAME_RECORDS_LEAST,
    PART_BYTES_LEAST,
    WINDOW_FRAMES,
    WINDOW_FRAMES_FIRST,
)


def spread_retry(asked_seconds: float, chance: float) -> float:
    """How many seconds to stay away when a peer has named a time: within BUSY_SECONDS, and not all sites at once (F41).

    Args:
        asked_seconds: what the peer said; anything.
        chance: drawn evenly from 0 to 1. What comes of it lies between `asked_seconds` and a quarter more, below the
            upper bound.
    """
    least, most = BUSY_SECONDS
    longest = min(max(asked_seconds, least) * 1.25, most)
    return longest * (0.8 + 0.2 * chance)


@dataclass
class Pace:
    """The pace of one direction between two nodes; it outlives a session."""

    records: int = FRAME_RECORDS
    """Aim for the records of a frame; FRAME_RECORDS_LEAST <= records <= FRAME_RECORDS."""
    window: int = WINDOW_FRAMES
    """Frames under way at once; 1 <= window <= WINDOW_FRAMES."""

    @property
    def size_bytes(self) -> int:
        """Aim for the uncompressed size of a frame."""
        return max(FRAME_BYTES * self.records // FRAME_RECORDS, 1)

    @property
    def part_bytes(self) -> int:
        """Size of a part of a document that is larger than `size_bytes` even when it is compressed."""
        return max(self.size_bytes // 4, PART_BYTES_LEAST)

    def begin(self) -> None:
        """A session of a site begins, which does not know how busy the central is now."""
        self.window = min(self.window, WINDOW_FRAMES_FIRST)

    def acknowledged(self) -> None:
        """A frame, or a part of one, got through."""
        self.records = min(FRAME_RECORDS, self.records * 2)
        self.window = min(WINDOW_FRAMES, self.window + 1)

    def lost(self, progressed: bool) -> None:
        """A session ended with frames under way; `progressed` when at least one had got through."""
        self.window = 1
        if not progressed:
            self.records = max(FRAME_RECORDS_LEAST, self.records // 4)

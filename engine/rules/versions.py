"""Terms and versions, and their one comparison (DESIGN law 6, F5, F12)."""

from typing import NamedTuple


class Term(NamedTuple):
    """Fencing name of the right to edit: grows each time the right moves. (0, 0): no right was ever given."""

    counter: int = 0
    random: int = 0
    """Below 2^63. Two different values under one counter are a conflict."""


class Version(NamedTuple):
    """Version of a document: given once per captured change by the node that owns it."""

    term: int = 0
    term_id: int = 0
    counter: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """What decides which of two versions is newer. The random part never does."""
        return self.term, self.counter

    def is_newer_than(self, other: "Version") -> bool:
        """Whether this version supersedes the other."""
        return (self.term, self.counter) > (other.term, other.counter)


NEVER = Version()
"""The version of what was never there; every version that an owner gives supersedes it."""


def next_version(last: Version, term: Term) -> Version:
    """The version of the next change, made in `term`, of a document whose last given version is `last`."""
    return Version(term.counter, term.random, last.counter + 1)

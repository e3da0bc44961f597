"""What happened in a run: every fault, every edit and every rare path is counted, and none may stay at zero for long.

The names are a closed list. A large run in which one of them did not occur proves less than it claims, and fails.
"""

from collections.abc import Iterable, Mapping

FAULTS = (
    "cut",
    "half-open cut",
    "cut with messages that arrive late at the central",
    "refused connection",
    "Hello that comes twice",
    "bit flip in a frame of a site",
    "bit flip in a frame of the central",
    "call lost on its way",
    "call whose answer is lost",
    "call that is done twice",
    "call that comes late",
    "process of a site ended before a commit",
    "process of a site ended after a commit",
    "power of a site lost at a commit",
    "power of a site lost",
    "process of the central ended before a commit",
    "process of the central ended after a commit",
    "power of the central lost at a commit",
    "power of the central lost",
    "process of the central ended by a frame",
    "log cut where it was durable",
    "log cut within what was not durable",
    "log garbled within what was not durable",
    "log kept whole although it was not durable",
    "disk of a site full",
    "disk of the central full",
    "clock of a site put forward",
    "clock of a site put back",
    "clock of the central put forward",
    "clock of the central put back",
    "hostile session",
)
"""What is done to the nodes and the way between them."""

SOMETIMES = (
    "commit torn at a power cut and gone",
    "commit at a power cut and there",
    "edit of another program lost with the power",
    "work refused because the disk is full",
    "edit refused because the disk is full",
    "edit refused because the configuration is not there yet",
    "log copied into the database",
    "session live",
    "session scheduled",
    "round in calls",
    "session ended with a goodbye",
    "session ended by LINK_CUT",
    "session ended by PEER_SILENT",
    "session ended by FRAME_DAMAGED",
    "session ended by SUPERSEDED",
    "session ended by DISK_FULL",
    "document held because a reference is missing",
    "held document woken",
    "document sent whole because the central needs it",
    "Busy",
    "repeated frame answered from the note",
    "frame sent again",
    "frames cut anew after Welcome",
    "Welcome lost: an earlier token is shown",
    "configuration inside Welcome",
    "positions asked for",
    "part from the site",
    "part from the central",
    "parts from the site resumed",
    "parts from the central resumed",
    "frame of the site closed after its parts",
    "frame of the central closed after its parts",
    "lane of the site overtaken",
    "own change shown by its hash",
    "frame rolled back to its savepoint",
    "frame set aside",
    "document edited again after its frame was set aside",
    "document of a stranger held",
    "import by the node",
    "import whose answer was lost",
)
"""Rare paths that the faults are to lead to."""
DOCUMENT_WANTED = "document wanted"
"""Not to be expected where no site ever lacks what it was sent. The oracle's countries must show it: programs there go
behind the triggers."""


class Counters:
    """How often each thing happened: what the lists above name, "edit: ..." for an operation of people, or `more`."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self.counts: dict[str, int] = {}
        self._known = _ALWAYS_KNOWN | set(more)

    def count(self, name: str, times: int = 1) -> None:
        """It happened so many times more."""
        if not (name in self._known or name.startswith("edit: ")):
            raise KeyError(name)
        self.counts[name] = self.counts.get(name, 0) + times


_ALWAYS_KNOWN = frozenset((*FAULTS, *SOMETIMES, DOCUMENT_WANTED))


def added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """The sums of two counts."""
    return {name: counts.get(name, 0) + more.get(name, 0) for name in [*counts, *more]}


def never_seen(counts: Mapping[str, int], everything: Iterable[str]) -> list[str]:
    """What a run has not shown, of everything that it can."""
    return [name for name in everything if not counts.get(name)]

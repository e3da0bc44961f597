"""Watches what passes between the nodes, as somebody with a trace of both would, and counts the rare paths in it."""

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PackhorseError
from engine.session.frames import unpack
from engine.session.machine import Message
from field_lab.simulation.counters import DOCUMENT_WANTED, SOMETIMES, Counters

_ENDINGS = frozenset(name for name in SOMETIMES if name.startswith("session ended by "))


class Observer:
    """See the module. Everything that is sent is told here before it travels."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.rounds: dict[int, int] = {}
        """Rounds that each site has begun: checkpoints sent."""
        self._offered: dict[int, bytes] = {}
        self._frames: dict[int, int] = {}
        self._staged: dict[tuple[int, str], bytes] = {}

    def sent(self, site: int, message: Message) -> None:
        """A message is on its way from or to a site."""
        name = str(message.WhichOneof("message"))
        if name == "part":
            self._part(site, message.part, "site" if isinstance(message, session_pb2.SiteMessage) else "central")
            return
        watch = getattr(self, f"_on_{name}", None)
        if watch is not None:
            watch(site, getattr(message, name))

    def begun(self, site: int) -> None:
        """A site begins a round of push and pull."""
        self.rounds[site] = self.rounds.get(site, 0) + 1

    def ended(self, error: PackhorseError | None) -> None:
        """A session has ended at the central."""
        name = "session ended with a goodbye" if error is None else f"session ended by {error.code}"
        if error is None or name in _ENDINGS:
            self._counters.count(name)

    # --- what a site says ---------------------------------------------------------------------------------------------

    def _on_hello(self, site: int, hello: session_pb2.Hello) -> None:
        if self._offered.get(site, hello.lineage_token) != hello.lineage_token:
            self._counters.count("Welcome lost: an earlier token is shown")

    def _on_frame(self, site: int, frame: document_pb2.Frame) -> None:
        if frame.number <= self._frames.get(site, 0):
            self._counters.count("frame sent again")
        elif frame.previous_number + 1 < frame.number:
            self._counters.count("frames cut anew after Welcome")
        self._frames[site] = max(frame.number, self._frames.get(site, 0))
        if frame.parts_bytes:
            self._counters.count("frame of the site closed after its parts")

    def _on_want(self, _site: int, _want: session_pb2.Want) -> None:
        self._counters.count(DOCUMENT_WANTED)

    # --- what the central says ----------------------------------------------------------------------------------------

    def _on_welcome(self, site: int, welcome: session_pb2.Welcome) -> None:
        self._offered[site] = welcome.lineage_token
        self._staged = {key: sent for key, sent in self._staged.items() if key[0] != site}
        if welcome.missed:
            self._counters.count("repeated frame answered from the note")
        if welcome.send_positions:
            self._counters.count("positions asked for")
        if welcome.HasField("configuration"):
            self._counters.count("configuration inside Welcome")

    def _on_acknowledgement(self, _site: int, told: session_pb2.Acknowledgement) -> None:
        for outcome in told.outcomes:
            if outcome.disposition == session_pb2.DISPOSITION_NEED_WHOLE:
                self._counters.count("document sent whole because the central needs it")
            elif outcome.code == Code.MISSING_REFERENCE:
                self._counters.count("document held because a reference is missing")
        if any("could not be taken in" in outcome.sentence for outcome in told.outcomes):
            self._counters.count("frame set aside")

    def _on_busy(self, _site: int, _busy: session_pb2.Busy) -> None:
        self._counters.count("Busy")

    def _on_pull_frame(self, _site: int, frame: document_pb2.PullFrame) -> None:
        if frame.parts_bytes:
            self._counters.count("frame of the central closed after its parts")
            return
        body = unpack(document_pb2.PullBody, frame.body, frame.hash)
        records = (record for section in body.sections for document in section.documents for record in document.records)
        is_echoed = any(section.echoes for section in body.sections)
        if is_echoed or any(record.WhichOneof("body") == "hash" for record in records):
            self._counters.count("own change shown by its hash")

    def _on_problem(self, _site: int, problem: session_pb2.Problem) -> None:
        if problem.code == Code.FRAME_DAMAGED and problem.sentence.startswith("A frame"):
            self._counters.count("frame rolled back to its savepoint")

    # --- both ---------------------------------------------------------------------------------------------------------

    def _part(self, site: int, part: document_pb2.Part, way: str) -> None:
        if not part.hash:
            return
        self._counters.count(f"part from the {way}")
        if part.offset and self._staged.get((site, way)) != part.hash:
            self._counters.count(f"parts from the {way} resumed")
        self._staged[site, way] = part.hash

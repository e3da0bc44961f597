"""The frame of both state machines: one transition table, events in, actions out.

Two rules for the machines:

1. Every transition is in the table of its machine; what is not there is an error of whoever caused it. A message that
   the peer may not send now ends the session with PROTOCOL_BROKEN.
2. A machine knows no socket, clock, randomness or database. Events tell it what happened, actions say what is to be
   done; the driver performs actions in the order given and reports each result as an event. Production, the tests with
   two machines and a fake link, and the simulator drive the same objects.

Order of durability, kept by the drivers: an action that stores is performed, i.e. committed, before its event is
reported; messages that promise (acknowledgements, the first frame after Welcome) are sent only in answer to that event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from packhorse.sync.v1 import session_pb2

from engine.errors import Code, PackhorseError, PeerProblem

Message = session_pb2.SiteMessage | session_pb2.CentralMessage


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. Its name is what the transition table knows it by."""

    name: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Action:
    """Something to be done. Performing it reports the event named in the machine's documentation, or none."""

    name: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The session is over; what was sent before is still to be written.

    `error` is None after a goodbye. `retry_after_seconds` of the error says when to come back.
    """

    error: PackhorseError | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """A message to be sent. Urgent ones (acknowledgements, Busy, Problem) go before data that waits (F41)."""

    message: Message
    urgent: bool = False


Step = Action | Send | Finish

CLOSED = "closed"


class Machine:
    """A state machine of one session."""

    TRANSITIONS: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]]
    """State -> event -> the states that may follow. Absence is the error."""

    def __init__(self, state: str) -> None:
        self.state = state

    def step(self, event: Event) -> list[Step]:
        """Takes an event and returns what is to be done, in order."""
        if self.state == CLOSED:
            return []
        allowed = self.TRANSITIONS[self.state].get(event.name)
        if allowed is None:
            if event.name not in self.names():
                raise AssertionError(f"no machine knows the event {event.name}")
            return self._end(
                PeerProblem(Code.PROTOCOL_BROKEN, f"A {event.name.replace('_', ' ')} came while {self.state}."), True
            )
        steps: list[Step] = getattr(self, f"_on_{event.name}")(event.value)
        assert self.state in (*allowed, CLOSED), f"{event.name} led to {self.state}, which the table does not know"
        return steps

    def receive(self, message: Message) -> list[Step]:
        """Takes a message of the peer."""
        name = message.WhichOneof("message")
        if name is None:
            if self.state == CLOSED:
                return []
            return self._end(PeerProblem(Code.PROTOCOL_BROKEN, "A message came that this program cannot read."), True)
        return self.step(Event(str(name), getattr(message, str(name))))

    @classmethod
    def names(cls) -> frozenset[str]:
        """Every event that the machine knows in some state."""
        return frozenset(name for row in cls.TRANSITIONS.values() for name in row)

    @property
    def waits(self) -> bool:
        """Whether the peer owes a message, so that its silence is a failure."""
        raise NotImplementedError

    def _problem(self, error: PackhorseError) -> Message:
        raise NotImplementedError

    def _end(self, error: PackhorseError | None, tell: bool = False) -> list[Step]:
        self.state = CLOSED
        told: list[Step] = [Send(self._problem(error), urgent=True)] if tell and error is not None else []
        return [*told, Finish(error)]

    # --- what both machines do alike ----------------------------------------------------------------------------------

    def _on_problem(self, problem: session_pb2.Problem) -> list[Step]:
        return self._end(problem_error(problem))

    def _on_cut(self, _: None) -> list[Step]:
        return self._end(PeerProblem(Code.LINK_CUT, "The link to the other node was cut."))

    def _on_silence(self, _: None) -> list[Step]:
        return self._end(PeerProblem(Code.PEER_SILENT, "The other node did not answer in time."))

    def _on_failed(self, error: PackhorseError) -> list[Step]:
        return self._end(error, tell=True)


def problem_error(problem: session_pb2.Problem) -> PackhorseError:
    """The error that a peer's Problem stands for. A code that this program does not know becomes INTERNAL."""
    code = Code(problem.code) if problem.code in Code.__members__ else Code.INTERNAL
    after = problem.retry_after_milliseconds / 1000 if problem.retry_after_milliseconds else None
    says = f"The other node says: {problem.sentence}" if problem.sentence else "The other node ended the session."
    return PeerProblem(code, says[:500], after)


def error_problem(error: PackhorseError) -> session_pb2.Problem:
    """The Problem that tells a peer of an error."""
    return session_pb2.Problem(
        code=error.code,
        sentence=error.what,
        who_acts=error.advice.who_acts,
        retry=error.advice.retry,
        retry_after_milliseconds=int((error.retry_after_seconds or 0) * 1000),
    )

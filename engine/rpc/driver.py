"""Drives a session machine over a real stream: performs its actions in order, reports events, writes messages.

Reading never waits for writing: a task each. Urgent messages overtake data. What is queued is bounded by the window of
the machine, which sends no more data frames than are acknowledged. Nothing here decides anything about the protocol.
"""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

import structlog

from engine.errors import Code, PackhorseError, Unavailable
from engine.limits import PATIENCE_SECONDS
from engine.session.machine import Action, Event, Finish, Machine, Message, Send, Step

_FLUSH_SECONDS = 5.0
_log = structlog.get_logger("session")


class Driver:
    """One session.

    Args:
        machine: the state machine of this end.
        perform: performs an action and returns the event that reports it, or None when none is reported or when it is
            posted later.
        send: writes one message to the stream.
        receive: reads one message; None at the end of the stream.
        trace: called with a word and a number for each message that is sent or received and each action performed.
        together: names of actions that are performed several at once where several wait, in one transaction: their
            value is then the list of the values. What they report is posted.
    """

    def __init__(
        self,
        machine: Machine,
        perform: Callable[[Action], Awaitable[Event | None]],
        send: Callable[[Message], Awaitable[None]],
        receive: Callable[[], Awaitable[Message | None]],
        trace: Callable[[str, Any], None] = lambda _word, _value: None,
        together: Collection[str] = (),
    ) -> None:
        self.machine = machine
        self._perform, self._send, self._receive, self._trace = perform, send, receive, trace
        self._outgoing: asyncio.PriorityQueue[tuple[int, int, Message]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._work: asyncio.Queue[Action] = asyncio.Queue()
        self._together = together
        self._finished: asyncio.Future[Finish] = asyncio.get_running_loop().create_future()
        self._heard = asyncio.get_running_loop().time()
        self._is_broken = False
        self._stepped = asyncio.Event()

    def post(self, event: Event) -> None:
        """Tells the machine of something that happened, and starts what follows from it."""
        self._take(self.machine.step(event))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns when something holds of the machine; it is asked after every step."""
        while not holds():
            self._stepped.clear()
            await self._stepped.wait()

    def send_first(self, message: Message) -> None:
        """Queues the message that opens the session."""
        self._take([Send(message)])

    @property
    def error(self) -> PackhorseError | None:
        """Why the session has ended, also where `run` was cancelled before it could say so."""
        return self._finished.result().error if self._finished.done() else None

    async def run(self) -> PackhorseError | None:
        """Runs the session to its end; returns why it ended, None after a goodbye. Cancelling it cuts the session."""
        tasks = [
            asyncio.create_task(self._guard(loop), name=f"session {loop.__name__}")
            for loop in (self._read, self._write, self._act, self._watch)
        ]
        try:
            finish = await asyncio.shield(self._finished)
            try:
                if finish.error is None:  # what was said before the goodbye is done
                    await asyncio.wait_for(self._work.join(), _FLUSH_SECONDS)
                await asyncio.wait_for(self._outgoing.join(), _FLUSH_SECONDS)
            except TimeoutError:
                pass  # the peer does not read any more: it learns the end from the stream
            return finish.error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Send(message, urgent):
                    self._outgoing.put_nowait((0 if urgent else 1, next(self._order), message))
                case Action():
                    self._work.put_nowait(step)
                case Finish():
                    if not self._finished.done():
                        self._finished.set_result(step)
        self._stepped.set()

    async def _guard(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Whatever goes wrong in a task becomes an event of the machine, never a silent end."""
        try:
            await loop()
        except asyncio.CancelledError:
            raise
        except PackhorseError as error:
            self.post(Event("failed", error))
        except Exception:
            incident = secrets.token_hex(4)
            _log.exception("session failed", incident=incident)
            self.post(Event("failed", Unavailable(Code.INTERNAL, f"Something unexpected happened ({incident}).")))

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            self._heard = asyncio.get_running_loop().time()
            if message is None:
                self.post(Event("cut"))
                return
            self._trace("received", message)
            self._take(self.machine.receive(message))

    async def _write(self) -> None:
        while True:
            *_, message = await self._outgoing.get()
            try:
                if not self._is_broken:
                    self._trace("sent", message)
                    await self._send(message)
            except Unavailable:
                # What the peer said last may still be unread: the reader finds the end, and the reason, by itself.
                if not self._is_broken:
                    self._is_broken = True
                    asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.post, Event("cut"))
            finally:
                self._outgoing.task_done()

    async def _act(self) -> None:
        action = await self._work.get()
        while True:
            values, following = [action.value], None
            while action.name in self._together and following is None and not self._work.empty():
                following = self._work.get_nowait()
                if following.name == action.name:
                    values.append(following.value)
                    following = None
            try:
                event = await self._perform(Action(action.name, values) if action.name in self._together else action)
                if event is not None:
                    self.post(event)
            finally:
                for _ in values:
                    self._work.task_done()
            action = following or await self._work.get()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE_SECONDS / 10)
            if not self.machine.waits:
                self._heard = asyncio.get_running_loop().time()
            elif asyncio.get_running_loop().time() - self._heard > PATIENCE_SECONDS:
                self.post(Event("silence"))
                return

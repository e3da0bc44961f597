"""One round of a session in one call, for clients that cannot hold a stream: `Push` and `Pull` of the contract.

The machine, the ingest and the pages are those of a stream. What is different is only that the site speaks before it
has read Welcome: its messages prove nothing about what it has stored, so they confirm neither the lineage token nor the
positions that came with it. Its next Hello does.
"""

from collections.abc import Sequence

from packhorse.sync.v1 import session_pb2

from central_node.node import CentralNode
from central_node.session import CentralSession
from engine.errors import PackhorseError
from engine.rpc.trace import Trace
from engine.session.machine import Event, Message


async def one_round(
    node: CentralNode, site: int, messages: Sequence[session_pb2.SiteMessage], trace: Trace
) -> tuple[list[session_pb2.CentralMessage], PackhorseError | None]:
    """Answers the messages of one call; returns the answers in order, and the error that ended the round early.

    Each message waits until the window has room for it. The round is over when everything is answered and what can be
    pulled without an acknowledgement was sent.
    """
    answers: list[session_pb2.CentralMessage] = []
    inbox = iter(messages)

    async def send(message: Message) -> None:
        assert isinstance(message, session_pb2.CentralMessage)
        answers.append(message)

    async def receive() -> Message | None:
        for message in inbox:
            await session.until(lambda: session.machine.has_room)
            return message
        await session.until(lambda: not session.machine.is_busy)
        session.post(Event("round_over"))
        return None

    session = CentralSession(node, site, send, receive, trace, one_round=True)
    error = await session.run()
    return answers, error

"""A client that has a site's credential and speaks whatever it likes: raw gRPC, nothing of the engine's own client."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from packhorse.sync.v1 import session_pb2

from field_lab.country import Country, SiteNode
from tests.processes.supplies import one

SESSION = "/packhorse.sync.v1.SyncService/Session"
ANSWER_SECONDS = 30.0
Metadata = tuple[tuple[str, str | bytes], ...]


class Answer(NamedTuple):
    """What the central answered."""

    messages: list[session_pb2.CentralMessage]
    status: grpc.StatusCode
    details: str

    @property
    def code(self) -> str:
        """The code of the Problem that it told; empty where there was none."""
        return next((m.problem.code for m in self.messages if m.WhichOneof("message") == "problem"), "")

    @property
    def text(self) -> str:
        """Everything that it said in words."""
        return self.details + " ".join(m.problem.sentence for m in self.messages)

    def last(self, name: str) -> Any:
        """The last message of a name. Raises StopIteration where there was none."""
        return next(getattr(m, name) for m in reversed(self.messages) if m.WhichOneof("message") == name)


class HostileClient:
    """Speaks as a site. What it says is up to the test.

    Args:
        metadata: of each call; the site's own where it is not given.
    """

    def __init__(self, country: Country, site: SiteNode, metadata: Metadata | None = None) -> None:
        self._ca = (country.central.directory / "ca.pem").read_bytes()
        self._address = f"127.0.0.1:{country.grpc_port}"
        self.metadata = metadata if metadata is not None else self._own(country, site)

    def _own(self, country: Country, site: SiteNode) -> Metadata:
        installation = one(site.database, "SELECT value FROM sync_meta WHERE key = 'installation'")
        told = json.loads((country.folder / "state" / installation).read_text())
        return (
            ("packhorse-site", str(site.number)),
            ("packhorse-installation", installation),
            ("packhorse-credential-bin", bytes.fromhex(told["credential"])),
        )

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """A channel without any of the bounds of a correct client."""
        options: list[tuple[str, Any]] = [
            ("grpc.ssl_target_name_override", "packhorse-central"),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_metadata_size", 1 << 24),
        ]
        credentials = grpc.ssl_channel_credentials(self._ca)
        async with grpc.aio.secure_channel(self._address, credentials, options=options) as channel:
            yield channel

    async def says(self, *messages: bytes | Message, until: str = "problem") -> Answer:
        """Says messages in one session, the second and later ones after Welcome; ends its side when a message of the
        name `until` has come, or the central has ended the call; and hears the central out."""
        async with self.channel() as channel:
            method: Any = channel.stream_stream(SESSION, None, session_pb2.CentralMessage.FromString)
            call: Any = method(metadata=self.metadata, timeout=ANSWER_SECONDS)
            heard: list[session_pb2.CentralMessage] = []
            try:
                await call.write(_raw(messages[0]))
                if messages[1:]:
                    heard.append(await call.read())
                for message in messages[1:]:
                    await call.write(_raw(message))
                while until not in [told.WhichOneof("message") for told in heard]:
                    if (told := await call.read()) is grpc.aio.EOF:
                        break
                    heard.append(told)
                await call.done_writing()
                while (told := await call.read()) is not grpc.aio.EOF:
                    heard.append(told)
            except (grpc.RpcError, grpc.aio.UsageError):
                pass  # the central has ended the call: its status says why
            except Exception as error:  # asyncio.InvalidStateError: the call is over already
                assert type(error).__name__ == "InvalidStateError", error
            return Answer(heard, await call.code(), str(await call.details() or ""))

    async def calls(self, method: str, message: bytes) -> tuple[grpc.StatusCode, bytes]:
        """Calls a unary method with raw bytes; returns status and response."""
        async with self.channel() as channel:
            unary: Any = channel.unary_unary(method, None, None)
            call: Any = unary(message, metadata=self.metadata, timeout=ANSWER_SECONDS)
            status: grpc.StatusCode = await call.code()
            return status, await call if status is grpc.StatusCode.OK else b""


def _raw(message: bytes | Message) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()

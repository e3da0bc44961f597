"""Bytes that are no message: what a client sends as a request that it is not."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError


class UnreadableInterceptor(grpc.aio.ServerInterceptor):
    """Lets bytes that are no message count as one in which nothing is set: whoever takes it refuses it by name."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """See gRPC: gives the handler of a call."""
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        return handler._replace(request_deserializer=_reads(handler.request_deserializer))


def _reads(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return parse(b"")

    return read

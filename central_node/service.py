"""The gRPC services of the central: sessions of sites, and enrolment."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

import grpc
import structlog
from packhorse.enrolment.v1 import enrolment_pb2, enrolment_pb2_grpc
from packhorse.sync.v1 import session_pb2, sync_service_pb2, sync_service_pb2_grpc

from central_node.node import CentralNode
from central_node.one_round import one_round
from central_node.session import CentralSession
from central_node.storage.roster import enrol, is_credential
from engine.errors import Code, PackhorseError, Unavailable
from engine.rpc.local_channel import CODE_KEY
from engine.rpc.trace import open_trace
from engine.session.machine import Message

SessionContext = grpc.aio.ServicerContext[session_pb2.SiteMessage, session_pb2.CentralMessage]
_log = structlog.get_logger("service")


class SyncService(sync_service_pb2_grpc.SyncServiceServicer):
    """See the contract."""

    def __init__(self, node: CentralNode) -> None:
        self._node = node
        self._trace = open_trace()

    async def Session(self, request_iterator: Any, context: SessionContext) -> None:  # type: ignore[override] # noqa: N802
        """See the contract. Messages are read and written one by one; the iterator is not used."""
        del request_iterator
        site = await self._authorise(context)

        async def send(message: Message) -> None:
            try:
                await context.write(message)  # type: ignore[arg-type]
            except (grpc.RpcError, grpc.aio.BaseError, RuntimeError) as error:
                raise Unavailable(Code.LINK_CUT, "The link to the site was cut.") from error

        async def receive() -> Message | None:
            try:
                message: Any = await context.read()
            except (grpc.RpcError, grpc.aio.BaseError, RuntimeError):
                return None
            return None if message is grpc.aio.EOF else message

        log = _log.bind(site=site)
        log.info("session began", peer=context.peer())
        error = await CentralSession(self._node, site, send, receive, self._trace(site)).run()
        log.info("session ended", code=error.code.value if error else "", what=error.what if error else "goodbye")

    async def _authorise(self, context: SessionContext) -> int:
        shown = dict(context.invocation_metadata() or ())
        site, installation = str(shown.get("packhorse-site", "")), str(shown.get("packhorse-installation", ""))
        credential = shown.get("packhorse-credential-bin", b"")
        if site.isdigit() and len(site) < 10 and isinstance(credential, bytes):
            number = int(site)
            if await self._node.database.read(lambda c: is_credential(c, number, installation, credential)):
                return number
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "This central node does not know the credential.",
            ((CODE_KEY, Code.CREDENTIAL_UNKNOWN.value),),
        )
        raise AssertionError("abort does not return")

    async def Push(  # noqa: N802 - the name in the contract
        self, request: sync_service_pb2.PushRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> sync_service_pb2.PushResponse:
        """See the contract."""
        return sync_service_pb2.PushResponse(messages=await self._round(request.messages, context))

    async def Pull(  # noqa: N802 - the name in the contract
        self, request: sync_service_pb2.PullRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> sync_service_pb2.PullResponse:
        """See the contract."""
        return sync_service_pb2.PullResponse(messages=await self._round(request.messages, context))

    async def _round(
        self, messages: Sequence[session_pb2.SiteMessage], context: grpc.aio.ServicerContext[Any, Any]
    ) -> list[session_pb2.CentralMessage]:
        site = await self._authorise(context)
        answers, error = await one_round(self._node, site, messages, self._trace(site))
        code = error.code.value if error else ""
        _log.info("round ended", site=site, peer=context.peer(), messages=len(messages), code=code)
        return answers


class EnrolmentService(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """See the contract."""

    def __init__(self, node: CentralNode, central_name: str) -> None:
        self._node, self._central_name = node, central_name

    async def Enrol(  # noqa: N802 - the name in the contract
        self,
        request: enrolment_pb2.EnrolRequest,
        context: grpc.aio.ServicerContext[enrolment_pb2.EnrolRequest, enrolment_pb2.EnrolResponse],
    ) -> enrolment_pb2.EnrolResponse:
        """See the contract."""
        lengths = (len(request.secret), len(request.credential_hash), len(request.epoch), len(request.installation))
        if lengths != (32, 32, 16, 32):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "A field of the request has the wrong length.")
        now = int(time.time())
        try:
            enrolled = await self._node.database.write(
                lambda c: enrol(c, request.secret, request.installation, request.credential_hash, request.epoch, now)
            )
        except PackhorseError as error:
            status = grpc.StatusCode.UNAVAILABLE if error.advice.retry else grpc.StatusCode.PERMISSION_DENIED
            await context.abort(status, error.what, ((CODE_KEY, error.code.value),))
        _log.info("site enrolled", site=enrolled.site)
        return enrolment_pb2.EnrolResponse(site=enrolled.site, name=enrolled.name, central_name=self._central_name)


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Keeps the text of unexpected exceptions from peers: they get an incident number, the log gets the rest."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Wraps the handler of a call."""
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.stream_stream and handler.request_streaming and handler.response_streaming:
            inner = handler.stream_stream

            async def guarded_stream(requests: Any, context: Any) -> None:
                try:
                    await inner(requests, context)
                except Exception as error:
                    await _report(error, context)

            return grpc.stream_stream_rpc_method_handler(
                guarded_stream, handler.request_deserializer, handler.response_serializer
            )
        if not handler.unary_unary:
            return handler
        inner_unary = handler.unary_unary

        async def guarded(request: Any, context: Any) -> Any:
            try:
                return await inner_unary(request, context)
            except Exception as error:
                return await _report(error, context)

        return grpc.unary_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)


async def _report(error: Exception, context: Any) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    incident = secrets.token_hex(4)
    _log.error("a call failed", incident=incident, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"Something unexpected happened (incident {incident}).")

"""The door of a running daemon for local programs: LocalService on a Unix socket in its directory."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import structlog
from packhorse.local.v1 import local_pb2, local_pb2_grpc

from engine.directory import SOCKET_NAME, as_directory_errors, is_owned, socket_address
from engine.errors import Code, PackhorseError, Refused, Unavailable
from engine.limits import MESSAGE_BYTES_MAX
from engine.rpc.unreadable import UnreadableInterceptor

Arguments = dict[str, Any]
Command = Callable[[Arguments], Awaitable[dict[str, Any]]]
Progress = Callable[[str, int | None], None]
"""Called with a phase in a few words and the records still to come, None where unknown."""

CODE_KEY = "packhorse-code"
_SENTENCE_CHARACTERS = 2_000
_OPTIONS = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
_log = structlog.get_logger("local")


class LocalServer(local_pb2_grpc.LocalServiceServicer):
    """Serves a daemon's commands while its context is entered."""

    def __init__(
        self,
        directory: Path,
        commands: Mapping[str, Command],
        synchronise: Callable[[], AsyncIterator[local_pb2.SyncResponse]] | None = None,
    ) -> None:
        self._directory, self._commands, self._synchronise = directory, commands, synchronise
        self._server = grpc.aio.server(options=_OPTIONS, interceptors=[UnreadableInterceptor()])
        local_pb2_grpc.add_LocalServiceServicer_to_server(self, self._server)

    async def __aenter__(self) -> "LocalServer":
        path = self._directory / SOCKET_NAME
        with as_directory_errors(self._directory):
            path.unlink(missing_ok=True)
        self._address = socket_address(self._directory)
        self._server.add_insecure_port(self._address.__enter__())
        await self._server.start()
        path.chmod(0o600)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._server.stop(1.0)
        self._address.__exit__(None, None, None)
        (self._directory / SOCKET_NAME).unlink(missing_ok=True)

    async def Execute(  # noqa: N802 - the name in the contract
        self,
        request: local_pb2.ExecuteRequest,
        context: grpc.aio.ServicerContext[local_pb2.ExecuteRequest, local_pb2.ExecuteResponse],
    ) -> local_pb2.ExecuteResponse:
        """See the contract."""
        try:
            command = self._commands.get(request.command)
            if command is None:
                raise Refused(Code.COMMAND_WRONG, f"This daemon knows no command {request.command[:60]!r}.")
            result = await command(_read_arguments(request.arguments_json))
        except PackhorseError as error:
            await _abort(context, error)
        except Exception:
            _log.exception("local command failed", command=request.command)
            await _abort(context, Unavailable(Code.INTERNAL, "The daemon could not do it; its log says why."))
        return local_pb2.ExecuteResponse(result_json=json.dumps(result))

    async def Sync(  # noqa: N802 - the name in the contract
        self,
        request: local_pb2.SyncRequest,
        context: grpc.aio.ServicerContext[local_pb2.SyncRequest, local_pb2.SyncResponse],
    ) -> AsyncIterator[local_pb2.SyncResponse]:
        """See the contract."""
        if self._synchronise is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Only sites synchronise.")
        try:
            async for told in self._synchronise():
                yield told
        except PackhorseError as error:
            await _abort(context, error)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: PackhorseError) -> None:
    # The name of a file need not be UTF-8, which details have to be.
    what = error.what[:_SENTENCE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, what, ((CODE_KEY, error.code.value),))


def _read_arguments(text: str) -> Arguments:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(Code.COMMAND_WRONG, "The arguments of the command are no JSON.") from error
    if not isinstance(arguments, dict):
        raise Refused(Code.COMMAND_WRONG, "The arguments of the command are no JSON object.")
    return arguments


def check_arguments(arguments: Arguments, **kinds: type) -> None:
    """Raises Refused with COMMAND_WRONG unless each of these arguments is there and of its kind: a `str` is text that
    can be stored, a `Path` the name of a file, which need not be UTF-8, a `dict` texts by name."""
    for name, kind in kinds.items():
        value = arguments.get(name)
        if type(value) is not (str if kind is Path else kind):
            raise Refused(Code.COMMAND_WRONG, f"The argument {name} is missing or of another kind.")
        texts = [value] if kind is str else [*value.keys(), *value.values()] if isinstance(value, dict) else []
        if not all(_is_text(text) for text in texts):
            raise Refused(Code.COMMAND_WRONG, f"The argument {name} holds what is no text in UTF-8.")


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def is_served(directory: Path) -> bool:
    """Whether a daemon owns the directory and answers there. A command that owns it for a moment does not."""
    return is_owned(directory) and (directory / SOCKET_NAME).exists()


async def execute(directory: Path, command: str, arguments: Arguments) -> dict[str, Any]:
    """Has the running daemon do a command. Raises what the daemon's command raised, or Unavailable with BUSY."""
    with socket_address(directory) as address:
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            stub: Any = local_pb2_grpc.LocalServiceStub(channel)
            request = local_pb2.ExecuteRequest(command=command, arguments_json=json.dumps(arguments))
            try:
                response = await stub.Execute(request, wait_for_ready=True, timeout=600)
            except grpc.aio.AioRpcError as error:
                raise local_error(error) from error
            result: dict[str, Any] = json.loads(response.result_json)
            return result


async def synchronise(directory: Path, progress: Progress) -> dict[str, Any]:
    """Has the running daemon of a site synchronise now; returns the result. Raises as `execute`."""
    with socket_address(directory) as address:
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            stub: Any = local_pb2_grpc.LocalServiceStub(channel)
            call = stub.Sync(local_pb2.SyncRequest(), wait_for_ready=True)
            try:
                async for told in call:
                    if told.result_json:
                        result: dict[str, Any] = json.loads(told.result_json)
                        return result
                    progress(told.phase, None if told.records_remaining < 0 else told.records_remaining)
            except grpc.aio.AioRpcError as error:
                raise local_error(error) from error
            raise Unavailable(Code.BUSY, "The daemon stopped before the synchronisation ended.")


def local_error(error: grpc.aio.AioRpcError) -> PackhorseError:
    """The catalogue's error that a daemon sent, or BUSY where it does not answer."""
    code = dict(error.trailing_metadata() or ()).get(CODE_KEY, "")
    if code in Code.__members__:
        return Refused(Code(code), error.details() or "The daemon refused.")
    return Unavailable(Code.BUSY, "The daemon that owns the directory does not answer.")

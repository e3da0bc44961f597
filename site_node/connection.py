"""The way to the central: a TLS channel with the site's credential, and plain sentences when it fails.

gRPC says "Socket closed" for a wrong certificate, a wrong port and a dead link alike. So a failed first contact is
looked at again with the standard library's TLS, which can tell them apart.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from packhorse.enrolment.v1 import enrolment_pb2, enrolment_pb2_grpc
from packhorse.sync.v1 import sync_service_pb2_grpc

from engine.directory import as_directory_errors, parse_address
from engine.errors import Code, PackhorseError, Refused, Unavailable
from engine.limits import CONNECT_SECONDS
from engine.rpc.local_channel import CODE_KEY
from engine.rpc.options import CHANNEL_OPTIONS
from engine.session.machine import Message
from site_node.configuration import CA_NAME, SiteConfiguration
from site_node.installation import read_installation
from site_node.node import Dial


class Central(NamedTuple):
    """Where the central is and how it proves itself."""

    address: str
    ca_certificate: bytes
    """PEM."""
    server_name: str
    """The name that its certificate must carry; empty: the host that is dialled."""


class Stream:
    """The messages of one session."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._ended = False

    async def send(self, message: Message) -> None:
        """Writes one message. Raises Unavailable with LINK_CUT."""
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise Unavailable(Code.LINK_CUT, "The link to the central node was cut.") from error

    async def receive(self) -> Message | None:
        """Reads one message; None at the end of the stream.

        Raises:
            PackhorseError: why the central refused the call, where it said so.
        """
        try:
            message: Any = await self._call.read()
        except grpc.aio.AioRpcError as error:
            _refused(error)
            return None
        if message is grpc.aio.EOF:
            if self._ended or await self._call.code() is grpc.StatusCode.OK:
                return None
            self._ended = True
            _refused(await _error_of(self._call))
            return None
        return message  # type: ignore[no-any-return]


class _Ended(NamedTuple):
    status: grpc.StatusCode
    code: str
    details: str


async def _error_of(call: Any) -> _Ended:
    metadata = dict(await call.trailing_metadata() or ())
    return _Ended(await call.code(), str(metadata.get(CODE_KEY, "")), str(await call.details() or ""))


def _refused(error: "grpc.aio.AioRpcError | _Ended") -> None:
    """Raises what the central said; returns None where the link was merely cut."""
    if isinstance(error, grpc.aio.AioRpcError):
        metadata = dict(error.trailing_metadata() or ())
        error = _Ended(error.code(), str(metadata.get(CODE_KEY, "")), error.details() or "")
    if error.code in Code.__members__:
        raise Refused(Code(error.code), error.details[:500])
    if error.status is grpc.StatusCode.UNAUTHENTICATED:
        raise Refused(Code.CREDENTIAL_UNKNOWN, "The central node does not know this site's credential.")


@asynccontextmanager
async def open_channel(central: Central) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that is connected.

    Raises:
        Unavailable: UNREACHABLE.
        Refused: CERTIFICATE_WRONG.
    """
    credentials = grpc.ssl_channel_credentials(root_certificates=central.ca_certificate)
    options = list(CHANNEL_OPTIONS)
    if central.server_name:
        options.append(("grpc.ssl_target_name_override", central.server_name))  # type: ignore[arg-type]
    channel = grpc.aio.secure_channel(central.address, credentials, options=options)
    try:
        await _connect(channel, central)
        yield channel
    finally:
        await channel.close()


async def _connect(channel: grpc.aio.Channel, central: Central) -> None:
    deadline = asyncio.get_running_loop().time() + CONNECT_SECONDS
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise await _why_not(central)
        left = deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(channel.wait_for_state_change(state), left)
        except TimeoutError:
            raise Unavailable(Code.UNREACHABLE, f"{central.address} did not answer in {CONNECT_SECONDS} s.") from None
        state = channel.get_state(try_to_connect=True)


async def _why_not(central: Central) -> PackhorseError:
    """Looks at a failed contact with the standard library's TLS."""
    host, port = parse_address(central.address)
    unreachable = Unavailable(Code.UNREACHABLE, f"Nothing that speaks the protocol answers at {central.address}.")
    try:
        context = ssl.create_default_context(cadata=central.ca_certificate.decode("ascii"))
        context.set_alpn_protocols(["h2"])
        name = central.server_name or host.strip("[]")
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), port, ssl=context, server_hostname=name), CONNECT_SECONDS
        )
        writer.close()
    except ssl.SSLCertVerificationError:
        return Refused(Code.CERTIFICATE_WRONG, f"{central.address} shows a certificate of another central node.")
    except socket.gaierror:
        return Unavailable(Code.UNREACHABLE, f"The host of {central.address} is not known here.")
    except (OSError, TimeoutError, ValueError):
        return unreachable
    return unreachable


async def enrol(central: Central, request: enrolment_pb2.EnrolRequest) -> enrolment_pb2.EnrolResponse:
    """Enrols at the central. Raises Refused with TOKEN_UNKNOWN, TOKEN_USED, TOKEN_EXPIRED, or as `open_channel`."""
    async with open_channel(central) as channel:
        stub: Any = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
        try:
            response: enrolment_pb2.EnrolResponse = await stub.Enrol(request, timeout=CONNECT_SECONDS)
        except grpc.aio.AioRpcError as error:
            _refused(error)
            raise Unavailable(Code.UNREACHABLE, f"{central.address} did not answer the enrolment.") from error
        return response


def dial(directory: Path, configuration: SiteConfiguration) -> Dial:
    """How a site with this directory reaches its central. Opening raises as `open_session` and `read_installation`."""

    @asynccontextmanager
    async def opened(site: int, installation_id: str) -> AsyncIterator[Stream]:
        installation = read_installation(directory, installation_id)
        with as_directory_errors(directory):
            ca_certificate = (directory / CA_NAME).read_bytes()
        central = Central(configuration.central, ca_certificate, configuration.server_name)
        async with open_session(central, site, installation.id, installation.credential) as stream:
            yield stream

    return opened


@asynccontextmanager
async def open_session(central: Central, site: int, installation: str, credential: bytes) -> AsyncIterator[Stream]:
    """The stream of a session. Raises as `open_channel`."""
    async with open_channel(central) as channel:
        metadata = (
            ("packhorse-site", str(site)),
            ("packhorse-installation", installation),
            ("packhorse-credential-bin", credential),
        )
        stub: Any = sync_service_pb2_grpc.SyncServiceStub(channel)
        call = stub.Session(metadata=metadata)
        try:
            yield Stream(call)
        finally:
            call.cancel()

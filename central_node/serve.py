"""`central-node serve`: everything that runs in the daemon, from the lock on the directory to the graceful end."""

import asyncio
import errno
import os
import signal
import socket
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import structlog
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from packhorse.enrolment.v1 import enrolment_pb2, enrolment_pb2_grpc
from packhorse.sync.v1 import sync_service_pb2, sync_service_pb2_grpc

from central_node.certificates import SERVER_KEY_NAME, SERVER_NAME, read_server
from central_node.commands import daemon_commands
from central_node.configuration import CentralConfiguration
from central_node.node import CentralNode
from central_node.service import EnrolmentService, GuardInterceptor, SyncService
from central_node.storage.tables import CENTRAL_TABLES
from central_node.web import make_application
from engine.catalogue.descriptors import catalogue
from engine.directory import DirectoryLock, parse_address
from engine.errors import Code, Refused
from engine.limits import DRAIN_SECONDS
from engine.rpc.local_channel import LocalServer
from engine.rpc.options import SERVER_OPTIONS
from engine.rpc.unreadable import UnreadableInterceptor
from engine.session.machine import Event
from engine.storage.aiosqlite_database import open_database
from engine.storage.sqlite_file import DATABASE_NAME

SERVICE_NAMES = (
    sync_service_pb2.DESCRIPTOR.services_by_name["SyncService"].full_name,
    enrolment_pb2.DESCRIPTOR.services_by_name["EnrolmentService"].full_name,
)
_log = structlog.get_logger("central")


async def serve(directory: Path, configuration: CentralConfiguration) -> None:
    """Runs the daemon until SIGTERM or SIGINT.

    Raises:
        Refused: DIRECTORY_IN_USE, PORT_IN_USE, DATABASE_NEWER, ... before anything is served.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        stack.enter_context(DirectoryLock(directory))
        web_socket = _bind(configuration.web)
        stack.callback(web_socket.close)
        database = await open_database(directory / DATABASE_NAME, catalogue(), CENTRAL_TABLES)
        stack.push_async_callback(database.close)
        node = CentralNode(database, catalogue())
        server, healthy = _make_server(node, directory, configuration)
        await node.start()
        stack.push_async_callback(node.stop)
        for service in SERVICE_NAMES:
            await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        stack.push_async_callback(_drain, node, server, healthy)
        await stack.enter_async_context(LocalServer(directory, daemon_commands(directory, node)))
        web, web_task = _start_web(node, web_socket)
        stack.push_async_callback(_stop_web, web, web_task)
        _log.info("serving", grpc=configuration.grpc, web=configuration.web, directory=str(directory))
        await stop.wait()
        _log.info("draining", sessions=len(node.sessions))


def _make_server(
    node: CentralNode, directory: Path, configuration: CentralConfiguration
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=[GuardInterceptor(), UnreadableInterceptor()])
    sync_service_pb2_grpc.add_SyncServiceServicer_to_server(SyncService(node), server)
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentService(node, configuration.name), server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if configuration.tls is None:
        certificate, key = read_server(directory / SERVER_NAME, directory / SERVER_KEY_NAME)
    else:
        certificate, key = read_server(Path(configuration.tls.certificate), Path(configuration.tls.key))
    # gRPC does not say why it cannot listen: a socket that is closed at once does.
    _bind(configuration.grpc).close()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    try:
        bound = server.add_secure_port(configuration.grpc, credentials)
    except RuntimeError:
        bound = 0
    if not bound:
        raise Refused(Code.PORT_IN_USE, f"{configuration.grpc} cannot be listened on.")
    return server, healthy


async def _drain(node: CentralNode, server: grpc.aio.Server, healthy: Any) -> None:
    """Says goodbye to every site, lets what was sent be acknowledged, then stops."""
    await healthy.enter_graceful_shutdown()
    for session in list(node.sessions.values()):
        session.post(Event("drain"))
    deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
    # Sessions end one by one, each within a bound.
    while node.sessions and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await server.stop(1.0)


def _bind(address: str) -> socket.socket:
    """A socket with this address. Raises Refused with ADDRESS_WRONG where it is not this machine's, PORT_IN_USE."""
    host, port = parse_address(address)
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise Refused(Code.ADDRESS_WRONG, f"{address} is no address of this machine.") from error
        why = os.strerror(error.errno or 0)
        raise Refused(Code.PORT_IN_USE, f"{address} cannot be listened on ({why}).") from error
    return listener


class _WebServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the daemon's decide when it ends."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Does nothing: see the class."""

    def capture_signals(self) -> Any:
        """Does nothing: see the class."""
        return nullcontext()


def _start_web(node: CentralNode, listener: socket.socket) -> tuple[_WebServer, asyncio.Task[None]]:
    web = _WebServer(uvicorn.Config(make_application(node), log_config=None, access_log=False, lifespan="off"))
    return web, asyncio.create_task(web.serve(sockets=[listener]), name="web")


async def _stop_web(web: _WebServer, task: asyncio.Task[None]) -> None:
    web.should_exit = True
    await task

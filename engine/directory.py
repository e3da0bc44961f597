"""A node's data directory: its files, who owns it now, and reading what a person wrote into it.

node.toml    configuration, written by `init` or `join`, edited by people
node.db      the database; other programs may open it and write plain SQL
node.lock    locked by the daemon that owns the directory
node.sock    the running daemon's door for local programs, mode 0600
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import Code, PackhorseError, Refused, Unavailable

CONFIGURATION_NAME = "node.toml"
LOCK_NAME = "node.lock"
SOCKET_NAME = "node.sock"
_SOCKET_PATH_BYTES = 100


@contextmanager
def as_directory_errors(directory: Path) -> Iterator[None]:
    """Turns the errors of files in a directory into those of the catalogue."""
    try:
        yield
    except OSError as error:
        raise _directory_error(error, directory) from error


def _directory_error(error: OSError, directory: Path) -> PackhorseError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refused(Code.DIRECTORY_READ_ONLY, f"{directory} cannot be written by this user.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(Code.DISK_FULL, f"The disk that holds {directory} is full.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return Refused(Code.DIRECTORY_WRONG, f"{directory} is no directory of a node ({os.strerror(error.errno)}).")
    return Refused(Code.DIRECTORY_WRONG, f"{directory} cannot be used ({os.strerror(error.errno or 0)}).")


def require_node(directory: Path) -> None:
    """Raises Refused with DIRECTORY_WRONG unless `init` or `join` has made this directory."""
    if not (directory / CONFIGURATION_NAME).is_file():
        raise Refused(Code.DIRECTORY_WRONG, f"{directory} has no {CONFIGURATION_NAME}.")


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read, durably, or leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    with as_directory_errors(path.parent):
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class DirectoryLock:
    """Held by whoever owns a directory; freed by the system when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises Refused with DIRECTORY_IN_USE when another process owns the directory."""
        with as_directory_errors(self._directory):
            descriptor = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Refused(
                Code.DIRECTORY_IN_USE, f"Another process works with {self._directory} at the moment."
            ) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Frees the directory. Harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "DirectoryLock":
        self.acquire()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()


def is_owned(directory: Path) -> bool:
    """Whether a process owns the directory now."""
    lock = DirectoryLock(directory)
    try:
        lock.acquire()
    except PackhorseError as error:
        return error.code is Code.DIRECTORY_IN_USE
    lock.release()
    return False


@contextmanager
def socket_address(directory: Path) -> Iterator[str]:
    """The gRPC address of a directory's socket. Long paths, which the system does not take, go by a descriptor that
    stays open as long as the context does."""
    path = directory.absolute() / SOCKET_NAME
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        yield f"unix:{path}"
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"unix:/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def parse_address(text: str) -> tuple[str, int]:
    """Reads HOST:PORT; IPv6 hosts stand in brackets. Raises Refused with ADDRESS_WRONG."""
    host, colon, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536
    is_host = bool(re.fullmatch(r"[^\s:\[\]/]+|\[[0-9A-Fa-f:.%\w]+\]", host))
    if not (colon and is_port and is_host):
        raise Refused(Code.ADDRESS_WRONG, f"{text!r} is no address.")
    return host, int(port)

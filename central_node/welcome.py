"""What the central says of itself in every Welcome, and which Hello it does not answer."""

import time
from importlib import metadata

from packhorse.sync.v1 import session_pb2

from engine.catalogue.model import Catalogue
from engine.errors import Code, Refused
from engine.limits import FRAME_BYTES_MAX, FRAME_RECORDS, PATIENCE_SECONDS, WINDOW_FRAMES

PROTOCOL_VERSION = 1
SOFTWARE_VERSION = metadata.version("packhorse")
LIMITS = session_pb2.Limits(
    window_frames=WINDOW_FRAMES,
    frame_bytes=FRAME_BYTES_MAX,
    frame_records=FRAME_RECORDS,
    patience_seconds=PATIENCE_SECONDS,
)


def check_hello(hello: session_pb2.Hello, site: int) -> None:
    """Raises Refused with CREDENTIAL_UNKNOWN or PROTOCOL_TOO_OLD."""
    if hello.site != site:
        raise Refused(Code.CREDENTIAL_UNKNOWN, f"The credential of site {site} was shown for {hello.site}.")
    if hello.protocol_version < PROTOCOL_VERSION:
        raise Refused(Code.PROTOCOL_TOO_OLD, f"The site speaks version {hello.protocol_version} of the protocol.")


def introduce(welcome: session_pb2.Welcome, hello: session_pb2.Hello, catalogue: Catalogue) -> None:
    """Completes a Welcome with what is the same for every site, and with the tables where the catalogues differ."""
    welcome.limits.CopyFrom(LIMITS)
    welcome.protocol_version, welcome.software_version = PROTOCOL_VERSION, SOFTWARE_VERSION
    welcome.clock_milliseconds = int(time.time() * 1000)
    if hello.catalogue_hash != catalogue.hash:
        welcome.tables.extend(table.name for table in catalogue.synchronised)

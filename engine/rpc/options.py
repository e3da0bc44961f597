"""Options of gRPC channels and servers, each with the reason.

Sources: the gRPC core documentation of keepalive and of channel arguments; measured behaviour in ARCHITECTURE.md.
"""

from engine.limits import MESSAGE_BYTES_MAX

_COMMON = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without it a path that is dead behind something that acknowledges TCP is noticed only after a minute.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
]

SERVER_OPTIONS = [
    *_COMMON,
    # Below the sites' keepalive interval, or they are told off with too_many_pings.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # A second daemon on a port fails instead of taking half of the calls.
    ("grpc.so_reuseport", 0),
]

CHANNEL_OPTIONS = [
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", 1_000),
    # This is also how long one attempt to connect may take: a satellite link needs it.
    ("grpc.min_reconnect_backoff_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 60_000),
    # Every channel dials for itself: a fresh one never inherits the backoff of another.
    ("grpc.use_local_subchannel_pool", 1),
]

CENTRAL_CERTIFICATE_NAME = "packhorse-central"
"""The name in a central's own server certificate, checked whatever address is dialled."""

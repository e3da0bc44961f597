"""The gRPC adapter: TLS, credentials, the driver of a session, errors on the wire."""

import os

# gRPC's core writes to stderr whatever it meets, and decides so when it is loaded; what matters reaches the log through
# Python.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

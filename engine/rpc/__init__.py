"""The gRPC adapter: TLS, credentials, the driver of a session, errors on the wire."""

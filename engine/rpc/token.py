"""Enrolment tokens: the one-time secret and the central's CA certificate in one text that can be copied.

`ph1.` and the URL-safe base64 of secret (32 bytes), certificate (DER) and the first 4 bytes of the SHA-256 of both, so
that a token that was cut while copying is noticed before anything is sent.
"""

import base64
import binascii
import hashlib
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from engine.errors import Code, Refused

_PREFIX = "ph1."


class EnrolmentToken(NamedTuple):
    """What a token says."""

    secret: bytes
    ca_certificate: bytes
    """PEM. Empty where the central uses certificates that were given to it."""


def write_token(token: EnrolmentToken) -> str:
    """The text of a token."""
    certificate = b""
    if token.ca_certificate:
        certificate = x509.load_pem_x509_certificate(token.ca_certificate).public_bytes(Encoding.DER)
    body = token.secret + certificate
    return _PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def read_token(text: str) -> EnrolmentToken:
    """Reads a token. Raises Refused with TOKEN_UNREADABLE."""
    text = "".join(text.split())
    try:
        raw = base64.urlsafe_b64decode(text.removeprefix(_PREFIX) + "=" * (-len(text.removeprefix(_PREFIX)) % 4))
        body, check = raw[:-4], raw[-4:]
        if not text.startswith(_PREFIX) or len(body) < 32 or _check(body) != check:
            raise ValueError("not whole")
        certificate = b""
        if body[32:]:
            certificate = x509.load_der_x509_certificate(body[32:]).public_bytes(Encoding.PEM)
    except (ValueError, binascii.Error) as error:
        raise Refused(Code.TOKEN_UNREADABLE, "The token cannot be read; part of it is missing or changed.") from error
    return EnrolmentToken(body[:32], certificate)


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:4]

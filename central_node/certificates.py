"""The central's own certificate authority and server certificate (P-256), made once by `init`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from engine.directory import write_private
from engine.rpc.options import CENTRAL_CERTIFICATE_NAME

CA_NAME, CA_KEY_NAME = "ca.pem", "ca.key"
SERVER_NAME, SERVER_KEY_NAME = "server.pem", "server.key"
_YEARS = 20


class Certificates(NamedTuple):
    """PEM texts that the server shows."""

    ca: bytes
    certificate: bytes
    key: bytes


def make_certificates(directory: Path, name: str) -> None:
    """Writes CA and server certificate with their keys (mode 0600) into the directory."""
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Packhorse CA of {name}"[:64])])
    ca = (
        _builder(authority, authority, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CENTRAL_CERTIFICATE_NAME)])
    server = (
        _builder(subject, authority, server_key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(CENTRAL_CERTIFICATE_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(directory / CA_NAME, ca.public_bytes(Encoding.PEM))
    write_private(directory / SERVER_NAME, server.public_bytes(Encoding.PEM))
    for file, key in ((CA_KEY_NAME, ca_key), (SERVER_KEY_NAME, server_key)):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(directory / file, pem)
    (directory / CA_NAME).chmod(0o644)


def read_certificates(directory: Path) -> Certificates:
    """What `make_certificates` has written."""
    return Certificates(*((directory / name).read_bytes() for name in (CA_NAME, SERVER_NAME, SERVER_KEY_NAME)))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A site's clock may be a day behind; a wrong clock must not keep it from synchronising.
        .not_valid_before(now - timedelta(days=365))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip

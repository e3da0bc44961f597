"""The central's own certificate authority and server certificate (P-256), made once by `init`."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from engine.directory import write_private
from engine.errors import Code, Refused
from engine.rpc.options import CENTRAL_CERTIFICATE_NAME

CA_NAME, CA_KEY_NAME = "ca.pem", "ca.key"
SERVER_NAME, SERVER_KEY_NAME = "server.pem", "server.key"
_YEARS = 20


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


def read_ca(directory: Path) -> bytes:
    """The CA certificate that `make_certificates` has written, PEM. Raises Refused with CERTIFICATE_UNUSABLE."""
    return _read(directory / CA_NAME, x509.load_pem_x509_certificate)


def read_server(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """A certificate with those that sign it, and its key, both PEM, as a server shows them.

    Raises:
        Refused: CERTIFICATE_UNUSABLE where a file is missing or no PEM, or where the key is another's.
    """
    shown = _read(certificate, x509.load_pem_x509_certificates)
    secret = _read(key, lambda pem: load_pem_private_key(pem, None))
    public = x509.load_pem_x509_certificate(shown).public_key()
    if load_pem_private_key(secret, None).public_key() != public:
        raise Refused(Code.CERTIFICATE_UNUSABLE, f"{key} is not the key of the certificate in {certificate}.")
    return shown, secret


def _read(path: Path, parse: Callable[[bytes], object]) -> bytes:
    try:
        pem = path.read_bytes()
        parse(pem)
    except OSError as error:
        what = f"{path} cannot be read ({os.strerror(error.errno or 0)})."
        raise Refused(Code.CERTIFICATE_UNUSABLE, what) from error
    except (ValueError, TypeError) as error:
        raise Refused(Code.CERTIFICATE_UNUSABLE, f"{path} holds no certificate or key in PEM.") from error
    return pem


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

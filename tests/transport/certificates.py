"""Certificates for nodes of a test: an authority, and whatever it signs."""

from __future__ import annotations

import datetime
from hashlib import sha256
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pppml_fast.transport.tls_names import tls_name


class Credentials(NamedTuple):
    key: bytes  # PEM, as all of them
    certificate: bytes
    authorities: bytes


def public_key(name: str) -> bytes:
    """Stands for the node's Ed25519 public key: links only ever hash it."""
    return sha256(name.encode()).digest()


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        builder = self._builder(self._name, self._key.public_key(), -1, 10)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, first_day: int, last_day: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=first_day))
            .not_valid_after(now + datetime.timedelta(days=last_day))
        )

    def issue(self, name: str, *, first_day: int = -1, last_day: int = 10, public: bytes | None = None) -> Credentials:
        """A node's key and certificate; days count from now. ``public`` None: that of `public_key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(tls_name(public or public_key(name)))])
        builder = self._builder(subject, key.public_key(), first_day, last_day)
        certificate = builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        return Credentials(_pem(key), certificate.public_bytes(Encoding.PEM), self.pem)

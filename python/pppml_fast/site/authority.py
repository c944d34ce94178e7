"""A certificate authority in a folder, for trials. In earnest a hospital's or the consortium's own takes its place."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.errors import DataError
from pppml_fast.site.certificates import parse_bundle, parse_request, public_pem
from pppml_fast.site.files import check_private_folder, create_file, make_private_folder, read_file
from pppml_fast.site.private_keys import elliptic_key, private_pem

__all__ = ["TrialAuthority"]

KEY_FILE, CERTIFICATE_FILE = "ca.key", "ca.crt"
_OWN_DAYS = 3650
DEFAULT_DAYS = 365
_SKEW = timedelta(minutes=10)
"""How far the clocks of two sites may differ without a fresh certificate being refused."""
_NODE_NAME = re.compile(r"[0-9a-f]{32}\.pppml")


class TrialAuthority(NeverPickled):
    """Signs the requests of nodes. Its own certificate is confined to names below ``.pppml`` (name constraints)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self._certificate = key, certificate
        self.certificate: bytes = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, folder: Path, *, now: datetime | None = None) -> TrialAuthority:
        """A new authority in a folder of mode 0700. Raises DataError where there is one already."""
        make_private_folder(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _own_certificate(key, now or datetime.now(timezone.utc))
        create_file(folder / KEY_FILE, private_pem(key), 0o600)
        create_file(folder / CERTIFICATE_FILE, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return cls(key, certificate)

    @classmethod
    def load(cls, folder: Path) -> TrialAuthority:
        """The authority of a folder. Raises DataError when a file is missing, foreign, or open to others."""
        check_private_folder(folder)
        key = elliptic_key(folder / KEY_FILE)
        path = folder / CERTIFICATE_FILE
        certificate = parse_bundle(read_file(path), str(path))[0]
        public = certificate.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or public_pem(public) != public_pem(key.public_key()):
            raise DataError(f"{str(path)!r} belongs to another key than {KEY_FILE} beside it; restore both together")
        return cls(key, certificate)

    @classmethod
    def open(cls, folder: Path) -> TrialAuthority:
        """Load the authority of a folder, or create it where the folder has none."""
        known = any((folder / name).exists() for name in (KEY_FILE, CERTIFICATE_FILE))
        return cls.load(folder) if known else cls.create(folder)

    def issue(self, csr: bytes, days: int = DEFAULT_DAYS, *, now: datetime | None = None) -> bytes:
        """PEM certificate for a node's PEM request, valid from ten minutes ago for ``days``.

        Raises DataError for a request that no `SiteKeys` made, and for days beyond the authority's own end.
        """
        request = parse_request(csr, "the signing request")
        if not _NODE_NAME.fullmatch(request.dns_name):
            raise DataError(f"the signing request asks for {request.dns_name[:80]!r}, which is no name of a node")
        begins = now or datetime.now(timezone.utc)
        last = self._certificate.not_valid_after_utc
        if not 0 < days <= _OWN_DAYS or begins + timedelta(days=days) > last:
            raise DataError(
                f"{days} days are out of range; give 1 or more, and no more than until {last:%Y-%m-%d}, when the "
                "authority's own certificate ends"
            )
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self._certificate.subject)
            .public_key(request.public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins - _SKEW)
            .not_valid_after(begins + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(request.dns_name)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _own_certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    public = key.public_key()
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pppml trial authority {serial & 0xFFFFFFFF:08x}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=_OWN_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName("pppml")], None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )

"""X.509 as the federation uses it (RFC 5280): a node's request, and the checks that its certificate passes.

A certificate carries the DNS name `tls_name(identity)`: that binds the TLS connection to the Ed25519 identity of the
roster. Host names play no part, so that a site may move.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pppml_fast.errors import DataError

__all__ = ["Request", "check_certificate", "make_request", "parse_bundle", "parse_request", "public_pem"]

_USES = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}
_BROKEN = (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature)


class Request(NamedTuple):
    """A parsed signing request: its subject, the common name in it, the DNS name it asks for, and its key."""

    subject: x509.Name
    common_name: str
    dns_name: str
    public_key: ec.EllipticCurvePublicKey


def make_request(key: ec.EllipticCurvePrivateKey, name: str, dns_name: str) -> bytes:
    """PEM of a signing request for ``name`` with ``dns_name`` as its only alternative name, for server and client."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(list(_USES)), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def parse_request(data: bytes, what: str) -> Request:
    """The request of its PEM text; its own signature holds. Raises DataError that begins with ``what``."""
    try:
        csr = x509.load_pem_x509_csr(data)
        signed, key = csr.is_signature_valid, csr.public_key()
        common = [str(entry.value) for entry in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        names = _dns_names(csr)
    except _BROKEN as error:
        raise DataError(f"{what} is no certificate signing request in PEM: {_line(error)}") from None
    if not signed:
        raise DataError(f"{what}: the request's own signature does not hold; get it again from the node")
    if len(common) != 1 or len(csr.subject) != 1:
        raise DataError(f"{what}: the subject must be one common name; make the request with pppml keys init")
    if len(names) != 1:
        raise DataError(f"{what} asks for {len(names)} DNS names, expected one; make it with pppml keys init")
    return Request(csr.subject, common[0], names[0], _elliptic(key, what))


def parse_bundle(data: bytes, what: str) -> list[x509.Certificate]:
    """The certificates of a PEM bundle, at least one. Raises DataError that begins with ``what``."""
    try:
        return x509.load_pem_x509_certificates(data)
    except _BROKEN as error:
        raise DataError(f"{what} holds no certificates in PEM: {_line(error)}; give the PEM file") from None


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo in PEM: equal keys give equal bytes."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def check_certificate(
    certificate: bytes,
    authorities: bytes,
    *,
    public: ec.EllipticCurvePublicKey,
    dns_name: str,
    now: datetime,
    what: str,
    whose: str,
) -> datetime:
    """Check a node's PEM certificate (then intermediate ones, if any) and return when it ends.

    It must be that of the key ``public``, carry ``dns_name``, be valid ``now`` (aware), serve for server and client,
    and be signed by an authority of the bundle. ``what`` and ``whose`` name the two files in the DataError.
    """
    leaf, *between = parse_bundle(certificate, what)
    try:
        names, uses, key = _dns_names(leaf), _uses(leaf), leaf.public_key()
    except _BROKEN as error:
        raise DataError(f"{what} cannot be used: {_line(error)}; ask the authority for another") from None
    if public_pem(_elliptic(key, what)) != public_pem(public):
        raise DataError(f"{what} belongs to another key than this node's; install the one issued for its tls.csr")
    if dns_name not in names:
        raise DataError(
            f"{what} carries the DNS names {', '.join(names)[:200] or 'none'}, expected {dns_name!r}: it belongs to "
            "another identity, or the authority dropped the name; have tls.csr signed with its subjectAltName"
        )
    _check_dates(leaf, now, what)
    lacking = [name for use, name in _USES.items() if use not in uses]
    if lacking:
        raise DataError(f"{what} does not allow {' and '.join(lacking)}; both serverAuth and clientAuth are needed")
    roots = parse_bundle(authorities, whose)
    try:
        verifier = (
            PolicyBuilder()
            .store(Store(roots))
            .time(now.replace(tzinfo=None))
            .build_server_verifier(x509.DNSName(dns_name))
        )
        verifier.verify(leaf, between)
    except (VerificationError, *_BROKEN) as error:
        raise DataError(
            f"{what}, issued by {leaf.issuer.rfc4514_string()[:120]!r}, is not signed by an authority of {whose}: "
            f"{_line(error)}; install the bundle of the authority that issued it"
        ) from None
    return leaf.not_valid_after_utc


def _check_dates(leaf: x509.Certificate, now: datetime, what: str) -> None:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now < begins:
        raise DataError(
            f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M} UTC; set the clock, or wait"
        )
    if now > ends:
        raise DataError(
            f"{what} expired on {ends:%Y-%m-%d %H:%M} UTC; have tls.csr signed anew and install the result with "
            "pppml keys install"
        )


def _dns_names(thing: x509.CertificateSigningRequest | x509.Certificate) -> list[str]:
    try:
        names = thing.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name) for name in names.get_values_for_type(x509.DNSName)]


def _uses(leaf: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def _elliptic(key: object, what: str) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise DataError(f"{what} holds a {type(key).__name__}, expected an ECDSA key on P-256")
    return key


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

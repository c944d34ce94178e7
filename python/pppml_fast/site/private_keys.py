"""Private keys in files: PKCS#8 in PEM without a passphrase, as a service that starts by itself needs them."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pppml_fast.errors import DataError
from pppml_fast.site.files import read_file

__all__ = ["edwards_key", "elliptic_key", "private_pem"]


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """PKCS#8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def edwards_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key of a file of mode 0600. Raises DataError."""
    key = _load(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise DataError(f"{str(path)!r} holds a {type(key).__name__}, expected an Ed25519 key; restore the file")
    return key


def elliptic_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The ECDSA P-256 key of a file of mode 0600. Raises DataError."""
    key = _load(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise DataError(f"{str(path)!r} holds a {type(key).__name__}, expected ECDSA on P-256; restore the file")
    return key


def _load(path: Path) -> object:
    data = read_file(path, private=True)
    try:
        return serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's own words could quote the file.
        raise DataError(f"{str(path)!r} is no private key in PEM without a passphrase; restore the file") from None

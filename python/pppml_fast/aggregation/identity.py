"""Long-term Ed25519 identities: who signs rosters, hellos and control messages."""

from __future__ import annotations

from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pppml_fast.errors import ProtocolError

__all__ = ["SIGNATURE_SIZE", "Identity", "verify"]

SIGNATURE_SIZE = 64
PUBLIC_SIZE = 32


class Identity:
    """A party's name with its Ed25519 key pair (RFC 8032). The private key is never printed or pickled."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.name = name
        self._private_key = private_key
        self.public: bytes = private_key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, name: str) -> Identity:
        """A fresh identity from the system's generator."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, name: str, data: bytes) -> Identity:
        """The identity of 32 stored private bytes. Raises ProtocolError on another length."""
        if len(data) != PUBLIC_SIZE:
            raise ProtocolError(f"an Ed25519 private key has {PUBLIC_SIZE} bytes, {len(data)} were given")
        return cls(name, Ed25519PrivateKey.from_private_bytes(data))

    def sign(self, domain: str, data: bytes) -> bytes:
        """64-byte signature over ``data`` under a domain label, so that no signature serves two purposes."""
        return self._private_key.sign(_framed(domain, data))

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, {self.public.hex()[:16]}...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Identity holds a private key and is never pickled")


def verify(public: bytes, domain: str, data: bytes, signature: bytes, whose: str) -> None:
    """Raise ProtocolError unless ``signature`` over ``data`` is that of the Ed25519 key ``public``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _framed(domain, data))
    except (InvalidSignature, ValueError):
        raise ProtocolError(f"the {domain} signature of {whose} is not valid") from None


def _framed(domain: str, data: bytes) -> bytes:
    label = f"pppml {domain} v1".encode()
    return len(label).to_bytes(1, "little") + label + data

"""The name in a node's certificate: it binds TLS to the Ed25519 identity that the roster lists."""

from __future__ import annotations

from hashlib import sha256

__all__ = ["tls_name"]


def tls_name(public: bytes) -> str:
    """DNS name (SAN) of the node whose Ed25519 public key (32 bytes) is ``public``: 32 hex digits and ``.pppml``."""
    return sha256(b"pppml tls name v1" + public).hexdigest()[:32] + ".pppml"

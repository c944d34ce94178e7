"""Keys of the public polynomials a_j, derived so that every party expands the same ones."""

from __future__ import annotations

from pppml_fast.errors import InputError
from pppml_fast.params import CkksParams

__all__ = ["check_bytes32", "expansion_key"]

_SALT = b"pppml-fast public polynomials v1"


def expansion_key(params: CkksParams, context: bytes, purpose: str = "a") -> bytes:
    """HKDF-SHA256 (RFC 5869) of a 32-byte context or seed, bound to the parameter set and to a purpose; 32 bytes.

    Purposes are "a" (public polynomials), "mask" and "tag"; equal bytes give each of them another stream.
    """
    import hashlib  # loads OpenSSL: not before it is needed
    import hmac

    pseudorandom = hmac.new(_SALT, check_bytes32("context", context), hashlib.sha256).digest()
    return hmac.new(pseudorandom, params.id + purpose.encode() + b"\x01", hashlib.sha256).digest()


def check_bytes32(name: str, value: bytes) -> bytes:
    """``value`` as 32 bytes; raises InputError else."""
    if not isinstance(value, bytes | bytearray | memoryview) or len(value) != 32:
        size = len(value) if hasattr(value, "__len__") else type(value).__name__
        raise InputError(f"{name} must be 32 bytes, not {size}")
    return bytes(value)

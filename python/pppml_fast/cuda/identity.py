"""What an update on a device is known by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.cuda.arrays import device_tensors
from pppml_fast.cuda.device import native_errors
from pppml_fast.errors import InputError

__all__ = ["tag_pieces"]

_HASH_KEY_BYTES = 16


def tag_pieces(x: Any, hash_key: bytes, piece: int, *, stream: Any = None) -> tuple[NDArray[np.uint8], int | None]:
    """uint8 (pieces, 16): GHASH of every ``piece`` consecutive values; and the index of the first NaN or Inf, or None.

    Each value counts as four bytes of float32, little-endian, -0.0 as 0.0; the last piece may be shorter. It is hashed
    under ``hash_key``, 16 bytes, as AES-GCM hashes so much associated data and no text [NIST SP 800-38D]: masked with
    the cipher it is the tag of AES-GMAC. Waits for the stream. Raises InputError on tensors that cannot be read, on
    another size of key, and on pieces of no value.
    """
    if len(hash_key) != _HASH_KEY_BYTES or piece < 1:
        raise InputError(f"a key of {len(hash_key)} bytes and pieces of {piece} values: give 16 and at least 1")
    tensors = device_tensors(x, stream=stream)
    with native_errors():
        tags, bad = _native.cuda.tag_pieces(tensors.device, tensors.stream, tensors.rows, bytes(hash_key), piece)
    return np.frombuffer(tags, np.uint8).reshape(-1, 16), bad

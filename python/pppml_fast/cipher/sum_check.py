"""The sum check: whether a relay that adds ciphertexts changed their sum.

The members share a key that the relay lacks. From it come two uniform residues rho per block and prime; each member
sends T_i = sum_j rho_j b_{i,j}, and the sum B is accepted only if sum_j rho_j B_j = sum_i T_i. A relay that alters B
passes with probability at most the product of 1/q over both residues: 2^-62 at 31-bit primes. It does not bind members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.cipher.ciphertext import Ciphertext
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.errors import CiphertextError, OpeningError
from pppml_fast.params import CkksParams

__all__ = ["sum_check_tag", "sum_check_verify"]

_ROWS = 2


def sum_check_tag(ciphertext: Ciphertext, key: bytes) -> bytes:
    """T of a collective ciphertext under a 32-byte key: 2 * L * N residues, little-endian words."""
    return _tag(ciphertext, key).tobytes()


def sum_check_verify(total: Ciphertext, key: bytes, tags: Sequence[bytes]) -> None:
    """Check the sum ``total`` against the tags of its terms.

    Raises CiphertextError on a malformed tag, OpeningError when the sum is not that of the tagged terms.
    """
    if len(tags) != total.terms:
        raise OpeningError(f"{len(tags)} tags for a sum of {total.terms} terms; each contributor sends one")
    params = total.params
    moduli = _moduli(params)
    expected = np.zeros(moduli.size, dtype=np.uint64)
    for tag in tags:
        expected = (expected + _parse(params, tag)) % moduli
    if not np.array_equal(_tag(total, key).astype(np.uint64), expected):
        raise OpeningError("the sum check fails: the summed ciphertext was altered on its way; nothing was released")


def _tag(ciphertext: Ciphertext, key: bytes) -> NDArray[Any]:
    params = ciphertext.params
    if params.keys != "collective":
        raise CiphertextError("the sum check works on collective ciphertexts")
    return np.asarray(params._scheme.tag(ciphertext.length, expansion_key(params, key, "tag"), ciphertext.first))


def _moduli(params: CkksParams) -> NDArray[np.uint64]:
    row = np.repeat(np.array(params.primes, dtype=np.uint64), params.ring_dimension)
    return np.tile(row, _ROWS)


def _parse(params: CkksParams, tag: bytes) -> NDArray[np.uint64]:
    dtype = np.dtype(np.uint32 if params._scheme.word_bytes == 4 else np.uint64)
    moduli = _moduli(params)
    if len(tag) != moduli.size * dtype.itemsize:
        raise CiphertextError(f"a tag of {params.name} takes {moduli.size * dtype.itemsize} bytes; got {len(tag)}")
    residues = np.frombuffer(tag, dtype=dtype).astype(np.uint64)
    if np.any(residues >= moduli):
        raise CiphertextError("a residue of the tag is not below its prime: refused")
    return residues

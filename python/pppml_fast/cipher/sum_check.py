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

__all__ = ["SumCheck", "sum_check_tag", "sum_check_verify"]

_ROWS = 2


class SumCheck:
    """T of a collective ciphertext of ``length`` weights that passes by in ranges of blocks, each block once."""

    def __init__(self, params: CkksParams, length: int, key: bytes) -> None:
        if params.keys != "collective":
            raise CiphertextError("the sum check works on collective ciphertexts")
        self._params, self._length = params, length
        self._key = expansion_key(params, key, "tag")
        self._tags = np.zeros(_moduli(params).size, _word(params))

    def add(self, start: int, stop: int, payload: Any) -> None:
        """Add blocks ``[start, stop)``, packed or as residue words.

        Raises CiphertextError, adding nothing, on a packed residue that is not below its prime.
        """
        kept = self._tags.copy()
        if self._params._scheme.tag(self._length, self._key, payload, start, stop, self._tags) is None:
            self._tags = kept
            raise CiphertextError(f"a residue in blocks {start} .. {stop} is not below its prime: refused")

    def less(self, other: SumCheck) -> bytes:
        """T of the difference of two ciphertexts, as bytes: of a term, from the sums before and after it."""
        moduli = _moduli(self._params)
        difference = (self._tags.astype(np.uint64) + moduli - other._tags) % moduli
        return difference.astype(self._tags.dtype).tobytes()

    def to_bytes(self) -> bytes:
        """T of all that was added: 2 * L * N residues, little-endian words."""
        return self._tags.tobytes()

    def verify(self, tags: Sequence[bytes]) -> None:
        """As `sum_check_verify`, for the sum whose ranges were added; ``tags`` must be one for each of its terms."""
        moduli = _moduli(self._params)
        expected = np.zeros(moduli.size, dtype=np.uint64)
        for tag in tags:
            expected = (expected + _parse(self._params, tag)) % moduli
        if not np.array_equal(self._tags.astype(np.uint64), expected):
            raise OpeningError(
                "the sum check fails: the summed ciphertext was altered on its way; nothing was released"
            )


def sum_check_tag(ciphertext: Ciphertext, key: bytes) -> bytes:
    """T of a collective ciphertext under a 32-byte key: 2 * L * N residues, little-endian words."""
    return _of(ciphertext, key).to_bytes()


def sum_check_verify(total: Ciphertext, key: bytes, tags: Sequence[bytes]) -> None:
    """Check the sum ``total`` against the tags of its terms.

    Raises CiphertextError on a malformed tag, OpeningError when the sum is not that of the tagged terms.
    """
    if len(tags) != total.terms:
        raise OpeningError(f"{len(tags)} tags for a sum of {total.terms} terms; each contributor sends one")
    _of(total, key).verify(tags)


def _of(ciphertext: Ciphertext, key: bytes) -> SumCheck:
    check = SumCheck(ciphertext.params, ciphertext.length, key)
    check.add(0, ciphertext.block_count, ciphertext.first)
    return check


def _moduli(params: CkksParams) -> NDArray[np.uint64]:
    row = np.repeat(np.array(params.primes, dtype=np.uint64), params.ring_dimension)
    return np.tile(row, _ROWS)


def _word(params: CkksParams) -> np.dtype[Any]:
    return np.dtype(np.uint32 if params._scheme.word_bytes == 4 else np.uint64)


def _parse(params: CkksParams, tag: bytes) -> NDArray[np.uint64]:
    dtype = _word(params)
    moduli = _moduli(params)
    if len(tag) != moduli.size * dtype.itemsize:
        raise CiphertextError(f"a tag of {params.name} takes {moduli.size * dtype.itemsize} bytes; got {len(tag)}")
    residues = np.frombuffer(tag, dtype=dtype).astype(np.uint64)
    if np.any(residues >= moduli):
        raise CiphertextError("a residue of the tag is not below its prime: refused")
    return residues

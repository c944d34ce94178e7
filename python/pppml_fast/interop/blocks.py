"""Our ciphertexts as one array of residues per block: what other libraries call a ciphertext."""

from __future__ import annotations

import numpy as np

from pppml_fast.cipher import Ciphertext
from pppml_fast.errors import CiphertextError
from pppml_fast.interop.residues import ResidueCiphertext

__all__ = ["residue_blocks"]


def residue_blocks(
    ciphertext: Ciphertext, level: int = 0, degree: int = 1, key_tag: str = ""
) -> list[ResidueCiphertext]:
    """The blocks of a public-key ciphertext of slots, each (c0, c1) of N/2 slots at its parameters' total scale.

    Raises CiphertextError for coefficients, which other libraries do not decode, and for other kinds of ciphertext.
    """
    params = ciphertext.params
    if params.packing == "coefficients" or ciphertext.second is None:
        raise CiphertextError(
            f"{ciphertext!r} is no pair of polynomials over slots: encrypt with a public key of a slot set"
        )
    shape = (ciphertext.block_count, len(params.primes), params.ring_dimension)
    pairs = np.stack([words.reshape(shape) for words in (ciphertext.first, ciphertext.second)], axis=1)
    return [
        ResidueCiphertext(
            pair.astype(np.uint64),
            params.primes,
            params.total_scale,
            params.ring_dimension // 2,
            level,
            degree,
            key_tag,
        )
        for pair in pairs
    ]

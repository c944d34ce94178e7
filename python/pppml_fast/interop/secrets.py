"""Secret keys between residues in coefficient form and the small integers that they stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import CiphertextError

__all__ = ["from_small", "to_small"]

# Ternary and Gaussian secrets, and sums of them over any number of parties, are far below.
_LARGEST = 1 << 20


def to_small(residues: NDArray[np.uint64], primes: tuple[int, ...]) -> NDArray[np.int64]:
    """The coefficients, int64 of shape (N,), of a small polynomial given as residues of shape (primes, N).

    Raises CiphertextError when the residues are of no small polynomial.
    """
    centred = [_centred(row, q) for row, q in zip(residues, primes, strict=True)]
    if any((row != centred[0]).any() for row in centred) or int(np.abs(centred[0]).max()) > _LARGEST:
        raise CiphertextError("a secret key is no polynomial with small coefficients: the data is damaged")
    return centred[0]


def from_small(coefficients: NDArray[np.int64], primes: tuple[int, ...], ring_dimension: int) -> NDArray[np.uint64]:
    """The inverse of :func:`to_small`; raises CiphertextError unless these are ``ring_dimension`` small integers."""
    given = np.asarray(coefficients)
    if given.dtype.kind != "i" or given.shape != (ring_dimension,) or int(np.abs(given).max()) > _LARGEST:
        raise CiphertextError(
            f"a secret key of shape {given.shape}, {given.dtype}: it is {ring_dimension} small coefficients"
        )
    return np.stack([given.astype(np.int64) % q for q in primes]).astype(np.uint64)


def _centred(row: NDArray[np.uint64], q: int) -> NDArray[np.int64]:
    signed = row.astype(np.int64)
    return np.where(signed > q // 2, signed - q, signed)

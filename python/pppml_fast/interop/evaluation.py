"""NTT forms of other libraries, and the way between them, ours and coefficients.

Libraries agree on the bit-reversed order and differ in the root: index i holds the value at root^(2 bitrev(i) + 1).
Ours has the least primitive 2N-th root of unity modulo each prime (csrc/README.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.errors import CiphertextError, ParameterError

__all__ = ["EvaluationForm"]

Residues = NDArray[np.uint64]


class EvaluationForm:
    """The NTT form of a ring Z_Q[X]/(X^N + 1) that has one chosen root of unity per prime of Q.

    Arrays are uint64 of shape (..., primes, N), row l below prime l. ``roots`` absent means ours. Raises ParameterError
    when a prime has no negacyclic transform of length N or a root is no primitive 2N-th root of unity.
    """

    def __init__(self, ring_dimension: int, primes: Sequence[int], roots: Sequence[int] | None = None) -> None:
        self.ring_dimension = ring_dimension
        self.primes = tuple(primes)
        try:
            self._transform = _native.Transform(ring_dimension, list(primes))
        except _native.RequirementError as error:
            raise ParameterError(str(error)) from None
        if roots is None:
            self.roots = self._own_roots()
            self._to_other = self._to_native = None
            return
        if len(roots) != len(self.primes):
            raise ParameterError(f"{len(roots)} roots of unity for {len(self.primes)} primes; give one for each")
        self.roots = tuple(roots)
        self._to_other, self._to_native = self._permutations()

    def to_native(self, values: Residues) -> Residues:
        """This form's values in our order. Raises CiphertextError on a wrong shape or dtype."""
        values = self._checked(values)
        return (
            values if self._to_native is None else np.take_along_axis(values, self._rows(self._to_native, values), -1)
        )

    def from_native(self, values: Residues) -> Residues:
        """The inverse of :meth:`to_native`."""
        values = self._checked(values)
        return values if self._to_other is None else np.take_along_axis(values, self._rows(self._to_other, values), -1)

    def to_coefficients(self, values: Residues) -> Residues:
        """Coefficients of polynomials with these values; raises CiphertextError on a residue not below its prime."""
        try:
            return self._transform.inverse(self.to_native(values))
        except _native.RequirementError as error:
            raise CiphertextError(str(error)) from None

    def from_coefficients(self, residues: Residues) -> Residues:
        """The inverse of :meth:`to_coefficients`."""
        try:
            return self.from_native(self._transform.forward(self._checked(residues)))
        except _native.RequirementError as error:
            raise CiphertextError(str(error)) from None

    def _checked(self, values: Residues) -> Residues:
        shape = (len(self.primes), self.ring_dimension)
        if values.dtype != np.uint64 or values.shape[-2:] != shape:
            raise CiphertextError(
                f"residues of shape {values.shape}, {values.dtype}; this ring takes uint64 of shape (..., {shape[0]}, "
                f"{shape[1]})"
            )
        return values

    def _own_roots(self) -> tuple[int, ...]:
        # X has the value psi at index 0.
        x = np.zeros((len(self.primes), self.ring_dimension), np.uint64)
        x[:, 1] = 1
        return tuple(int(root) for root in self._transform.forward(x)[:, 0])

    def _permutations(self) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """Row l of the first says where other[i] stands in our order, the second is its inverse; None where all agree.

        With root = psi^k, other[i] is the value at psi^(k (2 bitrev(i) + 1)).
        """
        own = self._own_roots()
        exponents = [
            _exponent(root, psi, q, self.ring_dimension)
            for root, psi, q in zip(self.roots, own, self.primes, strict=True)
        ]
        if all(k == 1 for k in exponents):
            return None, None
        order = _bit_reversed(self.ring_dimension)
        powers = np.array(exponents, np.int64)[:, None] * (2 * order + 1) % (2 * self.ring_dimension)
        forth = order[(powers - 1) // 2]
        return forth, np.argsort(forth, axis=-1)

    @staticmethod
    def _rows(permutation: NDArray[np.int64], values: Residues) -> NDArray[np.int64]:
        return np.broadcast_to(permutation, values.shape)


def _bit_reversed(size: int) -> NDArray[np.int64]:
    order = np.zeros(1, np.int64)
    while len(order) < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _exponent(root: int, psi: int, q: int, ring_dimension: int) -> int:
    """The odd k below 2N with root = psi^k."""
    if not 0 < root < q or pow(root, ring_dimension, q) != q - 1:
        raise ParameterError(f"{root} is no primitive root of unity of order {2 * ring_dimension} modulo {q}")
    power, square = psi, psi * psi % q
    for k in range(1, 2 * ring_dimension, 2):
        if power == root:
            return k
        power = power * square % q
    raise ParameterError(f"{root} is no power of {psi} modulo {q}: the modulus is no prime")

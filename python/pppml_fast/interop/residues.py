"""Ciphertexts and keys as plain arrays: what libraries exchange, whatever their objects look like."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import CiphertextError

__all__ = ["PublicResidues", "ResidueCiphertext", "check_residues"]


@dataclass(frozen=True, eq=False)
class ResidueCiphertext:
    """One CKKS ciphertext: phase c0 + c1 s (+ c2 s^2) = ``scale`` times the encoded values, plus noise, modulo Q.

    ``residues`` is uint64 of shape (polynomials, primes, N) in **coefficient form**, row l below ``primes[l]``. Slot j
    of ``slots`` is the value at zeta^(5^j), zeta = exp(i pi / N), for OpenFHE and us, and at zeta^(3^j) for SEAL; fewer
    than N/2 slots stand there again and again.
    ``level`` counts the primes dropped, ``degree`` the scaling factors multiplied into ``scale``; ``key_tag`` names the
    key. Raises CiphertextError when sizes, dtypes or residues are not as said here.
    """

    residues: NDArray[np.uint64]
    primes: tuple[int, ...]
    scale: float
    slots: int
    level: int = 0
    degree: int = 1
    key_tag: str = ""

    def __post_init__(self) -> None:
        if self.residues.ndim != 3 or not 1 <= len(self.residues) <= 3:
            raise CiphertextError(f"residues of shape {self.residues.shape}: a ciphertext has (1 .. 3, primes, N)")
        check_residues(self.residues, self.primes)
        half = self.ring_dimension // 2
        if not (1 <= self.slots <= half and self.slots & (self.slots - 1) == 0):
            raise CiphertextError(f"{self.slots} slots: a power of two up to N/2 = {half} is needed")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise CiphertextError(f"scale {self.scale} is not a positive number")
        if self.level < 0 or self.degree < 1:
            raise CiphertextError(f"level {self.level} and degree {self.degree}: at least 0 and 1 are needed")

    @property
    def ring_dimension(self) -> int:
        """N."""
        return int(self.residues.shape[-1])

    def __add__(self, other: ResidueCiphertext) -> ResidueCiphertext:
        """The sum of two ciphertexts of one key, scale and level; raises CiphertextError when they differ in any."""
        if not isinstance(other, ResidueCiphertext):
            return NotImplemented
        for name in ("primes", "scale", "slots", "level", "degree", "key_tag"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise CiphertextError(f"cannot add ciphertexts whose {name} differ: {mine!r} and {theirs!r}")
        if self.residues.shape != other.residues.shape:
            raise CiphertextError(f"cannot add shapes {self.residues.shape} and {other.residues.shape}")
        primes = np.array(self.primes, np.uint64)[:, None]
        total = self.residues + other.residues  # below 2^61: primes have 60 bits at most
        return dataclasses.replace(self, residues=np.where(total >= primes, total - primes, total))


@dataclass(frozen=True, eq=False)
class PublicResidues:
    """A public key (b, a) with b + a s = small error: two uint64 arrays (primes, N) in **NTT form**, our order."""

    b: NDArray[np.uint64]
    a: NDArray[np.uint64]
    primes: tuple[int, ...]
    key_tag: str = ""

    def __post_init__(self) -> None:
        for array in (self.b, self.a):
            if array.ndim != 2:
                raise CiphertextError(f"a public key's polynomial has shape {array.shape}, not (primes, N)")
            check_residues(array, self.primes)
        if self.a.shape != self.b.shape:
            raise CiphertextError(f"a public key's polynomials have shapes {self.b.shape} and {self.a.shape}")

    def under(self, prime_count: int) -> PublicResidues:
        """The same key under the first ``prime_count`` primes alone: what encrypts at a lower level."""
        if not 1 <= prime_count <= len(self.primes):
            raise CiphertextError(f"{prime_count} primes of a key that has {len(self.primes)}")
        return PublicResidues(self.b[:prime_count], self.a[:prime_count], self.primes[:prime_count], self.key_tag)


def check_residues(residues: NDArray[np.uint64], primes: tuple[int, ...]) -> None:
    """Raise CiphertextError unless ``residues`` is uint64 of shape (..., primes, N), each below its prime."""
    if residues.dtype != np.uint64:
        raise CiphertextError(f"residues are {residues.dtype}; they must be uint64")
    count, degree = residues.shape[-2:]
    if count != len(primes):
        raise CiphertextError(f"{count} rows of residues for {len(primes)} primes")
    if degree < 16 or degree & (degree - 1):
        raise CiphertextError(f"rows of {degree} residues: N is a power of two, 16 or more")
    if not residues.size:
        raise CiphertextError(f"residues of shape {residues.shape} hold nothing")
    largest = residues.max(axis=(*range(residues.ndim - 2), residues.ndim - 1))
    for q, most in zip(primes, largest, strict=True):
        if int(most) >= q:
            raise CiphertextError(f"a residue {most} is not below its prime {q}: the data is damaged")

"""CKKS ciphertexts that go on after the sum: plaintext factors, rescaling, and a bound on what they still tell.

A levelled ciphertext is a pair of polynomials modulo the first ``level`` primes of its set, in NTT form, whose phase
c0 + c1 s is ``scale`` times the embedding of its slots plus noise: what OpenFHE, SEAL and TenSEAL call a ciphertext.
Sums need none of this (:class:`Ciphertext` adds, travels and opens exactly); it serves slot-wise work on them and
exchange with other libraries.

What comes out is approximate. Publishing raw decryptions gives CKKS keys away (Li and Micciancio, eprint 2020/1533), so
results stay with the key's owner, or leave rounded to their guaranteed precision, as :meth:`LevelledCiphertext.decrypt`
gives them. Rounding bounds what they tell; it is no proof against whoever may have many such results.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pppml_fast import _native
from pppml_fast.cipher import Ciphertext, SecretKey
from pppml_fast.cipher.wire import Kind
from pppml_fast.errors import CiphertextError, InputError, ParameterError
from pppml_fast.params import CkksParams

__all__ = ["LevelledCiphertext", "Step", "sum_error"]

# Standard deviations that a sub-Gaussian variable leaves with probability below 2^-165: 2^-128 over 7e9 values in 1000
# rounds, several bounds each.
_DEVIATIONS = 15.2
# Two scales that differ by less are one: products of primes near a power of two never match to the last bit.
_SCALE_TOLERANCE = 2.0**-40


@dataclass(frozen=True)
class Step:
    """One line of a precision report.

    ``error`` bounds the magnitude of a complex slot's error, ``bound`` that of its value; ``bits`` is log2 of their
    ratio.
    """

    operation: str
    level: int
    scale_log2: float
    bound: float
    error: float

    @property
    def bits(self) -> float:
        """Guaranteed bits of the largest values; 0 where there are none but zero."""
        return math.log2(self.bound / self.error) if self.bound > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{self.operation:<16} level {self.level}, scale 2^{self.scale_log2:.2f}, |value| <= {self.bound:.4g}, "
            f"error <= {self.error:.3g}, {self.bits:.1f} bits"
        )


class LevelledCiphertext:
    """An encrypted vector of ``length`` weights in slots, at a level, with a scale and a bound on its error.

    Immutable: every operation returns a new one. ``report`` tells what each operation left of the precision. Bounds
    hold but for a probability of 2^-128, if errors of rounding in :meth:`rescale` are taken as independent.
    """

    __slots__ = ("_parts", "length", "params", "report", "scale")
    # NumPy leaves operators to this class: else it would work element by element on its side.
    __array_ufunc__ = None

    def __init__(
        self,
        params: CkksParams,
        length: int,
        parts: tuple[NDArray[Any], NDArray[Any]],
        scale: float,
        report: Sequence[Step],
    ) -> None:
        self.params = params
        self.length = length
        self.scale = scale
        self.report = tuple(report)
        self._parts = parts
        for part in parts:
            part.setflags(write=False)

    # --- making -------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, ciphertext: Ciphertext) -> LevelledCiphertext:
        """A fresh or summed ciphertext of slots, under public or secret keys, at the level of all primes.

        Raises CiphertextError on collective ones: nobody holds a key for what they would become.
        """
        params = ciphertext.params
        if params.packing == "coefficients":
            raise CiphertextError("only slots have slot-wise arithmetic; encrypt under packing='slots' or 'real_slots'")
        if ciphertext.kind is Kind.COLLECTIVE:
            raise CiphertextError("a collective sum opens exactly or not at all; levelled work needs a key's owner")
        whole = ciphertext.expanded()
        parts = [_rows(params, words) for words in (whole.first, whole.second)]
        bound = params.clip * (whole.terms if params.weights == "free" else 1) * _complex_factor(params)
        error = sum_error(params, whole.terms)
        return cls._fresh(params, whole.length, parts, params.total_scale, bound, error, f"sum of {whole.terms}")

    @classmethod
    def from_residues(
        cls,
        params: CkksParams,
        c0: NDArray[np.uint64],
        c1: NDArray[np.uint64],
        *,
        length: int,
        scale: float,
        bound: float,
        error: float,
    ) -> LevelledCiphertext:
        """From residues (blocks, level, N) in coefficient form: what another library encrypted.

        ``bound`` and ``error`` bound the magnitudes of a slot's value and of its error; nobody but the caller knows
        them. Raises InputError unless they and ``scale`` are finite numbers above 0, CiphertextError on shapes that do
        not fit ``length``, on a residue not below its prime, and on values beyond half of the modulus.
        """
        for name, number in (("scale", scale), ("bound", bound), ("error", error)):
            if not (math.isfinite(number) and number > 0):
                raise InputError(f"{name} = {number!r} must be a finite number above 0")
        if any(np.asarray(part).dtype.kind not in "iu" for part in (c0, c1)):
            raise CiphertextError("residues are integers; give arrays of uint64")
        rows = [np.ascontiguousarray(part, np.uint64) for part in (c0, c1)]
        level = rows[0].shape[1] if rows[0].ndim == 3 else 0
        expected = (params.block_count(length), level, params.ring_dimension)
        if not 1 <= level <= len(params.primes) or any(part.shape != expected for part in rows):
            raise CiphertextError(
                f"c0 and c1 have shapes {rows[0].shape} and {rows[1].shape}; {length} weights take {expected}"
            )
        primes = np.array(params.primes[:level], np.uint64)[None, :, None]
        if any((part >= primes).any() for part in rows):
            raise CiphertextError("a residue is not below its prime")
        native = _native_of(params)
        parts = [native.forward(part) for part in rows]
        return cls._fresh(params, length, parts, scale, bound, error, "from residues")

    @classmethod
    def _fresh(
        cls,
        params: CkksParams,
        length: int,
        parts: Sequence[NDArray[Any]],
        scale: float,
        bound: float,
        error: float,
        name: str,
    ) -> LevelledCiphertext:
        whole = error + _transform_error(params, bound)
        step = _checked_step(params, name, int(parts[0].shape[1]), scale, bound, whole)
        return cls(params, length, (parts[0], parts[1]), scale, [step])

    # --- shape --------------------------------------------------------------------------------------------

    @property
    def level(self) -> int:
        """How many primes are in use; :meth:`rescale` drops the last."""
        return int(self._parts[0].shape[1])

    @property
    def bound(self) -> float:
        """Bound on the magnitude of a complex slot's value."""
        return self.report[-1].bound

    @property
    def error(self) -> float:
        """Bound on the magnitude of a complex slot's error."""
        return self.report[-1].error

    @property
    def release_step(self) -> float:
        """The power of two, no finer than ``error``, whose multiples :meth:`decrypt` gives."""
        return 2.0 ** math.ceil(math.log2(self.error))

    @property
    def nbytes(self) -> int:
        """Bytes of the residues in memory."""
        return sum(int(part.nbytes) for part in self._parts)

    def residues(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(c0, c1), each (blocks, level, N) in coefficient form, as :meth:`from_residues` takes them. New arrays."""
        native = _native_of(self.params)
        return native.inverse(self._parts[0]), native.inverse(self._parts[1])

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return (
            f"LevelledCiphertext({self.params.name}/{self.params.packing}, level {self.level} of "
            f"{len(self.params.primes)}, scale 2^{math.log2(self.scale):.2f}, length={self.length}, "
            f"{self.report[-1].bits:.1f} bits, bytes={self.nbytes})"
        )

    # --- arithmetic ---------------------------------------------------------------------------------------

    def __add__(self, other: LevelledCiphertext | ArrayLike) -> LevelledCiphertext:
        if isinstance(other, LevelledCiphertext):
            return self._combined("add", other)
        return self._plus(other, 1, "add plaintext")

    __radd__ = __add__

    def __rsub__(self, other: ArrayLike) -> LevelledCiphertext:
        return (-self)._plus(other, 1, "add plaintext")

    def __sub__(self, other: LevelledCiphertext | ArrayLike) -> LevelledCiphertext:
        if isinstance(other, LevelledCiphertext):
            return self._combined("subtract", other)
        return self._plus(other, -1, "subtract plaintext")

    def __neg__(self) -> LevelledCiphertext:
        return self._scaled(-1, "negate")

    def __mul__(self, factor: int | ArrayLike) -> LevelledCiphertext:
        """Times an integer, or slot by slot times one real number per slot at the scale of the last prime.

        A vector of factors has as many as there are slots in use: ``length`` in real slots, one per complex slot else
        (both halves of slot j of a block are multiplied by the same number). :meth:`rescale` then brings the scale
        back.
        """
        if isinstance(factor, int | np.integer) and not isinstance(factor, bool):
            return self._scaled(int(factor), f"times {int(factor)}")
        return self._times(np.asarray(factor, np.float64))

    __rmul__ = __mul__

    def rescale(self) -> LevelledCiphertext:
        """Divide residues and scale by the level's last prime, which it leaves. Raises CiphertextError at level 1."""
        if self.level < 2:
            raise CiphertextError("level 1 has no prime to rescale by; use parameters with more primes")
        native = _native_of(self.params)
        scale = self.scale / self.params.primes[self.level - 1]
        # Each part errs by at most 1/2 per coefficient, c1's times the secret.
        rounding = (
            _DEVIATIONS * 0.5 * math.sqrt(self.params.ring_dimension) * math.hypot(1, _embedded_secret(self.params))
        )
        parts = (native.rescale(self._parts[0]), native.rescale(self._parts[1]))
        return self._next("rescale", parts, scale, self.bound, self.error + rounding / scale)

    def at_level(self, level: int) -> LevelledCiphertext:
        """The same ciphertext modulo the first ``level`` primes, to be combined with others of that level."""
        if not 1 <= level <= self.level:
            raise CiphertextError(f"level {level} is outside 1 .. {self.level}: primes can be left, not joined")
        parts = tuple(np.ascontiguousarray(part[:, :level]) for part in self._parts)
        return self._next(f"to level {level}", (parts[0], parts[1]), self.scale, self.bound, self.error)

    def _combined(self, name: str, other: LevelledCiphertext) -> LevelledCiphertext:
        mine = (self.params.id, self.length, self.level)
        if mine != (other.params.id, other.length, other.level) or not _same(self.scale, other.scale):
            raise CiphertextError(
                f"cannot {name} {other!r} and {self!r}: set, length, level or scale differ; see at_level"
            )
        combine = getattr(_native_of(self.params), name)
        parts = (combine(self._parts[0], other._parts[0]), combine(self._parts[1], other._parts[1]))
        drift = abs(other.scale / self.scale - 1) * (other.bound + other.error)
        return self._next(name, parts, self.scale, self.bound + other.bound, self.error + other.error + drift)

    def _plus(self, values: ArrayLike, sign: int, name: str) -> LevelledCiphertext:
        plain = np.asarray(values, np.float64)
        blocks = self._blocks(plain, self.params.block_weights, self.length)
        rows = self._encode(blocks, False, self.scale)
        native = _native_of(self.params)
        combine = native.add if sign > 0 else native.subtract
        largest = _complex_factor(self.params) * float(np.abs(plain).max(initial=0))
        parts = (combine(self._parts[0], rows), self._parts[1])
        error = self.error + self._encoding_error(self.scale, largest)
        return self._next(name, parts, self.scale, self.bound + largest, error)

    def _scaled(self, factor: int, name: str) -> LevelledCiphertext:
        if factor == 0 or not -(1 << 62) < factor < 1 << 62:
            raise InputError(f"factor = {factor} is 0, which needs no ciphertext, or outside (-2^62, 2^62)")
        native = _native_of(self.params)
        parts = (native.multiply_integer(self._parts[0], factor), native.multiply_integer(self._parts[1], factor))
        return self._next(name, parts, self.scale, self.bound * abs(factor), self.error * abs(factor))

    def _times(self, factors: NDArray[np.float64]) -> LevelledCiphertext:
        slots = self.params.ring_dimension // 2
        used = self.length if self.params.packing == "real_slots" else self._parts[0].shape[0] * slots
        if factors.ndim == 0:
            factors = np.full(used, float(factors))
        scale = float(self.params.primes[self.level - 1])
        rows = self._encode(self._blocks(factors, slots, used), True, scale)
        native = _native_of(self.params)
        largest = float(np.abs(factors).max(initial=0))
        encoding = self._encoding_error(scale, largest)
        error = self.error * (largest + encoding) + self.bound * encoding
        parts = (native.multiply(self._parts[0], rows), native.multiply(self._parts[1], rows))
        return self._next("times plaintext", parts, self.scale * scale, self.bound * largest, error)

    def _blocks(self, values: NDArray[np.float64], width: int, expected: int) -> NDArray[np.float64]:
        if values.shape != (expected,) or not np.isfinite(values).all():
            raise InputError(f"a plaintext of shape {values.shape} was given; it takes {expected} finite numbers")
        padded = np.zeros((self._parts[0].shape[0], width))
        padded.reshape(-1)[:expected] = values
        return padded

    def _encode(self, blocks: NDArray[np.float64], factors: bool, scale: float) -> NDArray[Any]:
        try:
            return _native_of(self.params).encode(blocks, self.level, factors, scale)
        except _native.RequirementError as error:
            raise InputError(str(error)) from None

    def _encoding_error(self, scale: float, largest: float) -> float:
        """Of a slot: N coefficients rounded by at most 1/2, whatever their values, and the transform."""
        return 0.5 * self.params.ring_dimension / scale + _transform_error(self.params, largest)

    def _next(
        self, name: str, parts: tuple[NDArray[Any], NDArray[Any]], scale: float, bound: float, error: float
    ) -> LevelledCiphertext:
        step = _checked_step(self.params, name, int(parts[0].shape[1]), scale, bound, error)
        return LevelledCiphertext(self.params, self.length, parts, scale, [*self.report, step])

    # --- opening ------------------------------------------------------------------------------------------

    def decrypt(self, secret: SecretKey, *, rounded: bool = True) -> NDArray[np.float64]:
        """float64 (length,): the weights, multiples of ``release_step``.

        With ``rounded=False`` what decryption gives, noise and all, for the key's owner alone: see above. Raises
        ParameterError for a key of another set.
        """
        if secret.params.id != self.params.id:
            raise ParameterError(
                f"the key was made under {secret.params.name}, the ciphertext under {self.params.name}"
            )
        native = _native_of(self.params)
        try:
            values = native.decrypt(secret._native, self._parts[0], self._parts[1], self.scale)
        except _native.RequirementError as error:  # a key of another process
            raise ParameterError(str(error)) from None
        flat = values.reshape(-1)[: self.length]
        if not rounded:
            return flat
        result: NDArray[np.float64] = np.rint(flat / self.release_step) * self.release_step
        return result


def sum_error(params: CkksParams, terms: int) -> float:
    """Bound on the magnitude of a complex slot's error in a sum of ``terms`` encryptions: encoding and noise."""
    encoding = math.sqrt(2) * float(params._checked.max_error)
    if params.weights == "free" and params.rounding == "nearest":
        encoding *= terms / params.parties  # linear in the number of terms
    return encoding + _encryption_noise(params, terms) / params.total_scale


def _checked_step(params: CkksParams, name: str, level: int, scale: float, bound: float, error: float) -> Step:
    """The line of the report, after a check that nothing wraps around the modulus."""
    room = sum(math.log2(q) for q in params.primes[:level]) - 1
    if not math.log2(bound + error) + math.log2(scale) < room:
        raise CiphertextError(
            f"after {name!r} values up to {bound:g} at scale 2^{math.log2(scale):.1f} exceed half of the modulus, "
            f"2^{room:.1f}, at level {level}: rescale before, or use a smaller slot_scale or more primes"
        )
    return Step(name, level, math.log2(scale), bound, error)


def _transform_error(params: CkksParams, bound: float) -> float:
    """Of encoding and decoding slots up to ``bound`` in float64 (``csrc/ckks/slot_error.hpp``)."""
    levels = math.log2(params.ring_dimension)
    return 2 * 8 * levels * 2.0**-53 * math.sqrt(params.ring_dimension) * bound


def _same(scale: float, other: float) -> bool:
    return abs(scale / other - 1) < _SCALE_TOLERANCE


def _complex_factor(params: CkksParams) -> float:
    """Magnitude of a slot whose halves are 1."""
    return math.sqrt(2) if params.packing == "slots" else 1.0


def _embedded_secret(params: CkksParams) -> float:
    """Bound on |s(zeta^e)| of a uniform ternary secret: a sum of N independent terms in [-1, 1], Re and Im each."""
    return _DEVIATIONS * math.sqrt(params.ring_dimension)


def _encryption_noise(params: CkksParams, terms: int) -> float:
    """Bound on the magnitude of a slot of the noise polynomial of a sum of ``terms`` encryptions.

    Re and Im of a Gaussian polynomial's slot have variance N sigma^2 / 2 each. Public keys: e0 + u e + e1 s is, given
    e and s, a sum of independent variables in u, e0 and e1, weighted with |e(zeta)| and |s(zeta)|, which are bounded
    alike; u is uniform on -1, 0, 1, sub-Gaussian of variance 1.
    """
    sigma = 3.2
    deviation = math.sqrt(terms * params.ring_dimension)
    if params.keys == "secret":
        return _DEVIATIONS * sigma * deviation
    embedded = _DEVIATIONS * sigma * math.sqrt(params.ring_dimension)
    return _DEVIATIONS * deviation * math.hypot(sigma, embedded, sigma * _embedded_secret(params))


def _rows(params: CkksParams, words: NDArray[Any] | None) -> NDArray[Any]:
    assert words is not None, "a levelled ciphertext has two polynomials"
    shape = (-1, len(params.primes), params.ring_dimension)
    return _native_of(params).forward(words.reshape(shape).astype(np.uint64))


@functools.lru_cache(maxsize=16)
def _native_of(params: CkksParams) -> Any:
    """Tables of a set, made when it is first worked with."""
    return _native.Levelled(params._checked)

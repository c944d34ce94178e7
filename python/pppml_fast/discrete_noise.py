"""Integer noise for differential privacy: discrete Gaussian and Skellam, drawn by integer arithmetic alone.

Every decision compares random bits with a threshold known to `PRECISION` bits. The leading bits decide in NumPy; the
few draws that they leave undecided are settled by exact Python integers with further random bits. What is drawn follows
the stated law up to 2^-160 per value (the truncated tails and the thresholds' last bits). Draws take a time that
depends on the noise, never on the data.

[CKS] Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", 2020.
"""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pppml_fast.checks import whole_number
from pppml_fast.errors import ParameterError

__all__ = ["DEVIATION_UNIT", "DiscreteGaussian", "IntegerNoise", "Skellam"]

Entropy = Callable[[int], bytes]

PRECISION = 192
"""Bits of a threshold."""
DEVIATION_UNIT = 8
"""Standard deviations are whole multiples of this: a discrete Gaussian is made of blocks an eighth of sigma wide."""

_WORD_BITS = 63
_GUIDE_BITS = 16
_CHUNK = 1 << 16
_TAIL = 17  # standard deviations kept: exp(-17^2 / 2) < 2^-208
_EXP_MARGIN = 16
_ONE32 = np.uint64(1 << 32)


class IntegerNoise(ABC):
    """Independent symmetric integers of one law; ``deviation`` is the whole-numbered standard deviation.

    Raises ParameterError unless ``deviation`` is a multiple of `DEVIATION_UNIT` up to ``largest``.
    """

    largest: int

    def __init__(self, deviation: int) -> None:
        number = whole_number("deviation", deviation, DEVIATION_UNIT, self.largest, ParameterError)
        if number % DEVIATION_UNIT:
            raise ParameterError(f"deviation {number} is no multiple of {DEVIATION_UNIT}; round it up to the next")
        self.deviation = number

    def sample(self, count: int, entropy: Entropy = os.urandom) -> NDArray[np.int64]:
        """``count`` fresh values, int64. ``entropy(n)`` gives n random bytes: the system's, but for tests."""
        length = whole_number("count", count, 0)
        out = np.empty(length, np.int64)
        for start in range(0, length, _CHUNK):
            stop = min(start + _CHUNK, length)
            filled = start
            while filled < stop:
                drawn = self._draw(stop - filled, entropy)
                out[filled : filled + drawn.size] = drawn
                filled += drawn.size
        return out

    @abstractmethod
    def _draw(self, wanted: int, entropy: Entropy) -> NDArray[np.int64]:
        """At most ``wanted`` values: what was not rejected."""


class DiscreteGaussian(IntegerNoise):
    """P(x) proportional to exp(-x^2 / 2 deviation^2) on all integers ([CKS], definition 1).

    With w = deviation / 8 and |x| = k w + j, 0 <= j < w: k is drawn in proportion to exp(-k^2 / 128), j uniformly, and
    both are kept with probability exp(-(x^2 - (k w)^2) / 2 deviation^2) = exp(-(2 k w j + j^2) / 128 w^2), so that
    |x| has the law asked for; a sign is drawn, and -0 rejected. 0.95 of the candidates are kept.
    """

    largest = 1 << 33

    def _draw(self, wanted: int, entropy: Entropy) -> NDArray[np.int64]:
        width = self.deviation // DEVIATION_UNIT
        words = np.frombuffer(entropy(8 * wanted), "<u8")
        blocks = _gaussian_blocks().draw(words >> np.uint64(1), entropy)
        offsets, uniform = _uniform_below(width, wanted, entropy)
        kept = uniform & self._keeps(blocks, offsets, width, entropy)
        values = blocks * width + offsets
        negative = (words & np.uint64(1)).astype(bool)
        kept &= ~(negative & (values == 0))
        np.negative(values, where=negative, out=values)
        return values[kept]

    def _keeps(
        self, blocks: NDArray[np.int64], offsets: NDArray[np.int64], width: int, entropy: Entropy
    ) -> NDArray[np.bool_]:
        """Which candidates pass their Bernoulli trial; undecided ones (1 in 2^27) by exact arithmetic."""
        # x = (2 k t + t^2) / 128 in units of 2^-32, t = j / w: each division loses less than one unit.
        t = (offsets.astype(np.uint64) << np.uint64(32)) // np.uint64(width)
        twice = blocks.astype(np.uint64) << np.uint64(1)
        exponent = (twice * t + (t * t >> np.uint64(32))) >> np.uint64(7)
        probability = _exp_minus(exponent)
        drawn = np.frombuffer(entropy(4 * blocks.size), "<u4").astype(np.uint64)
        kept: NDArray[np.bool_] = drawn + np.uint64(_EXP_MARGIN) < probability
        undecided = ~kept & (drawn < probability + np.uint64(_EXP_MARGIN))
        for at in np.flatnonzero(undecided):
            j, k = int(offsets[at]), int(blocks[at])
            kept[at] = _exact_trial(int(drawn[at]), 2 * k * width * j + j * j, 128 * width * width, entropy)
        return kept


class Skellam(IntegerNoise):
    """The difference of two Poisson variables of mean deviation^2 / 2 each: P(x) = exp(-v) I_|x|(v), v = deviation^2.

    Drawn by inversion from a table of |x|; two sums of such values again follow the law, with variances added.
    """

    largest = 1 << 13

    def _draw(self, wanted: int, entropy: Entropy) -> NDArray[np.int64]:
        words = np.frombuffer(entropy(8 * wanted), "<u8")
        values = _skellam_table(self.deviation).draw(words >> np.uint64(1), entropy)
        # The table counts both signs of what is not 0, so that a sign costs no rejection.
        np.negative(values, where=(words & np.uint64(1)).astype(bool), out=values)
        return values


class _Inversion:
    """Whole numbers from cumulative probabilities: ``weights[i]`` is in proportion to the probability of i."""

    def __init__(self, weights: Sequence[int]) -> None:
        total, running = sum(weights), 0
        self._full: list[int] = []
        for weight in weights[:-1]:
            running += weight
            self._full.append((running << PRECISION) // total)
        tops = [full >> (PRECISION - _WORD_BITS) for full in self._full]
        self._tops = np.array(tops, np.uint64)
        cells = np.arange((1 << _GUIDE_BITS) + 1, dtype=np.uint64) << np.uint64(_WORD_BITS - _GUIDE_BITS)
        edges = np.searchsorted(self._tops, cells, side="left")
        # A cell without a threshold inside it, nor at its lower edge, decides alone; -1 marks the others.
        self._guide = np.where(edges[:-1] == edges[1:], edges[:-1], -1).astype(np.int64)

    def draw(self, words: NDArray[np.uint64], entropy: Entropy) -> NDArray[np.int64]:
        """One number for every uniform word of 63 bits: how many thresholds lie at or below it."""
        found: NDArray[np.int64] = self._guide[(words >> np.uint64(_WORD_BITS - _GUIDE_BITS)).astype(np.int64)]
        rest = np.flatnonzero(found < 0)
        if rest.size:
            asked = words[rest]
            below = np.searchsorted(self._tops, asked, side="left")
            found[rest] = below
            tied = self._tops[np.minimum(below, self._tops.size - 1)] == asked
            for at in rest[tied & (below < self._tops.size)]:
                more = int.from_bytes(entropy((PRECISION - _WORD_BITS + 7) // 8), "little")
                more >>= -(PRECISION - _WORD_BITS) % 8
                found[at] = bisect_right(self._full, int(words[at]) << (PRECISION - _WORD_BITS) | more)
        return found


@functools.lru_cache(maxsize=1)
def _gaussian_blocks() -> _Inversion:
    """Block k of a discrete Gaussian: exp(-k^2 / 128), up to 17 standard deviations."""
    count = DEVIATION_UNIT * _TAIL
    return _Inversion([_exp_fixed(k * k, 128, PRECISION + 64) for k in range(count)])


@functools.lru_cache(maxsize=4)
def _skellam_table(deviation: int) -> _Inversion:
    """|x| of a Skellam variable, by the recurrence I_(k-1)(v) = I_(k+1)(v) + (2 k / v) I_k(v).

    Downwards it is stable: what a wrong start adds has shrunk by exp(-(start^2 - k^2) / v) at order k (Miller).
    """
    variance, last = deviation * deviation, ceil(18 * deviation)
    start = max(2 * last, last + 200)
    above, here = 0, 1 << 256
    orders: list[int] = []
    for k in range(start, 0, -1):
        if k <= last:
            orders.append(2 * here)
        above, here = here, above + 2 * k * here // variance
    orders.append(here)
    return _Inversion(orders[::-1])


def _uniform_below(width: int, count: int, entropy: Entropy) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Candidates below ``width`` < 2^31, and which of them to keep, so that the kept ones are uniform (Lemire 2019)."""
    products = np.frombuffer(entropy(4 * count), "<u4").astype(np.uint64) * np.uint64(width)
    kept: NDArray[np.bool_] = (products & (_ONE32 - np.uint64(1))) >= np.uint64((1 << 32) % width)
    return (products >> np.uint64(32)).astype(np.int64), kept


def _exp_fixed(numerator: int, denominator: int, bits: int) -> int:
    """exp(-numerator / denominator) * 2^bits, within one unit: x is halved until the series is short, then squared."""
    halvings = max(0, numerator.bit_length() - denominator.bit_length() + 4)
    work = bits + halvings + 32
    x = (numerator << work) // (denominator << halvings)
    term = total = 1 << work
    n = 0
    while term:
        n += 1
        term = (term * x >> work) // n
        total += -term if n % 2 else term
    for _ in range(halvings):
        total = total * total >> work
    return total >> (work - bits)


def _exact_trial(drawn: int, numerator: int, denominator: int, entropy: Entropy) -> bool:
    """Whether a uniform number with the leading 32 bits ``drawn`` lies below exp(-numerator / denominator)."""
    uniform = drawn << (PRECISION - 32) | int.from_bytes(entropy((PRECISION - 32) // 8), "little")
    return uniform < _exp_fixed(numerator, denominator, PRECISION)


@functools.lru_cache(maxsize=1)
def _exp_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """2^32 exp(-x) within one unit, below 2^32, for x = i / 2^10, i < 4096, and for x = i / 2^21, i < 2048."""
    coarse = [min(_exp_fixed(i, 1 << 10, 32), (1 << 32) - 1) for i in range(4096)]
    fine = [min(_exp_fixed(i, 1 << 21, 32), (1 << 32) - 1) for i in range(2048)]
    return np.array(coarse, np.uint64), np.array(fine, np.uint64)


def _exp_minus(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """2^32 exp(-x / 2^32) for x < 4 * 2^32, within 5 units.

    Two table entries (a unit each), a product and a linear last step (what it leaves out is below 2^-10 units), each
    rounded down. The exponent that the caller computes is less than 4 units off, which moves the value by no more: 9
    units in all, within `_EXP_MARGIN`.
    """
    coarse, fine = _exp_tables()
    high = coarse[(x >> np.uint64(22)).astype(np.int64)]
    value = high * fine[(x >> np.uint64(11) & np.uint64(2047)).astype(np.int64)] >> np.uint64(32)
    return value - (value * (x & np.uint64(2047)) >> np.uint64(32))

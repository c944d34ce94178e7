"""Shamir's secret sharing over F_65537, coefficient by coefficient.

The sharing is linear: the sum of the shares a party holds is its share of the sum of the secrets, so the key
of a sum is opened without any single key ever being put together. Source: Shamir 1979; scheme.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import ParameterError, ProtocolError

__all__ = [
    "FIELD",
    "attempt_threshold",
    "candidates",
    "check_threshold",
    "combine",
    "default_threshold",
    "random_field",
    "share",
]

FIELD = 65537
_SMALL_GROUP = 5


def default_threshold(parties: int) -> int:
    """Shares needed to open: all below five parties, else ⌊2n/3⌋ + 1."""
    return parties if parties < _SMALL_GROUP else 2 * parties // 3 + 1


def check_threshold(threshold: int, parties: int) -> None:
    """Raise ParameterError unless n/2 < threshold <= n: two halves must never open two different sums."""
    if not parties < 2 * threshold <= 2 * parties:
        raise ParameterError(
            f"threshold {threshold} of {parties} parties is out of range; choose {parties // 2 + 1}..{parties}"
        )


def attempt_threshold(live: int, parties: int, setting: int | None) -> int:
    """Threshold of an attempt over ``live`` of ``parties`` members: the rule for ``live``, but over n/2."""
    wanted = default_threshold(live) if setting is None else min(setting, live)
    return max(wanted, parties // 2 + 1)


def random_field(shape: tuple[int, ...], entropy: Callable[[int], bytes] = os.urandom) -> NDArray[np.int64]:
    """Uniform elements of F_65537, int64 of ``shape``, from the system's generator.

    2^32 - 1 = 65535 * 65537, so a 32-bit word is uniform modulo 65537 once the one word 2^32 - 1 is rejected.
    """
    count = int(np.prod(shape, dtype=np.int64))
    words = np.frombuffer(entropy(4 * count), "<u4").copy()
    rejected = np.flatnonzero(words == np.uint32(0xFFFFFFFF))
    while rejected.size:
        words[rejected] = np.frombuffer(entropy(4 * rejected.size), "<u4")
        rejected = rejected[words[rejected] == np.uint32(0xFFFFFFFF)]
    values = words.astype(np.int64) % FIELD
    words.fill(0)
    return values.reshape(shape)


def share(
    secret: NDArray[np.int64],
    points: Sequence[int],
    threshold: int,
    entropy: Callable[[int], bytes] = os.urandom,
) -> dict[int, NDArray[np.int64]]:
    """Shares of ``secret`` (int64 (N,), small signed values) at distinct points 1..65536; any ``threshold`` open.

    Raises ParameterError on points or a threshold that cannot share.
    """
    if len(set(points)) != len(points) or not all(0 < point < FIELD for point in points):
        raise ParameterError(f"points must be distinct and in 1..{FIELD - 1}; given {list(points)[:8]}")
    if not 0 < threshold <= len(points):
        raise ParameterError(f"threshold {threshold} needs as many points, {len(points)} were given")
    polynomial = random_field((threshold, secret.size), entropy)
    polynomial[0] = secret % FIELD
    shares = {}
    for point in points:
        value = np.zeros(secret.size, np.int64)
        for coefficient in polynomial[::-1]:
            value *= point
            value += coefficient
            value %= FIELD
        shares[point] = value
    polynomial.fill(0)
    return shares


def combine(shares: Mapping[int, NDArray[np.int64]], threshold: int) -> NDArray[np.int64]:
    """The secret, int64 (N,) centred in -32768..32768, from ``threshold`` of the given shares.

    Shares beyond the threshold must lie on the same polynomial. Raises ProtocolError when there are too few
    shares or a surplus share does not fit.
    """
    if len(shares) < threshold:
        raise ProtocolError(f"{len(shares)} shares cannot open a sum that needs {threshold}")
    points = sorted(shares)
    basis, surplus = points[:threshold], points[threshold:]
    for point in surplus:
        expected = _interpolate(shares, basis, point)
        if not np.array_equal(expected, shares[point] % FIELD):
            raise ProtocolError(f"the share at point {point} does not lie on the polynomial of the others")
    secret = _interpolate(shares, basis, 0)
    secret[secret > FIELD // 2] -= FIELD
    return secret


def candidates(
    shares: Mapping[int, NDArray[np.int64]], threshold: int
) -> Iterator[tuple[int | None, NDArray[np.int64]]]:
    """What the shares may stand for: (None, secret) where all fit, else what is left without one point, for each that
    makes the others fit. At most one share is taken to be false; without a surplus, whether all fit cannot be told.
    """
    try:
        yield None, combine(shares, threshold)
        return
    except ProtocolError:
        if len(shares) <= threshold:
            return
    for left_out in sorted(shares):
        rest = {point: values for point, values in shares.items() if point != left_out}
        try:
            yield left_out, combine(rest, threshold)
        except ProtocolError:
            continue


def _interpolate(shares: Mapping[int, NDArray[np.int64]], basis: Sequence[int], at: int) -> NDArray[np.int64]:
    total = np.zeros(shares[basis[0]].size, np.int64)
    for point in basis:
        numerator = denominator = 1
        for other in basis:
            if other != point:
                numerator = numerator * (at - other) % FIELD
                denominator = denominator * (point - other) % FIELD
        factor = numerator * pow(denominator, -1, FIELD) % FIELD
        total += shares[point] % FIELD * factor
        total %= FIELD
    return total

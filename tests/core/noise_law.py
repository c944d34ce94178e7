"""The laws behind exact opening and the residual check, as `docs/derivations.md` derives them, in floating point.

Probabilities come as log2 wherever they underflow. Exact laws are convolutions of the samplers' own tables: sums of
positive numbers, so that even the far tails keep their relative precision.
"""

from __future__ import annotations

import math

import numpy as np
from draws import GAUSSIAN

# Standard deviations in the noise bound, for Gaussian and for public-key noise, and the tail that the residual limit is
# laid for: csrc/ckks/headroom.cpp, csrc/kernels/registry.cpp.
GAUSSIAN_Z, PUBLIC_Z, RESIDUAL_T = 15.2, 15.45, 120.0
# 7e9 coefficients in each of 1000 rounds.
COEFFICIENTS_LOG2 = math.log2(7e12)

# --- exact opening ---------------------------------------------------------------------------------------------------


def noise_bound(z: float, variance: float, parties: int) -> int:
    """B: the noise of a sum opens exactly as long as it does not exceed this; delta = 2 B + 1."""
    return math.ceil(z * math.sqrt(variance * parties))


def gaussian_failure_log2(z: float) -> float:
    """Of P(|X| > B) for a sum of discrete Gaussians: at most erfc(z / sqrt 2)."""
    return math.log2(math.erfc(z / math.sqrt(2)))


def public_failure_log2(z: float) -> float:
    """Of P(|X| > B) for any sub-Gaussian X: at most 2 exp(-z^2 / 2)."""
    return 1 - z * z / 2 / math.log(2)


def sum_law(table: str, parties: int) -> np.ndarray:
    """Probabilities of the sum of ``parties`` draws of a sampler's table, from its least value to its largest."""
    law, power, left = np.ones(1), GAUSSIAN[table].probabilities, parties
    while left:
        if left & 1:
            law = np.convolve(law, power)
        power, left = np.convolve(power, power), left >> 1
    return law


def beyond(law: np.ndarray, bound: int) -> float:
    """P(|X| > bound) for a symmetric law."""
    middle = law.size // 2
    return float(2 * law[: max(middle - bound, 0)].sum())


def public_variance(error: np.ndarray, secret: np.ndarray) -> float:
    """Of one coefficient of e u + e0 + e1 s under the key (s, e): u ternary, e0 and e1 of variance 10.24."""
    return 10.24 * (1 + float(secret @ secret)) + 2 / 3 * float(error @ error)


def public_covariance(error: np.ndarray, secret: np.ndarray, count: int) -> np.ndarray:
    """Of the first ``count`` coefficients: a Toeplitz matrix of negacyclic autocorrelations."""

    def autocorrelation(f: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.fft(np.concatenate([f, np.zeros(f.size)]))) ** 2
        whole = np.real(np.fft.ifft(spectrum))[: f.size]
        return whole - np.concatenate([[0], whole[1:][::-1]])

    row = (2 / 3 * autocorrelation(error) + 10.24 * autocorrelation(secret))[:count]
    row[0] += 10.24
    return np.asarray(row[abs(np.arange(count)[:, None] - np.arange(count))])


# --- the residual check ----------------------------------------------------------------------------------------------


def residual_limit(variance: float, coefficients: int) -> float:
    """What the sum of squared residuals may reach."""
    tail = coefficients + 2 * math.sqrt(coefficients * RESIDUAL_T) + 2 * RESIDUAL_T
    return variance * max(2 * coefficients, tail)


def chi_square_above(limit: float, freedom: int) -> float:
    """log2 of P(X > limit) for a chi-square X of even ``freedom``: exp(-x/2) sum_{i < k/2} (x/2)^i / i!, exactly."""
    assert freedom % 2 == 0
    half = limit / 2
    logs = [i * math.log(half) - math.lgamma(i + 1) for i in range(freedom // 2)]
    top = max(logs)
    return (top + math.log(sum(math.exp(x - top) for x in logs)) - half) / math.log(2)


def squares_above(limit: float, eigenvalues: np.ndarray) -> float:
    """log2 of a bound on P(|x|^2 > limit), x sub-Gaussian with a covariance of these eigenvalues: Chernoff's
    exp(-r limit) prod (1 - 2 r w)^(-1/2) at the best r. For equal eigenvalues it is the chi-square's."""
    largest = float(eigenvalues.max())
    rates = np.linspace(0, 0.5 / largest, 4001)[1:-1]
    exponents = [-r * limit - 0.5 * float(np.log1p(-2 * r * eigenvalues).sum()) for r in rates]
    return min(exponents) / math.log(2)


def garbage_accepted(variance: float, bound: int, coefficients: int, limit: float) -> float:
    """log2 of a bound on P(sum of squares <= limit) for independent uniform residuals on -bound .. bound: Chernoff's
    exp(r limit) (sum_x exp(-r x^2) / (2 bound + 1))^c, at r = c / (2 limit), the best for a continuous uniform law."""
    rate = coefficients / (2 * limit)
    x = np.arange(1, bound + 1, dtype=np.float64)
    mean = (1 + 2 * float(np.exp(-rate * x * x).sum())) / (2 * bound + 1)
    return (rate * limit + coefficients * math.log(mean)) / math.log(2)


def uniform_squares(bound: int, coefficients: int, limit: float) -> float:
    """P(sum of squares <= limit) for independent uniform residuals on -bound .. bound, exactly, by convolution."""
    most = math.floor(limit)
    single = np.zeros(most + 1)
    for x in range(-bound, bound + 1):
        if x * x <= most:
            single[x * x] += 1 / (2 * bound + 1)
    law = np.ones(1)
    for _ in range(coefficients):
        law = np.convolve(law, single)[: most + 1]
    return float(law.sum())


# --- hints -----------------------------------------------------------------------------------------------------------


def discrete_gaussian(variance: float, centre: float, values: np.ndarray) -> np.ndarray:
    """Probabilities of D(Z, variance, centre) at ``values``, which must cover all but a vanishing part of it."""
    density = np.exp(-((values - centre) ** 2) / (2 * variance))
    return np.asarray(density / density.sum())


def convolution_error_log2(first: float, second: float) -> float:
    """log2 of the relative error with which D(first) + D(second) is D(first + second), arguments being variances.

    By Poisson summation the sum's density at x is the Gaussian's times theta(x), |theta - 1| <= 2 exp(-2 pi^2 t) up to
    higher terms, t = first second / (first + second). Twice that covers the normalisation.
    """
    t = first * second / (first + second)
    return 2 - 2 * math.pi**2 * t / math.log(2)

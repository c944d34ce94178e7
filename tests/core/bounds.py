"""Bounds on the statistics of a correct generator.

Each assertion fails with probability at most ``ALARM`` when the null hypothesis holds; no threshold is tuned. Means and
counts are held to inequalities that are exact for any number of draws, sums of squares and chi-squares to the tails of
the chi-square law.

* [Hoeffding 1963, theorem 1] Probability inequalities for sums of bounded random variables. JASA 58.
* [Laurent and Massart 2000] Adaptive estimation of a quadratic functional by model selection. Ann. Statist. 28.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

# A run asserts some 10^4 statistics: together they fail a correct generator with probability below 2^-26.
ALARM = 2.0**-40
# Every bound here is two-sided: -ln of what one side may take.
SURPRISE = -math.log(ALARM / 2)
# The fewest draws that a cell of a chi-square may expect.
CELL = 200


def assert_mean(total: float, count: int, mean: float, variance: float, largest: float, what: str) -> None:
    """The sum of ``count`` independent values of this mean and variance, none farther than ``largest`` from the mean.

    Bernstein: P(sum - n mean >= d) <= exp(-d^2 / (2 (n variance + largest d / 3))); d below solves it for ALARM / 2.
    """
    linear = largest * SURPRISE / 3
    bound = linear + math.sqrt(linear**2 + 2 * count * variance * SURPRISE)
    assert abs(total - count * mean) <= bound, f"{what}: {total / count} per draw, expected {mean} +- {bound / count}"


def assert_count(seen: int, count: int, probability: float, what: str) -> None:
    """``seen`` of ``count`` independent trials: P(k or worse) <= exp(-n KL(k / n, p)) on a side [Hoeffding 1963]."""
    share, divergence = seen / count, 0.0
    for part, expected in ((share, probability), (1 - share, 1 - probability)):
        divergence += part * math.log(part / expected) if part > 0 else 0
    assert count * divergence <= SURPRISE, f"{what}: {seen} of {count}, expected {count * probability}"


def groups(share: np.ndarray) -> list[int]:
    """First cells of groups of ascending ``share`` that reach ``CELL`` each."""
    starts, held = [0], float(share[0])
    for cell in range(1, share.size):
        if share[cell - 1] >= CELL:
            return [*starts, *range(cell, share.size)]
        if held >= CELL:
            starts.append(cell)
            held = 0.0
        held += float(share[cell])
    return starts if held >= CELL else starts[:-1]


def assert_chi_square(seen: np.ndarray, probabilities: np.ndarray, what: str) -> None:
    """Pearson's statistic of the counts, rare cells pooled until each group expects ``CELL`` draws.

    Its law is close to the chi-square of k = groups - 1, of which [Laurent and Massart 2000, lemma 1] shows
    P(X >= k + 2 sqrt(k t) + 2 t) <= e^-t and P(X <= k - 2 sqrt(k t)) <= e^-t. A statistic below is refused too:
    such counts are too even to be random (k < 114 is too small to tell).
    """
    order = np.argsort(probabilities.ravel(), kind="stable")
    share = probabilities.ravel()[order] * seen.sum()
    starts = groups(share)
    observed, expected = (np.add.reduceat(x, starts) for x in (seen.ravel()[order], share))
    freedom = expected.size - 1
    assert freedom > 0, f"{what}: too few draws for a chi-square"
    statistic = float(((observed - expected) ** 2 / expected).sum())
    spread = 2 * math.sqrt(freedom * SURPRISE)
    assert freedom - spread <= statistic <= freedom + spread + 2 * SURPRISE, f"{what}: chi-square {statistic}/{freedom}"


def assert_squares(total: float, eigenvalues: np.ndarray, what: str) -> None:
    """A sum of squares of sub-Gaussian values, ``eigenvalues`` being those of their covariance.

    [Laurent and Massart 2000, lemma 1] for weights w: P(sum - |w|_1 >= 2 |w|_2 sqrt(t) + 2 |w|_inf t) <= e^-t, and
    P(sum - |w|_1 <= -2 |w|_2 sqrt(t)) <= e^-t. The upper side holds for every strictly sub-Gaussian law, hence for
    discrete Gaussians, ternary values and their linear images; the lower one is that of the Gaussian limit.
    """
    expected, spread = float(eigenvalues.sum()), 2 * math.sqrt(float((eigenvalues**2).sum()) * SURPRISE)
    upper = spread + 2 * float(eigenvalues.max()) * SURPRISE
    ratio = f"{what}: {total / expected} of the expected squares"
    assert -spread <= total - expected <= upper, f"{ratio}, allowed {1 - spread / expected} .. {1 + upper / expected}"


@dataclass(frozen=True)
class Law:
    """A symmetric law on the integers -largest .. largest, by its probabilities in that order."""

    probabilities: np.ndarray
    # Class of each value, eight classes of about equal weight, and their probabilities.
    classes: np.ndarray = field(init=False)
    class_probabilities: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        middle = np.cumsum(self.probabilities) - self.probabilities / 2
        classes = np.minimum((8 * middle).astype(np.int8), 7)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "class_probabilities", np.bincount(classes, self.probabilities, 8))

    @property
    def largest(self) -> int:
        return self.probabilities.size // 2

    @property
    def values(self) -> np.ndarray:
        return np.arange(-self.largest, self.largest + 1)

    def moment(self, order: int) -> float:
        return float(self.values.astype(np.float64) ** order @ self.probabilities)

    def histogram(self, draws: np.ndarray) -> np.ndarray:
        """Counts per value; a draw outside the law's support is an error."""
        assert draws.min() >= -self.largest and draws.max() <= self.largest, "a draw lies beyond the tail cut"
        return np.bincount(draws.ravel() + self.largest, minlength=self.probabilities.size)

    def classify(self, draws: np.ndarray) -> np.ndarray:
        return self.classes[draws + self.largest]


def assert_moments(law: Law, histogram: np.ndarray, what: str) -> None:
    """Means of x, x^2, x^3 and x^4: with them mean, variance, skewness and kurtosis."""
    values, count = law.values.astype(np.float64), int(histogram.sum())
    for order in (1, 2, 3, 4):
        mean = law.moment(order)
        variance = law.moment(2 * order) - mean**2
        total = float(histogram @ values**order)
        assert_mean(total, count, mean, variance, float(law.largest) ** order, f"{what}, moment {order}")


def assert_distribution(law: Law, histogram: np.ndarray, what: str) -> None:
    """Everything asserted of the draws of one law, whatever their order."""
    count, largest = int(histogram.sum()), law.largest
    assert_moments(law, histogram, what)
    # Signed cells: a sign that depends on the magnitude shows here as well.
    assert_chi_square(histogram, law.probabilities, what)
    for size in range(1, largest + 1):
        beyond = abs(law.values) >= size
        assert_count(int(histogram[beyond].sum()), count, law.probabilities[beyond].sum(), f"{what}, |x| >= {size}")
        positive, both = int(histogram[largest + size]), int(histogram[largest + size] + histogram[largest - size])
        if both > 0:
            assert_count(positive, both, 0.5, f"{what}, sign of {size}")


def assert_independent(first: Law, x: np.ndarray, second: Law, y: np.ndarray, what: str) -> None:
    """Independent pairs (x, y): no correlation, and the classes of their values fill a table of products."""
    product = float(x.ravel().astype(np.float64) @ y.ravel().astype(np.float64))
    variance = first.moment(2) * second.moment(2)
    assert_mean(product, x.size, 0, variance, first.largest * second.largest, f"correlation, {what}")
    table = np.bincount(8 * first.classify(x).ravel() + second.classify(y).ravel(), minlength=64)
    products = np.outer(first.class_probabilities, second.class_probabilities).ravel()
    assert_chi_square(table[products > 0], products[products > 0], f"joint classes, {what}")


def assert_all_independent(law: Law, streams: np.ndarray, what: str) -> None:
    """Every two rows of ``streams``, position by position, as ``assert_independent`` does it for one pair."""
    streams = streams.reshape(len(streams), -1)
    size, variance = streams.shape[1], law.moment(2) ** 2
    products = streams.astype(np.float64) @ streams.T.astype(np.float64)
    classes = law.classify(streams)
    present = np.flatnonzero(law.class_probabilities)
    members = [(classes == c).astype(np.float32) for c in present]
    tables = np.stack([np.stack([m @ other.T for other in members]) for m in members])
    shares = np.outer(law.class_probabilities[present], law.class_probabilities[present])
    for i in range(len(streams)):
        for j in range(i):
            pair = f"{what} {j} and {i}"
            assert_mean(float(products[i, j]), size, 0, variance, law.largest**2, f"correlation, {pair}")
            assert_chi_square(tables[:, :, i, j], shares, f"joint classes, {pair}")


def assert_serially_independent(law: Law, draws: np.ndarray, lags: range | list[int], what: str) -> None:
    """Draws a lag apart: the pairs are disjoint, so that they are independent of one another."""
    for lag in lags:
        pairs = draws.ravel()[: draws.size // (2 * lag) * 2 * lag].reshape(-1, 2, lag)
        assert_independent(law, pairs[:, 0], law, pairs[:, 1], f"{what}, lag {lag}")

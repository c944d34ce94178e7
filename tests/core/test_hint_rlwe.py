"""What two honest parties keep secret once their sums are known: the steps of the Hint-RLWE argument, checked small.

`docs/derivations.md` has the argument; here are the identities it stands on, at toy dimensions and with the samplers.
"""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from bounds import assert_chi_square, assert_mean
from draws import BACKENDS, GAUSSIAN, gaussian_rows, key_of
from noise_law import convolution_error_log2, discrete_gaussian

VALUES = np.arange(-400, 401)
VARIANCES = {"collective_secret": 20.25, "collective_error": 40.5}


@pytest.mark.parametrize("variance", [0.7, 20.25, 40.5])
@pytest.mark.parametrize("total", [0, 1, -3, 8, 17])
def test_given_the_sum_one_party_is_a_shifted_gaussian_of_half_the_variance(variance: float, total: int) -> None:
    """exp(-x^2 / 2v) exp(-(S - x)^2 / 2v) is exp(-(x - S/2)^2 / v) up to a constant: exact, for every S."""
    prior = discrete_gaussian(variance, 0, VALUES)
    joint = prior * prior[::-1][np.clip(VALUES - total + 400, 0, 800)]
    conditional = joint / joint.sum()
    expected = discrete_gaussian(variance / 2, total / 2, VALUES)
    inside = abs(VALUES - total / 2) < 9 * math.sqrt(variance)
    assert np.allclose(conditional[inside], expected[inside], rtol=1e-9, atol=1e-30)


@pytest.mark.parametrize("honest", [2, 3, 5])
def test_given_the_sum_of_more_each_keeps_more(honest: int) -> None:
    """Covariance of h parties given their sum: v (I - J / h), J of ones. Two honest parties are the worst case."""
    law = GAUSSIAN["collective_secret"]
    draws = np.random.default_rng(honest).choice(law.values, (2**18, honest), p=law.probabilities)
    apart = draws - draws.mean(axis=1, keepdims=True)  # the best prediction of each from the sum is the mean
    seen, variance = apart.T @ apart / len(draws), 20.25
    expected = variance * (np.eye(honest) - 1 / honest)
    error = 7 * variance * math.sqrt(2 / len(draws))
    assert np.abs(seen - expected).max() < error
    # Nothing linear is left in the sum.
    assert np.abs(apart.T @ draws.sum(axis=1) / len(draws)).max() < error * math.sqrt(honest)


@pytest.mark.parametrize("table", sorted(VARIANCES))
def test_the_samplers_own_draws_given_their_sum(table: str) -> None:
    """Two lanes of the core's sampler: among pairs of equal sum, one has the law that the argument says."""
    first, second = (
        gaussian_rows(table, BACKENDS[0], "chacha20", 256, key_of("hint", table, i)).ravel().astype(np.int64)
        for i in (0, 1)
    )
    for total in (-2, 0, 1, 5):
        mine = first[first + second == total]
        law = discrete_gaussian(VARIANCES[table] / 2, total / 2, VALUES)
        assert mine.size > 10000
        assert_mean(float(mine.sum()), mine.size, total / 2, VARIANCES[table] / 2, 61, f"mean given the sum {total}")
        assert_chi_square(np.bincount(mine + 400, minlength=801), law, f"law given the sum {total}")


@pytest.mark.parametrize("variance", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_a_gaussian_of_half_the_variance_plus_another_is_the_shifted_one(variance: float, centre: float) -> None:
    """The reduction's step: D(v/2) + D(v/2, c) is D(v, c) up to a factor within 1 +- the stated error.

    At the sizes of the core the error is beyond floating point; at these it is seen, and stays within the formula.
    """
    first, second = discrete_gaussian(variance, 0, VALUES), discrete_gaussian(variance, centre, VALUES)
    summed = np.convolve(first, second)[400:1201]
    wanted = discrete_gaussian(2 * variance, centre, VALUES)
    inside = abs(VALUES - centre) < 8 * math.sqrt(2 * variance)
    worst = float(np.abs(summed[inside] / wanted[inside] - 1).max())
    assert worst <= 2.0 ** convolution_error_log2(variance, variance)
    # At a centre of one half the first terms of even and odd sums are equal, and the normalisation takes them out.
    assert centre == 0.5 or worst > 2.0 ** (convolution_error_log2(variance, variance) - 3)


@pytest.mark.parametrize(("table", "most"), [("collective_secret", -70), ("collective_error", -141)])
def test_the_error_of_that_step_at_the_cores_sizes(table: str, most: float) -> None:
    """Splitting what two parties keep in two halves costs a relative error of 2^-70 per secret coefficient."""
    quarter = VARIANCES[table] / 4
    assert convolution_error_log2(quarter, quarter) < most
    # The formula in exact arithmetic, at x = 0 and centre 1/2: the theta function's first term.
    getcontext().prec = 80
    t, pi = Decimal(quarter) / 2, Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
    term = 2 * (-2 * pi * pi * t).exp()
    assert float(term.ln() / Decimal(2).ln()) == pytest.approx(convolution_error_log2(quarter, quarter) - 1, abs=1e-6)


def test_two_sums_of_one_secret_give_it_away() -> None:
    """One S per s_i, ever: live sets {1, 2, 3} and {2, 3} of the same secrets differ by the first party's."""
    secrets = gaussian_rows("collective_secret", BACKENDS[0], "chacha20", 3, key_of("reuse"))
    assert np.array_equal(secrets.sum(axis=0) - secrets[1:].sum(axis=0), secrets[0])

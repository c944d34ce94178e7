"""Noise as distributions, integers that survive quantisation, sensitivity that holds, and the room they need."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from pppml_fast import CkksParams, InputError, ParameterError, discrete_noise, quantize
from pppml_fast.discrete_noise import DiscreteGaussian, IntegerNoise, Skellam
from pppml_fast.privacy import (
    PrivacyPlan,
    PrivacyTerms,
    Rounding,
    private_parameters,
    squared_norm,
    tolerated_colluders,
)

LENGTH = 20_000
TERMS = PrivacyTerms("discrete_gaussian", 1.0, 1.0, 1e-5, 2, 10)
LAWS: list[IntegerNoise] = [DiscreteGaussian(8), DiscreteGaussian(40), Skellam(8), Skellam(40)]


class Counted:
    """A deterministic stream of bytes, which counts what was asked."""

    def __init__(self, seed: int) -> None:
        self.seed, self.calls = seed, 0

    def __call__(self, count: int) -> bytes:
        self.calls += 1
        return hashlib.shake_128(f"{self.seed} {self.calls}".encode()).digest(count)


def probabilities(noise: IntegerNoise, reach: int) -> np.ndarray[Any, Any]:
    """P(-reach) .. P(reach), by other means than the sampler's."""
    x = np.arange(-reach, reach + 1)
    if isinstance(noise, Skellam):
        return np.asarray(special.ive(np.abs(x), float(noise.deviation) ** 2))
    every = np.arange(-40 * noise.deviation, 40 * noise.deviation + 1)
    return np.asarray(np.exp(-(x**2) / (2 * noise.deviation**2)) / np.exp(-(every**2) / (2 * noise.deviation**2)).sum())


# --- the laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", LAWS, ids=lambda n: f"{type(n).__name__}{n.deviation}")
def test_values_follow_the_exact_law(noise: IntegerNoise) -> None:
    count, reach = 1_000_000, 3 * noise.deviation
    drawn = noise.sample(count, Counted(1))
    inner = probabilities(noise, reach)
    tail = (1 - inner.sum()) / 2
    expected = count * np.concatenate([[tail], inner, [tail]])
    seen = np.bincount(np.clip(drawn, -reach - 1, reach + 1) + reach + 1, minlength=expected.size)
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4


@pytest.mark.parametrize("noise", [*LAWS, DiscreteGaussian(1 << 17), DiscreteGaussian(1 << 33), Skellam(1 << 13)])
def test_moments_tails_and_signs(noise: IntegerNoise) -> None:
    count, sigma = 400_000, float(noise.deviation)
    scaled = noise.sample(count, Counted(2)) / sigma
    assert abs(scaled.mean()) < 5 / math.sqrt(count)
    assert abs((scaled**2).mean() - 1) < 5 * math.sqrt(2.1 / count)
    for z in (2, 3, 4):
        expected = special.erfc(z / math.sqrt(2)) if sigma > 1000 else 1 - probabilities(noise, int(z * sigma)).sum()
        beyond = int((np.abs(scaled) > z).sum())
        assert abs(beyond - count * expected) < 6 * math.sqrt(count * expected) + 2


@pytest.mark.parametrize("noise", [DiscreteGaussian(1000), Skellam(1000)])
def test_calls_and_neighbours_are_independent(noise: IntegerNoise) -> None:
    count = 300_000
    first, second = noise.sample(count), noise.sample(count)
    limit = 5 / math.sqrt(count)
    for a, b in ((first, second), (first[1:], first[:-1]), (np.abs(first[1:]), np.abs(first[:-1]))):
        assert abs(np.corrcoef(a, b)[0, 1]) < limit
    assert (first != second).mean() > 0.99


def test_a_fixed_stream_gives_fixed_values_and_another_stream_others() -> None:
    noise = DiscreteGaussian(800)
    assert np.array_equal(noise.sample(1000, Counted(3)), noise.sample(1000, Counted(3)))
    assert not np.array_equal(noise.sample(1000, Counted(3)), noise.sample(1000, Counted(4)))


def test_the_table_of_exp_keeps_its_margin() -> None:
    x = np.random.default_rng(0).integers(0, 1 << 33, 20_000).astype(np.uint64)
    x[:3] = (0, 1, (1 << 33) - 1)
    exact = [discrete_noise._exp_fixed(int(value), 1 << 32, 64) / 2**32 for value in x]
    assert np.abs(discrete_noise._exp_minus(x).astype(float) - np.array(exact)).max() < 5


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 1), (1, 128), (1, 3), (209, 128), (40, 1)])
def test_exact_exponentials(numerator: int, denominator: int) -> None:
    value = discrete_noise._exp_fixed(numerator, denominator, 200) / 2**200
    assert value == pytest.approx(math.exp(-numerator / denominator), rel=1e-14)


def test_what_leading_bits_leave_open_is_settled_exactly() -> None:
    # exp(-1/2): its first 32 bits, then digits below and above what follows.
    target = discrete_noise._exp_fixed(1, 2, discrete_noise.PRECISION)
    lead = target >> (discrete_noise.PRECISION - 32)
    width = (discrete_noise.PRECISION - 32) // 8
    rest = target & ((1 << 8 * width) - 1)
    for offset, kept in ((-1, True), (0, False), (1, False)):
        digits = (rest + offset).to_bytes(width, "little")
        assert discrete_noise._exact_trial(lead, 1, 2, lambda n, d=digits: d[:n]) is kept


def test_an_inversion_settles_ties_by_further_bits() -> None:
    third = discrete_noise._Inversion([1, 1, 1])
    top = np.array([third._full[0] >> (discrete_noise.PRECISION - 63)], np.uint64)
    assert third.draw(top, bytes)[0] == 0
    assert third.draw(top, lambda n: b"\xff" * n)[0] == 1
    assert third.draw(np.array([0, (1 << 63) - 1], np.uint64), bytes).tolist() == [0, 2]


@pytest.mark.parametrize("deviation", [0, 7, 9, True, 8.0, 1 << 34])
def test_a_deviation_that_cannot_be_drawn_is_refused(deviation: Any) -> None:
    with pytest.raises(ParameterError):
        DiscreteGaussian(deviation)


# --- sensitivity -----------------------------------------------------------------------------------------------------


def rounded_within(values: NDArray[np.float64], bound: int) -> NDArray[np.int64]:
    return Rounding.within(lambda: np.array_split(values, 3), bound)(values)


@pytest.mark.parametrize("scale", [0.3, 0.49, 0.51, 3.0, 1e4])
def test_rounded_integers_never_exceed_the_bound(scale: float) -> None:
    values = np.random.default_rng(1).choice([-1.0, 1.0], LENGTH) * scale
    for bound in (142, 1000, 100_000):
        clipped = values * min(1.0, bound / np.linalg.norm(values))
        integers = rounded_within(clipped, bound)
        assert sum(int(k) ** 2 for k in integers) <= bound**2
        assert np.abs(integers - clipped).max() <= max(1.0, np.abs(clipped).max())


def test_rounding_alone_would_exceed_it() -> None:
    # Every value lies just above one half: rounding doubles the norm, which the bound must not believe.
    values = np.full(10_000, 0.51)
    assert squared_norm(np.rint(values).astype(np.int64)) > 51**2
    assert squared_norm(rounded_within(values, 51)) <= 51**2


@pytest.mark.parametrize("bits", [20, 26, 31, 40, 52])
def test_the_norm_is_exact_where_floats_are_not(bits: int) -> None:
    values = np.random.default_rng(bits).integers(-(1 << bits), 1 << bits, 3000)
    assert squared_norm(values) == sum(int(k) ** 2 for k in values)


def test_a_long_update_is_shortened_whole_and_a_short_one_kept() -> None:
    plan = PrivacyPlan.of(TERMS, private_parameters(TERMS, parties=4, length=LENGTH), parties=4, length=LENGTH)
    update = np.random.default_rng(2).normal(0, 1, LENGTH)
    noise = DiscreteGaussian(plan.deviation).sample(LENGTH, Counted(5))
    for scale, clipped in ((1.0, True), (1e-3, False)):
        made = plan.privatise(update * scale, entropy=Counted(5))
        signal = (made.integers - noise) * plan.params.step
        assert made.clipped is clipped and made.saturated == 0
        assert np.linalg.norm(signal) <= TERMS.l2_clip
        direction = np.dot(signal, update) / np.linalg.norm(signal) / np.linalg.norm(update)
        assert direction > 0.999
        assert np.linalg.norm(signal) == pytest.approx(min(1.0, made.norm), rel=1e-3)


def test_an_update_in_parts_is_noised_in_little_memory() -> None:
    length = 1 << 21
    params = private_parameters(TERMS, parties=4, length=length)
    plan = PrivacyPlan.of(TERMS, params, parties=4, length=length)
    update = np.random.default_rng(3).normal(0, 1e-2, length).astype(np.float32)
    parts = [update[:77].reshape(7, 11), update[77:500_001], update[500_001:]]
    tracemalloc.start()
    made = plan.privatise(parts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < made.values.nbytes + (12 << 20)
    assert made.norm == pytest.approx(np.linalg.norm(update.astype(np.float64)), rel=1e-9)
    # The noise hides single values; along the update itself all of them add up.
    along = np.dot(made.values, update.astype(np.float64)) / made.norm
    assert along == pytest.approx(TERMS.l2_clip, abs=6 * plan.deviation * params.step)


# --- integers through encryption's quantiser -------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [3, 16])
@pytest.mark.parametrize("name", ["p31", "p50", "p62", "compact"])
def test_every_integer_of_the_range_survives_quantisation(name: str, parties: int) -> None:
    terms = replace(TERMS, colluders=1)
    params = private_parameters(terms, parties=parties, length=LENGTH, name=name)
    plan = PrivacyPlan.of(terms, params, parties=parties, length=LENGTH)
    most = params.max_magnitude
    edges = np.concatenate([np.arange(-2000, 2001), most - np.arange(2000), np.arange(2000) - most])
    if most < 1 << 21:
        integers = np.arange(-most, most + 1)
    else:
        spread = np.random.default_rng(0).integers(-most, most + 1, 500_000)
        powers = np.array([s * (1 << b) + o for b in range(most.bit_length() - 1) for s in (-1, 1) for o in (-1, 0, 1)])
        integers = np.concatenate([edges, spread, powers])
    assert np.array_equal(quantize(params, plan.to_values(integers)), integers)
    made = plan.privatise(np.ones(LENGTH))
    assert np.array_equal(quantize(params, made.values), made.integers)
    assert plan.reach <= most and parties * most <= params.sum_bound


# --- terms and plans -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"mechanism": "gaussian"},
        {"l2_clip": 0.0},
        {"l2_clip": math.nan},
        {"l2_clip": 1},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.inf},
        {"delta": 0.0},
        {"delta": 0.9},
        {"colluders": -1},
        {"colluders": 1.0},
        {"rounds": 0},
        {"rounds": True},
        {"largest_weight": 0.0},
    ],
)
def test_terms_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        replace(TERMS, **change)


@pytest.mark.parametrize(("parties", "threshold", "most"), [(3, 3, 1), (4, 4, 2), (5, 4, 3), (16, 11, 10), (2, 2, 0)])
def test_colluders_stay_within_what_encryption_tolerates(parties: int, threshold: int, most: int) -> None:
    assert tolerated_colluders(parties, threshold) == most


def test_two_honest_members_are_the_least() -> None:
    assert TERMS.honest(4) == 2
    with pytest.raises(ParameterError, match="leave 1 honest"):
        TERMS.honest(3)


@pytest.mark.parametrize("multiplier", [0.1, 1.0, 3.7])
@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_honest_noise_is_at_least_what_was_agreed(mechanism: Any, multiplier: float) -> None:
    terms = replace(TERMS, mechanism=mechanism, noise_multiplier=multiplier)
    plan = PrivacyPlan.of(terms, private_parameters(terms, parties=5, length=LENGTH), parties=5, length=LENGTH)
    assert math.sqrt(3) * plan.deviation >= multiplier * plan.sensitivity
    assert math.sqrt(3) * (plan.deviation - 8) < multiplier * plan.sensitivity


def test_sets_that_do_not_carry_integers_exactly_are_refused() -> None:
    for params in (
        CkksParams.preset("p31", parties=4, clip=5.0, keys="collective"),
        CkksParams.preset("p31", parties=4, clip=5.0, keys="collective", weights="public"),
        CkksParams.preset("p31", parties=4, clip=5.0, keys="collective", rounding="stochastic"),
        CkksParams.preset("p50", parties=4, clip=5.0, keys="collective", packing="slots"),
    ):
        with pytest.raises(ParameterError, match="private_parameters"):
            PrivacyPlan.of(TERMS, params, parties=4, length=LENGTH)


def test_noise_beyond_the_range_is_refused_not_clipped() -> None:
    params = private_parameters(TERMS, parties=4, length=LENGTH, name="p31")
    with pytest.raises(ParameterError, match="clip and noise reach"):
        PrivacyPlan.of(replace(TERMS, noise_multiplier=50.0), params, parties=4, length=LENGTH)
    with pytest.raises(ParameterError, match="no set takes this noise"):
        private_parameters(replace(TERMS, noise_multiplier=1e6), parties=4, length=LENGTH, name="p31")


def test_the_tail_is_rarer_than_promised() -> None:
    plan = PrivacyPlan.of(TERMS, private_parameters(TERMS, parties=4, length=LENGTH), parties=4, length=LENGTH)
    draws = LENGTH * 4 * TERMS.rounds
    assert math.log2(draws) + stats.norm.logsf((plan.tail - 1) / plan.deviation) / math.log(2) + 1 < -100
    skellam = replace(TERMS, mechanism="skellam")
    plan = PrivacyPlan.of(skellam, private_parameters(skellam, parties=4, length=LENGTH), parties=4, length=LENGTH)
    first = math.log2(float(special.ive(plan.tail, float(plan.deviation) ** 2)))
    assert math.log2(draws * plan.tail) + first + 1 < -100


def test_what_cannot_be_noised_is_refused() -> None:
    plan = PrivacyPlan.of(TERMS, private_parameters(TERMS, parties=4, length=LENGTH), parties=4, length=LENGTH)
    with pytest.raises(InputError, match="NaN or Inf"):
        plan.privatise(np.full(LENGTH, np.nan))
    with pytest.raises(InputError, match="values, the plan is for"):
        plan.privatise(np.zeros(LENGTH + 1))
    with pytest.raises(InputError, match="largest agreed on"):
        plan.privatise(np.zeros(LENGTH), weight=1.5)
    assert plan.privatise(np.full(LENGTH, 1e300)).clipped
    assert plan.privatise(np.zeros(LENGTH)).norm == 0

"""The residual check: its limit, how often it refuses honest blocks, and how often it accepts garbage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from bounds import assert_count, assert_squares
from core_support import fresh_parties, vector
from draws import key_of
from noise_law import (
    GAUSSIAN_Z,
    PUBLIC_Z,
    chi_square_above,
    garbage_accepted,
    noise_bound,
    public_covariance,
    residual_limit,
    squares_above,
    uniform_squares,
)

import pppml_fast as pf
from pppml_fast import _native

FULL, SHORTEST = 2048, 128


@pytest.mark.parametrize("coefficients", [1, SHORTEST, 500, 830, 831, 1000, FULL, 4096])
def test_the_limit_is_the_one_derived(coefficients: int) -> None:
    assert _native.primitives.residual_limit(7.5, coefficients) == pytest.approx(residual_limit(7.5, coefficients))
    # 2 c takes over where sqrt c exceeds the larger root of x^2 - 2 sqrt(120) x - 240.
    assert (residual_limit(1, coefficients) == 2 * coefficients) == (coefficients >= 896.0)


@pytest.mark.parametrize(("coefficients", "most"), [(SHORTEST, -173), (500, -173), (FULL, -450), (4096, -900)])
def test_honest_blocks_of_independent_noise_are_refused_this_rarely(coefficients: int, most: float) -> None:
    limit = residual_limit(1, coefficients)
    exact, bound = chi_square_above(limit, coefficients), squares_above(limit, np.ones(coefficients))
    assert exact <= bound <= most
    assert bound - exact < 10


def public_key(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Error and secret of a key pair as the core generates them, norms held."""
    params = pf.CkksParams.preset(name, parties=1, clip=1.0)
    scheme, n, q = params._scheme, params.ring_dimension, params.primes[0]
    secret, error, expansion = (key_of("residual", use, seed) for use in ("secret", "error", "a"))
    key = scheme.generate_secret(_native.StreamKey.from_bytes(secret))
    pk0 = scheme.generate_public(key, _native.StreamKey.from_bytes(error), expansion)
    s, log = key.coefficients(), n.bit_length() - 1
    primitives = _native.primitives
    a = primitives.uniform(q, log, expansion, 0, 0).astype(object)
    product = a * primitives.ntt(q, log, (s % q).astype(np.uint64)) % q
    values = primitives.ntt(q, log, ((pk0[:n].astype(object) + product) % q).astype(np.uint64), True).astype(np.int64)
    return np.where(values > q // 2, values - q, values).astype(float), s.astype(float)


@pytest.mark.parametrize(("name", "most"), [("p31", (-250, -200)), ("p50", (-450, -200))])
@pytest.mark.parametrize("seed", range(3))
def test_honest_blocks_of_public_keys_are_refused_this_rarely(name: str, most: tuple[float, float], seed: int) -> None:
    """Public noise is correlated: fewer degrees of freedom than coefficients, and weaker bounds than above."""
    error, secret = public_key(name, seed)
    assert np.abs(error).max() <= 31
    n = error.size
    declared = 10.24 * (1 + 1.1 * 4 * n / 3)
    whole = public_covariance(error, secret, n)
    assert float(np.trace(whole)) <= n * declared
    roots = np.exp(1j * np.pi * np.arange(n) / n)
    spectra = [abs(np.fft.fft(f * roots)) ** 2 for f in (error, secret)]
    bound = squares_above(residual_limit(declared, n), 10.24 + 2 / 3 * spectra[0] + 10.24 * spectra[1])
    short = squares_above(
        residual_limit(declared, SHORTEST), np.linalg.eigvalsh(whole[:SHORTEST, :SHORTEST]).clip(1e-9)
    )
    assert (bound < most[0], short < most[1]) == (True, True), (bound, short)


def opened_phases(phases: np.ndarray, parties: int) -> list[bool]:
    """Whether the core accepts each row as the phase of a block: under the zero key the ciphertext is the phase."""
    params = pf.CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective")
    scheme, q = params._scheme, params.primes[0]
    zero, out = scheme.secret_from_coefficients(np.zeros(2048, np.int64)), np.zeros(phases.shape[1], np.int64)
    accepted = []
    for row in phases:
        words = np.zeros(int(scheme.words(row.size, True)), np.uint32)
        words[: row.size] = row % q
        accepted.append(scheme.open(zero, row.size, parties, words, None, bytes(32), out)[0] is None)
    return accepted


@pytest.mark.parametrize("coefficients", [SHORTEST, FULL])
@pytest.mark.parametrize("parties", [1, 16])
def test_honest_statistics_are_chi_square(coefficients: int, parties: int) -> None:
    """Noise as the core draws it: the sums of squares of blocks, their moments and their exceedances."""
    scheme = pf.CkksParams.preset("p31", parties=1, clip=1.0, keys="collective")._scheme
    zero = scheme.secret_from_coefficients(np.zeros(2048, np.int64))
    total = np.zeros(2**18, np.int64)
    for party in range(parties):
        words = np.zeros(total.size, np.uint32)
        noise = _native.StreamKey.from_bytes(key_of("chi-square", party))
        scheme.encrypt(zero, noise, bytes(32), [np.zeros(total.size, np.float32)], 1.0, words)
        total += np.where(words > 2**30, words.astype(np.int64) - 2147389441, words)
    statistic = (total.reshape(-1, coefficients) ** 2).sum(axis=1) / (40.5 * parties)
    assert_squares(float(statistic.sum()), np.ones(total.size), "all squares")
    for sigmas in (-2, -1, 0, 1, 2, 3):
        threshold = coefficients + sigmas * math.sqrt(2 * coefficients)
        chance = 2.0 ** chi_square_above(threshold, coefficients)
        # Discrete Gaussians as wide as these have a Gaussian's moments to within e^-399.
        assert_count(int((statistic > threshold).sum()), statistic.size, chance, f"above {threshold:.0f}")
    assert all(opened_phases(total.reshape(-1, coefficients)[:64], parties))


@pytest.mark.parametrize("coefficients", [SHORTEST, FULL])
def test_noise_of_another_size_is_refused_as_the_chi_square_says(coefficients: int) -> None:
    """Phases of a larger variance, where the limit cuts through the law: the core's own refusals are counted."""
    limit = residual_limit(40.5, coefficients)
    for sigmas in (-2.0, -0.5, 0.5, 2.0):
        freedom_at_limit = coefficients + sigmas * math.sqrt(2 * coefficients)
        variance = limit / freedom_at_limit
        phases = np.random.default_rng(3).normal(0, math.sqrt(variance), (1500, coefficients))
        refused = 1500 - sum(opened_phases(np.rint(phases).astype(np.int64), 1))
        # Rounding adds a twelfth to the variance; residuals beyond delta / 2 = 97 would fold, and none comes near.
        assert np.abs(phases).max() < noise_bound(GAUSSIAN_Z, 40.5, 1)
        chance = 2.0 ** chi_square_above(limit / (variance + 1 / 12), coefficients)
        assert_count(refused, 1500, chance, f"refused at {sigmas} deviations")


@pytest.mark.parametrize(
    ("parties", "coefficients", "most"), [(2, FULL, -4000), (16, FULL, -4000), (16, SHORTEST, -200), (128, FULL, -4500)]
)
def test_garbage_is_accepted_this_rarely(parties: int, coefficients: int, most: float) -> None:
    variance, bound = 40.5 * parties, noise_bound(GAUSSIAN_Z, 40.5, parties)
    assert garbage_accepted(variance, bound, coefficients, residual_limit(variance, coefficients)) < most
    public = 10.24 * (1 + 1.1 * 4 * FULL / 3) * parties
    reach = noise_bound(PUBLIC_Z, public, 1)
    assert garbage_accepted(public, reach, coefficients, residual_limit(public, coefficients)) < most


@pytest.mark.parametrize(("z", "coefficients", "factor"), [(2.0, 2, 2.0), (2.0, 4, 2.0), (3.0, 4, 2.0), (3.0, 6, 3.0)])
def test_garbage_at_reduced_sizes_is_accepted_as_derived(z: float, coefficients: int, factor: float) -> None:
    variance, draws = 40.5, 2**18
    bound, limit = noise_bound(z, variance, 1), factor * coefficients * variance
    exact = uniform_squares(bound, coefficients, limit)
    assert math.log2(exact) <= garbage_accepted(variance, bound, coefficients, limit)
    # Phases uniform modulo Q = 2147389441, folded by rounding as an opening folds them.
    phases = np.random.default_rng(5).integers(0, 2147389441, (draws, coefficients))
    delta = 2 * bound + 1
    residuals = phases - (2 * phases + delta) // (2 * delta) * delta
    assert np.abs(residuals).max() == bound
    accepted = int(((residuals**2).sum(axis=1) <= limit).sum())
    assert_count(accepted, draws, exact, "accepted garbage")


def test_uniform_phases_never_open() -> None:
    phases = np.random.default_rng(7).integers(0, 2147389441, (2000, SHORTEST))
    assert not any(opened_phases(phases, 16))


# --- its stated reach ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["public", "secret"])
def test_under_one_owners_key_it_does_not_count_terms(keys: Any) -> None:
    """A term left out or added twice under the same key opens to the sum of what is there: the count is metadata, and
    whoever hands in ciphertexts must be authenticated. SOUNDNESS.md says so."""
    parties = fresh_parties("p31", keys, count=4)
    x = [vector(500, i) for i in range(3)]
    values = [pf.quantize(parties.params, v) for v in x]
    a, b, c = (parties.encrypt(i, v) for i, v in enumerate(x))
    missing = pf.add([a, b])
    missing.terms = 3
    assert np.array_equal(parties.opener.decrypt(missing, integers=True), values[0] + values[1])
    doubled = pf.add([a, b, c, c])
    opened = parties.opener.decrypt(doubled, integers=True)
    assert np.array_equal(opened, values[0] + values[1] + 2 * values[2])


def test_rounding_leaves_no_residual_beyond_the_bound() -> None:
    """delta = 2 B + 1, so |res| <= B whatever comes: the sum of squares is the whole check."""
    params = pf.CkksParams.preset("p31", parties=4, clip=1.0, keys="collective")
    assert params.scale == 2 * params.noise_bound + 1
    scheme = params._scheme
    zero, out = scheme.secret_from_coefficients(np.zeros(2048, np.int64)), np.zeros(FULL, np.int64)
    words = np.random.default_rng(9).integers(0, params.primes[0], FULL).astype(np.uint32)
    _, largest, _ = scheme.open(zero, FULL, 4, words, None, bytes(32), out)
    assert 0.99 * params.noise_bound < largest <= params.noise_bound

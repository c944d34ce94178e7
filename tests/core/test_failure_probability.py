"""How often an opening is wrong: the derived bounds, the samplers' exact laws, and counts where z is made small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from bounds import assert_count, assert_mean, assert_squares
from draws import GAUSSIAN, key_of
from noise_law import (
    COEFFICIENTS_LOG2,
    GAUSSIAN_Z,
    PUBLIC_Z,
    beyond,
    gaussian_failure_log2,
    noise_bound,
    public_failure_log2,
    public_variance,
    sum_law,
)

import pppml_fast as pf
from pppml_fast import _native

VARIANCE = {"collective": 40.5, "secret": 10.24}
TABLE = {"collective": "collective_error", "secret": "error"}
SMALL_Z = (2.0, 2.5, 3.0, 3.5, 4.0)


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("parties", [1, 2, 16, 1000])
def test_the_product_states_what_is_derived(keys: Any, parties: int) -> None:
    params = pf.CkksParams.preset("p50", parties=parties, clip=1.0, keys=keys)
    variance = VARIANCE.get(keys, 10.24 * (1 + 1.1 * 4 * 4096 / 3))
    z = PUBLIC_Z if keys == "public" else GAUSSIAN_Z
    assert params._checked.noise_variance == pytest.approx(variance)
    assert params.noise_bound == noise_bound(z, variance, parties)
    assert params.scale == 2 * params.noise_bound + 1
    per_coefficient = public_failure_log2(z) if keys == "public" else gaussian_failure_log2(z)
    assert params.failure_log2 == pytest.approx(COEFFICIENTS_LOG2 + per_coefficient, abs=1e-9)
    assert params.failure_log2 < -128


# Sums of truncated laws end before the bound where few are added: there nothing opens wrong at all.
@pytest.mark.parametrize("keys", ["secret", "collective"])
@pytest.mark.parametrize("parties", [1, 2, 3, 16, 128, 512])
def test_the_exact_law_of_a_sum_keeps_the_bound(keys: str, parties: int) -> None:
    law = sum_law(TABLE[keys], parties)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    chance = beyond(law, noise_bound(GAUSSIAN_Z, VARIANCE[keys], parties))
    if parties <= 2:
        assert chance == 0
    else:
        assert -300 < math.log2(chance) < gaussian_failure_log2(GAUSSIAN_Z)
        # 512 terms are as good as Gaussian: the bound gives away less than four bits.
        assert parties < 512 or math.log2(chance) > gaussian_failure_log2(GAUSSIAN_Z) - 4
    for z in SMALL_Z:
        assert math.log2(beyond(law, noise_bound(z, VARIANCE[keys], parties))) < gaussian_failure_log2(z)


def native_noise(keys: Any, parties: int, blocks: int) -> np.ndarray:
    """Noise of sums as the core encrypts: zeros under the zero key leave the error alone in the ciphertext."""
    params = pf.CkksParams.preset("p31", parties=parties, clip=1.0, keys=keys)
    scheme, length = params._scheme, blocks * 2048
    zero = scheme.secret_from_coefficients(np.zeros(2048, np.int64))
    rows = []
    for party in range(parties):
        noise = _native.StreamKey.from_bytes(key_of("failures", keys, parties, party))
        rows.append(np.zeros(length, np.uint32))
        scheme.encrypt(zero, noise, bytes(32), [np.zeros(length, np.float32)], 1.0, rows[-1])
    total = np.zeros(length, np.uint32)
    scheme.add(length, True, rows, total)
    signed = total.astype(np.int64)
    return np.where(signed > params.primes[0] // 2, signed - params.primes[0], signed)


def opened_wrong(noise: np.ndarray, z: float, variance: float, parties: int) -> int:
    """How many coefficients a scale for this z opens to another integer than was encrypted."""
    delta = 2 * noise_bound(z, variance, parties) + 1
    messages = np.random.default_rng(1).integers(-1000, 1001, noise.size)
    phase = delta * messages + noise.ravel()
    return int(((2 * phase + delta) // (2 * delta) != messages).sum())


@pytest.mark.parametrize("keys", ["secret", "collective"])
@pytest.mark.parametrize("parties", [1, 3, 16])
def test_wrong_openings_of_the_core_at_small_scales(keys: str, parties: int) -> None:
    noise, law = native_noise(keys, parties, 256), sum_law(TABLE[keys], parties)
    for z in SMALL_Z:
        wrong = opened_wrong(noise, z, VARIANCE[keys], parties)
        chance = beyond(law, noise_bound(z, VARIANCE[keys], parties))
        assert_count(wrong, noise.size, chance, f"wrong openings at z = {z}")
        assert wrong > 0 or chance * noise.size < 40


def negacyclic(f: np.ndarray) -> np.ndarray:
    """The matrix M of a polynomial f: x @ M is x f modulo X^N + 1."""
    n = f.size
    rows = np.zeros((n, n))
    for i in range(n):
        rows[i] = np.concatenate([-f[n - i :], f[: n - i]])
    return rows


def toy_key(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A secret and an error as key generation draws them, norms held."""
    law = GAUSSIAN["error"]
    while True:
        secret = generator.integers(-1, 2, n).astype(float)
        error = generator.choice(law.values, n, p=law.probabilities).astype(float)
        if secret @ secret <= 1.1 * 2 * n / 3 and error @ error <= 1.1 * n * 10.24:
            return secret, error


@pytest.mark.parametrize("parties", [1, 4])
@pytest.mark.parametrize("key", range(3))
def test_public_noise_at_a_toy_dimension(parties: int, key: int) -> None:
    """The whole scheme at N = 64 and a small modulus, public keys: what it opens wrong stays below the bound."""
    n, blocks, q, generator, law = 64, 2**15, 1 << 30, np.random.default_rng(key), GAUSSIAN["error"]
    secret, error = toy_key(n, generator)
    a = generator.integers(0, q, n).astype(float)
    matrix = {name: negacyclic(f) for name, f in (("s", secret), ("a", a))}
    pk0 = (error - secret @ matrix["a"]) % q
    c0, c1 = np.zeros((2, blocks, n))
    for _ in range(parties):
        u = generator.integers(-1, 2, (blocks, n)).astype(float)
        e0, e1 = generator.choice(law.values, (2, blocks, n), p=law.probabilities).astype(float)
        c0 += u @ negacyclic(pk0) + e0
        c1 += u @ matrix["a"] + e1
    # All products stay below 2^53: floats are exact.
    phase = ((c0 % q) + (c1 % q) @ matrix["s"]) % q
    noise = np.where(phase > q / 2, phase - q, phase)
    exact, declared = public_variance(error, secret), 10.24 * (1 + 1.1 * 4 * n / 3)
    assert exact <= declared
    # One coefficient of each block: those are independent of one another.
    single = noise[np.arange(blocks), np.arange(blocks) % n]
    assert_mean(float(single.sum()), blocks, 0, parties * exact, 31.0 * (2 * n + 1) * parties, "mean")
    assert_squares(float(single @ single), np.full(blocks, parties * exact), "variance")
    for z in SMALL_Z:
        wrong = opened_wrong(single.astype(np.int64), z, declared, parties)
        bound = 2.0 ** public_failure_log2(z)
        assert wrong <= blocks * bound, f"{wrong} of {blocks} wrong at z = {z}, the bound is {bound}"
        # The bound gives away a factor; the count is the Gaussian tail of this key's variance, a tenth allowed for its
        # being no Gaussian.
        reach = noise_bound(z, declared, parties) + 0.5
        expected = math.erfc(reach / math.sqrt(2 * parties * exact))
        assert abs(wrong - blocks * expected) < 7 * math.sqrt(blocks * expected) + 0.1 * blocks * expected + 7


def test_a_ternary_value_is_strictly_sub_gaussian() -> None:
    # The step of the derivation that is not a citation: E exp(t u) <= exp(t^2 / 3), all t.
    t = np.linspace(0, 30, 3001)
    assert np.all(np.log1p(2 * np.cosh(t)) - math.log(3) <= t * t / 3 + 1e-12)
    for law, variance in ((GAUSSIAN["error"], 10.24), (GAUSSIAN["collective_error"], 40.5)):
        moment = np.array([law.probabilities @ np.exp(x * law.values) for x in t[:1000:50]])
        assert np.all(np.log(moment) <= variance * t[:1000:50] ** 2 / 2 + 1e-9)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("parties", [2, 3, 17, 256])
def test_sums_with_public_weights_keep_their_bound(parties: int, rounding: Any) -> None:
    """max|m| + n/2 + slack (n + slack where rounding is stochastic), at the clip and with weights that round badly."""
    generator = np.random.default_rng(parties)
    params = pf.CkksParams.preset(
        "p31", parties=parties, clip=0.7, keys="collective", weights="public", rounding=rounding
    )
    magnitude = params.max_magnitude
    worst = parties // 2 if rounding == "nearest" else parties
    assert params.sum_bound == magnitude + (magnitude >> 20) + worst + 2
    x = np.full(64, 0.7, np.float32)
    for parts in (np.full(parties, 1.0), generator.random(parties) + 1e-3, 2.0 ** -np.arange(parties).clip(0, 40)):
        sums = np.zeros(64, np.int64)
        for party, share in enumerate(parts / math.fsum(parts)):
            seed = _native.StreamKey.from_bytes(key_of("rounding", party))
            sums += params._scheme.quantize([x], float(share), rounding=seed)[0]
        assert magnitude - worst - 2 <= sums.max() <= params.sum_bound

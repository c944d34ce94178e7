"""Slots: weights to polynomials and back, and the arithmetic of levelled ciphertexts. Answers are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.levelled import LevelledCiphertext

# The largest primes below 2^59 and 2^40 that are 1 modulo 2 * 8192.
PRIMES = (576460752303210497, 1099511480321)


def params_of(packing: Any) -> pf.CkksParams:
    return pf.CkksParams("bench", 8192, PRIMES, 4, 1.0, packing=packing, slot_scale=2.0**40)


@pytest.mark.parametrize("packing", ["slots", "real_slots"])
def test_encode(benchmark: Any, packing: str, backend: str) -> None:
    params = params_of(packing)
    scheme = _native.Scheme(params._checked, backend, "")
    x = np.random.default_rng(1).uniform(-1, 1, 8 * params.block_weights)
    integers, _ = benchmark(scheme.quantize, [x], 1.0)
    assert np.abs(pf.dequantize(params, integers, np.float64) - x).max() <= params.max_error


@pytest.mark.parametrize("packing", ["slots", "real_slots"])
def test_decode(benchmark: Any, packing: str, backend: str) -> None:
    params = params_of(packing)
    scheme = _native.Scheme(params._checked, backend, "")
    x = np.random.default_rng(1).uniform(-1, 1, 8 * params.block_weights)
    integers, values = pf.quantize(params, x), np.empty(x.size)
    benchmark(scheme.restore_slots, integers, values)
    assert np.abs(values - x).max() <= params.max_error


@pytest.fixture(scope="module")
def owner() -> tuple[pf.KeyPair, LevelledCiphertext, np.ndarray]:
    params = params_of("real_slots")
    keys = pf.keygen(params)
    x = np.random.default_rng(1).uniform(-1, 1, 8 * params.block_weights)
    assert keys.public is not None
    return keys, LevelledCiphertext.of(keys.public.encrypt(x)), x


@pytest.mark.parametrize("operation", ["add", "times integer", "times plaintext", "rescale", "decrypt"])
def test_levelled(benchmark: Any, operation: str, owner: tuple[pf.KeyPair, LevelledCiphertext, np.ndarray]) -> None:
    keys, a, x = owner
    product = a * 0.5
    work, expected = {
        "add": (lambda: a + a, 2 * x),
        "times integer": (lambda: a * 3, 3 * x),
        "times plaintext": (lambda: a * x, x * x),
        "rescale": (product.rescale, 0.5 * x),
        "decrypt": (lambda: a.decrypt(keys.secret), x),
    }[operation]
    result = benchmark(work)
    if isinstance(result, LevelledCiphertext):
        assert np.abs(result.decrypt(keys.secret, rounded=False) - expected).max() <= result.error
    else:
        assert np.abs(result - expected).max() <= a.error + a.release_step / 2

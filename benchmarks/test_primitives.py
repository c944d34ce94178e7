"""Kernels' primitives on one row: transform, streams, samplers. Their answers do not depend on the backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pppml_fast import PRESETS
from pppml_fast._native import primitives

KEY = bytes(range(32))
ROWS = [pytest.param(name, prime, id=f"{name}-{prime}") for name, ring in PRESETS.items() for prime in ring.primes]


def log_degree(name: str) -> int:
    return PRESETS[name].ring_dimension.bit_length() - 1


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name, prime", ROWS)
def test_ntt(benchmark: Any, name: str, prime: int, inverse: bool, backend: str) -> None:
    row = np.random.default_rng(1).integers(0, prime, PRESETS[name].ring_dimension, dtype=np.uint64)
    result = benchmark(primitives.ntt, prime, log_degree(name), row, inverse, backend)
    assert np.array_equal(primitives.ntt(prime, log_degree(name), result, not inverse, "scalar"), row)


@pytest.mark.parametrize("name, prime", ROWS)
def test_uniform(benchmark: Any, name: str, prime: int, backend: str) -> None:
    row = benchmark(primitives.uniform, prime, log_degree(name), KEY, 0, 3, backend)
    assert np.array_equal(row, primitives.uniform(prime, log_degree(name), KEY, 0, 3, "scalar"))
    assert row.max() < prime


@pytest.mark.parametrize("count", [4096, 1 << 20])
def test_stream(benchmark: Any, count: int, backend: str) -> None:
    words = benchmark(primitives.stream, KEY, 7, 11, 0, count, backend)
    assert np.array_equal(words[count // 2 :], primitives.stream(KEY, 7, 11, count // 2, count - count // 2, "scalar"))


@pytest.mark.parametrize(
    "table, deviation", [("collective_error", 4.5 * 2**0.5), ("collective_secret", 4.5), ("error", 3.2)]
)
def test_gaussian(benchmark: Any, table: str, deviation: float, backend: str) -> None:
    values = benchmark(primitives.gaussian, table, KEY, 0, 5, 2048, backend)
    assert np.array_equal(values, primitives.gaussian(table, KEY, 0, 5, 2048, "scalar"))
    assert abs(values.std() / deviation - 1) < 0.1


def test_ternary(benchmark: Any, backend: str) -> None:
    values = benchmark(primitives.ternary, KEY, 2, 5, 2048, backend)
    assert np.array_equal(values, primitives.ternary(KEY, 2, 5, 2048, "scalar"))
    assert set(values.tolist()) == {-1, 0, 1}

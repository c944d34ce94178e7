"""The transform against schoolbook products and the definition of its order."""

import hashlib

import numpy as np
import oracle
import pytest

from pppml_fast import _native

PRIMES = {"p31": 2147389441, "p50": 1125899906826241, "p62 first": 2147377153, "p62 second": 2147352577}
# The largest NTT primes for N = 64 below the limits of both word widths.
EDGE_PRIMES = {"31 bits": 2147483137, "60 bits": 1152921504606844417}


def values(q: int, n: int, label: str) -> list[int]:
    return oracle.uniform(q, n, hashlib.sha256(label.encode()).digest(), 0, 0)


def transform(q: int, row: list[int], inverse: bool = False, backend: str = "scalar") -> list[int]:
    log_degree = len(row).bit_length() - 1
    array = np.array(row, dtype=np.uint64)
    return [int(v) for v in _native.primitives.ntt(q, log_degree, array, inverse, backend)]


@pytest.mark.parametrize("q", [*PRIMES.values(), *EDGE_PRIMES.values()])
def test_order_is_evaluation_at_odd_powers_of_the_least_root(q: int) -> None:
    n = 64
    row = values(q, n, "evaluate")
    psi = oracle.least_root(q, 2 * n)
    expected = []
    for i in range(n):
        point = pow(psi, 2 * oracle.bit_reverse(i, 6) + 1, q)
        expected.append(sum(v * pow(point, k, q) for k, v in enumerate(row)) % q)
    assert transform(q, row) == expected
    assert oracle.ntt(row, q) == expected


@pytest.mark.parametrize("q", [*PRIMES.values(), *EDGE_PRIMES.values()])
def test_pointwise_product_is_the_negacyclic_product(q: int) -> None:
    n = 64
    a, b = values(q, n, "left"), values(q, n, "right")
    product = [x * y % q for x, y in zip(transform(q, a), transform(q, b), strict=True)]
    assert transform(q, product, inverse=True) == oracle.negacyclic_product(a, b, q)


@pytest.mark.parametrize(("q", "log_degree"), [(PRIMES["p31"], 11), (PRIMES["p50"], 12), (PRIMES["p62 second"], 12)])
def test_full_size_agrees_with_the_oracle_and_inverts(q: int, log_degree: int) -> None:
    row = values(q, 2**log_degree, "full")
    spectrum = transform(q, row)
    assert spectrum == oracle.ntt(row, q)
    assert transform(q, spectrum, inverse=True) == row


@pytest.mark.parametrize("q", [*PRIMES.values(), *EDGE_PRIMES.values()])
def test_extreme_rows(q: int) -> None:
    for row in ([0] * 64, [q - 1] * 64, [1] + [0] * 63, [0] * 63 + [q - 1]):
        assert transform(q, row) == oracle.ntt(row, q)
        assert transform(q, transform(q, row), inverse=True) == row


def test_a_modulus_without_the_root_is_refused() -> None:
    with pytest.raises(_native.RequirementError, match="no negacyclic transform"):
        transform(2147483647, [0] * 64)

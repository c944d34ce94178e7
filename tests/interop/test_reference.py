"""The reference itself against sums and products of Python integers and the definition of the slots."""

import cmath

import numpy as np
import pytest
import reference

PRIMES = (557057, 1125899906826241, 1152921504606844417)


def row(q: int, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, q, n, dtype=np.uint64)


@pytest.mark.parametrize("q", PRIMES)
def test_products_of_residues(q: int) -> None:
    edges = np.array([0, 1, q - 1, q - 1, q // 2], np.uint64)
    a = np.concatenate([row(q, 5000, 1), edges])
    b = np.concatenate([row(q, 5000, 2), edges[::-1]])
    expected = [int(x) * int(y) % q for x, y in zip(a, b, strict=True)]
    assert [int(v) for v in reference.multiply(a, b, q)] == expected


@pytest.mark.parametrize("q", PRIMES)
def test_the_transform_evaluates_at_odd_powers_of_the_root(q: int) -> None:
    n = 32
    values = row(q, n, 3)
    root = pow(reference.least_root(n, q), 5, q)
    expected = []
    for i in reference.bit_reversed(n):
        point = pow(root, 2 * int(i) + 1, q)
        expected.append(sum(int(v) * pow(point, k, q) for k, v in enumerate(values)) % q)
    spectrum = reference.ntt(values, root, q)
    assert [int(v) for v in spectrum] == expected
    assert (reference.inverse_ntt(spectrum, root, q) == values).all()


def test_products_of_polynomials_are_negacyclic() -> None:
    n, q = 32, PRIMES[1]
    a, b = row(q, n, 4), row(q, n, 5)
    expected = [0] * n
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            sign = 1 if i + j < n else -1
            expected[(i + j) % n] = (expected[(i + j) % n] + sign * int(x) * int(y)) % q
    assert [int(v) for v in reference.product(a, b, q)] == expected


def test_slots_are_values_at_powers_of_five() -> None:
    n, scale = 32, 2.0**30
    values = np.random.default_rng(6).normal(size=16) + 1j * np.random.default_rng(7).normal(size=16)
    polynomial = reference.encode(values, n, scale)
    for j, value in enumerate(values):
        point = cmath.exp(1j * cmath.pi * pow(5, j, 2 * n) / n)
        there = sum(int(m) * point**k for k, m in enumerate(polynomial)) / scale
        assert abs(there - value) < n / scale
    assert np.abs(reference.decode(polynomial / scale, 16) - values).max() < n / scale


def test_few_slots_stand_in_a_subring() -> None:
    polynomial = reference.encode(np.array([1.0, -0.5, 0.25, 0.75]), 32, 2.0**20)
    assert not polynomial[np.arange(32) % 4 != 0].any()


def test_encryption_decrypts() -> None:
    n, primes = 64, (1125899906826241, 1152921504606844417)
    values = np.random.default_rng(8).uniform(-1, 1, n // 2)
    s, b, a = reference.keygen(n, primes)
    made = reference.encrypt(b, a, reference.encode(values, n, 2.0**40), primes)
    assert np.abs(reference.decrypt(made, s, primes, 2.0**40, n // 2) - values).max() < 1e-7
    assert max(map(abs, reference.phase(made, reference.small(n), primes))) > 2**100

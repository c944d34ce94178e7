"""CKKS from its definitions in NumPy and Python integers, sharing nothing with the package but residues.

Products modulo q come from rounded quotients in extended precision; `test_reference.py` checks them and the embedding
against schoolbook sums.
"""

from __future__ import annotations

import functools
import math
import secrets

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def multiply(a: Words, b: Words, q: int) -> Words:
    """a b mod q for q < 2^60, element by element: the quotient is right to 1, and so the wrapped remainder to q."""
    quotient = np.floor(a.astype(np.longdouble) * b.astype(np.longdouble) / np.longdouble(q)).astype(np.uint64)
    with np.errstate(over="ignore"):
        remainder = (a * b - quotient * np.uint64(q)).astype(np.int64)
    return (remainder % q).astype(np.uint64)


@functools.cache
def bit_reversed(size: int) -> NDArray[np.int64]:
    bits = size.bit_length() - 1
    return np.array([int(format(i, f"0{bits}b")[::-1], 2) for i in range(size)])


@functools.cache
def powers(root: int, count: int, q: int) -> Words:
    out, power = [], 1
    for _ in range(count):
        out.append(power)
        power = power * root % q
    return np.array(out, np.uint64)


def ntt(row: Words, root: int, q: int) -> Words:
    """Values at root^(2 bitrev(i) + 1): the cyclic transform of coefficient k times root^k."""
    n = len(row)
    cyclic = _dft(multiply(row, powers(root, n, q), q), root * root % q, q)
    return cyclic[bit_reversed(n)]


def _dft(row: Words, omega: int, q: int) -> Words:
    """Values at omega^i: decimation in time, all butterflies of a stage at once."""
    n, size, modulus = len(row), 1, np.uint64(q)
    values = row[bit_reversed(n)]
    while size < n:
        pairs = values.reshape(-1, 2, size)
        even, odd = pairs[:, 0], multiply(pairs[:, 1], powers(pow(omega, n // (2 * size), q), size, q), q)
        values = np.stack([(even + odd) % modulus, (even + modulus - odd) % modulus], axis=1).reshape(-1)
        size *= 2
    return values


def inverse_ntt(values: Words, root: int, q: int) -> Words:
    n = len(values)
    cyclic = np.empty(n, np.uint64)
    cyclic[bit_reversed(n)] = values
    inverse = pow(root, -1, q)
    row = _dft(cyclic, inverse * inverse % q, q)
    scale = np.full(n, pow(n, -1, q), np.uint64)
    return multiply(multiply(row, powers(inverse, n, q), q), scale, q)


@functools.cache
def least_root(n: int, q: int) -> int:
    """The least primitive 2n-th root of unity modulo a prime q."""
    for base in range(2, 1000):
        root = pow(base, (q - 1) // (2 * n), q)
        if pow(root, n, q) == q - 1:
            return min(pow(root, k, q) for k in range(1, 2 * n, 2))
    raise AssertionError(f"no root modulo {q}")


def product(a: Words, b: Words, q: int) -> Words:
    """a b mod (X^n + 1, q), in coefficient form."""
    root = least_root(len(a), q)
    return inverse_ntt(multiply(ntt(a, root, q), ntt(b, root, q), q), root, q)


# --- the canonical embedding -------------------------------------------------------------------------------------


def slot_positions(n: int, generator: int = 5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """k with zeta^(2k + 1) = zeta^(generator^j), and its conjugate's, for every slot j."""
    exponents = [pow(generator, j, 2 * n) for j in range(n // 2)]
    direct = np.array([(e - 1) // 2 for e in exponents])
    return direct, n - 1 - direct


def decode(coefficients: NDArray[np.float64], slots: int) -> NDArray[np.complex128]:
    """Values at zeta^(5^j) of a polynomial, j < slots."""
    n = len(coefficients)
    turns = np.exp(1j * np.pi * np.arange(n) / n)
    values = np.fft.ifft(coefficients * turns) * n
    return np.asarray(values[slot_positions(n)[0][:slots]], np.complex128)


def encode(values: NDArray[np.complex128], n: int, scale: float) -> NDArray[np.int64]:
    """The integer polynomial next to scale times these values; fewer than n/2 of them stand again and again."""
    direct, conjugate = slot_positions(n)
    full = np.resize(np.asarray(values, np.complex128), n // 2)
    points = np.zeros(n, np.complex128)
    points[direct], points[conjugate] = full, full.conj()
    coefficients = (np.fft.fft(points) / n * np.exp(-1j * np.pi * np.arange(n) / n)).real
    return np.rint(coefficients * scale).astype(np.int64)


# --- encryption --------------------------------------------------------------------------------------------------


def small(n: int, deviation: float | None = None) -> NDArray[np.int64]:
    """A ternary polynomial, or a rounded Gaussian one: from the system's generator, for tests."""
    generator = np.random.default_rng(secrets.randbits(128))
    if deviation is None:
        return generator.integers(-1, 2, n)
    return np.rint(generator.normal(0, deviation, n)).astype(np.int64)


def residues(polynomial: NDArray[np.int64], primes: tuple[int, ...]) -> Words:
    return np.stack([(polynomial % q).astype(np.uint64) for q in primes])


def encrypt(b: Words, a: Words, message: NDArray[np.int64], primes: tuple[int, ...]) -> Words:
    """(b u + e0 + m, a u + e1) for a key in coefficient form; uint64 of shape (2, primes, n)."""
    n = len(message)
    u, e0, e1 = small(n), small(n, 3.2), small(n, 3.2)
    out = np.empty((2, len(primes), n), np.uint64)
    for index, q in enumerate(primes):
        for row, key, added in ((0, b[index], e0 + message), (1, a[index], e1)):
            out[row, index] = (product(key, (u % q).astype(np.uint64), q) + (added % q).astype(np.uint64)) % np.uint64(
                q
            )
    return out


def keygen(n: int, primes: tuple[int, ...]) -> tuple[NDArray[np.int64], Words, Words]:
    """(s, b, a) with b = e - a s, in coefficient form."""
    generator = np.random.default_rng(secrets.randbits(128))
    s, e = small(n), small(n, 3.2)
    a = np.stack([generator.integers(0, q, n, dtype=np.uint64) for q in primes])
    masks = np.stack([product(row, (s % q).astype(np.uint64), q) for row, q in zip(a, primes, strict=True)])
    moduli = np.array(primes, np.uint64)[:, None]
    return s, (residues(e, primes) + moduli - masks) % moduli, a


def phase(ciphertext: Words, secret: NDArray[np.int64], primes: tuple[int, ...]) -> list[int]:
    """c0 + c1 s + c2 s^2 + ... modulo Q, as centred Python integers."""
    rows = []
    for index, q in enumerate(primes):
        s = (secret % q).astype(np.uint64)
        total = ciphertext[-1, index]
        for part in ciphertext[-2::-1, index]:
            total = (product(total, s, q) + part) % np.uint64(q)
        rows.append([int(v) for v in total])
    modulus = math.prod(primes)
    factors = [modulus // q * pow(modulus // q, -1, q) for q in primes]
    lifted = [sum(v * f for v, f in zip(column, factors, strict=True)) % modulus for column in zip(*rows, strict=True)]
    return [v - modulus if v > modulus // 2 else v for v in lifted]


def decrypt(
    ciphertext: Words, secret: NDArray[np.int64], primes: tuple[int, ...], scale: float, slots: int
) -> NDArray[np.complex128]:
    """The values of the slots, noise included."""
    coefficients = np.array([float(v) for v in phase(ciphertext, secret, primes)])
    return decode(coefficients / scale, slots)

"""CKKS for sums in Python integers, written from the definitions and sharing no code with the C++ core.

Polynomials are lists of ints. The only speed-up is the number-theoretic transform itself, which `test_ntt.py` checks
against the schoolbook product.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from dataclasses import dataclass
from decimal import Decimal, getcontext
from functools import cache

import numpy as np

from pppml_fast import CkksParams

LANE = {"error0": 0, "error1": 1, "ephemeral": 2, "secret": 3, "key_error": 4}
TIE_OFFSET, TIE_GROUPS, TIE_DEPTH = 256, 16, 4


# --- ChaCha20, RFC 8439 ------------------------------------------------------------------------------------------


def _quarter(x: list[int], a: int, b: int, c: int, d: int) -> None:
    mask = 0xFFFFFFFF
    for left, right, rotation in ((a, b, 16), (c, d, 12), (a, b, 8), (c, d, 7)):
        x[left] = (x[left] + x[right]) & mask
        target = d if left == a else b
        mixed = x[target] ^ x[left]
        x[target] = ((mixed << rotation) | (mixed >> (32 - rotation))) & mask


def chacha20_block(key: bytes, nonce: bytes, counter: int) -> list[int]:
    """One block as sixteen 32-bit words."""
    state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key), counter]
    state += struct.unpack("<3I", nonce)
    x = list(state)
    for _ in range(10):
        for column in range(4):
            _quarter(x, column, column + 4, column + 8, column + 12)
        for row in range(4):
            _quarter(x, row, (row + 1) % 4 + 4, (row + 2) % 4 + 8, (row + 3) % 4 + 12)
    return [(a + b) & 0xFFFFFFFF for a, b in zip(x, state, strict=True)]


@cache
def _stream_block(key: bytes, selector: int, block: int, counter: int) -> tuple[int, ...]:
    return tuple(chacha20_block(key, struct.pack("<IQ", selector, block), counter))


def word32(key: bytes, selector: int, block: int, index: int) -> int:
    """32-bit word ``index`` of a stream."""
    return _stream_block(key, selector, block, index // 16)[index % 16]


def word64(key: bytes, selector: int, block: int, index: int) -> int:
    """64-bit word ``index`` of a stream."""
    return word32(key, selector, block, 2 * index) | word32(key, selector, block, 2 * index + 1) << 32


# --- samplers ----------------------------------------------------------------------------------------------------


def uniform(q: int, n: int, key: bytes, selector: int, block: int) -> list[int]:
    """n residues: candidate r of coefficient k is word r * n + k, masked; the first one below q."""
    word = word32 if q < 2**31 else word64
    mask = 2 ** q.bit_length() - 1
    result = []
    for k in range(n):
        attempt = 0
        while (value := word(key, selector, block, attempt * n + k) & mask) >= q:
            attempt += 1
        result.append(value)
    return result


@cache
def gaussian_cuts(variance: str, largest: int) -> tuple[int, ...]:
    """round(2^95 P(|X| <= t)) for t = 0 .. largest - 1."""
    getcontext().prec = 70
    two_sigma_squared = 2 * Decimal(variance)
    density = [(Decimal(-x * x) / two_sigma_squared).exp() for x in range(largest + 1)]
    total = 2 * sum(density) - density[0]
    cuts = []
    for t in range(largest):
        inside = 2 * sum(density[: t + 1]) - density[0]
        cuts.append(int((inside / total * 2**95).to_integral_value()))
    return tuple(cuts)


GAUSSIANS = {
    "collective_error": ("40.5", 61),
    "collective_secret": ("20.25", 43),
    "error": ("10.24", 31),
}


def gaussian(table: str, key: bytes, lane: int, block: int, count: int) -> list[int]:
    """Discrete Gaussian samples from 31 top bits and, on a tie, the next 64-bit tie word of the group."""
    cuts = gaussian_cuts(*GAUSSIANS[table])
    tops = {cut >> 64 for cut in cuts}
    used = [0] * TIE_GROUPS
    result = []
    for k in range(count):
        word = word32(key, lane, block, k)
        group, top = k % TIE_GROUPS, word >> 1
        low = 0
        if top in tops:
            low = word64(key, lane + TIE_OFFSET, block, group * TIE_DEPTH + min(used[group], TIE_DEPTH - 1))
            used[group] += 1
        number = top << 64 | low
        magnitude = sum(number >= cut for cut in cuts)
        result.append(-magnitude if word & 1 else magnitude)
    return result


def ternary(key: bytes, lane: int, block: int, count: int) -> list[int]:
    """floor(3 w / 2^32) - 1."""
    return [3 * word32(key, lane, block, k) // 2**32 - 1 for k in range(count)]


# --- the ring ----------------------------------------------------------------------------------------------------


@cache
def least_root(q: int, order: int) -> int:
    """The least primitive ``order``-th root of unity modulo q."""
    generator = 2
    while pow(root := pow(generator, (q - 1) // order, q), order // 2, q) != q - 1:
        generator += 1
    return min(pow(root, odd, q) for odd in range(1, order, 2))


def bit_reverse(value: int, bits: int) -> int:
    return int(format(value, f"0{bits}b")[::-1], 2)


def ntt(values: list[int], q: int) -> list[int]:
    """values at psi^(2 bitrev(i) + 1), by recursion on even and odd coefficients."""
    n = len(values)
    psi = least_root(q, 2 * n)
    twisted = [v * pow(psi, i, q) % q for i, v in enumerate(values)]
    spectrum = _cyclic(twisted, psi * psi % q, q)
    bits = n.bit_length() - 1
    return [spectrum[bit_reverse(i, bits)] for i in range(n)]


def inverse_ntt(values: list[int], q: int) -> list[int]:
    n = len(values)
    bits = n.bit_length() - 1
    psi = least_root(q, 2 * n)
    natural = [values[bit_reverse(i, bits)] for i in range(n)]
    inverse = _cyclic(natural, pow(psi, -2, q), q)
    scale = pow(n, -1, q)
    return [v * scale * pow(psi, -i, q) % q for i, v in enumerate(inverse)]


def _cyclic(values: list[int], omega: int, q: int) -> list[int]:
    n = len(values)
    if n == 1:
        return values
    even = _cyclic(values[0::2], omega * omega % q, q)
    odd = _cyclic(values[1::2], omega * omega % q, q)
    result = [0] * n
    power = 1
    for i in range(n // 2):
        turned = power * odd[i] % q
        result[i], result[i + n // 2] = (even[i] + turned) % q, (even[i] - turned) % q
        power = power * omega % q
    return result


def negacyclic_product(a: list[int], b: list[int], q: int) -> list[int]:
    """Schoolbook a * b modulo X^n + 1 and q."""
    n = len(a)
    result = [0] * n
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            sign = -1 if i + j >= n else 1
            result[(i + j) % n] = (result[(i + j) % n] + sign * x * y) % q
    return result


# --- the law, quantisation and the packing of values ------------------------------------------------------------------


def max_magnitude(params: CkksParams) -> tuple[int, int, int, int]:
    """(delta, noise bound, largest magnitude of one party, bound of the sum), from scheme.md's law, exactly."""
    n = params.ring_dimension
    variance = {"collective": 40.5, "secret": 10.24, "public": 10.24 * (1 + 1.1 * 4 * n / 3)}[params.keys]
    deviations = 15.45 if params.keys == "public" else 15.2
    noise = math.ceil(deviations * math.sqrt(variance * params.parties))
    delta = 2 * noise + 1
    modulus = 1
    for q in params.primes[:2]:  # sums open modulo the leading primes, two at most, below 2^62 together
        modulus *= q if modulus * q < 2**62 else 1

    def bound(m: int) -> int:
        return params.parties * m if params.weights == "free" else m + (m >> 20) + params.parties // 2 + 2

    def fits(m: int) -> bool:
        base = 2 * bound(m) + 1
        return delta * ((base**params.values_per_coefficient - 1) // 2) + noise < modulus / 2

    low, high = 0, 2**52
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return delta, noise, low, bound(low)


def quantize(params: CkksParams, x: np.ndarray, weight: float = 1.0) -> list[int]:
    """rint(clip(x) * weight / step) in the float type the set prescribes; the clip never passes the magnitude."""
    magnitude = max_magnitude(params)[2]
    step = params.clip / magnitude
    kind = np.float32 if magnitude < 2**23 else np.float64
    clipped = np.clip(x.astype(kind), kind(-params.clip), kind(params.clip))
    factor = kind(weight / step)
    while int(np.rint(kind(params.clip) * factor)) > magnitude:
        factor = np.nextafter(factor, kind(0))
    return [int(v) for v in np.rint(clipped * factor)]


@dataclass
class Geometry:
    """Where the values of a vector stand: per block, coefficients per row and the values of each coefficient."""

    rows: list[int]

    @classmethod
    def of(cls, params: CkksParams, length: int) -> Geometry:
        per_block = params.ring_dimension * params.values_per_coefficient
        rows = []
        for start in range(0, length, per_block):
            left = min(length - start, per_block)
            used = -(-left // params.values_per_coefficient)
            rows.append(max(used, min(128, params.ring_dimension)) if start + per_block >= length else used)
        return cls(rows)


def encode(params: CkksParams, values: list[int]) -> list[list[int]]:
    """Message coefficients of every block: value t of coefficient k is value t * c + k of the block."""
    base = 2 * max_magnitude(params)[3] + 1
    per_block = params.ring_dimension * params.values_per_coefficient
    blocks = []
    for number, row in enumerate(Geometry.of(params, len(values)).rows):
        block = values[number * per_block : (number + 1) * per_block]
        block = block + [0] * (row * params.values_per_coefficient - len(block))
        digits = [block[t * row : (t + 1) * row] for t in range(params.values_per_coefficient)]
        blocks.append([sum(d * base**t for t, d in enumerate(column)) for column in zip(*digits, strict=True)])
    return blocks


# --- encryption and opening ----------------------------------------------------------------------------------------


def hkdf(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256, RFC 5869."""
    extracted = hmac.new(salt or bytes(32), material, hashlib.sha256).digest()
    result = piece = b""
    for count in range(1, -(-length // 32) + 1):
        piece = hmac.new(extracted, piece + info + bytes([count]), hashlib.sha256).digest()
        result += piece
    return result[:length]


def expansion_key(params: CkksParams, context: bytes, purpose: str = "a") -> bytes:
    return hkdf(context, b"pppml-fast public polynomials v1", params.id + purpose.encode(), 32)


def public_polynomial(params: CkksParams, key: bytes, prime_index: int, block: int) -> list[int]:
    """a_j modulo one prime, in NTT form."""
    return uniform(params.primes[prime_index], params.ring_dimension, key, prime_index, block)


def encrypt(params: CkksParams, secret: list[int], noise_key: bytes, key: bytes, values: list[int]) -> list[int]:
    """All residues of b = -a s + e + delta m, block by block, row by row, cut to the rows in use."""
    delta = max_magnitude(params)[0]
    table = "collective_error" if params.keys == "collective" else "error"
    residues: list[int] = []
    for block, message in enumerate(encode(params, values)):
        error = gaussian(table, noise_key, LANE["error0"], block, params.ring_dimension)
        for index, q in enumerate(params.primes):
            a = public_polynomial(params, key, index, block)
            s = ntt([c % q for c in secret], q)
            product = inverse_ntt([x * y % q for x, y in zip(a, s, strict=True)], q)
            residues += [(-product[k] + error[k] + delta * m) % q for k, m in enumerate(message)]
    return residues


def encrypt_public(
    params: CkksParams, pk0: list[int], key: bytes, noise_key: bytes, values: list[int]
) -> tuple[list[int], list[int]]:
    """(c0, c1); pk0 holds L rows in NTT form, pk1 expands from ``key`` as block 0."""
    n, delta = params.ring_dimension, max_magnitude(params)[0]
    c0: list[int] = []
    c1: list[int] = []
    for block, message in enumerate(encode(params, values)):
        u = ternary(noise_key, LANE["ephemeral"], block, n)
        errors = [gaussian("error", noise_key, LANE[name], block, n) for name in ("error0", "error1")]
        for index, q in enumerate(params.primes):
            u_ntt = ntt([c % q for c in u], q)
            row0 = pk0[index * n : (index + 1) * n]
            product0 = inverse_ntt([x * y % q for x, y in zip(row0, u_ntt, strict=True)], q)
            c0 += [(product0[k] + errors[0][k] + delta * m) % q for k, m in enumerate(message)]
        for index, q in enumerate(params.primes):
            u_ntt = ntt([c % q for c in u], q)
            row1 = public_polynomial(params, key, index, 0)
            product1 = inverse_ntt([x * y % q for x, y in zip(row1, u_ntt, strict=True)], q)
            c1 += [(product1[k] + errors[1][k]) % q for k in range(n)]
    return c0, c1


def open_sum(params: CkksParams, secret: list[int], key: bytes, residues: list[int], length: int) -> list[int]:
    """The quantised integers in a summed one-polynomial ciphertext."""
    delta, _, _, bound = max_magnitude(params)
    modulus, base = math.prod(params.primes), 2 * bound + 1
    values: list[int] = []
    at = 0
    for block, row in enumerate(Geometry.of(params, length).rows):
        phases = [0] * row
        for index, q in enumerate(params.primes):
            a = public_polynomial(params, key, index, block)
            s = ntt([c % q for c in secret], q)
            product = inverse_ntt([x * y % q for x, y in zip(a, s, strict=True)], q)
            others = modulus // q
            lift = others * pow(others, -1, q)
            for k in range(row):
                phases[k] += (residues[at + k] + product[k]) % q * lift
            at += row
        messages = []
        for phase in phases:
            centred = (phase + modulus // 2) % modulus - modulus // 2
            messages.append((2 * centred + delta) // (2 * delta))
        for _ in range(params.values_per_coefficient):
            digits = [(m + bound) % base - bound for m in messages]
            messages = [(m - d) // base for m, d in zip(messages, digits, strict=True)]
            values += digits
    return values[:length]


def pack(residues: list[int], bits: int) -> bytes:
    """Little-endian bit packing of one row."""
    number = sum(r << (bits * i) for i, r in enumerate(residues))
    return number.to_bytes((bits * len(residues) + 7) // 8, "little")

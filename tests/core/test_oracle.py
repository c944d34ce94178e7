"""Encryption, sums and opening bit for bit against the oracle in Python integers, under injected streams."""

import hashlib

import numpy as np
import oracle
import pytest

import pppml_fast as pf
from pppml_fast import _native

NOISE = [hashlib.sha256(b"noise %d" % i).digest() for i in range(3)]
SEEDS = [hashlib.sha256(b"secret %d" % i).digest() for i in range(3)]
CONTEXT = hashlib.sha256(b"session, round, attempt").digest()
SETS = ["p31", "p50", "p62", "compact"]


def vector(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.4, length).astype(np.float32)


def inject(seed: bytes) -> _native.StreamKey:
    return _native.StreamKey.from_bytes(seed)


def chacha20_scheme(params: pf.CkksParams) -> _native.Scheme:
    """The core with the oracle's private streams, whatever the backend prefers."""
    return _native.Scheme(params._checked, "", "chacha20")


def words(params: pf.CkksParams, count: int) -> np.ndarray:
    return np.zeros(count, np.uint32 if params._scheme.word_bytes == 4 else np.uint64)


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("weights", ["free", "public"])
@pytest.mark.parametrize("name", SETS)
def test_headroom_law(name: str, keys: str, weights: str) -> None:
    for parties in (1, 2, 3, 16, 128, 1000):
        params = pf.CkksParams.preset(name, parties=parties, clip=0.5, keys=keys, weights=weights)
        expected = (params.scale, params.noise_bound, params.max_magnitude, params.sum_bound)
        assert oracle.max_magnitude(params) == expected


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("values_per_coefficient", [1, 2, 3])
def test_collective_sum_bit_for_bit(name: str, values_per_coefficient: int) -> None:
    if name == "p31" and values_per_coefficient == 3:
        values_per_coefficient = 2
    params = pf.CkksParams.preset(
        name, parties=3, clip=1.0, keys="collective", values_per_coefficient=values_per_coefficient
    )
    scheme = chacha20_scheme(params)
    length = params.block_weights + 301
    key = oracle.expansion_key(params, CONTEXT)
    total = None
    sums = [0] * length
    secrets = []
    for party in range(2):
        x = vector(length, party)
        native = scheme.generate_secret(inject(SEEDS[party]))
        secret = oracle.gaussian("collective_secret", SEEDS[party], oracle.LANE["secret"], 0, params.ring_dimension)
        assert native.coefficients().tolist() == secret
        secrets.append(secret)
        got = words(params, scheme.words(length, True))
        scheme.encrypt(native, inject(NOISE[party]), key, [x], 1.0, got)
        values = oracle.quantize(params, x)
        assert pf.quantize(params, x).tolist() == values
        sums = [a + b for a, b in zip(sums, values, strict=True)]
        assert got.tolist() == oracle.encrypt(params, secret, NOISE[party], key, values)
        total = got if total is None else total
    added = words(params, total.size)
    scheme.add(length, True, [total, got], added)
    opening = [a + b for a, b in zip(*secrets, strict=True)]
    assert oracle.open_sum(params, opening, key, added.tolist(), length) == sums
    ciphertext = pf.Ciphertext.zeros(params, length, 2, CONTEXT)
    ciphertext.first[:] = added
    opened = pf.OpeningKey.from_coefficients(params, np.array(opening), terms=2)
    assert opened.decrypt(ciphertext, integers=True).tolist() == sums


@pytest.mark.parametrize("name", ["p31", "p50", "p62"])
def test_public_encryption_bit_for_bit(name: str) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0)
    scheme, n = chacha20_scheme(params), params.ring_dimension
    length = 700
    key = oracle.expansion_key(params, CONTEXT)
    native = scheme.generate_secret(inject(SEEDS[0]))
    secret = oracle.ternary(SEEDS[0], oracle.LANE["secret"], 0, n)
    assert native.coefficients().tolist() == secret
    pk0 = scheme.generate_public(native, inject(SEEDS[1]), key)
    error = oracle.gaussian("error", SEEDS[1], oracle.LANE["key_error"], 0, n)
    for index, q in enumerate(params.primes):
        a = oracle.public_polynomial(params, key, index, 0)
        s, e = oracle.ntt([c % q for c in secret], q), oracle.ntt([c % q for c in error], q)
        expected = [(ek - ak * sk) % q for ak, sk, ek in zip(a, s, e, strict=True)]
        assert pk0[index * n : (index + 1) * n].tolist() == expected
    x = vector(length, 5)
    c0, c1 = words(params, scheme.words(length, True)), words(params, scheme.words(length, False))
    scheme.encrypt_public(scheme.load_public(pk0, key), inject(NOISE[0]), [x], 1.0, c0, c1)
    values = oracle.quantize(params, x)
    assert (c0.tolist(), c1.tolist()) == oracle.encrypt_public(params, pk0.tolist(), key, NOISE[0], values)
    opened = np.zeros(length, np.int64)
    refused, _, _ = scheme.open(native, length, 1, c0, c1, None, opened)
    assert refused is None
    assert opened.tolist() == values


def test_secret_mode_bit_for_bit() -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="secret")
    scheme, length = chacha20_scheme(params), 2500
    key = oracle.expansion_key(params, CONTEXT)
    native = scheme.generate_secret(inject(SEEDS[0]))
    secret = native.coefficients().tolist()
    got = words(params, scheme.words(length, True))
    x = vector(length, 6)
    scheme.encrypt(native, inject(NOISE[0]), key, [x], 1.0, got)
    assert got.tolist() == oracle.encrypt(params, secret, NOISE[0], key, oracle.quantize(params, x))
    expanded = scheme.expand(length, key)
    q = params.primes[0]
    expected = [v for block in range(2) for v in oracle.inverse_ntt(oracle.public_polynomial(params, key, 0, block), q)]
    assert expanded.tolist() == expected


def test_encryption_over_a_rejected_candidate() -> None:
    # Some block of these 16 holds a rejected candidate (9 % do): the known answer the specification asks for.
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
    key = oracle.expansion_key(params, CONTEXT)
    block = next(
        b for b in range(64) if (_native.primitives.stream(key, 0, b, 0, 2048) & (2**31 - 1) >= params.primes[0]).any()
    )
    length = (block + 1) * 2048
    scheme = chacha20_scheme(params)
    native = scheme.generate_secret(inject(SEEDS[0]))
    got = words(params, scheme.words(length, True))
    scheme.encrypt(native, inject(NOISE[0]), key, [np.zeros(length, np.float32)], 1.0, got)
    q = params.primes[0]
    a = oracle.public_polynomial(params, key, 0, block)
    s = oracle.ntt([c % q for c in native.coefficients().tolist()], q)
    product = oracle.inverse_ntt([x * y % q for x, y in zip(a, s, strict=True)], q)
    error = oracle.gaussian("collective_error", NOISE[0], 0, block, 2048)
    expected = [(e - p) % q for e, p in zip(error, product, strict=True)]
    assert got[block * 2048 :].tolist() == expected


@pytest.mark.parametrize("name", SETS)
def test_sum_check_tags(name: str) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective")
    length, n, count = params.block_weights + 5, params.ring_dimension, len(params.primes)
    ciphertext = pf.CollectiveKey.generate(params).encrypt(vector(length, 1), context=CONTEXT)
    key = oracle.expansion_key(params, NOISE[0], "tag")
    expected = [[0] * n for _ in range(2 * count)]
    at = 0
    for block, row in enumerate(oracle.Geometry.of(params, length).rows):
        for index, q in enumerate(params.primes):
            rho = oracle.uniform(q, 2, key, index, block)
            for r in range(2):
                for k in range(row):
                    target = expected[r * count + index]
                    target[k] = (target[k] + rho[r] * int(ciphertext.first[at + k])) % q
            at += row
    tag = np.frombuffer(pf.sum_check_tag(ciphertext, NOISE[0]), ciphertext.first.dtype)
    assert tag.tolist() == [v for row in expected for v in row]


@pytest.mark.parametrize("name", SETS)
def test_packing_is_little_endian_bits(name: str) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective")
    length = params.block_weights + 77
    ciphertext = pf.CollectiveKey.generate(params).encrypt(vector(length, 2), context=CONTEXT)
    expected, at = b"", 0
    for row in oracle.Geometry.of(params, length).rows:
        for q in params.primes:
            expected += oracle.pack([int(v) for v in ciphertext.first[at : at + row]], q.bit_length())
            at += row
    assert ciphertext.pack(0, 2) == expected

"""Every backend is `scalar` bit for bit: all sets, all key modes, edge lengths, edge inputs and ten million weights.

Rounding is to nearest; the stochastic one, other rings and the primitives are in test_backends.py.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from core_support import CONTEXT, MODES, vector
from fixed_streams import KEY, OTHERS, PACKINGS, SEED, compare, edge_lengths, mixed_tensors, of_edge_lengths, packing

import pppml_fast as pf
from pppml_fast import _native

BACKENDS = ["scalar", *OTHERS]
CIPHERS = ["chacha20", "aes256"]
BIG = 10_000_000
# One set per mode also runs on one and on three threads.
ON_OTHER_THREADS = {("p31", "public"), ("compact", "secret"), ("p62, three values", "collective")}


@pytest.fixture(autouse=True)
def _restore_threads_and_memory() -> Iterator[None]:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)
    _native.release_memory()


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("keys", MODES)
@pytest.mark.parametrize("name", PACKINGS)
def test_edge_lengths_types_and_places(name: str, keys: str, cipher: str) -> None:
    params = packing(name, keys)
    compare(params, cipher, of_edge_lengths(params) + mixed_tensors(params))


def alternating(n: int) -> np.ndarray:
    return 1.0 - 2.0 * (np.arange(n) % 2)


PATTERNS: dict[str, Callable[[int], np.ndarray]] = {
    "zero": np.zeros,
    "clip": np.ones,
    "minus clip": lambda n: -np.ones(n),
    "alternating": alternating,
    "beyond the clip": lambda n: 3e38 * alternating(n),
    "just beyond the clip": lambda n: np.nextafter(np.float32(1), np.float32(2)) * alternating(n),
}


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("keys", MODES)
@pytest.mark.parametrize("name", PACKINGS)
def test_edge_inputs(name: str, keys: str, cipher: str) -> None:
    # At a share of 1 the clip is the largest magnitude that a coefficient holds.
    params = packing(name, keys)
    for length in (1, params.block_weights + 1):
        compare(params, cipher, ([make(length).astype(np.float32)] for make in PATTERNS.values()), weight=1.0)


@pytest.mark.parametrize("keys", MODES)
@pytest.mark.parametrize("name", PACKINGS)
def test_sums_at_their_bound(name: str, keys: str) -> None:
    params = packing(name, keys, weights="free")
    for length in edge_lengths(params):
        for sign in (1, -1):
            x = np.full(length, sign, np.float32)
            sums = [sum_of_three(params, backend, x) for backend in BACKENDS]
            assert np.array_equal(sums[0][-1], np.full(length, sign * params.sum_bound))
            for other in sums[1:]:
                assert all(np.array_equal(mine, oracle) for mine, oracle in zip(other, sums[0], strict=True))


def sum_of_three(params: pf.CkksParams, backend: str, x: np.ndarray) -> list[np.ndarray]:
    """c0 and c1 of the sum of three encryptions of ``x``, and what it opens to."""
    scheme = _native.Scheme(params._checked, backend, "chacha20")
    length = len(x)
    word = np.uint32 if scheme.word_bytes == 4 else np.uint64
    streams = [hashlib.sha256(bytes([i])).digest() for i in range(6)]
    secrets = [scheme.generate_secret(_native.StreamKey.from_bytes(key)) for key in streams[:3]]
    noises = [_native.StreamKey.from_bytes(key) for key in streams[3:]]
    first = [np.zeros(scheme.words(length, True), word) for _ in noises]
    second = [np.zeros(scheme.words(length, False), word) for _ in noises]
    if params.keys == "public":
        public = scheme.load_public(scheme.generate_public(secrets[0], noises[0], KEY), KEY)
        for noise, c0, c1 in zip(noises, first, second, strict=True):
            scheme.encrypt_public(public, noise, [x], 1.0, c0, c1)
    elif params.keys == "secret":
        for i, noise in enumerate(noises):
            scheme.encrypt(secrets[0], noise, streams[i], [x], 1.0, first[i])
            second[i] = scheme.expand(length, streams[i])
    else:
        for secret, noise, c0 in zip(secrets, noises, first, strict=True):
            scheme.encrypt(secret, noise, KEY, [x], 1.0, c0)
    total, total1, opened = np.zeros_like(first[0]), np.zeros_like(second[0]), np.ones(length, np.int64)
    scheme.add(length, True, first, total)
    scheme.add(length, False, second, total1)
    opener, c1, seed = secrets[0], total1, None
    if params.keys == "collective":
        opener = scheme.secret_from_coefficients(sum(secret.coefficients() for secret in secrets))
        c1, seed = None, KEY
    refused, largest, valid = scheme.open(opener, length, 3, total, c1, seed, opened)
    assert refused is None and valid
    return [total, total1, np.array([largest]), opened]


# --- ten million weights ---------------------------------------------------------------------------------------------


class Party:
    """One backend's keys and streams, the same for every backend, and what it makes of a long vector."""

    def __init__(self, params: pf.CkksParams, backend: str, length: int) -> None:
        self.params, self.length, self.blocks = params, length, params.block_count(length)
        self.scheme = _native.Scheme(params._checked, backend, "chacha20")
        self.secret = self.scheme.generate_secret(_native.StreamKey.from_bytes(KEY))
        self.noise = _native.StreamKey.from_bytes(SEED)
        self.polynomials = 2 if params.keys == "public" else 1
        self.public_seed = None if params.keys == "public" else KEY

    def encrypt(self, x: np.ndarray, start: int, stop: int) -> list[np.ndarray]:
        """Packed bytes of blocks [start, stop), for each polynomial that travels."""
        sizes = [self.scheme.packed_bytes(self.length, cut, start, stop) for cut in (True, False)]
        outs = [np.zeros(size, np.uint8) for size in sizes[: self.polynomials]]
        if self.params.keys == "public":
            pk0 = self.scheme.generate_public(self.secret, self.noise, KEY)
            public = self.scheme.load_public(pk0, KEY)
            self.scheme.encrypt_public(public, self.noise, [x], 0.3, *map(memoryview, outs), start=start, stop=stop)
        else:
            out = memoryview(outs[0])
            self.scheme.encrypt(self.secret, self.noise, KEY, [x], 0.3, out, start=start, stop=stop)
        return outs

    def whole(self, x: np.ndarray, packed: np.ndarray) -> list[bytes]:
        """Hashes of c0 in words, of a sum, and of c0 added onto the packed one; memory aligned as for any caller."""
        scheme, word = self.scheme, f"uint{8 * self.scheme.word_bytes}"
        c0, other = (_native.empty(word, scheme.words(self.length, True)) for _ in range(2))
        if self.params.keys == "public":
            c1 = _native.empty(word, scheme.words(self.length, False))
            public = scheme.load_public(scheme.generate_public(self.secret, self.noise, KEY), KEY)
            scheme.encrypt_public(public, self.noise, [x], 0.3, c0, c1)
        else:
            scheme.encrypt(self.secret, self.noise, KEY, [x], 0.3, c0)
        hashes = [hashlib.sha256(c0).digest()]
        scheme.add(self.length, True, [c0, c0], other)
        hashes.append(hashlib.sha256(other).digest())
        del other
        wire = _native.empty("uint8", len(packed))
        scheme.hop(self.length, True, 0, self.blocks, memoryview(packed), c0, memoryview(wire))
        return [*hashes, hashlib.sha256(wire).digest()]

    def place(self, polynomial: int, start: int, stop: int) -> slice:
        """Where the bytes of blocks [start, stop) stand among those of all."""
        sizes = (self.scheme.packed_bytes(self.length, polynomial == 0, 0, block) for block in (start, stop))
        return slice(*sizes)

    def open(self, packed: list[np.ndarray], dtype: type, start: int, stop: int) -> tuple[np.ndarray, int]:
        """Blocks [start, stop) and their largest residual, from the packed bytes of all."""
        rows = [memoryview(p[self.place(i, start, stop)]) for i, p in enumerate(packed)]
        weights = [min(block * self.params.block_weights, self.length) for block in (start, stop)]
        out = np.zeros(weights[1] - weights[0], dtype)
        c1 = rows[1] if len(rows) == 2 else None
        refused, largest, valid = self.scheme.open(
            self.secret, self.length, 1, rows[0], c1, self.public_seed, out, start=start, stop=stop
        )
        assert refused is None and valid
        return out, largest


LONG = [(name, keys, BIG) for name in PACKINGS for keys in MODES] + [("p31", "collective", BIG - 1)]


@pytest.mark.parametrize("name, keys, length", LONG)
def test_ten_million_weights(name: str, keys: str, length: int) -> None:
    """`scalar` at once on two threads, the others range by range, in one set per mode on one and three threads too."""
    params = packing(name, keys)
    x = np.random.default_rng(11).normal(0, 0.6, length).astype(np.float32)
    x[:: 1 << 16], x[1 :: 1 << 16], x[2 :: 1 << 16] = 1.0, -1.0, 0.0
    pf.set_num_threads(2)
    oracle = Party(params, "scalar", length)
    packed = oracle.encrypt(x, 0, oracle.blocks)
    opened, largest = oracle.open(packed, np.float32, 0, oracle.blocks)
    quantized, _ = oracle.scheme.quantize([x], 0.3)
    assert np.abs(quantized).max() == round(0.3 * params.max_magnitude)
    assert np.array_equal(opened, (quantized * params.step).astype(np.float32))
    whole = oracle.whole(x, packed[0])
    several = (name, keys) in ON_OTHER_THREADS
    runs = [(backend, threads) for backend in OTHERS for threads in ((1, 2, 3) if several else (2,))]
    for backend, threads in runs + ([("scalar", 1), ("scalar", 3)] if several else []):
        pf.set_num_threads(threads)
        party = Party(params, backend, length)
        assert party.scheme.backend == backend
        borders = [0, 1, party.blocks // 3, 2 * party.blocks // 3, party.blocks - 1, party.blocks]
        if backend != "scalar":
            assert party.whole(x, packed[0]) == whole, (backend, threads)
        residuals = []
        for start, stop in itertools.pairwise(borders):
            for i, part in enumerate(party.encrypt(x, start, stop)):
                assert np.array_equal(part, packed[i][party.place(i, start, stop)]), (backend, threads, start)
            weights = slice(start * params.block_weights, stop * params.block_weights)
            single, residual = party.open(packed, np.float32, start, stop)
            assert np.array_equal(single, opened[weights]), (backend, threads, start)
            residuals.append(residual)
            if backend != "scalar":
                exact, _ = party.open(packed, np.int64, start, stop)
                assert np.array_equal(exact, quantized[weights]), (backend, threads, start)
        assert max(residuals) == largest


# --- the public face -------------------------------------------------------------------------------------------------


def forced(monkeypatch: pytest.MonkeyPatch, name: str, backend: str) -> pf.CkksParams:
    monkeypatch.setenv("PPPML_BACKEND", backend)
    params = packing(name, "collective", weights="free")
    assert params._scheme.backend == backend
    return params


@pytest.mark.parametrize("name", PACKINGS)
def test_a_forced_backend_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What follows from fixed bytes is the same under each, and parties of different backends make one sum."""
    sets = {backend: forced(monkeypatch, name, backend) for backend in BACKENDS}
    length = sets["scalar"].block_weights + 77
    vectors = [vector(length, seed) for seed in range(3)]
    keys = [pf.CollectiveKey.generate(sets[BACKENDS[party % len(BACKENDS)]]) for party in range(3)]
    wires = [key.encrypt(x, context=CONTEXT).to_bytes() for key, x in zip(keys, vectors, strict=True)]
    coefficients = sum(key._secret_coefficients() for key in keys)
    exact = sum(sets["scalar"]._scheme.quantize([x], 1.0)[0] for x in vectors)
    results = []
    for params in sets.values():
        total = pf.add([pf.Ciphertext.from_bytes(params, wire) for wire in wires])
        opener = pf.OpeningKey.from_coefficients(params, coefficients, terms=3)
        assert np.array_equal(opener.decrypt(total, integers=True), exact)
        results.append((total.to_bytes(), total.add_mask(SEED).to_bytes(), opener.decrypt(total).tobytes()))
    assert all(result == results[0] for result in results)

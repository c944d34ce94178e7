"""Everything a scheme computes from fixed keys, step by step, so that the backends can be held against `scalar`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

import pppml_fast as pf
from pppml_fast import _native

KEY = hashlib.sha256(b"backend key").digest()
SEED = hashlib.sha256(b"backend seed").digest()
OTHERS = [name for name in _native.supported_backends() if name != "scalar"]
# By name: a preset and its values per coefficient, None for the preset's own.
PACKINGS: dict[str, tuple[str, int | None]] = {
    "p31": ("p31", None),
    "p50": ("p50", None),
    "p62": ("p62", None),
    "p62, three values": ("p62", 3),
    "compact": ("compact", None),
}


def packing(name: str, keys: Any, weights: Any = "public", rounding: Any = "nearest") -> pf.CkksParams:
    """The set of that name for three parties and a clip of 1."""
    preset, values = PACKINGS[name]
    return pf.CkksParams.preset(
        preset, parties=3, clip=1.0, keys=keys, weights=weights, values_per_coefficient=values, rounding=rounding
    )


def edge_lengths(params: pf.CkksParams) -> list[int]:
    """Around nothing, one row of coefficients, one block of weights, and odd over several blocks."""
    degree, block = params.ring_dimension, params.block_weights
    around = {degree - 1, degree, degree + 1, block - 1, block, block + 1}
    return [0, 1, 15, 17, *sorted(around), 2 * block + 333]


def of_edge_lengths(params: pf.CkksParams) -> list[list[np.ndarray]]:
    """One normal tensor for each edge length; about a tenth lies beyond the clip."""
    generator = np.random.default_rng(7)
    return [[generator.normal(0, 0.6, n).astype(np.float32)] for n in edge_lengths(params)]


def mixed_tensors(params: pf.CkksParams) -> list[list[np.ndarray]]:
    """Lists of tensors: edge values, mixed dtypes split at odd places, rows at distances."""
    generator = np.random.default_rng(8)
    flat = generator.normal(0, 0.6, params.block_weights + 99)
    edges = np.array([0.0, -0.0, params.clip, -params.clip, 3.0, -3.0, 1e-30, params.step / 2, 1.5 * params.step])
    pieces = [flat[:7].astype(np.float16), flat[7:1000].astype(np.float32), flat[1000:], edges]
    grid = generator.normal(0, 0.6, (70, 131)).astype(np.float32)
    single = [grid[:, 5:42], grid[::3], np.broadcast_to(grid[1], (5, 131)), grid.reshape(10, 7, 131)[:, :, :16]]
    spread = [flat[:3], grid.astype(np.float64)[:, :100], grid.astype(np.float16)[1:, 60:]]
    return [pieces, [np.tile(edges, 40).astype(np.float32)], single, spread]


def compare(params: pf.CkksParams, cipher: str, vectors: Iterable[list[np.ndarray]], weight: float = 0.3) -> None:
    """Every step of every backend gives the bits of `scalar`."""
    schemes = {which: _native.Scheme(params._checked, which, cipher) for which in ("scalar", *OTHERS)}
    for tensors in vectors:
        expected = run(params, schemes["scalar"], tensors, weight)
        for backend in OTHERS:
            got = run(params, schemes[backend], tensors, weight)
            assert got.keys() == expected.keys()
            for step, value in got.items():
                assert np.array_equal(value, expected[step]), (backend, step, [t.shape for t in tensors])


def run(
    params: pf.CkksParams, scheme: _native.Scheme, tensors: list[np.ndarray], weight: float = 0.3
) -> dict[str, Any]:
    """Everything a scheme computes from fixed streams, by name."""
    length = sum(t.size for t in tensors)
    blocks = params.block_count(length)
    word = np.uint32 if scheme.word_bytes == 4 else np.uint64
    results: dict[str, Any] = {}
    noise = _native.StreamKey.from_bytes(SEED)
    secret = scheme.generate_secret(_native.StreamKey.from_bytes(KEY))
    results["secret"] = secret.coefficients()
    results["quantized"], results["clipped"] = scheme.quantize(tensors, weight, rounding=noise)
    c0 = np.zeros(scheme.words(length, True), word)
    c1 = packed1 = None
    if params.keys == "public":
        c1 = np.zeros(scheme.words(length, False), word)
        pk0 = scheme.generate_public(secret, _native.StreamKey.from_bytes(KEY), KEY)
        results["public key"] = pk0
        public = scheme.load_public(pk0, KEY)
        scheme.encrypt_public(public, noise, tensors, weight, c0, c1)
        packed0 = bytearray(scheme.packed_bytes(length, True, 0, blocks))
        packed1 = bytearray(scheme.packed_bytes(length, False, 0, blocks))
        scheme.encrypt_public(public, noise, tensors, weight, packed0, packed1)
        assert packed0 == scheme.pack(length, True, 0, blocks, c0)
        assert packed1 == scheme.pack(length, False, 0, blocks, c1)
        results["c1"] = c1
    else:
        scheme.encrypt(secret, noise, KEY, tensors, weight, c0)
        results["expanded"] = scheme.expand(length, KEY)
        results |= run_parts(params, scheme, tensors, weight, secret, noise, c0)
    results["c0"] = c0
    packed = scheme.pack(length, True, 0, blocks, c0)
    results["packed"] = packed
    unpacked = np.zeros_like(c0)
    assert scheme.unpack(length, True, 0, blocks, packed, unpacked)
    results["unpacked"] = unpacked
    results["hop"] = scheme.hop(length, True, 0, blocks, packed, c0)
    results["masked"] = scheme.mask(length, KEY, False, c0)
    for count in (2, 3, 16):
        results[f"sum of {count}"] = total = np.zeros_like(c0)
        scheme.add(length, True, ([c0, results["masked"]] * 8)[:count], total)
    if c1 is not None:
        results["hop of c1"] = scheme.hop(length, False, 0, blocks, packed1, c1)
        results["sum of c1"] = total = np.zeros_like(c1)
        scheme.add(length, False, [c1] * 16, total)
    seed = None if params.keys == "public" else KEY
    for dtype in (np.int64, np.float32, np.float64):
        opened, again = np.ones(length, dtype), np.ones(length, dtype)
        refused, largest, valid = scheme.open(secret, length, 1, c0, c1, seed, opened)
        assert refused is None and valid
        restored = np.asarray(results["quantized"]) * (params.step if dtype != np.int64 else 1)
        assert np.array_equal(opened, restored.astype(dtype))
        assert scheme.open(secret, length, 1, packed, packed1, seed, again) == (None, largest, True)
        assert np.array_equal(again, opened)
        results[f"opened as {dtype.__name__}"], results["largest residual"] = opened, largest
    if blocks > 1:
        tail = np.ones(length - params.block_weights, np.int64)
        rows = packed[scheme.packed_bytes(length, True, 0, 1) :]
        second = packed1 and packed1[scheme.packed_bytes(length, False, 0, 1) :]
        assert scheme.open(secret, length, 1, rows, second, seed, tail, start=1)[0] is None
        assert np.array_equal(tail, np.asarray(results["quantized"])[params.block_weights :])
    garbage = (c0 // 2).astype(word)
    released = np.ones(length, np.int64)
    refused, largest, _ = scheme.open(secret, length, 1, garbage, c1, seed, released)
    assert refused is None or not released.any()
    results |= {"refused block": refused, "garbage residual": largest}
    if length > 0:
        invalid = b"\xff" * len(packed)
        assert scheme.open(secret, length, 1, invalid, packed1, seed, released)[2] is False and not released.any()
    if params.keys == "collective":
        results["tag"] = scheme.tag(length, KEY, c0)
        tag_in_ranges(scheme, params, length, c0, results["tag"])
    return results


def tag_in_ranges(
    scheme: _native.Scheme, params: pf.CkksParams, length: int, c0: np.ndarray, whole: np.ndarray
) -> None:
    """The sum check's tags come together range by range, from residue words or from packed bytes."""
    blocks, width = params.block_count(length), params.ring_dimension * len(params.primes)
    of_words, of_bytes = np.zeros_like(whole), np.zeros_like(whole)
    for start in range(0, blocks, 2):
        stop = min(start + 2, blocks)
        packed = scheme.pack(length, True, start, stop, c0)
        assert scheme.tag(length, KEY, c0[start * width : stop * width], start, stop, of_words) is of_words
        assert scheme.tag(length, KEY, packed, start, stop, of_bytes) is of_bytes
        if packed:
            assert scheme.tag(length, KEY, b"\xff" * len(packed), start, stop) is None
    assert np.array_equal(of_words, whole)
    assert np.array_equal(of_bytes, whole)


def run_parts(
    params: pf.CkksParams,
    scheme: _native.Scheme,
    tensors: list[np.ndarray],
    weight: float,
    secret: _native.SecretKey,
    noise: _native.StreamKey,
    c0: np.ndarray,
) -> dict[str, Any]:
    """The same encryption in parts: to bytes, from pads, block by block, onto what came in, less a reference."""
    length = sum(t.size for t in tensors)
    blocks = params.block_count(length)
    packed = scheme.pack(length, True, 0, blocks, c0)
    pads = np.zeros_like(c0)
    scheme.make_pads(secret, noise, KEY, length, 0, blocks, pads)
    results: dict[str, Any] = {"pads": pads}
    prepared, wire = np.zeros_like(c0), bytearray(len(packed))
    clipped = scheme.encrypt(secret, noise, KEY, tensors, weight, wire)
    assert wire == packed
    assert scheme.encrypt_prepared(pads, noise, tensors, weight, prepared) == clipped
    assert np.array_equal(prepared, c0)
    assert scheme.encrypt_prepared(pads, noise, tensors, weight, wire, incoming=packed) == clipped
    twice = scheme.hop(length, True, 0, blocks, packed, c0)
    assert wire == twice
    again = bytearray(packed)
    assert scheme.encrypt(secret, noise, KEY, tensors, weight, again, incoming=again) == clipped
    assert again == twice
    if length > 0:
        assert scheme.encrypt(secret, noise, KEY, tensors, weight, wire, incoming=b"\xff" * len(wire)) is None
        assert not any(wire)
    parts = b""
    for block in range(blocks):
        part = bytearray(scheme.packed_bytes(length, True, block, block + 1))
        scheme.encrypt(secret, noise, KEY, tensors, weight, part, start=block, stop=block + 1)
        parts += part
    assert parts == packed
    reference = [np.linspace(-0.2, 0.2, length)[: length // 3], np.linspace(-0.2, 0.2, length, dtype=np.float32)]
    reference[1] = np.stack([reference[1]] * 2)[:1, length // 3 :]
    scheme.encrypt(secret, noise, KEY, tensors, weight, prepared, reference=reference)
    results["less a reference"] = prepared
    scheme.encrypt_prepared(pads, noise, reference, weight, pads, reference=[np.zeros(length, np.float32)])
    results["in place of its pads"] = pads
    return results

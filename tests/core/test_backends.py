"""Every backend this machine runs gives the bits of `scalar`: primitives, all sets, all key modes, edge lengths."""

import hashlib
from typing import Any

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast import _native

primitives = _native.primitives
KEY = hashlib.sha256(b"backend key").digest()
SEED = hashlib.sha256(b"backend seed").digest()
TIE_KEY = hashlib.sha256(b"pppml tie search").digest()
OTHERS = [name for name in _native.supported_backends() if name != "scalar"]
SETS = ["p31", "p50", "p62", "compact"]
JUST_ABOVE_2_49 = 562949954093057  # every other candidate is rejected
# Just above 2^31, 2^32, 2^49 and 2^50, and just below 2^50 and 2^60; all are 1 mod 2^14.
WIDE_PRIMES = [2147565569, 4295049217, JUST_ABOVE_2_49, 1125899906990081, 1125899906826241, 1152921504606830593]


def test_scalar_is_always_built() -> None:
    assert "scalar" in _native.supported_backends()
    assert set(_native.supported_backends()) <= set(_native.built_backends())


def test_required_backends_run_here(request: pytest.FixtureRequest) -> None:
    for name in request.config.getoption("--require-backend"):
        assert name in _native.supported_backends(), f"backend {name} was required and does not run here"


def test_an_unknown_backend_is_an_error_not_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPPML_BACKEND", "abacus")
    with pytest.raises(_native.RequirementError, match="'abacus' was not built"):
        _native.choose_backend()
    with pytest.raises(pf.ParameterError, match="'abacus' was not built"):
        pf.CkksParams.preset("p31", parties=3, clip=1.0)
    monkeypatch.setenv("PPPML_BACKEND", "scalar")
    assert pf.CkksParams.preset("p31", parties=3, clip=1.0)._scheme.backend == "scalar"


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("log_degree", [6, 7, 8, 9, 11, 12, 13])
@pytest.mark.parametrize("q", [2147389441, 2147377153, 2147352577, *WIDE_PRIMES])
def test_transforms(backend: str, log_degree: int, q: int) -> None:
    if (q - 1) % 2 ** (log_degree + 1) != 0:
        with pytest.raises(_native.RequirementError):
            primitives.uniform(q, log_degree, KEY, 0, 0, backend)
        return
    row = primitives.uniform(q, log_degree, KEY, 0, 0, "scalar")
    for values in (row, np.zeros_like(row), np.full_like(row, q - 1)):
        for inverse in (False, True):
            expected = primitives.ntt(q, log_degree, values, inverse, "scalar")
            assert np.array_equal(primitives.ntt(q, log_degree, values, inverse, backend), expected)


@pytest.mark.parametrize("cipher", ["chacha20", "aes256"])
@pytest.mark.parametrize("backend", OTHERS)
def test_streams(backend: str, cipher: str) -> None:
    for first, count in (
        (0, 1),
        (0, 127),
        (0, 255),
        (0, 256),
        (0, 257),
        (16, 2048),
        (5, 700),
        (2**36, 512),
        (48, 1000),
    ):
        expected = primitives.stream(KEY, 7, 2**33 + 1, first, count, "scalar", cipher)
        assert np.array_equal(primitives.stream(KEY, 7, 2**33 + 1, first, count, backend, cipher), expected)
    for count in (3, 40, 250, 4096):
        expected = primitives.ternary(KEY, 2, 9, count, "scalar", cipher)
        assert np.array_equal(primitives.ternary(KEY, 2, 9, count, backend, cipher), expected)


UNIFORM_ROWS = [(2147389441, 11, 200), (2147377153, 7, 200), (2147352577, 13, 9), (1125899906826241, 7, 50)]
UNIFORM_ROWS += [(q, 11, 50) for q in WIDE_PRIMES]


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("q, log_degree, blocks", UNIFORM_ROWS)
def test_uniform_rows(backend: str, q: int, log_degree: int, blocks: int) -> None:
    for block in range(blocks):  # some with rejected candidates
        expected = primitives.uniform(q, log_degree, KEY, 1, block, "scalar")
        assert np.array_equal(primitives.uniform(q, log_degree, KEY, 1, block, backend), expected)


# Rows of collective_error where a sample ties with a threshold; those of ChaCha20 stand in test_streams.py.
TIES = {"chacha20": (28101, 51834, 102882, 150887), "aes256": (15337, 65363, 71058)}


@pytest.mark.parametrize("cipher", ["chacha20", "aes256"])
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("table", ["collective_error", "collective_secret", "error"])
def test_gaussian(backend: str, table: str, cipher: str) -> None:
    for count in (1, 100, 256, 2048, 4096):
        for block in range(20):
            expected = primitives.gaussian(table, KEY, 0, block, count, "scalar", cipher)
            assert np.array_equal(primitives.gaussian(table, KEY, 0, block, count, backend, cipher), expected)
    for block in TIES[cipher]:
        expected = primitives.gaussian(table, TIE_KEY, 0, block, 2048, "scalar", cipher)
        assert np.array_equal(primitives.gaussian(table, TIE_KEY, 0, block, 2048, backend, cipher), expected)


def vectors(params: pf.CkksParams) -> list[list[np.ndarray]]:
    """Lists of tensors: edge lengths, edge values, mixed dtypes split at odd places, rows at distances."""
    block = params.block_weights
    generator = np.random.default_rng(7)
    lengths = [0, 1, 15, 17, block - 1, block, block + 1, 2 * block + 333]
    tensors = [[generator.normal(0, 0.6, n).astype(np.float32)] for n in lengths]
    flat = generator.normal(0, 0.6, block + 99)
    edges = np.array([0.0, -0.0, params.clip, -params.clip, 3.0, -3.0, 1e-30, params.step / 2, 1.5 * params.step])
    tensors.append([flat[:7].astype(np.float16), flat[7:1000].astype(np.float32), flat[1000:], edges])
    tensors.append([np.tile(edges, 40).astype(np.float32)])
    grid = generator.normal(0, 0.6, (70, 131)).astype(np.float32)
    single = [grid[:, 5:42], grid[::3], np.broadcast_to(grid[1], (5, 131)), grid.reshape(10, 7, 131)[:, :, :16]]
    tensors += [single, [flat[:3], grid.astype(np.float64)[:, :100], grid.astype(np.float16)[1:, 60:]]]
    return tensors


@pytest.mark.parametrize(
    "cipher, rounding", [("chacha20", "nearest"), ("chacha20", "stochastic"), ("aes256", "stochastic")]
)
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("name", SETS)
def test_cipher(backend: str, keys: str, name: str, cipher: str, rounding: Any) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys=keys, weights="public", rounding=rounding)
    compare(params, backend, cipher)


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("keys", ["public", "collective"])
@pytest.mark.parametrize(
    "degree, primes, values",
    [
        (4096, [JUST_ABOVE_2_49], 1),
        (4096, [JUST_ABOVE_2_49], 3),
        (2048, [1099511480321], 2),
        (8192, [1125899906990081], 1),
        (4096, [268460033, 4295049217], 1),
    ],
)
def test_cipher_of_other_rings(backend: str, keys: Any, degree: int, primes: list[int], values: int) -> None:
    params = pf.CkksParams("other", degree, tuple(primes), 3, 1.0, keys, "public", values)
    compare(params, backend, "chacha20")


def compare(params: pf.CkksParams, backend: str, cipher: str) -> None:
    schemes = [_native.Scheme(params._checked, which, cipher) for which in ("scalar", backend)]
    for tensors in vectors(params):
        first, second = (run(params, scheme, tensors) for scheme in schemes)
        assert first.keys() == second.keys()
        for step, value in first.items():
            assert np.array_equal(value, second[step]), step


def run(params: pf.CkksParams, scheme: _native.Scheme, tensors: list[np.ndarray]) -> dict[str, object]:
    """Everything a scheme computes from fixed streams, by name."""
    length = sum(t.size for t in tensors)
    blocks = params.block_count(length)
    word = np.uint32 if scheme.word_bytes == 4 else np.uint64
    results: dict[str, object] = {}
    noise = _native.StreamKey.from_bytes(SEED)
    secret = scheme.generate_secret(_native.StreamKey.from_bytes(KEY))
    results["secret"] = secret.coefficients()
    results["quantized"], results["clipped"] = scheme.quantize(tensors, 0.3, rounding=noise)
    c0 = np.zeros(scheme.words(length, True), word)
    c1 = packed1 = None
    if params.keys == "public":
        c1 = np.zeros(scheme.words(length, False), word)
        pk0 = scheme.generate_public(secret, _native.StreamKey.from_bytes(KEY), KEY)
        results["public key"] = pk0
        public = scheme.load_public(pk0, KEY)
        scheme.encrypt_public(public, noise, tensors, 0.3, c0, c1)
        packed0 = bytearray(scheme.packed_bytes(length, True, 0, blocks))
        packed1 = bytearray(scheme.packed_bytes(length, False, 0, blocks))
        scheme.encrypt_public(public, noise, tensors, 0.3, packed0, packed1)
        assert packed0 == scheme.pack(length, True, 0, blocks, c0)
        assert packed1 == scheme.pack(length, False, 0, blocks, c1)
        results["c1"] = c1
    else:
        scheme.encrypt(secret, noise, KEY, tensors, 0.3, c0)
        results["expanded"] = scheme.expand(length, KEY)
        results |= run_parts(params, scheme, tensors, secret, noise, c0)
    results["c0"] = c0
    packed = scheme.pack(length, True, 0, blocks, c0)
    results["packed"] = packed
    unpacked = np.zeros_like(c0)
    assert scheme.unpack(length, True, 0, blocks, packed, unpacked)
    results["unpacked"] = unpacked
    results["hop"] = scheme.hop(length, True, 0, blocks, packed, c0)
    total = np.zeros_like(c0)
    scheme.add(length, True, [c0, c0, unpacked], total)
    results["sum"] = total
    results["masked"] = scheme.mask(length, KEY, False, c0)
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
    return results


def run_parts(
    params: pf.CkksParams,
    scheme: _native.Scheme,
    tensors: list[np.ndarray],
    secret: _native.SecretKey,
    noise: _native.StreamKey,
    c0: np.ndarray,
) -> dict[str, object]:
    """The same encryption in parts: to bytes, from pads, block by block, onto what came in, less a reference."""
    length = sum(t.size for t in tensors)
    blocks = params.block_count(length)
    packed = scheme.pack(length, True, 0, blocks, c0)
    pads = np.zeros_like(c0)
    scheme.make_pads(secret, noise, KEY, length, 0, blocks, pads)
    results: dict[str, object] = {"pads": pads}
    prepared, wire = np.zeros_like(c0), bytearray(len(packed))
    clipped = scheme.encrypt(secret, noise, KEY, tensors, 0.3, wire)
    assert wire == packed
    assert scheme.encrypt_prepared(pads, noise, tensors, 0.3, prepared) == clipped
    assert np.array_equal(prepared, c0)
    assert scheme.encrypt_prepared(pads, noise, tensors, 0.3, wire, incoming=packed) == clipped
    twice = scheme.hop(length, True, 0, blocks, packed, c0)
    assert wire == twice
    again = bytearray(packed)
    assert scheme.encrypt(secret, noise, KEY, tensors, 0.3, again, incoming=again) == clipped
    assert again == twice
    if length > 0:
        assert scheme.encrypt(secret, noise, KEY, tensors, 0.3, wire, incoming=b"\xff" * len(wire)) is None
        assert not any(wire)
    parts = b""
    for block in range(blocks):
        part = bytearray(scheme.packed_bytes(length, True, block, block + 1))
        scheme.encrypt(secret, noise, KEY, tensors, 0.3, part, start=block, stop=block + 1)
        parts += part
    assert parts == packed
    reference = [np.linspace(-0.2, 0.2, length)[: length // 3], np.linspace(-0.2, 0.2, length, dtype=np.float32)]
    reference[1] = np.stack([reference[1]] * 2)[:1, length // 3 :]
    scheme.encrypt(secret, noise, KEY, tensors, 0.3, prepared, reference=reference)
    results["less a reference"] = prepared
    scheme.encrypt_prepared(pads, noise, reference, 0.3, pads, reference=[np.zeros(length, np.float32)])
    results["in place of its pads"] = pads
    return results


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", ["p31", "p62"])
def test_quantising_less_a_reference_in_other_pieces(backend: str, rounding: Any, name: str) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective", rounding=rounding)
    oracle, scheme = (_native.Scheme(params._checked, which, "aes256") for which in ("scalar", backend))
    key = _native.StreamKey.from_bytes(KEY)
    flat = np.random.default_rng(5).normal(0, 0.9, 2 * params.block_weights + 777)
    flat[[3, 2048, 4000]] = [3e38, -3e38, 1e-40]
    shift = np.roll(flat, 1) / 3
    for cuts in ([], [1, 9, 2047, 2050]):
        tensors = [piece.astype(np.float32) for piece in np.split(flat, cuts)]
        halves, rest = np.split(shift, [1500])
        for reference in ([shift.astype(np.float32)], [np.clip(halves, -9, 9).astype(np.float16), rest]):
            expected = oracle.quantize(tensors, 1.0, reference=reference, rounding=key)
            got = scheme.quantize(tensors, 1.0, reference=reference, rounding=key)
            assert np.array_equal(got[0], expected[0])
            assert got[1] == expected[1] > 0
        broken = shift.astype(np.float32)
        broken[[2061, 3000]] = np.inf
        with pytest.raises(_native.NonFiniteError) as error:
            scheme.quantize(tensors, 1.0, reference=[broken], rounding=key)
        assert error.value.index == 2061

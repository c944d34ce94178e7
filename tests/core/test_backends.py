"""Every backend this machine runs gives the bits of `scalar`: primitives, all sets, all key modes, edge lengths."""

import hashlib
from typing import Any

import numpy as np
import pytest
from fixed_streams import KEY, OTHERS, PACKINGS, compare, mixed_tensors, of_edge_lengths, packing

import pppml_fast as pf
from pppml_fast import _native

primitives = _native.primitives
TIE_KEY = hashlib.sha256(b"pppml tie search").digest()
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


@pytest.mark.parametrize("cipher", ["chacha20", "aes256"])
@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("name", PACKINGS)
def test_stochastic_rounding(name: str, keys: str, cipher: str) -> None:
    params = packing(name, keys, rounding="stochastic")
    compare(params, cipher, of_edge_lengths(params) + mixed_tensors(params))


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
def test_other_rings(keys: Any, degree: int, primes: list[int], values: int) -> None:
    params = pf.CkksParams("other", degree, tuple(primes), 3, 1.0, keys, "public", values)
    compare(params, "chacha20", of_edge_lengths(params) + mixed_tensors(params))


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

"""Slots: the canonical embedding against its definition, sums of every key mode, precision, several primes."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, Parties, ntt_prime

import pppml_fast as pf
from pppml_fast import _native

BACKENDS = _native.supported_backends()
OTHERS = [name for name in BACKENDS if name != "scalar"]
PACKINGS = ["slots", "real_slots"]
SETS = ["p31", "p50", "p62"]


def params_of(
    name: str = "p50", packing: Any = "slots", keys: Any = "secret", parties: int = 3, **more: Any
) -> pf.CkksParams:
    return pf.CkksParams.preset(name, parties=parties, clip=1.0, keys=keys, packing=packing, **more)


def deep(packing: Any = "slots", keys: Any = "public", **more: Any) -> pf.CkksParams:
    """A set of three primes, of which sums use the first."""
    primes = (ntt_prime(59, 8192), ntt_prime(40, 8192), ntt_prime(41, 8192))
    return pf.CkksParams("deep", 8192, primes, 3, 1.0, keys, packing=packing, slot_scale=2.0**40, **more)


def narrow(packing: Any = "slots", keys: Any = "secret") -> pf.CkksParams:
    """Four primes of 32-bit words, of very different sizes."""
    primes = tuple(ntt_prime(bits, 4096) for bits in (31, 20, 26, 28))
    return pf.CkksParams("narrow", 4096, primes, 3, 1.0, keys, packing=packing)


def uniform(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, length)


def slot_values(coefficients: np.ndarray) -> np.ndarray:
    """m(zeta^(5^j)), zeta = exp(i pi / N), of one block of coefficients: the definition, by numpy's transform."""
    n = coefficients.size
    twisted = coefficients * np.exp(1j * np.pi * np.arange(n) / n)
    odd_powers = np.fft.ifft(twisted) * n  # at zeta^(2 k + 1)
    exponents = np.array([pow(5, j, 2 * n) for j in range(n // 2)])
    return odd_powers[(exponents - 1) // 2]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", SETS)
def test_quantised_coefficients_hold_the_weights_in_their_slots(name: str, packing: str) -> None:
    params = params_of(name, packing)
    n, blocks = params.ring_dimension, 3
    x = uniform(blocks * params.block_weights - 7)
    integers = pf.quantize(params, x)
    assert integers.shape == (blocks * n,) == (params.integer_count(x.size),)
    assert np.abs(integers).max() <= params.max_magnitude
    padded = np.zeros(blocks * params.block_weights)
    padded[: x.size] = x
    for block, weights in zip(integers.reshape(blocks, n), padded.reshape(blocks, -1), strict=True):
        slots = slot_values(block * params.step)
        wanted = weights[: n // 2] + 1j * weights[n // 2 :] if packing == "slots" else weights
        # n/2 roundings of half a step, at random: their root mean square is sqrt(N / 12) steps for the two halves.
        assert np.abs(slots - wanted).max() < 6 * math.sqrt(n / 12) * params.step + 1e-13
    assert np.abs(pf.dequantize(params, integers, np.float64, length=x.size) - x).max() <= params.max_error


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("backend", OTHERS)
def test_every_backend_gives_the_bits_of_scalar(backend: str, packing: str) -> None:
    for params in (
        params_of("p31", packing),
        params_of("p50", packing, rounding="stochastic"),
        params_of("p62", packing),
        deep(packing, "secret"),
        narrow(packing),
    ):
        schemes = [_native.Scheme(params._checked, each, "chacha20") for each in ("scalar", backend)]
        key = _native.StreamKey.from_bytes(bytes(range(32)))
        for length in (1, params.block_weights - 1, 5 * params.block_weights + 3):
            tensors = [uniform(length).astype(np.float32), uniform(7, 1)]
            reference = [uniform(length + 7, 2)]
            results = []
            for scheme in schemes:
                secret = scheme.generate_secret(key)
                out = np.empty(scheme.words(length + 7, True), f"u{scheme.word_bytes}")
                scheme.encrypt(secret, key, CONTEXT, tensors, 1.0, out, reference=reference)
                opened = np.empty(length + 7)
                scheme.open(secret, length + 7, 1, out, None, CONTEXT, opened)
                integers = scheme.quantize(tensors, 1.0, reference=reference, rounding=key)[0]
                results.append((out, opened, integers))
            for expected, got in zip(*results, strict=True):
                assert np.array_equal(expected, got)


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", SETS)
def test_sums_are_exact_in_coefficients_and_bounded_in_slots(name: str, packing: str, keys: str) -> None:
    params = params_of(name, packing, keys)
    parties = Parties(params, 3)
    vectors = [uniform(2 * params.block_weights + 5, seed).astype(np.float32) for seed in range(3)]
    total = parties.total(vectors)
    integers = parties.opener.decrypt(total, integers=True)
    assert np.array_equal(integers, sum(pf.quantize(params, x) for x in vectors))
    exact = np.sum([x.astype(np.float64) for x in vectors], axis=0)
    for dtype in (np.float64, np.float32):
        opened = parties.opener.decrypt(total, dtype)
        assert opened.dtype == dtype and opened.shape == exact.shape
        assert np.abs(opened - exact).max() <= params.max_error + 3 * np.finfo(dtype).eps
    # The same from bytes, and from the integers.
    wide = parties.opener.decrypt(total, np.float64)
    assert np.array_equal(parties.opener.decrypt_bytes(total.to_bytes(), np.float64), wide)
    assert np.array_equal(pf.dequantize(params, integers, np.float64, length=exact.size), wide)
    assert np.array_equal(wide / params.release_step, np.rint(wide / params.release_step))


def test_stochastic_rounding_has_the_tighter_bound_and_keeps_it() -> None:
    nearest, stochastic = (params_of("p31", rounding=rounding) for rounding in ("nearest", "stochastic"))
    assert stochastic._checked.max_error < nearest._checked.max_error / 3
    parties = Parties(stochastic, 3)
    x = uniform(3 * stochastic.block_weights)
    assert np.abs(parties.opener.decrypt(parties.total([x, x, x]), np.float64) - 3 * x).max() <= stochastic.max_error


def test_public_shares_reference_and_clip_apply_to_weights() -> None:
    params = params_of("p62", keys="collective", weights="public")
    parties = Parties(params, 3)
    x, reference = 2 * uniform(5000), 0.5 * uniform(5000, 1)
    total = pf.add([parties.encrypt(i, x, weight=w, reference=reference) for i, w in enumerate((0.5, 0.3, 0.2))])
    opened = parties.opener.decrypt(total, np.float64)
    assert np.abs(opened - np.clip(x - reference, -1, 1)).max() <= params.max_error
    assert pf.count_clipped(params, x, reference) == int((np.abs(x - reference) > 1).sum()) > 0


def test_pads_and_streams_give_the_same_ciphertext() -> None:
    params = params_of("p31", keys="collective")
    x = uniform(9 * params.block_weights - 1)
    key = pf.CollectiveKey.generate(params)
    key.prepare(CONTEXT, x.size, background=False)
    chunks = b"".join(bytes(part) for part in key.encrypt_chunks(x, CONTEXT, chunk_blocks=2))
    opener = pf.CollectiveKey.sum([key])
    out = np.empty(x.size)
    assert opener.decrypt_chunks([chunks], out, chunk_blocks=4) == x.size
    assert np.abs(out - x).max() <= params.max_error
    integers = np.empty(params.integer_count(x.size), np.int64)
    opener.decrypt_chunks([chunks], integers, chunk_blocks=4)
    assert np.array_equal(integers, pf.quantize(params, x))


@pytest.mark.parametrize("packing", PACKINGS)
def test_sums_open_modulo_the_leading_primes(packing: str) -> None:
    params = deep(packing)
    assert params._checked.opening_primes == 1 and params.total_scale == 2**40
    parties = Parties(params, 3)
    vectors = [uniform(params.block_weights + 9, seed) for seed in range(3)]
    total = pf.Ciphertext.from_bytes(params, parties.total(vectors).to_bytes())
    integers = parties.opener.decrypt(total, integers=True)
    assert np.array_equal(integers, sum(pf.quantize(params, x) for x in vectors))
    assert np.abs(parties.opener.decrypt(total, np.float64) - sum(vectors)).max() <= params.max_error
    # A residue of a prime that no opening needs is looked at all the same.
    data = bytearray(total.to_bytes())
    row = 8192 * 59 // 8
    data[84 + row : 84 + row + 8192 * 40 // 8] = b"\xff" * (8192 * 40 // 8)
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        parties.opener.decrypt_bytes(bytes(data))


def test_a_missing_contribution_is_refused() -> None:
    params = params_of(keys="collective")
    parties = Parties(params, 3)
    x = uniform(100)
    two = pf.add([parties.encrypt(0, x), parties.encrypt(1, x)])
    two.terms = 3
    with pytest.raises(pf.OpeningError, match="residual check"):
        parties.opener.decrypt(two)


def test_the_id_of_older_sets_has_not_changed() -> None:
    # SHA-256 of the literal that there was before slots: name, dimension, primes, parties, clip, modes and rounding.
    assert pf.CkksParams.preset("p31", parties=3, clip=1.0).id.hex() == (
        "ed31029403ef06456121aaa1972c2f74facf21aa8a916b61de9bc39a6bc1497e"
    )
    slots, again = deep(), pf.CkksParams.from_dict(deep().to_dict())
    assert slots == again and slots.id == again.id == pickle.loads(pickle.dumps(slots)).id
    assert slots.id != deep("real_slots").id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packing": "diagonal"}, "packing = 'diagonal' is unknown"),
        ({"packing": "slots", "values_per_coefficient": 2}, "does not go with slots"),
        ({"slot_scale": 2.0**30}, "goes with slots only"),
        ({"packing": "slots", "slot_scale": 2.0**49}, "exceeds 2\\^"),
        ({"packing": "slots", "slot_scale": 4.0}, "leaves nothing of values"),
        ({"packing": "slots", "slot_scale": math.nan}, "slot_scale"),
    ],
)
def test_sets_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    literal = {**pf.CkksParams.preset("p50", parties=3, clip=1.0).to_dict(), **change}
    with pytest.raises(pf.ParameterError, match=message):
        pf.CkksParams.from_dict(literal)


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("name", SETS)
def test_a_given_scale_stays_within_the_law(name: str, keys: str) -> None:
    for parties in (2, 3, 16, 100):
        for clip in (0.3, 1.0, 7.7):
            free = pf.CkksParams.preset(name, parties=parties, clip=clip, keys=keys, packing="slots")
            given = pf.CkksParams.from_dict({**free.to_dict(), "slot_scale": free.total_scale})
            assert given.max_magnitude <= free.max_magnitude
            assert given.sum_bound <= free.sum_bound


def test_collective_keys_release_no_noise() -> None:
    with pytest.raises(pf.ParameterError, match="collective keys follow"):
        pf.CkksParams.preset(
            "p50", parties=3, clip=1.0, keys="collective", packing="slots", insecure_for_comparison=True
        )


def test_coefficients_take_no_further_primes() -> None:
    with pytest.raises(pf.ParameterError, match="or slots"):
        pf.CkksParams("deep", 8192, deep().primes, 3, 1.0)


def test_values_that_are_not_finite_are_named() -> None:
    params = params_of()
    x = uniform(5000)
    x[4100] = np.nan
    with pytest.raises(pf.InputError, match="element 4100"):
        pf.quantize(params, x)
    with pytest.raises(pf.InputError, match="element 4100"):
        pf.keygen(params).secret.encrypt(x)


def test_integers_of_another_length_are_refused() -> None:
    params = params_of()
    with pytest.raises(pf.InputError, match="quantised to 4096 integers, not 4095"):
        pf.dequantize(params, np.zeros(4095, np.int64), length=3)
    with pytest.raises(pf.InputError, match="shape \\(4096,\\)"):
        pf.quantize(params, uniform(3), out=np.zeros(3, np.int64))


# --- the setting of PPPML-HMI's code: to be compared with, and nothing else --------------------------------------


def test_it_takes_a_word_and_warns() -> None:
    with pytest.raises(pf.ParameterError, match="insecure_for_comparison=True"):
        pf.CkksParams.preset("published", parties=3, clip=1.0)
    with pytest.warns(UserWarning, match="comparison only"):
        params = pf.CkksParams.preset("published", parties=3, clip=1.0, insecure_for_comparison=True)
    assert params.level_bits == {"classical": 0, "quantum": 0}
    assert params.total_scale == 2**26 and params.scale == 1
    assert [q.bit_length() for q in params.primes] == [31, 26, 26, 26, 26, 26, 26, 31]


@pytest.mark.filterwarnings("ignore:parameter set 'published'")
def test_published_sums_carry_noise_as_those_of_the_code_do() -> None:
    params = pf.CkksParams.preset("published", parties=3, clip=1.0, insecure_for_comparison=True)
    parties = Parties(params, 3)
    vectors = [uniform(9000, seed) for seed in range(3)]
    error = np.abs(parties.opener.decrypt(parties.total(vectors), np.float64) - sum(vectors)).max()
    assert 0 < error <= params.max_error

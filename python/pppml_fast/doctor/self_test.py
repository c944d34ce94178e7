"""Every backend held against `scalar`, bit for bit, and `scalar` against published answers and against arithmetic.

Fixed keys and weights: the same on every machine. Lengths lie at the edges of rows and blocks.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.doctor.backends import example
from pppml_fast.doctor.report import Check, failed, held, note
from pppml_fast.errors import ParameterError
from pppml_fast.params import PRESETS, CkksParams, KeyMode

__all__ = ["NOT_RUN", "edge_lengths", "outcomes", "self_test_checks"]

SECTION = "self-test"
NOT_RUN = note(SECTION, "all backends", "not run, as told")
_REMEDY = "do not use this backend: set PPPML_BACKEND=scalar, and report processor and compiler"
_CIPHERS = ("chacha20", "aes256")
_KEY, _NOISE, _PUBLIC = (hashlib.sha256(f"pppml doctor {what}".encode()).digest() for what in ("key", "noise", "a"))

# (cipher, key, selector, block, first word, words as bytes). RFC 8439, section 2.3.2; FIPS 197, appendix C.3.
_KNOWN_ANSWERS = (
    (
        "chacha20",
        bytes(range(32)),
        0x09000000,
        0x4A000000,
        16,
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    (
        "aes256",
        bytes(range(32)),
        0x33221100,
        0xBBAA998877665544,
        4 * 0xCCDDEEFF,
        "8ea2b7ca516745bfeafc49904b496089",
    ),
)


def self_test_checks() -> list[Check]:
    """One finding for the ciphers, one for `scalar` and one for every other backend that runs here."""
    supported = _native.supported_backends()
    found = [_known_answers(supported)]
    others = [name for name in supported if name != "scalar"]
    faults: dict[str, list[str]] = {name: [] for name in ("scalar", *others)}
    cases = 0
    try:
        for params, cipher in itertools.product(_sets(), _CIPHERS):
            for length in edge_lengths(params):
                _compare(params, cipher, length, others, faults)
                cases += 1
    except (_native.RequirementError, ParameterError) as error:
        return [*found, failed(SECTION, "all backends", f"not run: {error}", "see the backend in use")]
    for name, differences in faults.items():
        what = "opens what it encrypted" if name == "scalar" else "the bits of scalar"
        if differences:
            more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
            found.append(failed(SECTION, name, differences[0] + more, _REMEDY))
        else:
            found.append(held(SECTION, name, f"{what} in {cases} cases: every set, key mode, cipher and edge length"))
    return found


def edge_lengths(params: CkksParams) -> list[int]:
    """One weight, a row less one, a block and one, three blocks of which the last is short."""
    block = params.block_weights
    return [1, params.ring_dimension - 1, block + 1, 2 * block + 333]


def outcomes(params: CkksParams, scheme: _native.Scheme, weights: NDArray[Any]) -> Iterator[tuple[str, Any]]:
    """Step by step, what ``scheme`` makes of ``weights`` under fixed keys."""
    length, blocks = weights.size, params.block_count(weights.size)
    noise = _native.StreamKey.from_bytes(_NOISE)
    secret = scheme.generate_secret(_native.StreamKey.from_bytes(_KEY))
    yield "key generation", secret.coefficients()
    quantized, clipped = scheme.quantize([weights], 1.0)
    yield "quantising", (quantized, clipped)
    word = f"u{scheme.word_bytes}"
    c0, c1 = np.zeros(scheme.words(length, True), word), None
    if params.keys == "public":
        c1 = np.zeros(scheme.words(length, False), word)
        pk0 = scheme.generate_public(secret, noise, _PUBLIC)
        yield "public key", pk0
        scheme.encrypt_public(scheme.load_public(pk0, _PUBLIC), noise, [weights], 1.0, c0, c1)
        yield "encryption", (c0, c1)
    else:
        scheme.encrypt(secret, noise, _PUBLIC, [weights], 1.0, c0)
        yield "encryption", (c0,)
        pads = np.zeros_like(c0)
        scheme.make_pads(secret, noise, _PUBLIC, length, 0, blocks, pads)
        scheme.encrypt_prepared(pads, noise, [weights], 1.0, pads)
        yield "encryption from pads", (pads,)
        yield "public polynomials", scheme.expand(length, _PUBLIC)
    packed = scheme.pack(length, True, 0, blocks, c0)
    yield "packing", packed
    yield "hop", scheme.hop(length, True, 0, blocks, packed, c0)
    total = np.zeros_like(c0)
    scheme.add(length, True, [c0, c0, c0], total)
    yield "addition", total
    if params.keys == "collective":
        yield "sum check", scheme.tag(length, _KEY, c0)
    opened = np.zeros(params.integer_count(length), np.int64)
    seed = None if params.keys == "public" else _PUBLIC
    refused, residual, valid = scheme.open(secret, length, 1, c0, c1, seed, opened)
    yield "opening", (opened, residual)
    if params.packing != "coefficients":
        values = np.zeros(length)
        scheme.restore_slots(opened, values)
        yield "slots", values
    if refused is not None or not valid or not np.array_equal(opened, quantized):
        raise _WrongSumError


class _WrongSumError(Exception):
    """What was opened is not what was quantised."""


def _sets() -> Iterator[CkksParams]:
    for name in PRESETS:
        for keys in get_args(KeyMode):
            yield example(name, keys)
    yield CkksParams.preset("p50", parties=3, clip=1.0, keys="collective", packing="slots")
    yield CkksParams.preset("p62", parties=3, clip=1.0, keys="public", packing="real_slots")


def _compare(params: CkksParams, cipher: str, length: int, others: list[str], faults: dict[str, list[str]]) -> None:
    case = f"{params.name}/{params.keys} {params.packing}, {cipher}, {length} weights"
    weights = np.random.default_rng(length).normal(0, 0.5, length).astype(np.float32)
    oracle, fault = _followed(params, "scalar", cipher, weights)
    if fault:
        faults["scalar"].append(f"{case}: {fault}")
    for name in others:
        got, fault = _followed(params, name, cipher, weights)
        # A step that is missing is what the fault tells of.
        differing = [f"{step} differs from scalar" for step in oracle if got.get(step, oracle[step]) != oracle[step]]
        if differing or fault:
            faults[name].append(f"{case}: {differing[0] if differing else fault}")


def _followed(
    params: CkksParams, backend: str, cipher: str, weights: NDArray[Any]
) -> tuple[dict[str, tuple[bytes, ...]], str]:
    """The bytes of every step of one backend, and what went wrong on the way."""
    scheme, steps = _native.Scheme(params._checked, backend, cipher), {}
    try:
        for step, values in outcomes(params, scheme, weights):
            parts = values if isinstance(values, tuple) else (values,)
            steps[step] = tuple(map(_bytes, parts))
    except _WrongSumError:
        return steps, "what was opened is not what was encrypted"
    except _native.RequirementError as error:
        return steps, str(error)
    return steps, ""


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else np.asarray(value).tobytes()


def _known_answers(supported: list[str]) -> Check:
    wrong = []
    for backend in supported:
        for cipher, key, selector, block, first, expected in _KNOWN_ANSWERS:
            words = _native.primitives.stream(key, selector, block, first, len(expected) // 8, backend, cipher)
            if words.astype("<u4").tobytes().hex() != expected:
                wrong.append(f"{cipher} on {backend}")
    if wrong:
        return failed(SECTION, "known answers", f"wrong: {', '.join(wrong)}", _REMEDY)
    return held(SECTION, "known answers", "ChaCha20 of RFC 8439 and AES-256 of FIPS 197 on every backend")

"""Every backend quantises, composes and opens like `scalar`: types, strides, references, roundings, edge values."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest

from pppml_fast import _native

primitives = _native.primitives
KEY = hashlib.sha256(b"codec key").digest()
OTHERS = [name for name in _native.supported_backends() if name != "scalar"]
DTYPES = ["float32", "float64", "float16", "bfloat16"]
LAYOUTS = ["contiguous", "every third", "rows of five", "rows of 64"]
LENGTHS = [0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 255, 1023, 1024, 1025, 2500]
CLIP, MULTIPLIER = 1.5, 1024.0
BLOCK = 2048

Spans = list[tuple[Any, int, int, int]]


def edges() -> np.ndarray:
    """Finite numbers at which something changes: ties of rounding, the clip, subnormals, what float32 cannot hold."""
    ties = (np.arange(-9, 10) + 0.5) / MULTIPLIER
    beyond = [np.nextafter(CLIP, 2), float(np.nextafter(np.float32(CLIP), np.float32(2))), 2.0, 65504.0, 3e38]
    huge = [3.5e38, 1e300, np.finfo(np.float64).max]
    small = [0.0, 5e-324, 1e-310, 1e-45, 1e-40, 6e-8, 1e-30]
    positive = np.array([CLIP, np.nextafter(CLIP, 0), *beyond, *huge, *small])
    return np.concatenate([ties, positive, -positive])


def not_numbers(dtype: str) -> np.ndarray:
    """Infinities and NaN with payloads, quiet and signalling, as elements of the type."""
    if dtype == "float64":
        return np.array([0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48 | 5, (0x7FF0 << 48) + 1], np.uint64).view(np.float64)
    if dtype == "float32":
        return np.array([0x7F800000, 0xFF800000, 0x7FC00005, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    if dtype == "float16":
        return np.array([0x7C00, 0xFC00, 0x7E05, 0x7C01, 0xFFFF], np.uint16).view(np.float16)
    return np.array([0x7F80, 0xFF80, 0x7FC5, 0x7F81, 0xFFFF], np.uint16)


def as_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """Finite elements of the type; those of bfloat16 are uint16."""
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            single = np.clip(values, -3e38, 3e38).astype(np.float32)
            return (single.view(np.uint32) >> 16).astype(np.uint16)
        array = values.astype(dtype)
    return np.where(np.isfinite(array), array, np.sign(values) * np.finfo(dtype).max).astype(dtype)


def numbers(count: int, dtype: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(0, 0.8, count)
    places = random.random(count) < 0.3
    values[places] = random.choice(edges(), places.sum())
    return as_dtype(values, dtype)


def laid_out(values: np.ndarray, dtype: str, layout: str) -> Spans:
    """The values as spans of memory in which other numbers stand between the rows."""

    def span(part: np.ndarray, row: int, stride: int) -> tuple[Any, int, int, int]:
        rows = len(part) // row
        memory = np.full(max((rows - 1) * stride + row, 0), 7, part.dtype)
        for r in range(rows):
            memory[r * stride : r * stride + row] = part[r * row : (r + 1) * row]
        return (("bfloat16", memory) if dtype == "bfloat16" else memory, rows, row, stride)

    if layout == "contiguous":
        return [span(values, max(len(values), 1), max(len(values), 1))]
    row, stride = {"every third": (1, 3), "rows of five": (5, 9), "rows of 64": (64, 100)}[layout]
    whole = len(values) // row * row
    return [span(values[:whole], row, stride), span(values[whole:], 1, 2)]


def quantize(spans: Spans, reference: Spans, backend: str, **options: Any) -> tuple[list[int], int, int | None]:
    given = {"clip": CLIP, "multiplier": MULTIPLIER, "block_values": BLOCK, "first": 0} | options
    values, clipped, bad = primitives.quantize(spans, reference, backend=backend, **given)
    return values.tolist(), clipped, bad


@pytest.mark.parametrize("rounding", ["nearest", "chacha20", "aes256"])
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", OTHERS)
def test_quantising(backend: str, dtype: str, layout: str, single: bool, rounding: str) -> None:
    options: dict[str, Any] = {"single_precision": single}
    if rounding != "nearest":
        options |= {"key": KEY, "cipher": rounding}
    for length in LENGTHS:
        spans = laid_out(numbers(length, dtype, length), dtype, layout)
        other = DTYPES[length % 4]
        cut = length // 3
        reference = numbers(length, other, length + 1)
        parts = laid_out(reference[:cut], other, "rows of five") + laid_out(reference[cut:], other, "contiguous")
        for subtracted, word_bits in (([], 32), (parts, 32), (parts, 64)):
            for first, count in ((0, length), (0, length + 20), (length // 2, length), (min(length, 5), length)):
                where = options | {"first": first, "count": count, "word_bits": word_bits}
                expected = quantize(spans, subtracted, "scalar", **where)
                assert quantize(spans, subtracted, backend, **where) == expected


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", OTHERS)
def test_what_is_no_number_is_found_where_it_stands(backend: str, dtype: str, layout: str, single: bool) -> None:
    options = {"single_precision": single, "count": 90}
    finite = as_dtype(np.random.default_rng(3).normal(0, 0.8, 90), dtype)
    for place, bad in itertools.product((0, 1, 15, 16, 63, 64, 88, 89), not_numbers(dtype)):
        values = finite.copy()
        values[place] = bad
        values[place + 1 :: 7] = bad
        spans, other = laid_out(values, dtype, layout), laid_out(finite, dtype, "contiguous")
        for tensors, reference in ((spans, []), (spans, other), (other, spans), (spans, spans)):
            found = quantize(tensors, reference, backend, **options)
            assert found == quantize(tensors, reference, "scalar", **options)
            assert found[2] == place and found[0][place] == 0
            assert quantize(tensors, reference, backend, **options, key=KEY)[1:] == found[1:]


def test_rows_apart_are_read_like_rows_together() -> None:
    for dtype, layout, single in itertools.product(DTYPES, LAYOUTS, (True, False)):
        values = numbers(700, dtype, 11)
        options = {"single_precision": single, "count": 700}
        together = quantize(laid_out(values, dtype, "contiguous"), [], "scalar", **options)
        assert quantize(laid_out(values, dtype, layout), [], "scalar", **options) == together


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("single", [True, False])
def test_many_small_tensors_in_any_order_of_reading(backend: str, single: bool) -> None:
    random = np.random.default_rng(5)
    spans: Spans = []
    for i, size in enumerate(random.integers(0, 40, 300)):
        dtype = DTYPES[i % 4] if i % 3 == 0 else "float32"
        spans += laid_out(numbers(int(size), dtype, i), dtype, LAYOUTS[i % 4] if i % 5 == 0 else "contiguous")
    total = sum(rows * row for _, rows, row, _ in spans)
    for key in (None, KEY):
        options = {"single_precision": single, "key": key}
        for first, count in ((0, total), (total - 100, 100), (17, 2048), (total, 3), (BLOCK - 1, 2 * BLOCK)):
            where = options | {"first": first, "count": count}
            assert quantize(spans, [], backend, **where) == quantize(spans, [], "scalar", **where)


# --- composing and opening -----------------------------------------------------------------------------------------

P31, P62, P50 = [2147389441], [2147377153, 2147352577], [1125899906826241]
UNEVEN = [2147377153, 40961]  # the first prime passes twice the second
RINGS: dict[str, tuple[int, list[int], int, str]] = {
    "p31": (2048, P31, 3, "collective"),
    "p31, one party": (2048, P31, 1, "secret"),
    "p62": (4096, P62, 16, "collective"),
    "p62, one party": (4096, P62, 1, "secret"),
    "p62, four parties": (4096, P62, 4, "secret"),
    "p62, very many parties": (4096, P62, 2**18, "public"),
    "p50": (4096, P50, 3, "collective"),
    "uneven primes": (4096, UNEVEN, 3, "collective"),
    "uneven primes, the other way round": (4096, UNEVEN[::-1], 3, "collective"),
}


def parameters(ring: str, values: int, rounding: str = "nearest") -> _native.Parameters:
    degree, primes, parties, keys = RINGS[ring]
    return _native.Parameters(
        ring_dimension=degree,
        primes=primes,
        parties=parties,
        clip=0.7,
        keys=getattr(_native.KeyMode, keys),
        weights=_native.WeightPolicy.free,
        values_per_coefficient=values,
        rounding=getattr(_native.Rounding, rounding),
    )


def fits(ring: str, values: int) -> bool:
    try:
        parameters(ring, values)
    except _native.RequirementError:
        return False
    return True


SHAPES = [(ring, values) for ring in RINGS for values in (1, 2, 3) if fits(ring, values)]


def test_most_rings_hold_several_values() -> None:
    assert len(SHAPES) >= 20
    assert {("p62", 3), ("p31", 3), ("p62, very many parties", 2), ("uneven primes", 2)} <= set(SHAPES)


def residues(params: _native.Parameters, integers: list[list[int]], word: Any) -> np.ndarray:
    """Blocks of coefficients as rows of residues without gaps."""
    rows = [np.array([m % q for m in block], word) for block in integers for q in params.primes]
    return np.concatenate(rows)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(("ring", "values"), SHAPES)
@pytest.mark.parametrize("backend", OTHERS)
def test_composing(backend: str, ring: str, values: int, rounding: str) -> None:
    params = parameters(ring, values, rounding)
    random = np.random.default_rng(9)
    schemes = [_native.Scheme(params, name, "chacha20") for name in ("scalar", backend)]
    word = np.uint32 if schemes[0].word_bytes == 4 else np.uint64
    block = params.block_weights
    for length in (1, block // values + 1, block - 1, block, block + 777):
        x = random.normal(0, 0.5, length).astype(np.float32)
        x[::3] = random.choice([0.7, -0.7, 9.0, -9.0, 0.0], len(x[::3]))
        lengths = [params.ring_dimension] * (params.block_count(length) - 1) + [params.last_row_length(length)]
        pads = residues(params, [random.integers(0, 2**40, n).tolist() for n in lengths], word)
        pads[:5] = 0
        outs = []
        for scheme in schemes:
            out = np.zeros_like(pads)
            noise = _native.StreamKey.from_bytes(KEY)
            clipped = scheme.encrypt_prepared(pads, noise, [x], 1.0, out)
            packed = bytearray(scheme.packed_bytes(length, True, 0, params.block_count(length)))
            incoming = scheme.pack(length, True, 0, params.block_count(length), pads)
            assert scheme.encrypt_prepared(pads, noise, [x], 1.0, packed, incoming=incoming) == clipped
            outs.append((out.tobytes(), bytes(packed), clipped))
        assert outs[0] == outs[1]


def phases(params: _native.Parameters) -> list[int]:
    """Phases of two blocks: at the edges of every digit, of the residual and of the modulus, and any."""
    modulus = 1
    for q in params.primes:
        modulus *= q
    half, noise = params.sum_bound, (params.delta - 1) // 2
    digits = [0, 1, -1, half, -half, half - 1, 1 - half]
    values = params.block_weights // params.ring_dimension
    sums = [sum(d * params.base**t for t, d in enumerate(v)) for v in itertools.product(digits, repeat=values)]
    exact = [m * params.delta + e for m in sums for e in (0, 1, -1, noise, -noise)]
    borders = [s * (modulus // 2) + i for s in (1, -1) for i in range(-3, 4)] + [0, *params.primes]
    generator = np.random.default_rng(4)
    near = [int(d) * params.delta * params.base ** (values - 1) // 2 + i for d in range(-9, 10) for i in range(-2, 3)]
    wanted = 2 * params.ring_dimension
    any_phase = [int.from_bytes(generator.bytes(8), "little") % modulus for _ in range(wanted)]
    return (exact + borders + near + any_phase)[:wanted]


@pytest.mark.parametrize(("ring", "values"), SHAPES)
@pytest.mark.parametrize("backend", OTHERS)
def test_opening_any_phase(backend: str, ring: str, values: int) -> None:
    params = parameters(ring, values)
    degree = params.ring_dimension
    schemes = [_native.Scheme(params, name, "chacha20") for name in ("scalar", backend)]
    word = np.uint32 if schemes[0].word_bytes == 4 else np.uint64
    given = phases(params)
    for length in (2 * degree * values, degree * values + 777, 130 * values, 129 * values - 1, 3):
        last = params.last_row_length(length)
        blocks = [given[:degree], given[degree : degree + last]] if length > degree * values else [given[:last]]
        c0 = residues(params, blocks, word)
        # Terms without number: no block is refused, so that what garbage opens to can be compared.
        for dtype, terms in itertools.product((np.float32, np.float64, np.int64), (1, 2**50)):
            opened = []
            for scheme in schemes:
                secret = scheme.secret_from_coefficients(np.zeros(degree, np.int64))
                out = np.ones(length, dtype)
                report = scheme.open(secret, length, terms, c0, None, KEY, out)
                opened.append((report, out.tobytes()))
            assert opened[0] == opened[1]
            assert terms == 1 or opened[0][0][0] is None
            assert terms == 1 or length == 3 or np.frombuffer(opened[0][1], dtype).any()

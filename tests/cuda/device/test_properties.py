"""Any list of tensors, cut anywhere, in any dtypes, less any reference: the device has the bits of `scalar`."""

from __future__ import annotations

import numpy as np
from fixed_streams import PACKINGS, packing
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bits import compare

DTYPES = (np.float32, np.float64, np.float16)
# Lengths of tensors: nothing, a few, and around what a row and a block hold.
LENGTHS = st.one_of(st.integers(0, 40), st.integers(2000, 2100), st.integers(4050, 4200))


@st.composite
def tensors(draw: st.DrawFn, most: int = 6) -> list[np.ndarray]:
    shapes = draw(st.lists(st.tuples(LENGTHS, st.sampled_from(DTYPES)), min_size=1, max_size=most))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1e-6, 0.4, 3.0]))
    return [(generator.normal(0, scale, length)).astype(dtype) for length, dtype in shapes]


@given(
    parts=tensors(),
    name=st.sampled_from(sorted(PACKINGS)),
    keys=st.sampled_from(["collective", "secret", "public"]),
    rounding=st.sampled_from(["nearest", "stochastic"]),
    weight=st.floats(2**-20, 1.0),
)
@settings(max_examples=30)
def test_any_list_of_tensors(parts: list[np.ndarray], name: str, keys: str, rounding: str, weight: float) -> None:
    compare(packing(name, keys, rounding=rounding), parts, weight)


@given(parts=tensors(4), cuts=st.lists(st.floats(0, 1), max_size=4), seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_any_reference(parts: list[np.ndarray], cuts: list[float], seed: int) -> None:
    length = sum(part.size for part in parts)
    shift = np.random.default_rng(seed).normal(0, 0.5, length)
    pieces = np.split(shift, sorted(int(cut * length) for cut in cuts))
    generator = np.random.default_rng(seed + 1)
    reference = [piece.astype(DTYPES[generator.integers(3)]) for piece in pieces]
    compare(packing("p31", "collective"), parts, 0.5, reference)
    compare(packing("p62", "collective"), parts, 0.5, reference)

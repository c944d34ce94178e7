"""Plain memory loops, the floor that memory-bound operations are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.bench.rows import MEMORY
from pppml_fast.bench.timing import Case

__all__ = ["add_streams", "memory_cases"]

_WORD_BYTES = 4
# A piece of the running sum that stays in the second-level cache, so that each input is read once.
_PIECE = 1 << 17

Words = NDArray[np.uint32]


def add_streams(inputs: Sequence[Words], out: Words) -> Words:
    """out = sum of the inputs modulo 2^32, piece by piece: each input is read once, ``out`` written once."""
    for start in range(0, out.size, _PIECE):
        piece = slice(start, start + _PIECE)
        np.add(inputs[0][piece], inputs[1][piece], out=out[piece])
        for other in inputs[2:]:
            np.add(out[piece], other[piece], out=out[piece])
    return out


def memory_cases(size: int) -> list[Case]:
    """memcpy, and uint32 additions of 2 and of 16 arrays of ``size`` words, on one thread."""
    values = np.random.default_rng(7).integers(0, 1 << 32, size, dtype=np.uint32)
    arrays = [np.roll(values, index) for index in range(16)]
    target = np.zeros_like(values)
    sums = {2: _wrapping_sum(arrays[:2]), 16: _wrapping_sum(arrays)}

    def copy(_: object) -> Words:
        np.copyto(target, values)
        return target

    def adding(count: int) -> Case:
        return _case(
            f"add{count}",
            size,
            streams=count + 1,
            run=lambda _: add_streams(arrays[:count], target),
            expected=sums[count],
        )

    return [_case("memcpy", size, 2, copy, values), adding(2), adding(16)]


def _wrapping_sum(arrays: Sequence[Words]) -> Words:
    total = np.zeros_like(arrays[0])
    for array in arrays:
        total += array
    return total


def _case(operation: str, size: int, streams: int, run: Any, expected: Words) -> Case:
    def check(result: Words) -> float:
        assert np.array_equal(result, expected), f"memory {operation} gave a wrong answer"
        return 0.0

    return Case(
        system=MEMORY,
        setting=f"{streams} streams of uint32",
        operation=operation,
        backend="numpy",
        threads=1,
        weights=size,
        bytes_per_weight=None,
        run=run,
        check=check,
        moved_bytes_per_weight=float(streams * _WORD_BYTES),
        note="one 4-byte word counts as one weight",
    )

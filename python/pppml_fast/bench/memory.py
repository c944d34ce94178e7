"""Plain memory loops, the floor that memory-bound operations are held against: the obvious C++, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native, memory
from pppml_fast.bench.rows import MEMORY
from pppml_fast.bench.timing import Case

__all__ = ["LOOP_BYTES_PER_WEIGHT", "memory_cases"]

_WORD_BYTES = 4
# Sixteen inputs and what they are made of, the target, two expected sums.
LOOP_BYTES_PER_WEIGHT = 20 * _WORD_BYTES

Words = NDArray[np.uint32]


def memory_cases(size: int, threads: int) -> list[Case]:
    """memcpy, and uint32 additions of 2 and of 16 arrays of ``size`` words, in the memory our operations use."""
    values = np.random.default_rng(7).integers(0, 1 << 32, size, dtype=np.uint32)
    arrays = [_in_the_arena(np.roll(values, index)) for index in range(16)]
    target = _in_the_arena(np.zeros_like(values))

    def copy(_: object) -> Words:
        _native.primitives.copy_loop(arrays[0], target)
        return target

    def adding(count: int) -> Case:
        def add(_: object) -> Words:
            _native.primitives.add_loop(arrays[:count], target)
            return target

        return _case(f"add{count}", size, threads, streams=count + 1, run=add, expected=_wrapping_sum(arrays[:count]))

    return [_case("memcpy", size, threads, 2, copy, values), adding(2), adding(16)]


def _in_the_arena(values: Words) -> Words:
    array = memory.empty(values.size, np.uint32)
    array[:] = values
    return array


def _wrapping_sum(arrays: Sequence[Words]) -> Words:
    total = np.zeros_like(arrays[0])
    for array in arrays:
        total += array
    return total


def _case(operation: str, size: int, threads: int, streams: int, run: Any, expected: Words) -> Case:
    def check(result: Words) -> float:
        assert np.array_equal(result, expected), f"memory {operation} gave a wrong answer"
        return 0.0

    return Case(
        system=MEMORY,
        setting=f"{streams} streams of uint32",
        operation=operation,
        backend="c++",
        threads=threads,
        weights=size,
        bytes_per_weight=None,
        run=run,
        check=check,
        moved_bytes_per_weight=float(streams * _WORD_BYTES),
        note="one 4-byte word counts as one weight; warm huge pages and threads as for pppml_fast's own operations",
    )

"""From a stored sum to the weighted mean, piece by piece, into memory of the caller's or new one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.attempt_state import SUM_ROUNDS
from pppml_fast.aggregation.roster import Roster
from pppml_fast.errors import InputError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import dequantize

__all__ = ["OpenedSum", "check_mean_target", "divisor"]

Open = Callable[[int, int, int, NDArray[Any]], None]
"""Opens chunk ``index``, blocks ``start`` … ``stop``, into an array of float32, float64 or int64."""


def check_mean_target(out: NDArray[np.float32], parts: Sequence[NDArray[Any]], length: int) -> None:
    """Raise InputError unless ``out`` can take the mean of ``length`` weights: a contiguous writeable float32 array.

    It may be the memory of the values, where those are one contiguous float32 array, and no part of it.
    """
    fits = isinstance(out, np.ndarray) and out.dtype == np.float32 and out.shape == (length,)
    if not fits or not out.flags.c_contiguous or not out.flags.writeable:
        shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", type(out).__name__)
        raise InputError(f"out must be a contiguous writeable float32 array of shape ({length},), not {dtype} {shape}")
    for part in parts:
        whole = len(parts) == 1 and part.dtype == np.float32 and part.flags.c_contiguous
        if whole and part.ctypes.data == out.ctypes.data:
            continue
        if np.may_share_memory(part, out):
            raise InputError("out overlaps the values; give the very array that holds all of them, or other memory")


def divisor(round_: int, params: CkksParams, roster: Roster, members: frozenset[int]) -> float:
    """What a sum over ``members`` is divided by: the sum of their weights, 1 in rounds that number plain sums."""
    if round_ >= SUM_ROUNDS:
        return 1.0
    if params.weights == "free":
        return float(len(members))
    if len(members) == len(roster.members):
        return 1.0
    return math.fsum(roster.members[index].weight for index in sorted(members))


class OpenedSum:
    """The mean of ``length`` weights in ``out``, or in a new array beside the integers, filled chunk by chunk.

    ``divisor`` is the sum of the live weights. Whatever way is taken, the mean has the same bits: integers times step
    in float64, divided, rounded to float32.
    """

    def __init__(self, params: CkksParams, length: int, divisor: float, out: NDArray[np.float32] | None) -> None:
        self._params, self._length, self._divisor = params, length, divisor
        self._own = out is None
        self.mean: NDArray[np.float32] = np.zeros(length, np.float32) if out is None else out
        self.integers = np.zeros(params.integer_count(length), np.int64) if self._own else None

    def fill(self, grid: Sequence[tuple[int, int]], open_: Open, opens_floats: bool) -> None:
        """Open all chunks of ``grid``; where one is refused the mean holds zeros.

        ``opens_floats``: whether ``open_`` takes float arrays, too.
        """
        step = max((stop - start for start, stop in grid), default=0)
        kept = self._scratch(step, opens_floats)
        try:
            for index, (start, stop) in enumerate(grid):
                self._fill_chunk(index, start, stop, open_, kept)
        except BaseException:
            self.mean.fill(0)
            if self.integers is not None:
                self.integers.fill(0)
            raise

    def _scratch(self, blocks: int, opens_floats: bool) -> NDArray[Any] | None:
        """Where a chunk is opened before it becomes a part of the mean; None where that is the mean itself."""
        if self.integers is not None or (opens_floats and self._divisor == 1.0):
            return None
        if opens_floats:
            return np.empty(min(blocks * self._params.block_weights, self._length), np.float64)
        return np.empty(min(blocks * self._params.block_integers, self._params.integer_count(self._length)), np.int64)

    def _fill_chunk(self, index: int, start: int, stop: int, open_: Open, kept: NDArray[Any] | None) -> None:
        params, total = self._params, self._params.integer_count(self._length)
        width = params.block_weights
        mean = self.mean[start * width : min(stop * width, self._length)]
        count = min(stop * params.block_integers, total) - start * params.block_integers
        if kept is None and self.integers is None:
            open_(index, start, stop, mean)
            return
        if kept is not None and kept.dtype == np.float64:
            values = kept[: mean.size]
            open_(index, start, stop, values)
        else:
            at = start * params.block_integers
            integers = kept[:count] if kept is not None else self._integers_at(at, count)
            open_(index, start, stop, integers)
            values = np.asarray(dequantize(params, integers, np.float64, length=mean.size))
        if self._divisor != 1.0:
            np.divide(values, self._divisor, out=values)
        np.copyto(mean, values, casting="same_kind")

    def _integers_at(self, at: int, count: int) -> NDArray[np.int64]:
        assert self.integers is not None
        return self.integers[at : at + count]

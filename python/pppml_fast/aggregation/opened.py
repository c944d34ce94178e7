"""From a stored sum to the weighted mean, piece by piece, into memory of the caller's or new one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.cipher import OpeningKey
from pppml_fast.cipher.wire import Header
from pppml_fast.errors import InputError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import dequantize

__all__ = ["HostSum", "OpenedSum", "check_mean_target"]

Open = Callable[[int, int, int, NDArray[Any]], None]
"""Opens chunk ``index``, blocks ``start`` … ``stop``, into an array of float32, float64 or int64."""
Read = Callable[[int], Any]
"""The packed bytes of chunk ``index``."""
Grid = Sequence[tuple[int, int]]
"""The blocks of each chunk, in order."""


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


class OpenedSum(ABC):
    """The mean of ``length`` weights in ``out``, or in new memory, filled chunk by chunk.

    Made before the sum is known: it takes memory when it is opened. ``divisor`` is the sum of the live weights.
    Whatever way is taken, the mean has the same bits: integers times step in float64, divided, rounded to float32.
    ``integers`` are kept beside a new mean where they can be.
    """

    def __init__(self, params: CkksParams, length: int, out: Any) -> None:
        self._params, self._length, self._out = params, length, out
        self.divisor = 1.0
        self.mean: Any = out
        self.integers: NDArray[np.int64] | None = None

    @abstractmethod
    def try_first(self, key: OpeningKey, header: Header, grid: Grid, read: Read) -> None:
        """Open the first chunk of a sum under ``key``, which may be a wrong one; raises what `open_all` does."""

    @abstractmethod
    def open_all(self, key: OpeningKey, header: Header, grid: Grid, read: Read) -> None:
        """Open all chunks of the sum that ``header`` describes. Raises OpeningError; the mean then holds zeros."""

    @abstractmethod
    def fill(self, grid: Grid, open_: Open) -> None:
        """Take what ``open_`` gives as int64, chunk by chunk; where it raises the mean holds zeros."""

    @abstractmethod
    def wipe(self) -> None:
        """Zeros in ``out``, or in what was made in its place: no sum opens."""

    def _end(self, stop: int) -> int:
        """Number of weights before block ``stop``."""
        return min(stop * self._params.block_weights, self._length)


class HostSum(OpenedSum):
    """A mean in the host's memory: float32 (length,)."""

    def try_first(self, key: OpeningKey, header: Header, grid: Grid, read: Read) -> None:
        start, stop = grid[0]
        key.decrypt_range(header, start, stop, [read(0)], np.empty(self._end(stop), np.float32))

    def open_all(self, key: OpeningKey, header: Header, grid: Grid, read: Read) -> None:
        def open_(index: int, start: int, stop: int, values: NDArray[Any]) -> None:
            key.decrypt_range(header, start, stop, [read(index)], values)

        self._fill(grid, open_, opens_floats=True)

    def fill(self, grid: Grid, open_: Open) -> None:
        self._fill(grid, open_, opens_floats=False)

    def begin(self) -> None:
        """Take the memory that a mean of its own needs."""
        if self._out is None:
            self.mean = np.zeros(self._length, np.float32)
            self.integers = np.zeros(self._params.integer_count(self._length), np.int64)

    def wipe(self) -> None:
        if self.mean is not None:
            self.mean.fill(0)
        if self.integers is not None:
            self.integers.fill(0)

    def _fill(self, grid: Grid, open_: Open, opens_floats: bool) -> None:
        """``opens_floats``: whether ``open_`` takes float arrays, too."""
        self.begin()
        step = max((stop - start for start, stop in grid), default=0)
        kept = self._scratch(step, opens_floats)
        try:
            for index, (start, stop) in enumerate(grid):
                self._fill_chunk(index, start, stop, open_, kept)
        except BaseException:
            self.wipe()
            raise

    def _scratch(self, blocks: int, opens_floats: bool) -> NDArray[Any] | None:
        """Where a chunk is opened before it becomes a part of the mean; None where that is the mean itself."""
        if self.integers is not None or (opens_floats and self.divisor == 1.0):
            return None
        if opens_floats:
            return np.empty(min(blocks * self._params.block_weights, self._length), np.float64)
        return np.empty(min(blocks * self._params.block_integers, self._params.integer_count(self._length)), np.int64)

    def _fill_chunk(self, index: int, start: int, stop: int, open_: Open, kept: NDArray[Any] | None) -> None:
        params, total = self._params, self._params.integer_count(self._length)
        width = params.block_weights
        mean = self.mean[start * width : self._end(stop)]
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
        if self.divisor != 1.0:
            np.divide(values, self.divisor, out=values)
        np.copyto(mean, values, casting="same_kind")

    def _integers_at(self, at: int, count: int) -> NDArray[np.int64]:
        assert self.integers is not None
        return self.integers[at : at + count]

"""A party's own term of a sum, made range by range as its chunks leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pppml_fast.cipher import Ciphertext, CollectiveKey
from pppml_fast.cipher.pieces import EncryptionInPieces
from pppml_fast.cipher.sum_check import SumCheck
from pppml_fast.errors import ProtocolError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import quantize_counting

__all__ = ["EncryptedTerm", "FloatTerm", "PlainTerm", "StoredTerm", "Term", "slices"]

_INT32_LIMIT = 1 << 31


class Term(Protocol):
    """One party's blocks. Each range is written once, in order: the chunks of the grid."""

    @property
    def block_count(self) -> int:
        """Number of blocks."""

    def packed_size(self, start: int, stop: int) -> int:
        """Bytes of blocks [start, stop)."""

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        """Blocks [start, stop) to ``out``, plus what came in; refused, ``out`` holds nothing of them."""


class EncryptedTerm:
    """An encryption that is never stored, and its sum check's tag where ``check_key`` is given.

    The tag is that of what left less that of what came in. The key ends with the last block.
    """

    def __init__(self, key: CollectiveKey, pieces: EncryptionInPieces, params: CkksParams, check_key: bytes | None):
        self._key, self._pieces = key, pieces
        made = None if check_key is None else [SumCheck(params, pieces.length, check_key) for _ in range(2)]
        self._checks = made

    @property
    def block_count(self) -> int:
        return self._pieces.blocks

    @property
    def clipped(self) -> int:
        """How many of the values that were encrypted so far were clipped."""
        return self._pieces.clipped

    def packed_size(self, start: int, stop: int) -> int:
        return self._pieces.packed_bytes(start, stop)

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        self._pieces.write(start, stop, out, incoming)
        if self._checks is not None:
            left, came = self._checks
            left.add(start, stop, out)
            if incoming is not None:
                came.add(start, stop, incoming)
        if self._pieces.finished:
            self._key.destroy()

    def tag(self) -> bytes:
        """T of the whole term. Raises ProtocolError before its last block and where no check was asked for."""
        if self._checks is None or not self._pieces.finished:
            raise ProtocolError("there is no tag of a term that is not encrypted yet, or not checked")
        return self._checks[0].less(self._checks[1])

    def close(self) -> None:
        """Forget key and values."""
        self._pieces.close()
        self._key.destroy()


class StoredTerm:
    """A ciphertext that lies in memory."""

    def __init__(self, ciphertext: Ciphertext) -> None:
        self._ciphertext = ciphertext
        self.block_count = ciphertext.block_count

    def packed_size(self, start: int, stop: int) -> int:
        return self._ciphertext.packed_size(start, stop)

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        if incoming is None:
            self._ciphertext.pack(start, stop, out)
        else:
            self._ciphertext.hop(incoming, start, stop, out)


def slices(parts: Sequence[NDArray[Any]], start: int, stop: int) -> list[NDArray[Any]]:
    """Views of the values ``start`` … ``stop`` of flat arrays that count as one."""
    found, at = [], 0
    for part in parts:
        first, last = max(start - at, 0), min(stop - at, part.size)
        if first < last:
            found.append(part[first:last])
        at += part.size
    return found


class PlainTerm:
    """Quantised integers in the blocks of a parameter set; int32 on the wire where the sum's bound allows it."""

    def __init__(self, params: CkksParams, parts: Sequence[NDArray[Any]], weight: float) -> None:
        self._params, self._parts, self._weight = params, parts, weight
        self._length = sum(part.size for part in parts)
        self._codec = PlainCodec(params, self._length)
        self.block_count = params.block_count(self._length)
        self.clipped = 0

    def packed_size(self, start: int, stop: int) -> int:
        return self._codec.packed_size(start, stop)

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        added = None if incoming is None else self._codec.parse(incoming, start, stop)
        width = self._params.block_weights
        values = slices(self._parts, start * width, min(stop * width, self._length))
        integers, clipped = quantize_counting(self._params, values, self._weight)
        if added is not None:
            integers += added
            self._codec.check_bound(integers)
        np.frombuffer(out, self._codec.dtype)[:] = integers
        self.clipped += clipped


class PlainCodec:
    """How the integers of ``length`` weights lie on the wire."""

    def __init__(self, params: CkksParams, length: int) -> None:
        self._params, self._integers = params, params.integer_count(length)
        self.dtype = np.dtype("<i4" if params.sum_bound < _INT32_LIMIT else "<i8")

    def span(self, start: int, stop: int) -> slice:
        """Where the integers of blocks [start, stop) lie among all."""
        width = self._params.block_integers
        return slice(start * width, min(stop * width, self._integers))

    def packed_size(self, start: int, stop: int) -> int:
        """Bytes of blocks [start, stop)."""
        span = self.span(start, stop)
        return int(span.stop - span.start) * self.dtype.itemsize

    def parse(self, payload: bytes | memoryview, start: int, stop: int) -> NDArray[np.int64]:
        """The integers, int64. Raises ProtocolError on a wrong length or a sum out of bounds."""
        if len(payload) != self.packed_size(start, stop):
            raise ProtocolError(f"blocks {start}..{stop} do not fit a payload of {len(payload)} bytes")
        values = np.frombuffer(payload, self.dtype).astype(np.int64)
        self.check_bound(values)
        return values

    def check_bound(self, values: NDArray[np.int64]) -> None:
        """Raise ProtocolError on an integer that no sum of all parties reaches."""
        if values.size and max(int(values.max()), -int(values.min())) > self._params.sum_bound:
            raise ProtocolError(f"a sum exceeds its bound of {self._params.sum_bound}")


class FloatTerm:
    """Float32 values as they are, times the weight, in the chunks of a parameter set: what no encryption costs."""

    def __init__(self, params: CkksParams, parts: Sequence[NDArray[Any]], weight: float) -> None:
        self._params, self._parts, self._weight = params, parts, np.float32(weight)
        self._length = sum(part.size for part in parts)
        self.block_count = params.block_count(self._length)
        self.clipped = 0

    def packed_size(self, start: int, stop: int) -> int:
        width = self._params.block_weights
        return 4 * (min(stop * width, self._length) - start * width)

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        width, at = self._params.block_weights, 0
        target = np.frombuffer(out, np.float32)
        for values in slices(self._parts, start * width, min(stop * width, self._length)):
            np.multiply(values, self._weight, out=target[at : at + values.size], casting="same_kind")
            at += values.size
        if incoming is not None:
            target += np.frombuffer(incoming, np.float32)

"""OpenFHE's binary form as a frame around rows of residues.

The binary form holds the fields of the JSON without their names, and is much faster to write and read. Its layout is
not parsed: a frame is learnt from one object whose residues are known from its JSON, and serves all objects whose other
bytes (ring, level, scale, slots, key tag, object versions) are exactly those of that one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import CiphertextError

__all__ = ["Frame"]

_WORD = np.dtype("<u8")


class Frame:
    """The bytes of one kind of serialised object around ``rows`` rows of N residues, 8 bytes each, little-endian."""

    def __init__(self, data: bytes, rows: Iterable[NDArray[np.uint64]]) -> None:
        """Learn from an object's binary form and its residues, row by row in their order.

        Raises CiphertextError when a row does not stand in ``data``.
        """
        gaps, position = [], 0
        for row in rows:
            content = row.astype(_WORD, copy=False).tobytes()
            start = data.find(content, position)
            if start < 0:
                raise CiphertextError(
                    "OpenFHE's binary form does not hold the residues of its JSON as 64-bit words; "
                    "docs/interoperation.md names the versions that are read"
                )
            gaps.append(data[position:start])
            position = start + len(content)
            self._row_bytes = len(content)
        self._gaps = [*gaps, data[position:]]
        self.size = len(data)

    def split(self, data: bytes) -> NDArray[np.uint64] | None:
        """The rows of an object in this frame, shape (rows, N); None when any other byte differs."""
        if len(data) != self.size:
            return None
        position, starts = 0, []
        for index, gap in enumerate(self._gaps):
            if not data.startswith(gap, position):
                return None
            position += len(gap)
            if index + 1 < len(self._gaps):
                starts.append(position)
                position += self._row_bytes
        length = self._row_bytes // _WORD.itemsize
        return np.stack([np.frombuffer(data, _WORD, length, start) for start in starts]).astype(np.uint64, copy=False)

    def join(self, rows: NDArray[np.uint64]) -> bytes:
        """The binary form of the object with these rows, shape (rows, N)."""
        assert len(rows) + 1 == len(self._gaps) and rows.shape[1] * _WORD.itemsize == self._row_bytes
        parts: list[bytes | memoryview] = [self._gaps[0]]
        for row, gap in zip(np.ascontiguousarray(rows, _WORD), self._gaps[1:], strict=True):
            parts += [row.data, gap]
        return b"".join(parts)

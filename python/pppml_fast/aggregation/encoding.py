"""Canonical little-endian encoding: one value, one byte string, and a reader that accepts nothing else.

Every refusal is a ProtocolError that says what was expected, so that parsing random bytes can end in no
other exception.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import ProtocolError

__all__ = ["MAX_PARTIES", "Reader", "Writer", "digest"]

MAX_PARTIES = 1024
_FIELD_LIMIT = 65537


def digest(domain: str, *parts: bytes | memoryview) -> bytes:
    """SHA-256 over a domain label and length-prefixed parts, 32 bytes; no two inputs share an encoding."""
    state = hashlib.sha256()
    for part in (domain.encode(), *parts):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


class Writer:
    """Appends values in canonical form."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> Writer:
        return self.raw(struct.pack("<B", value))

    def u16(self, value: int) -> Writer:
        return self.raw(struct.pack("<H", value))

    def u32(self, value: int) -> Writer:
        return self.raw(struct.pack("<I", value))

    def u64(self, value: int) -> Writer:
        return self.raw(struct.pack("<Q", value))

    def raw(self, data: bytes) -> Writer:
        self._parts.append(data)
        return self

    def blob(self, data: bytes) -> Writer:
        """Bytes behind their 32-bit length."""
        return self.u32(len(data)).raw(data)

    def members(self, indices: Iterable[int], parties: int) -> Writer:
        """A set of party indices as the roster's size and one bit per party."""
        chosen = sorted(set(indices))
        bits = np.zeros(parties, np.uint8)
        bits[chosen] = 1
        return self.u16(parties).raw(np.packbits(bits, bitorder="little").tobytes())

    def field_vector(self, values: NDArray[np.int64]) -> Writer:
        """Elements of F_65537 in 17 bits each: all low 16-bit words, then all top bits."""
        low = (values & 0xFFFF).astype("<u2").tobytes()
        top = np.packbits((values >> 16).astype(np.uint8), bitorder="little").tobytes()
        return self.u32(values.size).raw(low).raw(top)

    def finish(self) -> bytes:
        return b"".join(self._parts)


class Reader:
    """Reads what Writer wrote and raises ProtocolError on anything short, long or not canonical."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def u8(self) -> int:
        return self.raw(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.raw(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.raw(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.raw(8), "little")

    def raw(self, size: int) -> bytes:
        stop = self._at + size
        if stop > len(self._data):
            raise ProtocolError(f"{self._what} is truncated: {stop} bytes expected, {len(self._data)} given")
        part = self._data[self._at : stop]
        self._at = stop
        return part

    def blob(self, limit: int) -> bytes:
        size = self.u32()
        if size > limit:
            raise ProtocolError(f"{self._what} holds a field of {size} bytes; the limit is {limit}")
        return self.raw(size)

    def rest(self) -> bytes:
        return self.raw(len(self._data) - self._at)

    def members(self) -> tuple[int, frozenset[int]]:
        """The roster's size and the set of party indices."""
        parties = self.u16()
        if not 0 < parties <= MAX_PARTIES:
            raise ProtocolError(f"{self._what} names {parties} parties; the limit is {MAX_PARTIES}")
        packed = np.frombuffer(self.raw((parties + 7) // 8), np.uint8)
        bits = np.unpackbits(packed, bitorder="little")
        if bits[parties:].any():
            raise ProtocolError(f"{self._what} sets bits beyond its {parties} parties")
        return parties, frozenset(int(index) for index in np.flatnonzero(bits))

    def field_vector(self, limit: int) -> NDArray[np.int64]:
        """int64 (size,) of elements of F_65537."""
        size = self.u32()
        if size > limit:
            raise ProtocolError(f"{self._what} holds {size} field elements; the limit is {limit}")
        low = np.frombuffer(self.raw(2 * size), "<u2").astype(np.int64)
        bits = np.unpackbits(np.frombuffer(self.raw((size + 7) // 8), np.uint8), bitorder="little")
        values = low | (bits[:size].astype(np.int64) << 16)
        if bits[size:].any() or bool((values >= _FIELD_LIMIT).any()):
            raise ProtocolError(f"{self._what} holds a value outside F_65537")
        return values

    def finish(self) -> None:
        """Raise ProtocolError unless every byte was read."""
        if self._at != len(self._data):
            raise ProtocolError(f"{self._what} carries {len(self._data) - self._at} bytes too many")

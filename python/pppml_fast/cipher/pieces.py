"""One encryption made range by range, as its parts are asked for, and never stored as a whole."""

from __future__ import annotations

from typing import Protocol

from pppml_fast.cipher.secrecy import Secret
from pppml_fast.errors import KeyReuseError
from pppml_fast.params import CkksParams

__all__ = ["EncryptionInPieces"]


class MessageInPieces(Protocol):
    """A message under its key: `SymmetricMessage`, or its counterpart on a device. Ranges come in order."""

    params: CkksParams
    length: int
    prepared: int
    clipped: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""

    def packed_bytes(self, start: int, stop: int) -> int:
        """Bytes of blocks ``[start, stop)`` on the wire."""

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        """Encrypt blocks ``[start, stop)``, packed, plus what came in; refused, ``out`` holds zeros."""

    def close(self) -> None:
        """Forget the key, and what was made ahead."""


class EncryptionInPieces(Secret):
    """The ciphertext of one message whose blocks are encrypted in order, each once.

    The values are read when their blocks are: they must stay as they are until the last range. ``clipped`` counts
    those that were clipped so far, ``prepared`` is the fraction of the blocks whose pads were ready.
    """

    def __init__(self, message: MessageInPieces) -> None:
        self._message: MessageInPieces | None = message
        self.blocks, self.length = message.blocks, message.length
        self.prepared = message.prepared / message.blocks if message.blocks else 0.0
        self.clipped = 0
        self._params, self._next = message.params, 0

    def __repr__(self) -> str:
        return f"EncryptionInPieces(length={self.length}, {self._next} of {self.blocks} blocks made, <hidden>)"

    @property
    def finished(self) -> bool:
        """Whether every block was encrypted."""
        return self._next == self.blocks

    def packed_bytes(self, start: int, stop: int) -> int:
        """Bytes of blocks ``[start, stop)`` on the wire."""
        return int(self._params._scheme.packed_bytes(self.length, True, start, stop))

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        """Encrypt the next blocks ``[start, stop)`` to ``out``, packed, plus what came in, packed.

        Raises KeyReuseError on any other range than the next one and after `close`; InputError on NaN or Inf;
        CiphertextError on an incoming residue that is not below its prime: ``out`` then holds zeros, nothing of the
        range was given out, and it may be asked for again. The key is forgotten with the last block.
        """
        if self._message is None or start != self._next or not start < stop <= self.blocks:
            raise KeyReuseError(
                f"blocks {start} .. {stop} of this encryption were made before, or its key is destroyed"
            )
        before = self._message.clipped
        self._message.write(start, stop, out, incoming)
        self.clipped += self._message.clipped - before
        self._next = stop
        if self.finished:
            self.close()

    def close(self) -> None:
        """Forget the key, the pads and the values; what is not encrypted yet never will be."""
        if self._message is not None:
            self._message.close()
        self._message = None

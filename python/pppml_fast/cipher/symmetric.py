"""One message under a secret key: encrypted as a whole or in block ranges, from pads or not, alone or onto a sum."""

from __future__ import annotations

from typing import Any

from pppml_fast import _native
from pppml_fast.cipher.ciphertext import WritableBuffer
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.message import Message
from pppml_fast.cipher.pads import PadStore
from pppml_fast.cipher.wire import clear
from pppml_fast.errors import CiphertextError, KeyReuseError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import TensorInput, explain_non_finite

__all__ = ["SymmetricMessage"]


class SymmetricMessage(Message):
    """A vector on its way to ``delta * m - a_j s + e``, a_j from ``context``.

    It gets its key by :meth:`under`; the keys see to it that theirs serve one message. ``written`` tells whether
    :meth:`write` has stored anything where it was to, refused or not; ``clipped`` counts the values that were clipped.
    """

    context: bytes  # never None here

    def __init__(
        self,
        params: CkksParams,
        context: bytes,
        x: TensorInput,
        weight: float | None,
        reference: TensorInput | None,
    ) -> None:
        super().__init__(params, context, x, weight, reference)
        self._expansion = expansion_key(params, context)
        self._key: tuple[_native.SecretKey, _native.StreamKey] | None = None
        self._pads: PadStore | None = None
        self.prepared = 0
        self.clipped = 0
        self.written = False

    def under(self, secret: _native.SecretKey, noise: _native.StreamKey, pads: PadStore | None = None) -> None:
        """Encrypt under this key from now on, and from what is ready in ``pads``."""
        self._key, self._pads = (secret, noise), pads
        self.prepared = 0 if pads is None else pads.finish()

    def close(self) -> None:
        """Forget the key and destroy the pads: nothing more is encrypted."""
        self._key = None
        if self._pads is not None:
            self._pads.close()

    def packed_bytes(self, start: int, stop: int) -> int:
        """Bytes of blocks ``[start, stop)`` on the wire."""
        return int(self.params._scheme.packed_bytes(self.length, True, start, stop))

    def payload_target(self, out: WritableBuffer | None) -> memoryview:
        """Where all packed blocks go: ``out`` after a check that it fits, or new memory."""
        return self._bytes_target(self.packed_bytes(0, self.blocks), out)

    def _write_rows(self, first: Any, second: Any = None) -> None:
        assert second is None, "a symmetric encryption has one polynomial"
        self.write(0, self.blocks, first)

    def write(self, start: int, stop: int, out: Any, incoming: memoryview | None = None) -> None:
        """Encrypt blocks ``[start, stop)`` to ``out``, residue words or packed bytes, plus what came in, packed.

        ``out`` may be the memory of ``incoming``. Raises InputError on NaN or Inf, CiphertextError on an incoming
        residue that is not below its prime; ``out`` then holds zeros.
        """
        middle = min(max(self.prepared, start), stop)
        parts = [(a, b) for a, b in ((start, middle), (middle, stop)) if a < b] or [(start, stop)]
        try:
            for first, last in parts:
                at = slice(self._extent(out, start, first), self._extent(out, start, last))
                self._write(first, last, out[at], None if incoming is None else incoming[at])
        except BaseException:
            clear(out)
            raise

    def _write(self, start: int, stop: int, out: Any, incoming: memoryview | None) -> None:
        if self._key is None:
            raise KeyReuseError("the key of this encryption was destroyed; generate a fresh one for the next attempt")
        scheme, (secret, noise), pads = self.params._scheme, self._key, self._pads
        options = {"reference": self._reference, "start": start, "stop": stop, "incoming": incoming}
        try:
            if pads is not None and stop <= self.prepared:
                with pads.use(start, stop) as words:
                    clipped = scheme.encrypt_prepared(
                        words, noise, self._tensors, self._weight, out, consume=True, **options
                    )
            else:
                clipped = scheme.encrypt(secret, noise, self._expansion, self._tensors, self._weight, out, **options)
        except _native.NonFiniteError as error:
            self.written = True
            raise explain_non_finite(error, self._tensors, self._reference) from None
        except _native.RequirementError as error:
            raise ParameterError(str(error)) from None
        self.written = True
        if clipped is None:
            raise CiphertextError(f"a residue in blocks {start} .. {stop} is not below its prime: refused")
        self.clipped += clipped

    def _extent(self, out: Any, start: int, stop: int) -> int:
        """Items of ``out`` that blocks ``[start, stop)`` take."""
        if isinstance(out, memoryview):
            return self.packed_bytes(start, stop)
        if stop == self.blocks:
            return int(self.params._scheme.words(self.length, True)) - self._words_before(start)
        return self._words_before(stop) - self._words_before(start)

    def _words_before(self, block: int) -> int:
        return block * self.params.ring_dimension * len(self.params.primes)

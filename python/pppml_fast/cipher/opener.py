"""Keys that open: one face for the secret key of a pair and for the sum of the parties' secrets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native
from pppml_fast.cipher.ciphertext import Ciphertext, ReadableBuffer
from pppml_fast.cipher.opening import check_terms, open_range, open_sum, open_wire, opening_expansion
from pppml_fast.cipher.secrecy import Secret
from pppml_fast.cipher.streaming import CHUNK_BLOCKS, Sink, stream_in
from pppml_fast.cipher.wire import Header
from pppml_fast.params import CkksParams
from pppml_fast.tensors import ArrayOutput, output_array

__all__ = ["Opener"]


class Opener(Secret):
    """A secret that opens sums of ``terms`` encryptions, or of any number of them where ``terms`` is None."""

    __slots__ = ("_expected_terms", "_native", "params")

    def __init__(self, params: CkksParams, native: _native.SecretKey, terms: int | None = None) -> None:
        self.params = params
        self._native = native
        self._expected_terms = terms

    def decrypt(
        self,
        ciphertext: Ciphertext,
        dtype: DTypeLike = np.float32,
        integers: bool = False,
        out: ArrayOutput | None = None,
    ) -> NDArray[Any]:
        """The exact sum in ``ciphertext`` as one flat vector of ``dtype``, or as int64 with ``integers=True``.

        ``out``, which is then returned, is a writable array, buffer or CPU tensor of the sum's length, of floats or of
        int64; the sum is written where it lies.
        Raises CiphertextError for foreign parameters, for more terms than parties, and for another number of terms than
        an opening key sums secrets; OpeningError when a block fails its residual check.
        """
        check_terms(ciphertext.terms, self._expected_terms)
        target = None if out is None else output_array(out)
        opened = open_sum(self.params, self._native, ciphertext, dtype, integers, target)
        return opened if out is None else out

    def decrypt_bytes(
        self,
        data: ReadableBuffer,
        dtype: DTypeLike = np.float32,
        integers: bool = False,
        out: ArrayOutput | None = None,
    ) -> NDArray[Any]:
        """The exact sum straight from the bytes on the wire, without residues in memory.

        Gives what :meth:`decrypt` makes of ``Ciphertext.from_bytes(params, data)`` and raises what the two do; after a
        refusal of a residue or a block ``out`` holds zeros. InputError when ``out`` shares memory with ``data``.
        """
        target = None if out is None else output_array(out)
        opened = open_wire(self.params, self._native, self._expected_terms, data, dtype, integers, target)
        return opened if out is None else out

    def decrypt_chunks(
        self,
        chunks: Iterable[ReadableBuffer],
        out: ArrayOutput | Sink,
        dtype: DTypeLike = np.float32,
        *,
        chunk_blocks: int = CHUNK_BLOCKS,
    ) -> int:
        """The exact sum in the bytes of one ciphertext, opened while they arrive; the number of weights.

        ``chunks`` gives the bytes of :meth:`Ciphertext.to_bytes`, header first, cut anywhere. ``out`` is a float32,
        float64 or int64 array of the sum's length (a ``numpy.memmap``, say), or a function that is called with one
        piece of the sum after the other as an array of ``dtype``, which the next piece overwrites. A piece leaves once
        its residuals are checked. Raises what :meth:`decrypt` does and CiphertextError on damaged or missing bytes and
        on a ciphertext of two polynomials (public keys, expanded sums); then an array holds zeros, and a function has
        seen pieces of a sum that must not be used.
        """
        target = out if callable(out) else output_array(out)
        return stream_in(self.params, self._native, self._expected_terms, chunks, target, dtype, chunk_blocks)

    def decrypt_range(self, header: Header, start: int, stop: int, rows: Sequence[Any], out: NDArray[Any]) -> None:
        """The exact sum in blocks ``[start, stop)`` of the ciphertext that ``header`` describes.

        ``rows`` are the packed bytes of c0 in those blocks and, where the kind has one, of c1; ``out`` is a contiguous
        float32, float64 or int64 array of as many weights, or integers, as they hold. Raises what :meth:`decrypt` does;
        ``out`` then holds zeros.
        """
        check_terms(header.terms, self._expected_terms)
        expansion = opening_expansion(self.params, header)
        open_range(self.params, self._native, header, rows, expansion, out, start, stop)

"""Ciphertexts that never lie in memory as a whole: their bytes piece by piece, out and in.

The bytes are those of `Ciphertext.to_bytes` (``wire.py``). Public-key ciphertexts and expanded sums hold a second
polynomial behind the whole first one; they are not streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native
from pppml_fast.checks import whole_number
from pppml_fast.cipher.ciphertext import ReadableBuffer, bytes_view
from pppml_fast.cipher.opening import check_terms, open_range, opening_expansion
from pppml_fast.cipher.symmetric import SymmetricMessage
from pppml_fast.cipher.wire import HEADER_BYTES, Header, Kind
from pppml_fast.errors import CiphertextError, InputError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import check_out

__all__ = ["CHUNK_BLOCKS", "Reader", "Sink", "stream_in", "stream_out"]

# Large enough that a step's fixed costs vanish and several threads find work, small enough for the caches.
CHUNK_BLOCKS = 128

Sink = Callable[[NDArray[Any]], object]

_STREAMED = (Kind.SEEDED, Kind.COLLECTIVE)


class Reader:
    """Bytes that come cut anywhere, handed out in the sizes asked for."""

    def __init__(self, chunks: Iterable[ReadableBuffer]) -> None:
        try:
            self._chunks = iter(chunks)
        except TypeError:
            raise InputError(f"an iterable of bytes is needed, not {type(chunks).__name__}") from None
        self._left = memoryview(b"")

    def header(self, params: CkksParams) -> Header:
        """The header, checked against ``params`` and against the length it announces."""
        data = memoryview(bytearray(HEADER_BYTES))
        self.read_into(data)
        header = Header.from_bytes(params, data)
        if header.kind not in _STREAMED:
            raise CiphertextError(
                f"a ciphertext of {header.kind.name.lower()} kind holds two polynomials and is not streamed; "
                "use Ciphertext.from_bytes"
            )
        header.check_payload(params)
        return header

    def read_into(self, target: memoryview) -> None:
        """Fill ``target``; raises CiphertextError when the bytes end before."""
        filled = 0
        while filled < len(target):
            # Only when all of a chunk is taken: the next one may be written over it.
            if not self._advance():
                raise CiphertextError(f"the ciphertext is truncated: {len(target) - filled} bytes are missing")
            part = self._left[: len(target) - filled]
            target[filled : filled + len(part)] = part
            self._left = self._left[len(part) :]
            filled += len(part)

    def finish(self) -> None:
        """Raise CiphertextError unless all bytes were read."""
        if self._advance():
            raise CiphertextError("bytes follow the end of the ciphertext: damaged, or two ciphertexts in one stream")

    def _advance(self) -> bool:
        """Whether there is something in ``_left``, taking the next chunk where needed."""
        while not len(self._left):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._left = bytes_view(chunk)
        return True


def stream_out(
    message: SymmetricMessage, kind: Kind, chunk_blocks: int, incoming: Reader | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of the encryption of ``message``, plus the ciphertext that ``incoming`` reads."""
    params, blocks = message.params, message.blocks
    try:
        terms = 1 if incoming is None else 1 + _incoming_terms(message, kind, incoming)
        yield Header.of(params, kind, message.length, terms, message.context).to_bytes()
        buffer = memoryview(bytearray(message.packed_bytes(0, min(chunk_blocks, blocks))))
        for start in range(0, blocks, chunk_blocks):
            stop = min(start + chunk_blocks, blocks)
            part = buffer[: message.packed_bytes(start, stop)]
            if incoming is not None:
                incoming.read_into(part)
            message.write(start, stop, part, None if incoming is None else part)
            yield part.toreadonly()
        if incoming is not None:
            incoming.finish()
    finally:
        message.close()


def _incoming_terms(message: SymmetricMessage, kind: Kind, reader: Reader) -> int:
    params = message.params
    header = reader.header(params)
    if (header.kind, header.length, header.context) != (kind, message.length, message.context):
        raise CiphertextError(
            f"the incoming sum holds {header.length} weights in context {(header.context or b'').hex()[:8]}…; this "
            f"encryption has {message.length} in {message.context.hex()[:8]}…"
        )
    if header.terms >= params.parties:
        raise CiphertextError(
            f"the sum would hold {header.terms + 1} terms; the parameters hold {params.parties} (parties)"
        )
    return header.terms


def stream_in(
    params: CkksParams,
    secret: _native.SecretKey,
    terms: int | None,
    chunks: Iterable[ReadableBuffer],
    out: NDArray[Any] | Sink,
    dtype: DTypeLike,
    chunk_blocks: int,
) -> int:
    """Open the ciphertext whose bytes ``chunks`` gives, block range by block range; the number of its weights.

    Nothing leaves before its residuals are checked. ``terms``, unless None, is how many encryptions must be in it.
    """
    chunk_blocks = whole_number("chunk_blocks", chunk_blocks, 1)
    reader = Reader(chunks)
    header = reader.header(params)
    check_terms(header.terms, terms)
    if callable(out):
        _open(params, secret, header, reader, np.dtype(dtype), out, chunk_blocks)
        return header.length
    integers = isinstance(out, np.ndarray) and out.dtype.kind == "i"
    check_out(out, (params.integer_count(header.length) if integers else header.length,), "i" if integers else "f")
    done = 0

    def store(values: NDArray[Any]) -> None:
        nonlocal done
        out[done : done + values.size] = values
        done += values.size

    try:
        _open(params, secret, header, reader, out.dtype, store, chunk_blocks)
    except BaseException:
        out[:] = 0  # a sum that was refused leaves nothing behind
        raise
    return header.length


def _open(
    params: CkksParams,
    secret: _native.SecretKey,
    header: Header,
    reader: Reader,
    dtype: np.dtype[Any],
    sink: Sink,
    chunk_blocks: int,
) -> None:
    if dtype not in (np.float32, np.float64, np.int64):
        raise InputError(f"a sum opens as float32, float64 or int64, not {dtype}")
    scheme, length, blocks = params._scheme, header.length, params.block_count(header.length)
    expansion = opening_expansion(params, header)
    step = min(chunk_blocks, blocks)
    packed = bytearray(int(scheme.packed_bytes(length, True, 0, step)))
    width, total = params.block_weights, length
    if dtype == np.int64:
        width, total = params.block_integers, params.integer_count(length)
    values = np.empty(min(step * width, total), dtype)
    for start in range(0, blocks, chunk_blocks):
        stop = min(start + chunk_blocks, blocks)
        part = memoryview(packed)[: int(scheme.packed_bytes(length, True, start, stop))]
        reader.read_into(part)
        opened = values[: min(stop * width, total) - start * width]
        open_range(params, secret, header, [part], expansion, opened, start, stop)
        sink(opened)
    reader.finish()

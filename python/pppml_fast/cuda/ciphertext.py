"""Ciphertexts in the memory of a device, and their sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pppml_fast import _native, cipher
from pppml_fast.cipher.ciphertext import allocate, bytes_target, check_addable
from pppml_fast.cipher.wire import HEADER_BYTES, Header, Kind, fresh_kind, payload_sizes
from pppml_fast.cuda.arrays import DeviceArray
from pppml_fast.cuda.device import device_scheme, native_errors, stream_handle
from pppml_fast.cuda.pending import Pending
from pppml_fast.errors import CiphertextError, InputError
from pppml_fast.params import CkksParams

__all__ = ["Ciphertext", "add", "empty"]


class Ciphertext:
    """An encrypted vector, or a sum of ``terms`` of them, whose residues lie on a device.

    As :class:`pppml_fast.Ciphertext`: the same kinds, the same words in the same order. What made it may still be on
    its way: :meth:`check` waits and raises what it was refused for, and so does everything that takes it to the host.
    """

    __slots__ = ("_pending", "_stream", "context", "first", "kind", "length", "params", "second", "terms")

    def __init__(
        self,
        params: CkksParams,
        kind: Kind,
        length: int,
        terms: int,
        first: DeviceArray,
        second: DeviceArray | None,
        context: bytes | None,
        stream: int,
    ) -> None:
        self.params, self.kind, self.length, self.terms = params, kind, length, terms
        self.first, self.second, self.context = first, second, context
        self._stream = stream
        self._pending: list[Pending] = []

    @classmethod
    def from_host(cls, ciphertext: cipher.Ciphertext, *, device: int = 0, stream: Any = None) -> Ciphertext:
        """A copy of a ciphertext of the host."""
        handle = 0 if stream is None else stream_handle(stream)
        first, *rest = (DeviceArray.from_host(words, device=device, stream=handle) for words in ciphertext.residues)
        second = rest[0] if rest else None
        c = ciphertext
        return cls(c.params, c.kind, c.length, c.terms, first, second, c.context, handle)

    @property
    def device(self) -> int:
        """The device that it lies on."""
        return self.first.device

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, header included."""
        return HEADER_BYTES + sum(payload_sizes(self.params, self.kind, self.length))

    @property
    def residues(self) -> tuple[DeviceArray, ...]:
        """The residue words of c0, and of c1 where the kind has one: this ciphertext's memory."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def clipped(self) -> int:
        """How many values were clipped in all encryptions of this sum that were made here. Waits for them."""
        return sum(pending.wait()[0] for pending in self._pending)

    def check(self) -> None:
        """Wait for whatever made this ciphertext; raises InputError or CiphertextError where that was refused."""
        for pending in self._pending:
            pending.wait()

    def to_host(self) -> cipher.Ciphertext:
        """A copy in host memory. Waits, and raises what :meth:`check` does."""
        self.check()
        result = allocate(self.params, self.length, self.terms, self.context, self.kind)
        self._download(self.first, result.first)
        if self.second is not None:
            self._download(self.second, result.second)
        return result

    def to_bytes(self, out: Any = None) -> memoryview:
        """The bytes on the wire, packed on the device. Waits, and raises what :meth:`check` does.

        ``out`` is a writable contiguous buffer of :attr:`nbytes` bytes of the host, pinned for full speed; a view of
        it, or of a new one, is returned.
        """
        view = bytes_target(self.nbytes, out, [])
        self.check()
        scheme, blocks = device_scheme(self.params, self.device), self.params.block_count(self.length)
        at = HEADER_BYTES
        for words, size in zip(self.residues, payload_sizes(self.params, self.kind, self.length), strict=True):
            packed = DeviceArray(size, np.uint8, device=self.device, stream=self._stream)
            with native_errors():
                scheme.move(
                    self.length, at == HEADER_BYTES, 0, blocks, words.address, False, 0, packed.address, True,
                    self._stream,
                )  # fmt: skip
            self._download(packed, np.frombuffer(view, np.uint8)[at : at + size])
            at += size
        view[:HEADER_BYTES] = Header.of(self.params, self.kind, self.length, self.terms, self.context).to_bytes()
        return view

    def _download(self, source: DeviceArray, out: Any) -> None:
        with native_errors():
            _native.cuda.to_host(self.device, self._stream, out.view(np.uint8), source.address)

    def __len__(self) -> int:
        return self.length

    def __add__(self, other: Ciphertext) -> Ciphertext:
        return add([self, other]) if isinstance(other, Ciphertext) else NotImplemented

    def __repr__(self) -> str:
        return (
            f"cuda.Ciphertext({self.params.name}/{self.kind.name.lower()}, level {self.params.level}, "
            f"length={self.length}, terms={self.terms}, device={self.device})"
        )


def empty(params: CkksParams, length: int, device: int, stream: int, context: bytes | None) -> Ciphertext:
    """A ciphertext of fresh kind, its residues still to be written."""
    scheme, kind = params._scheme, fresh_kind(params)
    dtype = np.dtype(f"u{scheme.word_bytes}")
    first = DeviceArray(int(scheme.words(length, True)), dtype, device=device, stream=stream)
    second = None
    if kind is Kind.PUBLIC:
        second = DeviceArray(int(scheme.words(length, False)), dtype, device=device, stream=stream)
    return Ciphertext(params, kind, length, 1, first, second, context, stream)


def add(ciphertexts: Sequence[Ciphertext], out: Ciphertext | None = None, *, stream: Any = None) -> Ciphertext:
    """The sum of ciphertexts of one device, parameters, length and (collective) context, in one pass for up to 16.

    ``out`` may be one of them. Queued on ``stream``, by default the first one's. Raises CiphertextError when they do
    not belong together.
    """
    terms = check_addable(ciphertexts)
    head = ciphertexts[0]
    for other in ciphertexts[1:]:
        if other.device != head.device:
            raise CiphertextError(f"cannot add a ciphertext on device {other.device} to one on device {head.device}")
        if head.kind is Kind.SEEDED:
            raise CiphertextError(
                "seeded ciphertexts of different seeds are added on the host, where they are expanded"
            )
    handle = head._stream if stream is None else stream_handle(stream)
    result = empty(head.params, head.length, head.device, handle, head.context) if out is None else out
    if (result.params.id, result.length, result.kind, result.device) != (
        head.params.id, head.length, head.kind, head.device,
    ):  # fmt: skip
        raise InputError(f"out is {result!r}; the sum is of {head.kind.name.lower()} kind, length {head.length}")
    scheme = device_scheme(head.params, head.device)
    pending = [p for c in ciphertexts for p in c._pending]
    with native_errors():
        for index, target in enumerate(result.residues):
            inputs = [c.residues[index].address for c in ciphertexts]
            scheme.add(head.length, index == 0, inputs, target.address, handle)
    result.terms, result.context, result._stream = terms, head.context, handle
    result._pending = list(dict.fromkeys(pending))
    return result

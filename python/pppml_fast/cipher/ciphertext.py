"""Ciphertexts: what encryption returns, what adds up, and what travels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pppml_fast import memory
from pppml_fast.cipher.expansion import check_bytes32, expansion_key
from pppml_fast.cipher.wire import HEADER_BYTES, Header, Kind, fresh_kind, payload_sizes, split_wire
from pppml_fast.errors import CiphertextError, InputError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import check_apart

__all__ = [
    "Ciphertext",
    "ReadableBuffer",
    "WritableBuffer",
    "add",
    "allocate",
    "bytes_target",
    "bytes_view",
    "check_disjoint_or_same",
]

Words = NDArray[Any]
# What packed residues are read from and written into: exactly as many bytes as they take.
ReadableBuffer = bytes | bytearray | memoryview | NDArray[np.uint8]
WritableBuffer = bytearray | memoryview | NDArray[np.uint8]


class Ciphertext:
    """An encrypted vector of ``length`` weights, or the sum of ``terms`` of them.

    Residues are held in coefficient form, uint32 or uint64 words, block after block. Immutable by convention: every
    operation returns a new object unless it is given ``out=``, or is :meth:`load`.
    """

    __slots__ = ("context", "first", "kind", "length", "params", "second", "terms")

    def __init__(
        self,
        params: CkksParams,
        kind: Kind,
        length: int,
        terms: int,
        first: Words,
        second: Words | None = None,
        context: bytes | None = None,
    ) -> None:
        self.params = params
        self.kind = kind
        self.length = length
        self.terms = terms
        self.first = first
        self.second = second
        self.context = context

    # --- making -------------------------------------------------------------------------------------------

    @classmethod
    def zeros(
        cls, params: CkksParams, length: int, terms: int = 1, context: bytes | None = None, kind: Kind | None = None
    ) -> Ciphertext:
        """A ciphertext of zero residues, to be filled by :meth:`load` or by ``out=``.

        ``context`` is the 32 bytes that the collective mode names its attempt by.
        """
        return allocate(params, length, terms, context, kind, memory.zeros)

    @classmethod
    def empty_like(cls, other: Ciphertext, terms: int) -> Ciphertext:
        """A ciphertext of zero residues with the shape and context of ``other``."""
        return cls.zeros(other.params, other.length, terms, other.context, other.kind)

    @classmethod
    def from_bytes(cls, params: CkksParams, data: ReadableBuffer) -> Ciphertext:
        """Parse what :meth:`to_bytes` wrote.

        Raises CiphertextError on a damaged or foreign header, a wrong length, or a residue not below its prime.
        """
        view = bytes_view(data)
        header, _ = split_wire(params, view)
        result = allocate(params, header.length, header.terms, header.context, header.kind)
        result.load(0, result.block_count, view[HEADER_BYTES:])
        return result

    # --- shape --------------------------------------------------------------------------------------------

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return self.params.block_count(self.length)

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, header included."""
        return HEADER_BYTES + sum(payload_sizes(self.params, self.kind, self.length))

    @staticmethod
    def wire_size(params: CkksParams, length: int) -> int:
        """Bytes on the wire of an encryption of ``length`` weights under ``params``, header included."""
        return HEADER_BYTES + sum(payload_sizes(params, fresh_kind(params), length))

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return (
            f"Ciphertext({self.params.name}/{self.kind.name.lower()}, level {self.params.level}, "
            f"length={self.length}, terms={self.terms}, bytes={self.nbytes})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Ciphertext.from_bytes, (self.params, self.to_bytes())

    # --- the wire -----------------------------------------------------------------------------------------

    @overload
    def to_bytes(self, out: None = None) -> bytes: ...
    @overload
    def to_bytes(self, out: WritableBuffer) -> memoryview: ...
    def to_bytes(self, out: WritableBuffer | None = None) -> bytes | memoryview:
        """The ciphertext on the wire: header and packed residues (``cipher/wire.py`` has the layout).

        ``out`` is a writable contiguous buffer of ``nbytes`` bytes; a view of it is returned. Raises InputError else.
        """
        header = Header.of(self.params, self.kind, self.length, self.terms, self.context).to_bytes()
        if out is None:
            return header + self.pack(0, self.block_count)
        view = _writable_view(out, self.nbytes)
        self.pack(0, self.block_count, view[HEADER_BYTES:])
        view[:HEADER_BYTES] = header
        return view

    def packed_size(self, start: int, stop: int) -> int:
        """Bytes of the packed blocks ``[start, stop)``."""
        self._check_range(start, stop)
        return sum(
            int(self.params._scheme.packed_bytes(self.length, cut, start, stop)) for _, cut in self._polynomials()
        )

    @overload
    def pack(self, start: int, stop: int, out: None = None) -> bytes: ...
    @overload
    def pack(self, start: int, stop: int, out: WritableBuffer) -> memoryview: ...
    def pack(self, start: int, stop: int, out: WritableBuffer | None = None) -> bytes | memoryview:
        """Packed residues of blocks ``[start, stop)`` without a header, c0 before c1.

        ``out`` is a writable contiguous buffer of :meth:`packed_size` bytes (a bytearray, a memoryview or a uint8
        array); a view of it is returned. Raises InputError when it is not.
        """
        self._check_range(start, stop)
        scheme = self.params._scheme
        if out is None:
            return b"".join(scheme.pack(self.length, cut, start, stop, words) for words, cut in self._polynomials())
        view = self._writable_view(start, stop, out)
        for (words, cut), part in zip(self._polynomials(), self._split(start, stop, view), strict=True):
            scheme.pack(self.length, cut, start, stop, words, part)
        return view

    def load(self, start: int, stop: int, payload: ReadableBuffer) -> None:
        """Replace blocks ``[start, stop)`` by packed residues.

        Raises CiphertextError on a wrong length or a residue not below its prime; the blocks are then undefined.
        """
        for (words, cut), part in zip(self._polynomials(), self._split(start, stop, payload), strict=True):
            if not self.params._scheme.unpack(self.length, cut, start, stop, part, words):
                raise CiphertextError(f"a residue in blocks {start} .. {stop} is not below its prime: refused")

    @overload
    def hop(self, incoming: ReadableBuffer, start: int, stop: int, out: None = None) -> bytes: ...
    @overload
    def hop(self, incoming: ReadableBuffer, start: int, stop: int, out: WritableBuffer) -> memoryview: ...
    def hop(
        self, incoming: ReadableBuffer, start: int, stop: int, out: WritableBuffer | None = None
    ) -> bytes | memoryview:
        """A party's turn in a ring: packed(incoming + these blocks).

        ``out`` is as for :meth:`pack`; it may be the incoming buffer itself. Raises CiphertextError on a wrong length
        of ``incoming`` or a residue not below its prime (``out`` is then undefined), InputError when ``out`` does not
        fit.
        """
        arriving = self._split(start, stop, incoming)
        if out is None:
            return b"".join(self._hop(start, stop, arriving, [None] * len(arriving)))
        view = self._writable_view(start, stop, out)
        check_disjoint_or_same(np.asarray(bytes_view(incoming)), np.asarray(view))
        self._hop(start, stop, arriving, self._split(start, stop, view))
        return view

    def _hop(
        self, start: int, stop: int, arriving: Sequence[memoryview], leaving: Sequence[memoryview | None]
    ) -> list[Any]:
        results = []
        for (words, cut), part, out in zip(self._polynomials(), arriving, leaving, strict=True):
            result = self.params._scheme.hop(self.length, cut, start, stop, part, words, out)
            if result is None:
                raise CiphertextError(f"a residue in blocks {start} .. {stop} is not below its prime: refused")
            results.append(result)
        return results

    # --- arithmetic ---------------------------------------------------------------------------------------

    def __add__(self, other: Ciphertext) -> Ciphertext:
        if not isinstance(other, Ciphertext):
            return NotImplemented
        return add([self, other])

    def expanded(self) -> Ciphertext:
        """This ciphertext with its seed replaced by the polynomial it stands for; itself if it has none."""
        if self.kind is not Kind.SEEDED:
            return self
        if self.context is None:
            raise CiphertextError("a ciphertext of zeros() holds no seed yet: load or encrypt into it first")
        second = self.params._scheme.expand(self.length, expansion_key(self.params, self.context))
        return Ciphertext(self.params, Kind.EXPANDED, self.length, self.terms, self.first, second)

    def add_mask(self, seed: bytes) -> Ciphertext:
        """This ciphertext with a mask, uniform in every residue of c0 and expanded from a secret 32-byte seed."""
        return self._masked(seed, subtract=False)

    def subtract_mask(self, seed: bytes) -> Ciphertext:
        """The inverse of :meth:`add_mask`; works on any sum that holds the mask once."""
        return self._masked(seed, subtract=True)

    def _masked(self, seed: bytes, subtract: bool) -> Ciphertext:
        key = expansion_key(self.params, check_bytes32("mask seed", seed), "mask")
        first = self.params._scheme.mask(self.length, key, subtract, self.first)
        return Ciphertext(self.params, self.kind, self.length, self.terms, first, self.second, self.context)

    # --- inside -------------------------------------------------------------------------------------------

    def _polynomials(self) -> list[tuple[Words, bool]]:
        parts = [(self.first, True)]
        if self.second is not None:
            parts.append((self.second, False))
        return parts

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.block_count:
            raise CiphertextError(f"blocks {start} .. {stop} are outside the ciphertext's {self.block_count}")

    def _writable_view(self, start: int, stop: int, out: WritableBuffer) -> memoryview:
        view = _writable_view(out, self.packed_size(start, stop))
        if any(np.may_share_memory(np.asarray(view), words) for words, _ in self._polynomials()):
            raise InputError("out is the ciphertext's own memory; give a buffer of its own")
        return view

    def _split(self, start: int, stop: int, payload: ReadableBuffer) -> list[memoryview]:
        self._check_range(start, stop)
        view = bytes_view(payload)
        expected = self.packed_size(start, stop)
        if len(view) != expected:
            raise CiphertextError(f"blocks {start} .. {stop} take {expected} bytes; got {len(view)}")
        parts = []
        for _, cut in self._polynomials():
            size = int(self.params._scheme.packed_bytes(self.length, cut, start, stop))
            parts.append(view[:size])
            view = view[size:]
        return parts


def allocate(
    params: CkksParams,
    length: int,
    terms: int = 1,
    context: bytes | None = None,
    kind: Kind | None = None,
    words: Callable[[int, str], Words] = memory.empty,
) -> Ciphertext:
    """A ciphertext, of fresh kind unless told, whose residues are arbitrary: every block is written before it is read.

    ``words`` is what makes the arrays of residues: ``memory.empty``, or ``memory.zeros`` for a ciphertext of zeros.
    """
    scheme = params._scheme
    dtype = f"u{scheme.word_bytes}"
    if context is not None:
        context = check_bytes32("context", context)
    kind = fresh_kind(params) if kind is None else kind
    first = words(int(scheme.words(length, True)), dtype)
    second = words(int(scheme.words(length, False)), dtype) if kind in (Kind.PUBLIC, Kind.EXPANDED) else None
    return Ciphertext(params, kind, length, terms, first, second, context)


def add(ciphertexts: Sequence[Ciphertext], out: Ciphertext | None = None) -> Ciphertext:
    """The sum of one or more ciphertexts of the same parameters, length and (collective) context.

    ``out`` may be a ciphertext of the result's shape, one of the inputs included. Raises CiphertextError when they do
    not belong together.
    """
    if not ciphertexts:
        raise CiphertextError("nothing to add: give at least one ciphertext")
    head = ciphertexts[0]
    for other in ciphertexts[1:]:
        _check_belongs(head, other)
    terms = sum(ciphertext.terms for ciphertext in ciphertexts)
    if terms > head.params.parties:
        raise CiphertextError(f"the sum would hold {terms} terms; the parameters hold {head.params.parties} (parties)")
    if head.kind in (Kind.SEEDED, Kind.EXPANDED) and len(ciphertexts) > 1:
        ciphertexts = [ciphertext.expanded() for ciphertext in ciphertexts]
        head = ciphertexts[0]
    if out is not None and (out.params.id != head.params.id or out.length != head.length or out.kind != head.kind):
        raise InputError(f"out is {out!r}; the sum is of {head.kind.name.lower()} kind, length {head.length}")
    result = allocate(head.params, head.length, kind=head.kind) if out is None else out
    scheme = head.params._scheme
    scheme.add(head.length, True, [ciphertext.first for ciphertext in ciphertexts], result.first)
    if result.second is not None:
        scheme.add(head.length, False, [ciphertext.second for ciphertext in ciphertexts], result.second)
    result.terms = terms
    result.context = head.context
    return result


def _check_belongs(head: Ciphertext, other: Ciphertext) -> None:
    if other.params.id != head.params.id:
        raise CiphertextError(f"cannot add {other!r} to {head!r}: their parameters differ")
    if other.length != head.length:
        raise CiphertextError(f"cannot add a vector of {other.length} weights to one of {head.length}")
    if head.kind is Kind.COLLECTIVE and other.context != head.context:
        raise CiphertextError("cannot add ciphertexts of different contexts: they use different public polynomials")


def bytes_view(data: Any) -> memoryview:
    """The bytes of a contiguous buffer; raises CiphertextError else."""
    try:
        return memoryview(data).cast("B")
    except TypeError as error:
        raise CiphertextError(f"ciphertext bytes must be contiguous bytes: {error}") from None


def bytes_target(size: int, out: WritableBuffer | None, tensors: Sequence[Any]) -> memoryview:
    """Where the ``size`` bytes of an encryption of ``tensors`` go: ``out``, or new memory.

    Raises InputError when ``out`` does not fit or shares memory with a tensor.
    """
    if out is None:
        return memory.empty(size, np.uint8).data
    view = _writable_view(out, size)
    check_apart(np.asarray(view), tensors)
    return view


def _writable_view(out: Any, size: int) -> memoryview:
    """The ``size`` bytes of a writable contiguous buffer; raises InputError else."""
    try:
        view = memoryview(out).cast("B")
    except (TypeError, ValueError) as error:
        raise InputError(f"out must be a writable contiguous buffer of {size} bytes: {error}") from None
    if view.readonly or len(view) != size:
        kind = "a read-only one" if view.readonly else "one"
        raise InputError(f"out must be a writable contiguous buffer of {size} bytes, not {kind} of {len(view)}")
    return view


def check_disjoint_or_same(incoming: NDArray[Any], out: NDArray[Any]) -> None:
    """Raise InputError when two arrays share a part of their memory only."""
    same = incoming.__array_interface__["data"][0] == out.__array_interface__["data"][0]
    if not same and np.may_share_memory(incoming, out):
        raise InputError("out overlaps the incoming bytes; give the same buffer, or another one")

"""Ciphertexts: what encryption returns, what adds up, and what travels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import memory
from pppml_fast.cipher.buffers import (
    HOST,
    ReadableBuffer,
    WritableBuffer,
    as_array,
    as_dlpack,
    bytes_target,
    bytes_view,
    check_disjoint_or_same,
    readonly,
    writable_view,
)
from pppml_fast.cipher.expansion import check_bytes32, expansion_key
from pppml_fast.cipher.wire import HEADER_BYTES, Header, Kind, fresh_kind, payload_sizes, split_wire
from pppml_fast.errors import CiphertextError, InputError
from pppml_fast.params import CkksParams

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


class Ciphertext:
    """An encrypted vector of ``length`` weights, or the sum of ``terms`` of them.

    Residues are held in coefficient form, uint32 or uint64 words, block after block. Immutable by convention: every
    operation returns a new object unless it is given ``out=``, or is :meth:`load`. ``kind`` tells what it consists of,
    ``context`` holds the 32 bytes that its public polynomials are expanded from: the attempt's context in collective
    mode, the :attr:`seed` of a seeded ciphertext, else None. Two ciphertexts are equal only if they are one object.
    """

    __slots__ = ("context", "first", "kind", "length", "params", "second", "terms")
    # Sums of ciphertexts are taken modulo primes, by `+` and `add`; NumPy's functions, which know nothing of that,
    # would add the residues that `__array__` gives.
    __array_ufunc__ = None

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

    @property
    def seed(self) -> bytes | None:
        """The 32 bytes that stand for the second polynomial of a seeded ciphertext; None for every other kind."""
        return self.context if self.kind is Kind.SEEDED else None

    @staticmethod
    def wire_size(params: CkksParams, length: int, kind: Kind | None = None) -> int:
        """Bytes on the wire of ``length`` weights under ``params``, header included: of an encryption, or of ``kind``.

        ``Kind.EXPANDED`` is what a sum of seeded ciphertexts takes.
        """
        return HEADER_BYTES + sum(payload_sizes(params, fresh_kind(params) if kind is None else kind, length))

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return (
            f"Ciphertext({self.params.name}/{self.kind.name.lower()}, level {self.params.level}, "
            f"length={self.length}, terms={self.terms}, bytes={self.nbytes})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Ciphertext.from_bytes, (self.params, self.to_bytes())

    # --- residues in place --------------------------------------------------------------------------------

    @property
    def residues(self) -> tuple[Words, ...]:
        """The residue words of c0, and of c1 where the kind has one: read-only views of this ciphertext's memory.

        uint32 or uint64, one-dimensional, block after block, a block being one row of residues per prime. Each view has
        the buffer protocol, ``__array_interface__`` and ``__dlpack__``.
        """
        return tuple(readonly(words) for words, _ in self._polynomials())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Words:
        """The residues of a ciphertext of one polynomial: read-only where they lie, a new array with ``copy=True``.

        Raises InputError for two polynomials, ValueError where ``copy=False`` meets another ``dtype``.
        """
        return as_array(self._only_residues(), dtype, copy)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The residues of a ciphertext of one polynomial as a DLPack capsule, read-only where they lie.

        Consumers of DLPack before 1.0 know no read-only memory and get a copy, or BufferError with ``copy=False``.
        Raises InputError for two polynomials.
        """
        return as_dlpack(self._only_residues(), stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return HOST

    def __bytes__(self) -> bytes:
        return self.to_bytes()

    # --- the wire -----------------------------------------------------------------------------------------

    @overload
    def to_bytes(self, out: None = None) -> bytes: ...
    @overload
    def to_bytes(self, out: WritableBuffer) -> memoryview: ...
    def to_bytes(self, out: WritableBuffer | None = None) -> bytes | memoryview:
        """The ciphertext on the wire: header and packed residues (``cipher/wire.py`` has the layout).

        ``out`` is a writable contiguous buffer of ``nbytes`` bytes; a view of it is returned. Raises InputError else.
        """
        if self.context is None and self.kind in (Kind.SEEDED, Kind.COLLECTIVE):
            raise CiphertextError(
                "a ciphertext of zeros() names no context and is none on the wire; give zeros(..., context=), or "
                "encrypt into it first"
            )
        header = Header.of(self.params, self.kind, self.length, self.terms, self.context).to_bytes()
        if out is None:
            return header + self.pack(0, self.block_count)
        view = writable_view(out, self.nbytes)
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

    def _only_residues(self) -> Words:
        if self.second is not None:
            raise InputError(
                f"a ciphertext of {self.kind.name.lower()} kind has two polynomials of different lengths and is no "
                "one array; take .residues, or .to_bytes() for the wire"
            )
        return readonly(self.first)

    def _polynomials(self) -> list[tuple[Words, bool]]:
        parts = [(self.first, True)]
        if self.second is not None:
            parts.append((self.second, False))
        return parts

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.block_count:
            raise CiphertextError(f"blocks {start} .. {stop} are outside the ciphertext's {self.block_count}")

    def _writable_view(self, start: int, stop: int, out: WritableBuffer) -> memoryview:
        view = writable_view(out, self.packed_size(start, stop))
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
    terms = check_addable(ciphertexts)
    head = ciphertexts[0]
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


class Summand(Protocol):
    """What has to fit in a sum, wherever the residues lie."""

    params: CkksParams
    kind: Kind
    length: int
    terms: int
    context: bytes | None


def check_addable(ciphertexts: Sequence[Summand]) -> int:
    """The number of terms in the sum. Raises CiphertextError for none, too many, or what does not belong together."""
    if not ciphertexts:
        raise CiphertextError("nothing to add: give at least one ciphertext")
    head = ciphertexts[0]
    for other in ciphertexts[1:]:
        if other.params.id != head.params.id:
            raise CiphertextError(f"cannot add {other!r} to {head!r}: their parameters differ")
        if other.length != head.length:
            raise CiphertextError(f"cannot add a vector of {other.length} weights to one of {head.length}")
        if head.kind is Kind.COLLECTIVE and other.context != head.context:
            raise CiphertextError("cannot add ciphertexts of different contexts: they use different public polynomials")
    terms = sum(ciphertext.terms for ciphertext in ciphertexts)
    if terms > head.params.parties:
        raise CiphertextError(f"the sum would hold {terms} terms; the parameters hold {head.params.parties} (parties)")
    return terms

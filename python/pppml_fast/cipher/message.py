"""What every encryption begins with: a checked vector, and a place that fits what it becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pppml_fast.cipher.ciphertext import Ciphertext, WritableBuffer, allocate, bytes_target
from pppml_fast.cipher.secrecy import Secret
from pppml_fast.cipher.wire import fill_wire, fresh_kind
from pppml_fast.errors import InputError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import (
    TensorInput,
    check_apart,
    check_finite,
    check_weight,
    reference_list,
    tensor_list,
    total_length,
)

__all__ = ["Message"]


class Message(Secret, ABC):
    """A vector on its way into a ciphertext; how it gets there is its subclass's.

    Raises InputError on values or a share that cannot be encrypted, NaN and Inf aside. ``context`` is what the
    ciphertext names its public polynomials by, None where it holds its own.
    """

    context: bytes | None

    def __init__(
        self,
        params: CkksParams,
        context: bytes | None,
        x: TensorInput,
        weight: float | None,
        reference: TensorInput | None,
    ) -> None:
        self.params = params
        self.context = context
        self._tensors = tensor_list(x)
        self._reference = reference_list(reference, self._tensors)
        self._weight = check_weight(params, weight)
        self.length = total_length(self._tensors)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params.name}, length={self.length}, <hidden>)"

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.params.block_count(self.length)

    def check_finite(self) -> None:
        """Read every value once; raise InputError that names the first that cannot be encrypted."""
        check_finite(self.params, self._tensors, self._reference)

    def target(self, out: Ciphertext | None) -> Ciphertext:
        """What :meth:`encrypt_to` fills: ``out`` after a check that it fits, or a new ciphertext."""
        if out is None:
            return allocate(self.params, self.length)
        if out.params.id != self.params.id or out.length != self.length or out.kind != fresh_kind(self.params):
            raise InputError(f"out is {out!r}; the encryption has {self.length} weights under {self.params.name}")
        for words, _ in out._polynomials():
            check_apart(words, self._tensors + self._reference)
        return out

    def wire_target(self, out: WritableBuffer | None) -> memoryview:
        """Where :meth:`encrypt_to_wire` writes: ``out`` after a check that it fits, or new memory."""
        return self._bytes_target(Ciphertext.wire_size(self.params, self.length), out)

    def encrypt_to(self, result: Ciphertext) -> None:
        """Encrypt the whole message to what :meth:`target` gave; where it is refused, that holds zeros."""
        self._write_rows(*(words for words, _ in result._polynomials()))
        result.terms, result.context = 1, self.context

    def encrypt_to_wire(self, out: memoryview) -> None:
        """Encrypt the whole message to the bytes of its ciphertext; where it is refused, ``out`` holds zeros."""
        with fill_wire(self.params, self.length, self.context, out) as rows:
            self._write_rows(*rows)

    @abstractmethod
    def _write_rows(self, first: Any, second: Any = None) -> None:
        """Encrypt to the residue words or packed bytes of each polynomial."""

    def _bytes_target(self, size: int, out: WritableBuffer | None) -> memoryview:
        return bytes_target(size, out, self._tensors + self._reference)

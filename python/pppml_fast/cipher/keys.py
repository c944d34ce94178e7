"""Key pairs: one owner decrypts, everybody (public mode) or the owner (secret mode) encrypts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native
from pppml_fast.checks import whole_number
from pppml_fast.cipher.ciphertext import Ciphertext, ReadableBuffer, WritableBuffer, bytes_target
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.opening import check_mode, open_sum, open_wire
from pppml_fast.cipher.secrecy import Secret
from pppml_fast.cipher.streaming import CHUNK_BLOCKS, Sink, stream_in, stream_out
from pppml_fast.cipher.symmetric import SymmetricMessage, encryption_target
from pppml_fast.cipher.wire import Kind, fill_wire
from pppml_fast.errors import CiphertextError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import (
    TensorInput,
    check_weight,
    explain_non_finite,
    reference_list,
    tensor_list,
    total_length,
)

__all__ = ["KeyPair", "PublicKey", "SecretKey", "keygen"]

_MAGIC = b"PPPK\x01"
_SEED_BYTES = 32


class PublicKey:
    """A public key (-a s + e, a): anybody may encrypt under it, its owner decrypts. Pickles; safe to publish."""

    def __init__(self, params: CkksParams, residues: NDArray[Any], seed: bytes) -> None:
        check_mode(params, "public", "a public key")
        self.params = params
        self._residues = residues
        self._seed = seed
        try:
            self._native = params._scheme.load_public(residues, expansion_key(params, seed))
        except _native.RequirementError as error:
            raise CiphertextError(str(error)) from None

    def encrypt(
        self,
        x: TensorInput,
        weight: float | None = None,
        reference: TensorInput | None = None,
        out: Ciphertext | None = None,
    ) -> Ciphertext:
        """Encrypt a float array or a list of them as one flat vector.

        ``weight`` is this party's share in (0, 1]; parameters with ``weights="public"`` require it. ``reference``, as
        many values in any grouping, is subtracted on the way (the model that was broadcast, say), without an array of
        differences. Values of ``x - reference`` outside ``[-clip, clip]`` are clipped. Raises InputError on NaN or Inf,
        naming tensor and element.
        """
        tensors = tensor_list(x)
        subtracted = reference_list(reference, tensors)
        result = encryption_target(self.params, total_length(tensors), out, tensors + subtracted)
        self._write(tensors, subtracted, check_weight(self.params, weight), result.first, result.second)
        result.terms = 1
        return result

    def encrypt_bytes(
        self,
        x: TensorInput,
        weight: float | None = None,
        reference: TensorInput | None = None,
        out: WritableBuffer | None = None,
    ) -> memoryview:
        """Encrypt straight to the bytes on the wire, as ``encrypt(...).to_bytes()``, without residues in memory.

        ``out`` is a writable contiguous buffer of :meth:`Ciphertext.wire_size` bytes apart from the weights; a view of
        it, or of a new one, is returned. Takes the rest from and raises what :meth:`encrypt` does; a refused encryption
        leaves zeros in an ``out`` that was written to.
        """
        tensors = tensor_list(x)
        subtracted = reference_list(reference, tensors)
        length, share = total_length(tensors), check_weight(self.params, weight)
        target = bytes_target(Ciphertext.wire_size(self.params, length), out, tensors + subtracted)
        with fill_wire(self.params, length, None, target) as (first, second):
            self._write(tensors, subtracted, share, first, second)
        return target

    def _write(self, tensors: list[Any], subtracted: list[Any], share: float, first: Any, second: Any) -> None:
        """Encrypt to residue words or packed bytes; zeros where the values are refused."""
        seed = _native.StreamKey.from_system()
        try:
            self.params._scheme.encrypt_public(self._native, seed, tensors, share, first, second, reference=subtracted)
        except _native.NonFiniteError as error:
            raise explain_non_finite(error, tensors, subtracted) from None
        except _native.RequirementError as error:
            raise ParameterError(str(error)) from None

    def to_bytes(self) -> bytes:
        """Magic, parameter tag (16 bytes), seed of a (32 bytes), residues of -a s + e in NTT form, little-endian."""
        return _MAGIC + self.params.id[:16] + self._seed + self._residues.tobytes()

    @classmethod
    def from_bytes(cls, params: CkksParams, data: bytes | bytearray | memoryview) -> PublicKey:
        """Parse :meth:`to_bytes`; raises CiphertextError on bytes that are no key of ``params``."""
        check_mode(params, "public", "a public key")
        data = bytes(data)
        dtype = np.dtype(np.uint32 if params._scheme.word_bytes == 4 else np.uint64)
        start = len(_MAGIC) + 16 + _SEED_BYTES
        expected = start + params.ring_dimension * len(params.primes) * dtype.itemsize
        if len(data) != expected or not data.startswith(_MAGIC):
            raise CiphertextError(f"{len(data)} bytes are no public key of {params.name}: it takes {expected}")
        if data[len(_MAGIC) : len(_MAGIC) + 16] != params.id[:16]:
            raise CiphertextError("the public key was made under other parameters; all parties must use one set")
        residues = np.frombuffer(data, dtype=dtype, offset=start).copy()
        return cls(params, residues, data[start - _SEED_BYTES : start])

    def __repr__(self) -> str:
        return f"PublicKey({self.params.name}, level {self.params.level})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PublicKey.from_bytes, (self.params, self.to_bytes())


class SecretKey(Secret):
    """The key that decrypts. Stays in memory, is wiped at its end, refuses to be pickled."""

    def __init__(self, params: CkksParams, native: _native.SecretKey) -> None:
        self.params = params
        self._native = native

    def encrypt(
        self,
        x: TensorInput,
        weight: float | None = None,
        reference: TensorInput | None = None,
        out: Ciphertext | None = None,
    ) -> Ciphertext:
        """Encrypt under the secret key (keys="secret"): one polynomial and a fresh 32-byte seed per ciphertext.

        Takes and raises what :meth:`PublicKey.encrypt` does, and ParameterError in another key mode.
        """
        message = self._message(x, weight, reference)
        result = message.target(out)
        message.write(0, message.blocks, result.first)
        result.terms, result.context = 1, message.context
        return result

    def encrypt_bytes(
        self,
        x: TensorInput,
        weight: float | None = None,
        reference: TensorInput | None = None,
        out: WritableBuffer | None = None,
    ) -> memoryview:
        """Encrypt under the secret key straight to the bytes on the wire, as :meth:`PublicKey.encrypt_bytes` does."""
        message = self._message(x, weight, reference)
        target = message.wire_target(out)
        message.write_wire(target)
        return target

    def encrypt_chunks(
        self,
        x: TensorInput,
        weight: float | None = None,
        reference: TensorInput | None = None,
        *,
        chunk_blocks: int = CHUNK_BLOCKS,
    ) -> Iterator[bytes | memoryview]:
        """Encrypt under the secret key piece by piece, for vectors that fit in memory once or not at all.

        As :meth:`CollectiveKey.encrypt_chunks`; public-key ciphertexts, whose second polynomial follows the whole first
        one, are not streamed.
        """
        message = self._message(x, weight, reference)
        step = whole_number("chunk_blocks", chunk_blocks, 1)
        message.check_finite()
        return stream_out(message, Kind.SEEDED, step)

    def _message(self, x: TensorInput, weight: float | None, reference: TensorInput | None) -> SymmetricMessage:
        if self.params.keys != "secret":
            raise ParameterError(f"encrypting with the secret key needs keys='secret', not {self.params.keys!r}")
        message = SymmetricMessage(self.params, os.urandom(_SEED_BYTES), x, weight, reference)
        message.under(self._native, _native.StreamKey.from_system())
        return message

    def decrypt(
        self,
        ciphertext: Ciphertext,
        dtype: DTypeLike = np.float32,
        integers: bool = False,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The exact sum in ``ciphertext`` as one flat vector of ``dtype``, or as int64 with ``integers=True``.

        Raises CiphertextError for foreign parameters or more terms than parties, OpeningError when a block fails its
        residual check.
        """
        return open_sum(self.params, self._native, ciphertext, dtype, integers, out)

    def decrypt_bytes(
        self,
        data: ReadableBuffer,
        dtype: DTypeLike = np.float32,
        integers: bool = False,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The exact sum straight from the bytes on the wire, as :meth:`OpeningKey.decrypt_bytes`."""
        return open_wire(self.params, self._native, None, data, dtype, integers, out)

    def decrypt_chunks(
        self,
        chunks: Iterable[ReadableBuffer],
        out: NDArray[Any] | Sink,
        dtype: DTypeLike = np.float32,
        *,
        chunk_blocks: int = CHUNK_BLOCKS,
    ) -> int:
        """The exact sum in the bytes of one ciphertext, opened while they arrive (keys="secret").

        As :meth:`OpeningKey.decrypt_chunks`. Raises CiphertextError for an expanded sum or a public-key ciphertext.
        """
        return stream_in(self.params, self._native, None, chunks, out, dtype, chunk_blocks)

    def __repr__(self) -> str:
        return f"SecretKey({self.params.name}, <hidden>)"


class KeyPair(NamedTuple):
    """What :func:`keygen` returns. In secret mode ``public`` is None."""

    public: PublicKey | None
    secret: SecretKey


def keygen(params: CkksParams) -> KeyPair:
    """A fresh key pair from the system's generator, for ``keys="public"`` or ``"secret"``.

    Raises ParameterError for collective parameters, whose keys are made by :class:`CollectiveKey`.
    """
    _check_owner_mode(params)
    scheme = params._scheme
    native = scheme.generate_secret(_native.StreamKey.from_system())
    secret = SecretKey(params, native)
    if params.keys == "secret":
        return KeyPair(None, secret)
    seed = os.urandom(_SEED_BYTES)
    residues = scheme.generate_public(native, _native.StreamKey.from_system(), expansion_key(params, seed))
    return KeyPair(PublicKey(params, residues, seed), secret)


def _check_owner_mode(params: CkksParams) -> None:
    if params.keys == "collective":
        raise ParameterError("keys='collective' has no key pair: use CollectiveKey.generate(params)")

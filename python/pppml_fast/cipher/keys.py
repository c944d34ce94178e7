"""Key pairs: one owner decrypts, everybody (public mode) or the owner (secret mode) encrypts."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.checks import whole_number
from pppml_fast.cipher.ciphertext import Ciphertext, WritableBuffer
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.message import Message
from pppml_fast.cipher.opener import Opener
from pppml_fast.cipher.opening import check_mode
from pppml_fast.cipher.streaming import CHUNK_BLOCKS, stream_out
from pppml_fast.cipher.symmetric import SymmetricMessage
from pppml_fast.cipher.wire import Kind
from pppml_fast.errors import CiphertextError, InputError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import (
    TensorInput,
    explain_non_finite,
)

__all__ = ["KeyPair", "PublicKey", "SecretKey", "keygen"]

_MAGIC = b"PPPK\x01"
_MAGIC_PAIR = b"PPPK\x02"
_SEED_BYTES = 32


class _Encryptor(ABC):
    """A key whose owner may encrypt as many messages as there are."""

    __slots__ = ()

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
        naming tensor and element. A secret key encrypts under ``keys="secret"``, to one polynomial and a fresh 32-byte
        seed per ciphertext; ParameterError in another key mode.
        """
        message = self._message(x, weight, reference)
        result = message.target(out)
        message.encrypt_to(result)
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
        message = self._message(x, weight, reference)
        target = message.wire_target(out)
        message.encrypt_to_wire(target)
        return target

    @abstractmethod
    def _message(self, x: TensorInput, weight: float | None, reference: TensorInput | None) -> Message:
        """The vector on its way into this key's ciphertext."""


class _PublicMessage(Message):
    """A vector on its way to ``(pk0 u + e0 + delta m, pk1 u + e1)``."""

    def __init__(
        self,
        native: _native.PublicKey,
        params: CkksParams,
        x: TensorInput,
        weight: float | None,
        reference: TensorInput | None,
    ) -> None:
        super().__init__(params, None, x, weight, reference)
        self._public = native

    def _write_rows(self, first: Any, second: Any = None) -> None:
        scheme, seed = self.params._scheme, _native.StreamKey.from_system()
        try:
            scheme.encrypt_public(
                self._public, seed, self._tensors, self._weight, first, second, reference=self._reference
            )
        except _native.NonFiniteError as error:
            raise explain_non_finite(error, self._tensors, self._reference) from None
        except _native.RequirementError as error:
            raise ParameterError(str(error)) from None


class PublicKey(_Encryptor):
    """A public key (b, a), b = -a s + e: anybody may encrypt under it, its owner decrypts. Pickles; safe to publish.

    ``a`` is expanded from a seed, or given where another library made the key.
    """

    def __init__(self, params: CkksParams, residues: NDArray[Any], a: bytes | NDArray[Any]) -> None:
        check_mode(params, "public", "a public key")
        self.params = params
        self._residues = residues
        self._a = a
        try:
            if isinstance(a, bytes):
                self._native = params._scheme.load_public(residues, expansion_key(params, a))
            else:
                self._native = params._scheme.load_public_pair(residues, a)
        except _native.RequirementError as error:
            raise CiphertextError(str(error)) from None

    @classmethod
    def from_residues(cls, params: CkksParams, b: NDArray[Any], a: NDArray[Any]) -> PublicKey:
        """The key of these residues: integers (primes, N) in NTT form, index i at psi^(2 bitrev(i) + 1), psi the least
        primitive 2N-th root of unity.

        The noise bounds of ``params`` hold if secret and error were drawn as here: ternary, and of deviation 3.2 at
        most. Raises CiphertextError on another shape or a residue that is not below its prime.
        """
        return cls(params, _rows(params, "b", b), _rows(params, "a", a))

    def residues(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(b, a), each (primes, N), as :meth:`from_residues` takes them. New arrays."""
        shape = (len(self.params.primes), self.params.ring_dimension)
        if isinstance(self._a, bytes):
            a = self.params._scheme.expand_ntt(expansion_key(self.params, self._a))
        else:
            a = self._a.copy()
        return self._residues.reshape(shape).copy(), a.reshape(shape)

    def _message(self, x: TensorInput, weight: float | None, reference: TensorInput | None) -> Message:
        return _PublicMessage(self._native, self.params, x, weight, reference)

    def to_bytes(self) -> bytes:
        """Magic, parameter tag (16 bytes), seed of a (32 bytes), residues of b in NTT form, little-endian.

        Where no seed made ``a`` its residues follow, the seed is zero, and so says the magic.
        """
        if isinstance(self._a, bytes):
            return _MAGIC + self.params.id[:16] + self._a + self._residues.tobytes()
        return _MAGIC_PAIR + self.params.id[:16] + bytes(_SEED_BYTES) + self._residues.tobytes() + self._a.tobytes()

    @classmethod
    def from_bytes(cls, params: CkksParams, data: bytes | bytearray | memoryview) -> PublicKey:
        """Parse :meth:`to_bytes`; raises CiphertextError on bytes that are no key of ``params``."""
        check_mode(params, "public", "a public key")
        data = bytes(data)
        dtype = np.dtype(np.uint32 if params._scheme.word_bytes == 4 else np.uint64)
        start = len(_MAGIC) + 16 + _SEED_BYTES
        row_bytes = params.ring_dimension * len(params.primes) * dtype.itemsize
        pair = data.startswith(_MAGIC_PAIR)
        expected = start + row_bytes * (2 if pair else 1)
        if len(data) != expected or not (pair or data.startswith(_MAGIC)):
            raise CiphertextError(f"{len(data)} bytes are no public key of {params.name}: it takes {expected}")
        if data[len(_MAGIC) : len(_MAGIC) + 16] != params.id[:16]:
            raise CiphertextError("the public key was made under other parameters; all parties must use one set")
        seed = data[start - _SEED_BYTES : start]
        residues = np.frombuffer(data, dtype=dtype, offset=start).copy()
        if not pair:
            return cls(params, residues, seed)
        if any(seed):
            raise CiphertextError("the public key has both a seed and residues of a: damaged or forged")
        half = residues.size // 2
        return cls(params, residues[:half].copy(), residues[half:].copy())

    def __repr__(self) -> str:
        return f"PublicKey({self.params.name}, level {self.params.level}, bytes={len(self.to_bytes())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PublicKey):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash((self.params.id, self._residues[:4].tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return PublicKey.from_bytes, (self.params, self.to_bytes())


class SecretKey(_Encryptor, Opener):
    """The key that decrypts. Stays in memory, is wiped at its end, refuses to be pickled."""

    __slots__ = ()

    @classmethod
    def from_coefficients(cls, params: CkksParams, coefficients: NDArray[Any]) -> SecretKey:
        """The key of another library's secret polynomial: integers (N,) in -1, 0, 1, for ``keys`` public or secret.

        Raises InputError on other values, and on a norm beyond what the noise bounds allow for (1.1 * 2N/3).
        """
        _check_owner_mode(params)
        values = np.asarray(coefficients)
        if values.dtype.kind not in "iu" or values.shape != (params.ring_dimension,):
            raise InputError(f"a secret is {params.ring_dimension} integers, not {values.dtype} of {values.shape}")
        if ((values < -1) | (values > 1)).any():
            raise InputError("a coefficient of the secret is not in -1, 0, 1; secrets of another kind have other noise")
        limit = 1.1 * 2 * params.ring_dimension / 3
        if not 0 < (norm := int(np.count_nonzero(values))) <= limit:
            raise InputError(
                f"the secret has {norm} coefficients that are not zero; the noise bounds allow 1 to {limit:.0f}"
            )
        return cls(params, params._scheme.secret_from_coefficients(values.astype(np.int64)))

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


def _rows(params: CkksParams, name: str, rows: NDArray[Any]) -> NDArray[Any]:
    """(primes, N) integers as the core's residue words, flat."""
    shape = (len(params.primes), params.ring_dimension)
    values = np.asarray(rows)
    if values.dtype.kind not in "iu" or values.shape != shape:
        raise CiphertextError(f"{name} has dtype {values.dtype} and shape {values.shape}; it takes integers {shape}")
    if (values < 0).any() or (values >= np.array(params.primes, np.uint64)[:, None]).any():
        raise CiphertextError(f"a residue of {name} is not below its prime")
    return values.astype(f"u{params._scheme.word_bytes}").reshape(-1)


def _check_owner_mode(params: CkksParams) -> None:
    if params.keys == "collective":
        raise ParameterError("keys='collective' has no key pair: use CollectiveKey.generate(params)")

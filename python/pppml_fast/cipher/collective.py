"""Collective keys: every party has its own, nobody holds the one that opens the sum.

Multiparty CKKS with common reference polynomials (Asharov et al. 2012; Mouchet et al. 2020):
b_i = -a s_i + e_i + Delta m_i, and only S = sum of s_i opens sum of b_i.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.checks import whole_number
from pppml_fast.cipher.ciphertext import (
    Ciphertext,
    ReadableBuffer,
    WritableBuffer,
    bytes_view,
    check_disjoint_or_same,
)
from pppml_fast.cipher.expansion import check_bytes32
from pppml_fast.cipher.opener import Opener
from pppml_fast.cipher.opening import check_mode
from pppml_fast.cipher.pads import PAD_LIMIT_BYTES, PadStore
from pppml_fast.cipher.pieces import EncryptionInPieces
from pppml_fast.cipher.secrecy import OwnersLock, Secret
from pppml_fast.cipher.streaming import (
    CHUNK_BLOCKS,
    Reader,
    stream_out,
)
from pppml_fast.cipher.symmetric import SymmetricMessage
from pppml_fast.cipher.wire import Kind
from pppml_fast.errors import CiphertextError, InputError, KeyReuseError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import TensorInput

__all__ = ["CollectiveKey", "OpeningKey"]


class CollectiveKey(Secret):
    """One party's one-time secret s_i for one attempt of one round. In memory only, never pickled."""

    __slots__ = ("_claim", "_context", "_message", "_noise", "_pads", "_secret", "_used_fraction", "params")

    def __init__(self, params: CkksParams, secret: _native.SecretKey, noise: _native.StreamKey) -> None:
        check_mode(params, "collective", "a collective key")
        self.params = params
        self._secret: _native.SecretKey | None = secret
        self._noise: _native.StreamKey | None = noise
        self._context: bytes | None = None
        self._claim = OwnersLock()
        self._pads: PadStore | None = None
        self._used_fraction = 0.0
        self._message: weakref.ref[SymmetricMessage] | None = None

    @classmethod
    def generate(cls, params: CkksParams) -> CollectiveKey:
        """A fresh s_i from the system's generator. Raises ParameterError unless ``params.keys == "collective"``."""
        check_mode(params, "collective", "a collective key")
        secret = params._scheme.generate_secret(_native.StreamKey.from_system())
        return cls(params, secret, _native.StreamKey.from_system())

    def prepare(
        self, context: bytes, length: int, *, limit_bytes: int = PAD_LIMIT_BYTES, background: bool = True
    ) -> None:
        """Make what encryption needs no weights for: the pads of ``length`` weights in ``context``.

        They are made on a thread of lowest priority, while training runs, or with ``background=False`` before this
        returns; at most ``limit_bytes`` of them, 4 or 8 bytes per coefficient. Encryption uses the pads that are ready
        by then and makes the rest, with the same result. Pads for another context or length than the encryption's are
        destroyed unused; so are all of them by :meth:`destroy`, by a refused encryption and by a second call for
        another message. Raises KeyReuseError when the key is used, destroyed or of another process, InputError on a
        negative limit.
        """
        context = check_bytes32("context", context)
        limit_bytes = whole_number("limit_bytes", limit_bytes, 0)
        with self._unused() as (secret, noise):
            if self._pads is not None and self._pads.serves(context, length):
                return
            self._drop_pads()
            pads = self._pads = PadStore(self.params, secret, noise, context, length, limit_bytes)
        pads.fill(background)

    @property
    def prepared_fraction(self) -> float:
        """Fraction of the message whose pads are ready, 0 … 1; after the encryption, the fraction that it used."""
        pads = self._pads
        return self._used_fraction if pads is None else pads.fraction

    def encrypt(
        self,
        x: TensorInput,
        context: bytes,
        weight: float | None = None,
        reference: TensorInput | None = None,
        out: Ciphertext | None = None,
    ) -> Ciphertext:
        """Encrypt a float array or a list of them as one flat vector, once.

        ``context`` is 32 bytes that name session, round and attempt, the same for all parties. ``reference``, as many
        values in any grouping, is subtracted on the way (the model that was broadcast, say), without an array of
        differences. Raises KeyReuseError at the second message (repeating s_i and a_j for two messages would reveal
        their difference), InputError on NaN or Inf. A refusal leaves the key unused where the result was to be new
        memory; an ``out`` that was written to holds zeros then, and the key counts as used: others may have read it.
        """
        message = SymmetricMessage(self.params, check_bytes32("context", context), x, weight, reference)
        result = message.target(out)
        with self._claimed(message, out):
            message.encrypt_to(result)
        return result

    def encrypt_bytes(
        self,
        x: TensorInput,
        context: bytes,
        weight: float | None = None,
        reference: TensorInput | None = None,
        out: WritableBuffer | None = None,
    ) -> memoryview:
        """Encrypt straight to the bytes on the wire, ``encrypt(...).to_bytes()``, without residues in memory.

        ``out`` is a writable contiguous buffer of :meth:`Ciphertext.wire_size` bytes apart from the weights; a view of
        it, or of a new one, is returned. Takes the rest from, raises and leaves what :meth:`encrypt` does.
        """
        message = SymmetricMessage(self.params, check_bytes32("context", context), x, weight, reference)
        target = message.wire_target(out)
        with self._claimed(message, out):
            message.encrypt_to_wire(target)
        return target

    def encrypt_onto(
        self,
        incoming: ReadableBuffer | None,
        x: TensorInput,
        context: bytes,
        weight: float | None = None,
        reference: TensorInput | None = None,
        out: WritableBuffer | None = None,
    ) -> memoryview:
        """A party's turn in a ring in one pass: packed(incoming + the encryption of ``x``).

        ``incoming`` is the packed running sum, as :meth:`Ciphertext.pack` gives all blocks, or None for the first
        party. ``out`` is a writable contiguous buffer of as many bytes, which may be the incoming buffer itself; a view
        of it, or of a new one, is returned. Takes the rest from, raises and leaves what :meth:`encrypt` does;
        CiphertextError on ``incoming`` of a wrong length or with a residue not below its prime.
        """
        message = SymmetricMessage(self.params, check_bytes32("context", context), x, weight, reference)
        target = message.payload_target(out)
        added = None if incoming is None else bytes_view(incoming)
        if added is not None:
            if len(added) != len(target):
                raise CiphertextError(f"{message.length} weights take {len(target)} packed bytes; {len(added)} came in")
            check_disjoint_or_same(np.asarray(added), np.asarray(target))
        with self._claimed(message, out):
            message.write(0, message.blocks, target, added)
        return target

    def encrypt_chunks(
        self,
        x: TensorInput,
        context: bytes,
        weight: float | None = None,
        reference: TensorInput | None = None,
        *,
        incoming: Iterable[ReadableBuffer] | None = None,
        chunk_blocks: int = CHUNK_BLOCKS,
    ) -> Iterator[bytes | memoryview]:
        """Encrypt piece by piece, for vectors that fit in memory once or not at all.

        Gives the bytes of :meth:`Ciphertext.to_bytes`: the header, then memory that holds ``chunk_blocks`` blocks and
        is overwritten by the next step. ``x`` and ``reference`` may be ``numpy.memmap``; they are read in place, first
        as a whole for NaN and Inf. ``incoming`` are the bytes of a running sum, cut anywhere: then the sum with this
        party's term comes out. Takes the rest from and raises what :meth:`encrypt` does, before anything is given out;
        InputError on values beyond float32, too, where a reference is subtracted in it (p31, compact, or several values
        per coefficient); CiphertextError when ``incoming`` is no ciphertext of this context and length. The key is used
        from here on.
        """
        message = SymmetricMessage(self.params, check_bytes32("context", context), x, weight, reference)
        step = whole_number("chunk_blocks", chunk_blocks, 1)
        reader = None if incoming is None else Reader(incoming)
        message.check_finite()
        self._claim_for(message)
        return stream_out(message, Kind.COLLECTIVE, step, reader)

    def encrypt_in_pieces(
        self,
        x: TensorInput,
        context: bytes,
        weight: float | None = None,
        reference: TensorInput | None = None,
    ) -> EncryptionInPieces:
        """The encryption of ``x`` as its ring asks for it: range by range, onto what came in or not, never stored.

        The values are checked for NaN and Inf here and read again as their blocks are encrypted: they must stay as they
        are until then. The key is used from here on. Takes the rest from and raises what :meth:`encrypt_chunks` does.
        """
        message = SymmetricMessage(self.params, check_bytes32("context", context), x, weight, reference)
        message.check_finite()
        self._claim_for(message)
        return EncryptionInPieces(message)

    @contextlib.contextmanager
    def _unused(self) -> Iterator[tuple[_native.SecretKey, _native.StreamKey]]:
        """The key's secret and noise stream, for no other thread meanwhile; KeyReuseError unless both are there."""
        with self._claim.held() as here:
            if not here:
                raise KeyReuseError("this collective key was made before a fork; generate one in this process")
            if self._secret is None:
                raise KeyReuseError("this collective key was destroyed; generate a fresh one for the next attempt")
            if self._noise is None:
                raise KeyReuseError(
                    "this collective key has encrypted its one message; generate a fresh key for every attempt"
                )
            yield self._secret, self._noise

    def _claim_for(self, message: SymmetricMessage) -> _native.StreamKey:
        """Give the key to ``message``, and to no other, before the encryption, which releases the interpreter."""
        with self._unused() as (secret, noise):
            pads, self._pads = self._pads, None
            if pads is not None and not pads.serves(message.context, message.length):
                pads.close()
                pads = None
            message.under(secret, noise, pads)
            # The noise stream serves once; without it the ciphertext can never be recomputed.
            self._noise, self._context = None, message.context
            self._message = weakref.ref(message)
            self._used_fraction = message.prepared / message.blocks if message.prepared else 0.0
            return noise

    @contextlib.contextmanager
    def _claimed(self, message: SymmetricMessage, out: Any) -> Iterator[None]:
        noise = self._claim_for(message)
        try:
            yield
        except (CiphertextError, InputError, ParameterError):
            # The key stays unused, without its pads, unless ciphertext stood in memory that others may have read: to
            # them a second message under it would reveal the difference.
            with self._claim.held():
                if self._secret is not None and not (message.written and out is not None):
                    self._noise, self._context, self._used_fraction = noise, None, 0.0
            raise
        finally:
            message.close()

    def _drop_pads(self) -> None:
        if self._pads is not None:
            self._pads.close()
        self._pads = None

    def destroy(self) -> None:
        """Drop the secret and its pads; their memory is wiped. An encryption in pieces that is under way ends."""
        with self._claim.held():
            self._secret = self._noise = None
            self._drop_pads()
            message = None if self._message is None else self._message()
        if message is not None:
            message.close()

    @staticmethod
    def sum(keys: Sequence[CollectiveKey]) -> OpeningKey:
        """S, the sum of the keys: for tests and loops in one process. In a session S comes from the shares."""
        if not keys:
            raise InputError("no keys to sum")
        coefficients = np.zeros(keys[0].params.ring_dimension, np.int64)
        for key in keys:
            if key.params.id != keys[0].params.id:
                raise ParameterError(f"cannot sum keys of {key.params.name} and {keys[0].params.name}: they differ")
            coefficients += key._secret_coefficients()
        return OpeningKey.from_coefficients(keys[0].params, coefficients, terms=len(keys))

    def _secret_coefficients(self) -> NDArray[np.int64]:
        """The N small coefficients, for dealing shares of them."""
        if self._secret is None:
            raise KeyReuseError("this collective key was destroyed")
        try:
            return np.asarray(self._secret.coefficients())
        except _native.RequirementError as error:  # in a forked child
            raise KeyReuseError(str(error)) from None

    def __repr__(self) -> str:
        state = "destroyed" if self._secret is None else "used" if self._context is not None else "fresh"
        return f"CollectiveKey({self.params.name}, {state}, <hidden>)"


class OpeningKey(Opener):
    """S_U, the sum of the live set's secrets: opens their summed ciphertext and nothing else."""

    __slots__ = ("terms",)

    def __init__(self, params: CkksParams, native: _native.SecretKey, terms: int) -> None:
        super().__init__(params, native, terms)
        self.terms = terms

    @classmethod
    def from_coefficients(cls, params: CkksParams, coefficients: NDArray[np.int64], terms: int) -> OpeningKey:
        """S from its N integer coefficients; ``terms`` is the number of parties in it.

        Raises ParameterError in another key mode, InputError when a coefficient cannot be a sum of small secrets.
        """
        check_mode(params, "collective", "an opening key")
        if not 1 <= terms <= params.parties:
            raise ParameterError(f"terms = {terms} is outside 1 .. {params.parties} (parties)")
        values = np.asarray(coefficients)
        if values.dtype.kind not in "iu":
            raise InputError(f"key coefficients have dtype {values.dtype}; they are integers")
        try:
            native = params._scheme.secret_from_coefficients(np.ascontiguousarray(values, dtype=np.int64))
        except _native.RequirementError as error:
            raise InputError(str(error)) from None
        return cls(params, native, terms)

    def __repr__(self) -> str:
        return f"OpeningKey({self.params.name}, terms={self.terms}, <hidden>)"

"""Collective keys: every party has its own, nobody holds the one that opens the sum.

Multiparty CKKS with common reference polynomials (Asharov et al. 2012; Mouchet et al. 2020):
b_i = -a s_i + e_i + Delta m_i, and only S = sum of s_i opens sum of b_i.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native
from pppml_fast.cipher.ciphertext import Ciphertext
from pppml_fast.cipher.expansion import check_bytes32
from pppml_fast.cipher.keys import encrypt_symmetric, encryption_target
from pppml_fast.cipher.opening import check_mode, open_sum
from pppml_fast.cipher.secrecy import Secret
from pppml_fast.errors import CiphertextError, InputError, KeyReuseError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import TensorInput, tensor_list, total_length

__all__ = ["CollectiveKey", "OpeningKey"]


class CollectiveKey(Secret):
    """One party's one-time secret s_i for one attempt of one round. In memory only, never pickled."""

    def __init__(self, params: CkksParams, secret: _native.SecretKey, noise: _native.StreamKey) -> None:
        check_mode(params, "collective", "a collective key")
        self.params = params
        self._secret: _native.SecretKey | None = secret
        self._noise: _native.StreamKey | None = noise
        self._context: bytes | None = None
        self._claim = threading.Lock()

    @classmethod
    def generate(cls, params: CkksParams) -> CollectiveKey:
        """A fresh s_i from the system's generator. Raises ParameterError unless ``params.keys == "collective"``."""
        check_mode(params, "collective", "a collective key")
        secret = params._scheme.generate_secret(_native.StreamKey.from_system())
        return cls(params, secret, _native.StreamKey.from_system())

    def encrypt(
        self, x: TensorInput, context: bytes, weight: float | None = None, out: Ciphertext | None = None
    ) -> Ciphertext:
        """Encrypt a float array or a list of them as one flat vector, once.

        ``context`` is 32 bytes that name session, round and attempt, the same for all parties. Raises KeyReuseError at
        the second message (repeating s_i and a_j for two messages would reveal their difference), InputError on NaN
        or Inf (the key is then still unused).
        """
        context = check_bytes32("context", context)
        tensors = tensor_list(x)
        result = encryption_target(self.params, total_length(tensors), out)
        # Claimed before the encryption, which releases the interpreter: two threads never share the noise stream.
        secret, noise = self._take_noise(context)
        try:
            encrypt_symmetric(self.params, secret, noise, context, result, tensors, weight)
        except (InputError, ParameterError):
            # Refused before anything was released: the key stays unused.
            self._noise, self._context = noise, None
            raise
        return result

    def _take_noise(self, context: bytes) -> tuple[_native.SecretKey, _native.StreamKey]:
        with self._claim:
            if self._secret is None:
                raise KeyReuseError("this collective key was destroyed; generate a fresh one for the next attempt")
            if self._noise is None:
                raise KeyReuseError(
                    "this collective key has encrypted its one message; generate a fresh key for every attempt"
                )
            # The noise stream serves once; without it the ciphertext can never be recomputed.
            noise, self._noise, self._context = self._noise, None, context
            return self._secret, noise

    def destroy(self) -> None:
        """Drop the secret; its memory is wiped."""
        self._secret = self._noise = None

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
        return np.asarray(self._secret.coefficients())

    def __repr__(self) -> str:
        state = "destroyed" if self._secret is None else "used" if self._context is not None else "fresh"
        return f"CollectiveKey({self.params.name}, {state}, <hidden>)"


class OpeningKey(Secret):
    """S_U, the sum of the live set's secrets: opens their summed ciphertext and nothing else."""

    def __init__(self, params: CkksParams, native: _native.SecretKey, terms: int) -> None:
        self.params = params
        self.terms = terms
        self._native = native

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

    def decrypt(
        self,
        ciphertext: Ciphertext,
        dtype: DTypeLike = np.float32,
        integers: bool = False,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The exact sum as one flat vector of ``dtype``, or as int64 with ``integers=True``.

        Raises CiphertextError when the ciphertext does not add as many encryptions as S has parties, OpeningError
        when a block fails its residual check.
        """
        if ciphertext.terms != self.terms:
            raise CiphertextError(
                f"the ciphertext adds {ciphertext.terms} encryptions, the opening key {self.terms} secrets: "
                "only the sum over the whole live set opens"
            )
        return open_sum(self.params, self._native, ciphertext, dtype, integers, out)

    def __repr__(self) -> str:
        return f"OpeningKey({self.params.name}, terms={self.terms}, <hidden>)"

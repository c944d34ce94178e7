"""One party's values for a sum, where they lie: in the host's memory, or in a CUDA device's.

Whatever the machines ask of values is asked of a `Vector`. One update has one identity and one encryption under a key
wherever it lies, to the bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from pppml_fast import cuda
from pppml_fast.aggregation.base import Values, check_finite, value_parts
from pppml_fast.aggregation.opened import HostSum, OpenedSum, check_mean_target
from pppml_fast.aggregation.opened_on_device import DeviceSum
from pppml_fast.cipher import Ciphertext, CollectiveKey, PublicKey
from pppml_fast.cipher.pieces import EncryptionInPieces
from pppml_fast.cuda.arrays import DeviceTensors, device_tensors
from pppml_fast.cuda.device import device_scheme
from pppml_fast.errors import InputError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import count_clipped

__all__ = ["DeviceVector", "HostVector", "Vector", "vector_of"]

_BLOCK = 16  # bytes of AES
_PIECE = 1 << 16


class Vector(ABC):
    """``length`` values. They are read where they lie: they must stay as they are while the vector is used."""

    length: int

    @abstractmethod
    def check_finite(self, names: Sequence[str] | None = None) -> None:
        """Raise InputError that names the tensor, by ``names`` in order, that holds NaN or Inf."""

    @abstractmethod
    def tags(self, key: bytes, piece: int) -> Iterator[bytes]:
        """AES-GMAC under ``key`` (32 bytes) of every ``piece`` values as float32, -0.0 as 0.0; nonces number them.

        Raises InputError where a value is NaN or Inf.
        """

    @abstractmethod
    def encrypt_in_pieces(self, key: CollectiveKey, context: bytes, weight: float) -> EncryptionInPieces:
        """The encryption under a collective key, made range by range as it is asked for."""

    @abstractmethod
    def encrypt_under(self, key: PublicKey, weight: float) -> tuple[Ciphertext, int]:
        """The encryption under a public key, in the host's memory, and how many values were clipped."""

    @abstractmethod
    def to_host(self) -> list[NDArray[Any]]:
        """The values as flat arrays of the host, for sums that are not encrypted."""

    @abstractmethod
    def opened(self, params: CkksParams, out: Any, *, by_host: bool = False) -> OpenedSum:
        """Where the mean will go: ``out``, or new memory beside the values'. Holds none of the values.

        ``by_host``: whether the protocol opens its sums on the host wherever they go (`OpenedSum.fill`). Raises
        InputError unless ``out`` can take the mean, which may be the values' own memory; ParameterError where sums of
        these parameters do not open there.
        """


def vector_of(values: Values | Any) -> Vector:
    """``values`` as a vector: float arrays of the host or tensors of one device, one or several; a Vector as it is.

    Raises InputError on anything else, and on nothing.
    """
    if isinstance(values, Vector):
        return values
    if cuda.is_device_value(values):
        return DeviceVector(values)
    for index, item in enumerate(values if isinstance(values, list | tuple) else ()):
        if cuda.is_device_value(item):
            raise InputError(f"array {index} lies on a device, array 0 does not: give all of them in one place")
    return HostVector(values)


class HostVector(Vector):
    """NumPy arrays, and what becomes one without a copy."""

    def __init__(self, values: Values) -> None:
        self.parts = value_parts(values)
        self.length = sum(part.size for part in self.parts)

    def check_finite(self, names: Sequence[str] | None = None) -> None:
        check_finite(self.parts, names)

    def tags(self, key: bytes, piece: int) -> Iterator[bytes]:
        self.check_finite()
        cipher, values, filled, number = AESGCM(key), np.empty(piece, np.float32), 0, 0
        left = [part for part in self.parts if part.size]
        while left or filled:
            if left:
                taken = left[0][: piece - filled]
                target = values[filled : filled + taken.size]
                np.copyto(target, taken, casting="same_kind")
                target += np.float32(0)  # -0.0 is the same update
                filled += taken.size
                left[:1] = [left[0][taken.size :]] if taken.size < left[0].size else []
            if filled == piece or not left:
                yield cipher.encrypt(number.to_bytes(12, "little"), b"", values[:filled].data.cast("B"))
                filled, number = 0, number + 1

    def encrypt_in_pieces(self, key: CollectiveKey, context: bytes, weight: float) -> EncryptionInPieces:
        return key.encrypt_in_pieces(self.parts, context=context, weight=weight)

    def encrypt_under(self, key: PublicKey, weight: float) -> tuple[Ciphertext, int]:
        return key.encrypt(self.parts, weight=weight), count_clipped(key.params, self.parts)

    def to_host(self) -> list[NDArray[Any]]:
        return self.parts

    def opened(self, params: CkksParams, out: Any, *, by_host: bool = False) -> OpenedSum:
        if out is not None:
            check_mean_target(out, self.parts, self.length)
        return HostSum(params, self.length, out)


class DeviceVector(Vector):
    """Float tensors of one CUDA device. Nothing but ciphertext leaves it, unless `to_host` is asked for."""

    def __init__(self, values: Any) -> None:
        self._tensors: DeviceTensors = device_tensors(values)
        self.length = self._tensors.length
        if not self.length:
            raise InputError("there is nothing to sum: the tensors have no values")

    def check_finite(self, names: Sequence[str] | None = None) -> None:
        # The one pass over values on a device that encrypts nothing; its tags are not wanted here.
        _, bad = cuda.tag_pieces(self._tensors, bytes(_BLOCK), _PIECE)
        self._refuse(bad, names)

    def tags(self, key: bytes, piece: int) -> Iterator[bytes]:
        block = Cipher(AES(key), ECB()).encryptor()  # GMAC is GHASH under AES(0), masked by AES(nonce, 1)
        hashes, bad = cuda.tag_pieces(self._tensors, block.update(bytes(_BLOCK)), piece)
        self._refuse(bad, None)
        for number, hashed in enumerate(hashes):
            mask = block.update(number.to_bytes(12, "little") + (1).to_bytes(4, "big"))
            yield (hashed ^ np.frombuffer(mask, np.uint8)).tobytes()

    def encrypt_in_pieces(self, key: CollectiveKey, context: bytes, weight: float) -> EncryptionInPieces:
        return cuda.encrypt_in_pieces(key, self._tensors, context, weight)

    def encrypt_under(self, key: PublicKey, weight: float) -> tuple[Ciphertext, int]:
        encrypted = cuda.encrypt(key, self._tensors, weight=weight)
        return encrypted.to_host(), encrypted.clipped

    def to_host(self) -> list[NDArray[Any]]:
        return self._tensors.to_host()

    def opened(self, params: CkksParams, out: Any, *, by_host: bool = False) -> OpenedSum:
        device = self._tensors.device
        device_scheme(params, device)
        if out is not None:
            target = device_tensors(out, "out", writable=True)
            if (target.device, target.length) != (device, self.length):
                raise InputError(
                    f"out holds {target.length} values on device {target.device}; the mean has {self.length} on device "
                    f"{device}: give tensors of that length there, such as those of the update"
                )
            if by_host:
                target.check_takes()
        return DeviceSum(params, self.length, out, device, self._tensors.stream)

    def _refuse(self, bad: int | None, names: Sequence[str] | None) -> None:
        if bad is None:
            return
        number, element = self._tensors.find(bad)
        named = names is not None and len(names) == len(self._tensors.rows)
        owner = f"tensor {names[number]!r}" if named and names is not None else f"tensor {number}"
        raise InputError(f"{owner} holds NaN or Inf at flat index {element}; updates must be finite numbers")

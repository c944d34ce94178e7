"""Encryption of tensors that lie on a device."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pppml_fast import _native
from pppml_fast.cipher import CollectiveKey, PublicKey, SecretKey
from pppml_fast.cipher.expansion import check_bytes32, expansion_key
from pppml_fast.cipher.pads import PadStore
from pppml_fast.cipher.secrecy import Secret
from pppml_fast.cuda.arrays import DeviceArray, DeviceTensors, device_tensors, packed_bytes
from pppml_fast.cuda.ciphertext import Ciphertext, empty
from pppml_fast.cuda.device import device_scheme, native_errors
from pppml_fast.cuda.pending import Findings, Pending
from pppml_fast.errors import CiphertextError, InputError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import check_weight

__all__ = ["DeviceMessage", "encrypt", "encrypt_onto"]


class DeviceMessage(Secret):
    """A vector of device tensors on its way into a ciphertext; what a collective key lends itself to."""

    __slots__ = ("_key", "context", "length", "params", "prepared", "reference", "tensors", "weight", "written")

    def __init__(
        self, params: CkksParams, context: bytes, x: Any, weight: float | None, reference: Any, stream: Any
    ) -> None:
        self.params, self.context = params, context
        self.weight = check_weight(params, weight)
        self.tensors = device_tensors(x, stream=stream)
        self.reference: DeviceTensors | None = None
        if reference is not None:
            self.reference = device_tensors(
                reference, "reference tensor", device=self.tensors.device, stream=self.tensors.stream
            )
            if self.reference.length != self.tensors.length:
                raise InputError(
                    f"the reference has {self.reference.length} values, the weights {self.tensors.length}; "
                    "give both in the same layout"
                )
        self.length = self.tensors.length
        self.prepared = 0
        self.written = False
        self._key: tuple[_native.SecretKey, _native.StreamKey] | None = None

    @property
    def blocks(self) -> int:
        return self.params.block_count(self.length)

    def under(self, secret: _native.SecretKey, noise: _native.StreamKey, pads: PadStore | None = None) -> None:
        """Encrypt under this key. Pads made on the host are of no use on a device."""
        self._key = secret, noise
        if pads is not None:
            pads.close()

    def close(self) -> None:
        self._key = None

    def encrypt(
        self, out: int, packed: bool, incoming: int, keep: Any, start: int = 0, stop: int | None = None
    ) -> Pending:
        """Queue the encryption of blocks ``[start, stop)``, by default of all."""
        assert self._key is not None
        self.written = True
        with native_errors():
            scheme = device_scheme(self.params, self.tensors.device)
            report = scheme.encrypt(
                *self._key,
                expansion_key(self.params, self.context),
                self.length,
                self.tensors.rows,
                self.weight,
                out,
                packed,
                self.tensors.stream,
                reference=[] if self.reference is None else self.reference.rows,
                incoming=incoming,
                start=start,
                stop=stop,
            )
        return self.pending(report, keep)

    def pending(self, report: _native.cuda.PendingReport, keep: Any) -> Pending:
        tensors, reference = self.tensors, self.reference
        return Pending(report, lambda found: _refusal(found, tensors), (tensors, reference, keep))


def encrypt(
    key: CollectiveKey | SecretKey | PublicKey,
    x: Any,
    context: bytes | None = None,
    weight: float | None = None,
    reference: Any = None,
    out: Ciphertext | None = None,
    *,
    stream: Any = None,
) -> Ciphertext:
    """Encrypt device tensors, one or a list, as one flat vector: what ``key.encrypt`` gives of their copies.

    float32, float16, bfloat16 and float64 tensors of one device are read where they lie, in one kernel that clips,
    weights, quantises and encrypts. ``context`` is for collective keys, which serve one message and are used from here
    on, refused or not. ``reference`` is subtracted on the way. ``out`` is a ciphertext of the result's shape.

    Nothing is waited for: the tensors must stay as they are until the stream has come past this operation, or the
    result was checked. NaN and Inf turn the result into zeros and are raised as InputError by
    :meth:`Ciphertext.check`, and by whatever takes it to the host. Raises InputError on tensors that cannot be read,
    DeviceError, DeviceMemoryError, and what ``key.encrypt`` raises of keys.
    """
    params = key.params
    if isinstance(key, PublicKey):
        return _encrypt_public(key, x, weight, reference, out, stream)
    if isinstance(key, SecretKey):
        if params.keys != "secret":
            raise ParameterError(f"encrypting with the secret key needs keys='secret', not {params.keys!r}")
        message = DeviceMessage(params, os.urandom(32), x, weight, reference, stream)
        target = _target(message, out)
        message.under(key._native, _native.StreamKey.from_system())
        target._pending = [message.encrypt(target.first.address, False, 0, target.first)]
        message.close()
    else:
        message = DeviceMessage(params, check_bytes32("context", _given(context)), x, weight, reference, stream)
        target = _target(message, out)
        with key._claimed(message, target):  # type: ignore[arg-type]
            target._pending = [message.encrypt(target.first.address, False, 0, target.first)]
    target.terms, target.context, target._stream = 1, message.context, message.tensors.stream
    return target


def encrypt_onto(
    key: CollectiveKey,
    incoming: Any,
    x: Any,
    context: bytes,
    weight: float | None = None,
    reference: Any = None,
    out: Any = None,
    *,
    stream: Any = None,
) -> tuple[DeviceArray | Any, Pending]:
    """A party's turn in a ring in one kernel: packed(incoming + the encryption of ``x``), wire-ready on the device.

    ``incoming`` is the packed running sum as uint8 on the device, or None for the first party; ``out``, as many bytes,
    may be the same memory. Returns ``out`` or a new DeviceArray, and what must be waited for before it leaves:
    ``wait()`` raises InputError on NaN or Inf and CiphertextError on an incoming residue that is not below its prime;
    the result then holds zeros. The rest as :func:`encrypt`.
    """
    message = DeviceMessage(key.params, check_bytes32("context", context), x, weight, reference, stream)
    size = int(key.params._scheme.packed_bytes(message.length, True, 0, message.blocks))
    where, handle = message.tensors.device, message.tensors.stream
    target = DeviceArray(size, np.uint8, device=where, stream=handle) if out is None else out
    address, kept = packed_bytes(target, "out", size, where, handle, writable=True)
    added, holder = (0, None) if incoming is None else packed_bytes(incoming, "incoming", size, where, handle)
    if added and added != address and abs(added - address) < size:
        raise InputError("out overlaps the incoming bytes; give the same buffer, or another one")
    with key._claimed(message, target):  # type: ignore[arg-type]
        pending = message.encrypt(address, True, added, (kept, holder))
    return target, pending


def _encrypt_public(
    key: PublicKey, x: Any, weight: float | None, reference: Any, out: Ciphertext | None, stream: Any
) -> Ciphertext:
    message = DeviceMessage(key.params, b"", x, weight, reference, stream)
    target = _target(message, out)
    assert target.second is not None
    with native_errors():
        report = device_scheme(key.params, message.tensors.device).encrypt_public(
            key._native,
            _native.StreamKey.from_system(),
            message.length,
            message.tensors.rows,
            message.weight,
            target.first.address,
            target.second.address,
            False,
            message.tensors.stream,
            reference=[] if message.reference is None else message.reference.rows,
        )
    target._pending = [message.pending(report, target.residues)]
    target.terms, target.context, target._stream = 1, None, message.tensors.stream
    return target


def _target(message: DeviceMessage, out: Ciphertext | None) -> Ciphertext:
    device = message.tensors.device
    if out is None:
        with native_errors():
            device_scheme(message.params, device)  # refuses what no kernel serves before memory is taken
        return empty(message.params, message.length, device, message.tensors.stream, None)
    fresh = empty(message.params, 0, device, message.tensors.stream, None).kind
    if (out.params.id, out.length, out.kind, out.device) != (message.params.id, message.length, fresh, device):
        raise InputError(f"out is {out!r}; the encryption has {message.length} weights on device {device}")
    return out


def _given(context: bytes | None) -> bytes:
    if context is None:
        raise InputError("a collective key encrypts in a context: 32 bytes that name session, round and attempt")
    return context


def _refusal(found: Findings, tensors: DeviceTensors) -> Exception | None:
    _, non_finite, invalid, _, _ = found
    if non_finite is not None:
        number, element = tensors.find(non_finite)
        return InputError(
            f"tensor {number}, element {element}, or the reference there, is NaN or Inf; nothing was encrypted. "
            "Lower the step size or drop this update"
        )
    if invalid:
        return CiphertextError(f"{invalid} incoming residues are not below their primes: refused")
    return None

"""Exact opening of sums that lie on a device, into tensors there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.cipher.opener import Opener
from pppml_fast.cipher.opening import check_terms, opening_expansion
from pppml_fast.cipher.wire import Header
from pppml_fast.cuda.arrays import DeviceArray, device_tensors
from pppml_fast.cuda.ciphertext import Ciphertext
from pppml_fast.cuda.device import current_stream, device_scheme, native_errors, stream_handle
from pppml_fast.cuda.pending import Findings, Pending
from pppml_fast.errors import CiphertextError, InputError, OpeningError
from pppml_fast.params import CkksParams

__all__ = ["decrypt", "decrypt_range"]


def decrypt(
    key: Opener,
    ciphertext: Ciphertext,
    out: Any = None,
    dtype: Any = np.float32,
    integers: bool = False,
    *,
    wait: bool = True,
    stream: Any = None,
) -> Any:
    """The exact sum in ``ciphertext``, written to device tensors: what ``key.decrypt`` gives of its copy.

    ``out``, which is then returned, is a float tensor of the ciphertext's device or a list of them that together hold
    its weights, each in its own dtype: the sum is scattered where they lie. Else it is a new DeviceArray of ``dtype``
    (float32 or float64), or of int64 with ``integers=True``.

    Waits for the residual check, unless ``wait=False``: then (out, pending) is returned, and ``pending.wait()`` must
    have returned before the values are used. A refused sum leaves zeros in ``out`` and raises OpeningError. Raises
    CiphertextError for foreign parameters and other numbers of terms, as ``key.decrypt`` does, and what the
    ciphertext's own ``check`` raises.
    """
    params = key.params
    if ciphertext.params.id != params.id:
        raise CiphertextError(f"the ciphertext was made under {ciphertext.params.name}, the key under {params.name}")
    if ciphertext.terms > params.parties:
        raise CiphertextError(
            f"the ciphertext adds {ciphertext.terms} encryptions; the parameters hold {params.parties} (parties)"
        )
    check_terms(ciphertext.terms, key._expected_terms)
    device, length = ciphertext.device, ciphertext.length
    address, rows, keep, handle, target = _target(ciphertext, out, dtype, integers, stream)
    with native_errors():
        report = device_scheme(params, device).open(
            key._native,
            length,
            ciphertext.terms,
            ciphertext.first.address,
            None if ciphertext.second is None else ciphertext.second.address,
            False,
            opening_expansion(params, ciphertext),  # type: ignore[arg-type]
            address,
            rows,
            handle,
        )
    pending = Pending(report, _refusal, (ciphertext, keep))
    if not wait:
        return target, pending
    ciphertext.check()
    pending.wait()
    return target


def decrypt_range(
    key: Opener,
    header: Header,
    start: int,
    stop: int,
    rows: Sequence[Any],
    out: Any,
    divisor: float = 1.0,
    *,
    stream: Any = None,
) -> None:
    """The exact sum in blocks ``[start, stop)`` of the ciphertext that ``header`` describes, over ``divisor``.

    ``rows`` are the packed bytes of c0 in those blocks and, where the kind has one, of c1, in the host's memory.
    ``out`` are device tensors, one or a list, that hold all weights of the ciphertext: those of the blocks are written,
    each integer times step in float64, divided, rounded to its tensor's dtype. Waits. Raises what
    ``key.decrypt_range`` does; the weights of those blocks are then zeros.
    """
    params = key.params
    check_terms(header.terms, key._expected_terms)
    expansion = opening_expansion(params, header)
    tensors = device_tensors(out, "out", stream=stream, writable=True)
    if tensors.length != header.length:
        raise InputError(f"the tensors of out hold {tensors.length} values; the sum has {header.length}")
    width = params.block_weights
    places = tensors.between(start * width, min(stop * width, header.length))
    device, handle = tensors.device, tensors.stream
    packed = [DeviceArray.from_host(_row(params, header, c, start, stop, row), device=device, stream=handle)
              for c, row in enumerate(rows)]  # fmt: skip
    first, second = packed if len(packed) == 2 else (packed[0], None)
    with native_errors():
        report = device_scheme(params, device).open(
            key._native,
            header.length,
            header.terms,
            first.address,
            None if second is None else second.address,
            True,
            expansion,
            0,
            places,
            handle,
            start=start,
            stop=stop,
            divisor=divisor,
        )
    Pending(report, _refusal, (tensors, packed)).wait()


def _row(params: CkksParams, header: Header, component: int, start: int, stop: int, row: Any) -> NDArray[np.uint8]:
    """The packed bytes of one component. Raises CiphertextError on another number of them."""
    data = np.frombuffer(row, np.uint8)
    expected = int(params._scheme.packed_bytes(header.length, component == 0, start, stop))
    if data.size != expected:
        raise CiphertextError(f"blocks {start} .. {stop} take {expected} packed bytes; {data.size} are here")
    return data


def _target(
    ciphertext: Ciphertext, out: Any, dtype: Any, integers: bool, stream: Any
) -> tuple[int, list[tuple[int, int, str]], Any, int, Any]:
    """(address of int64, rows of float tensors, what keeps them, stream, what is returned)."""
    device, length = ciphertext.device, ciphertext.length
    if out is None or isinstance(out, DeviceArray):
        handle = ciphertext._stream if stream is None else stream_handle(stream)
        wanted = np.dtype(np.int64 if integers else dtype)
        if wanted not in (np.int64, np.float32, np.float64, np.float16):
            raise InputError(f"dtype {wanted} cannot hold opened weights; use float32, float64 or float16")
        target = DeviceArray(length, wanted, device=device, stream=handle) if out is None else out
        if target.size != length or (integers != (target.dtype == np.int64)) or target.device != device:
            raise InputError(f"out is {target!r}; the sum has {length} values on device {device}")
        if integers:
            return target.address, [], target, handle, target
        return 0, [(target.address, length, target.dtype.name)], target, handle, target
    if integers:
        raise InputError("integers=True opens to a DeviceArray of int64")
    items = list(out) if isinstance(out, list | tuple) else [out]
    handle = current_stream(device, items, stream) or ciphertext._stream
    tensors = device_tensors(out, "out", device=device, stream=handle, writable=True)
    if tensors.length != length:
        raise InputError(f"the tensors of out hold {tensors.length} values; the sum has {length}")
    return 0, tensors.rows, tensors, handle, out


def _refusal(found: Findings) -> Exception | None:
    _, _, invalid, _, refused = found
    if invalid:
        return CiphertextError(f"{invalid} residues are not below their primes: refused")
    if refused is not None:
        return OpeningError(
            f"block {refused} fails its residual check: a contribution is missing, doubled or foreign, or the opening "
            "key is not the sum of the contributors' keys; nothing was released"
        )
    return None

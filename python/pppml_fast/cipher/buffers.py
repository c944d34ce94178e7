"""Memory of others and for others: bytes that are read and written in place, residues as arrays and DLPack capsules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import memory
from pppml_fast.errors import CiphertextError, InputError
from pppml_fast.tensors import check_apart, host_buffer

__all__ = [
    "HOST",
    "ReadableBuffer",
    "WritableBuffer",
    "as_array",
    "as_dlpack",
    "bytes_target",
    "bytes_view",
    "check_disjoint_or_same",
    "readonly",
    "writable_view",
]

# What packed residues are read from and written into: exactly as many bytes as they take.
ReadableBuffer = bytes | bytearray | memoryview | NDArray[np.uint8]
WritableBuffer = bytearray | memoryview | NDArray[np.uint8]
# kDLCPU, device 0.
HOST = (1, 0)


def readonly(words: NDArray[Any]) -> NDArray[Any]:
    """A view of an array that cannot be written through."""
    view = words.view()
    view.flags.writeable = False
    return view


def as_array(words: NDArray[Any], dtype: DTypeLike | None, copy: bool | None) -> NDArray[Any]:
    """What ``__array__`` gives: ``words`` itself where that suffices; ValueError where it does not and must."""
    wanted = words.dtype if dtype is None else np.dtype(dtype)
    if copy is True:
        return words.astype(wanted)
    if wanted == words.dtype:
        return words
    if copy is False:
        raise ValueError(f"residues are {words.dtype}; as {wanted} they are a copy, which copy=False forbids")
    return words.astype(wanted)


def as_dlpack(
    words: NDArray[Any],
    stream: Any,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """What ``__dlpack__`` gives of a read-only array: itself to who can be told so, else a copy or BufferError."""
    if dl_device is not None and tuple(dl_device) != HOST:
        raise BufferError(f"residues lie in host memory; they are not exported to device {tuple(dl_device)}")
    if max_version is not None and max_version[0] >= 1:
        try:
            return words.__dlpack__(stream=stream, max_version=max_version, copy=copy)
        except TypeError:
            pass  # NumPy before 2.1 exports as DLPack 0 did
    if copy is False:
        raise BufferError("read-only memory needs DLPack 1.0 on both sides; with copy=None or True residues are copied")
    return words.copy().__dlpack__(stream=stream)


def bytes_view(data: Any) -> memoryview:
    """The bytes of a contiguous buffer; raises CiphertextError else."""
    try:
        return memoryview(host_buffer(data)).cast("B")
    except (TypeError, InputError) as error:
        raise CiphertextError(f"ciphertext bytes must be contiguous bytes: {error}") from None


def bytes_target(size: int, out: WritableBuffer | None, tensors: Sequence[Any]) -> memoryview:
    """Where the ``size`` bytes of an encryption of ``tensors`` go: ``out``, or new memory.

    Raises InputError when ``out`` does not fit or shares memory with a tensor.
    """
    if out is None:
        return memory.empty(size, np.uint8).data
    view = writable_view(out, size)
    check_apart(np.asarray(view), tensors)
    return view


def writable_view(out: Any, size: int) -> memoryview:
    """The ``size`` bytes of a writable contiguous buffer; raises InputError else."""
    try:
        view = memoryview(host_buffer(out)).cast("B")
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

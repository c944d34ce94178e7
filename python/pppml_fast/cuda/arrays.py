"""Memory of devices: this library's own, and tensors of others, read and written where they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.cuda.device import check_device, current_stream, native_errors, stream_handle
from pppml_fast.errors import InputError

__all__ = ["DeviceArray", "DeviceTensors", "device_tensors", "is_device_value", "packed_bytes", "wipe"]

# kDLCUDA and kDLCUDAManaged of DLPack.
_CUDA_DEVICES = (2, 13)
_WIDTHS = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
_FLOATS = tuple(_WIDTHS)
_LEGACY_STREAM = 1  # what DLPack and __cuda_array_interface__ call CUDA's default stream


class DeviceArray:
    """One-dimensional numbers in the memory of a device, given back with the object.

    Has ``__dlpack__`` and ``__cuda_array_interface__``: ``torch.from_dlpack(array)`` and ``cupy.asarray(array)`` share
    its memory. ``dtype`` is a NumPy dtype of integers or floats.
    """

    __slots__ = ("__weakref__", "_memory", "_stream", "device", "dtype", "size")

    def __init__(self, size: int, dtype: Any = np.float32, *, device: int = 0, stream: Any = None) -> None:
        """``size`` numbers, whatever their memory holds. Raises DeviceError, DeviceMemoryError."""
        self.size, self.dtype = int(size), np.dtype(dtype)
        self.device = check_device(device)
        self._stream = current_stream(device, [], stream)
        with native_errors():
            self._memory = _native.cuda.DeviceMemory(device, self._stream, self.size * self.dtype.itemsize)

    @classmethod
    def from_host(cls, values: Any, *, device: int = 0, stream: Any = None) -> DeviceArray:
        """A copy of a host array, flattened, or of bytes."""
        array = np.ascontiguousarray(np.frombuffer(values, np.uint8) if isinstance(values, bytes) else values)
        flat = array.reshape(-1)
        result = cls(flat.size, flat.dtype, device=device, stream=stream)
        with native_errors():
            _native.cuda.to_device(device, result._stream, result.address, flat.view(np.uint8))
        return result

    def to_host(self, *, stream: Any = None) -> NDArray[Any]:
        """A copy in host memory. Waits for what was queued on the stream, by default the one of the array's making."""
        out = np.empty(self.size, self.dtype)
        with native_errors():
            handle = self._stream if stream is None else stream_handle(stream)
            _native.cuda.to_host(self.device, handle, out.view(np.uint8), self.address)
        return out

    @property
    def address(self) -> int:
        """Where it lies; 0 when it is empty."""
        return self._memory.address

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return self.size * int(self.dtype.itemsize)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"DeviceArray(size={self.size}, dtype={self.dtype}, device={self.device})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": (self.size,),
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self._stream or _LEGACY_STREAM,
        }

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule that shares the memory. The consumer's stream waits for the array's own."""
        if (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()) or copy is True:
            raise BufferError(f"the array lies on device {self.device} and is shared, not copied; take to_host()")
        with native_errors():
            if stream not in (None, -1) and int(stream) not in (self._stream, self._stream or _LEGACY_STREAM):
                _native.cuda.wait(self.device, int(stream), self._stream)
            kind, number = self.__dlpack_device__()
            return _native.cuda.export_tensor(self, self.address, self.size, self.dtype.name, kind, number)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA_DEVICES[0], self.device


@dataclass(frozen=True)
class DeviceTensors:
    """Tensors of one device as the core takes them, and what keeps their memory."""

    rows: list[tuple[int, int, str]]
    device: int
    stream: int
    keep: list[Any] = field(repr=False)

    @property
    def length(self) -> int:
        """Values of all of them."""
        return sum(length for _, length, _ in self.rows)

    def to_host(self) -> list[NDArray[Any]]:
        """Copies in host memory, flat, bfloat16 as float32. Waits for the stream."""
        return [self._copy(address, length, dtype) for address, length, dtype in self.rows]

    def take(self, values: NDArray[np.float32]) -> None:
        """Write ``length`` values of the host and wait. Raises InputError unless all tensors are float32."""
        self.check_takes()
        at = 0
        for address, length, _ in self.rows:
            with native_errors():
                part = np.ascontiguousarray(values[at : at + length]).view(np.uint8)
                _native.cuda.to_device(self.device, self.stream, address, part)
            at += length
        self.synchronize()

    def check_takes(self) -> None:
        """Raise InputError unless `take` can write to all of them."""
        for index, (_, _, dtype) in enumerate(self.rows):
            if dtype != "float32":
                raise InputError(f"tensor {index} is {dtype}; what is summed on the host goes to float32 tensors")

    def _copy(self, address: int, length: int, dtype: str) -> NDArray[Any]:
        out = np.empty(length, np.uint16 if dtype == "bfloat16" else dtype)
        with native_errors():
            _native.cuda.to_host(self.device, self.stream, out.view(np.uint8), address)
        return (out.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else out

    def between(self, first: int, last: int) -> list[tuple[int, int, str]]:
        """Rows of the values ``[first, last)`` of the flat vector."""
        rows, at = [], 0
        for address, length, dtype in self.rows:
            begin, end = max(first - at, 0), min(last - at, length)
            if begin < end:
                rows.append((address + begin * _WIDTHS[dtype], end - begin, dtype))
            at += length
        return rows

    def synchronize(self) -> None:
        """Wait for the stream: what was queued is there for other streams and threads."""
        with native_errors():
            _native.cuda.synchronize(self.device, self.stream)

    def wipe(self) -> None:
        """Write zeros into all of them and wait."""
        with native_errors():
            for address, length, dtype in self.rows:
                _native.cuda.zero(self.device, self.stream, address, length * _WIDTHS[dtype])
        self.synchronize()

    def find(self, index: int) -> tuple[int, int]:
        """Tensor and element of value ``index`` of the flat vector."""
        for number, (_, length, _) in enumerate(self.rows):
            if index < length:
                return number, index
            index -= length
        raise IndexError(index)


def device_tensors(
    values: Any, what: str = "tensor", *, device: int | None = None, stream: Any = None, writable: bool = False
) -> DeviceTensors:
    """The float tensors of ``values``, one or a list, all of one device: ``device``, or that of the first.

    ``stream`` waits for those who are still writing to them. Raises InputError that names the tensor for host memory,
    another device, gaps between elements, another dtype or read-only memory; DeviceError where there is no device. What
    was made here before is returned as it is.
    """
    if isinstance(values, DeviceTensors):
        return values
    items = list(values) if isinstance(values, list | tuple) else [values]
    found = _device_of(items, device)
    check_device(found)
    handle = current_stream(found, items, stream)
    rows, keep = [], []
    for index, item in enumerate(items):
        name = f"{what} {index}"
        view = _view(item, name, found, handle)
        if view.dtype not in _FLOATS:
            raise InputError(f"{name} has dtype {view.dtype}; use {', '.join(_FLOATS)}")
        _check(view, name, found, writable)
        rows.append((view.address, view.length, view.dtype))
        keep.append((item, view))
    return DeviceTensors(rows, found, handle, keep)


def is_device_value(x: Any) -> bool:
    """Whether ``x``, one tensor or the first of a list, lies in the memory of a CUDA device."""
    first = x[0] if isinstance(x, list | tuple) and x else x
    if isinstance(first, np.ndarray):
        return False
    if hasattr(first, "__dlpack_device__"):
        return int(first.__dlpack_device__()[0]) in _CUDA_DEVICES
    return hasattr(first, "__cuda_array_interface__")


def wipe(x: Any, *, stream: Any = None) -> None:
    """Zeros into device tensors, one or a list. Waits. Raises InputError where they cannot be written."""
    device_tensors(x, stream=stream, writable=True).wipe()


def packed_bytes(value: Any, what: str, size: int, device: int, stream: int, writable: bool = False) -> Any:
    """(address, what keeps it) of ``size`` bytes of a device. Raises InputError where ``value`` is something else."""
    view = _view(value, what, device, stream)
    if view.dtype != "uint8" or view.length != size:
        raise InputError(f"{what} takes {size} bytes (uint8); it is {view.length} of {view.dtype}")
    _check(view, what, device, writable)
    return view.address, (value, view)


@dataclass(frozen=True)
class _View:
    """A foreign tensor as it describes itself."""

    address: int
    length: int
    dtype: str
    device: int
    contiguous: bool
    read_only: bool
    owner: Any = field(repr=False, default=None)


def _check(view: _View, name: str, device: int, writable: bool) -> None:
    if view.device < 0:
        raise InputError(
            f"{name} lies in host memory; encrypt it with its key's own methods, or move it, as with tensor.cuda()"
        )
    if view.device != device:
        raise InputError(f"{name} lies on device {view.device}, the others on device {device}: all must share one")
    if not view.contiguous:
        raise InputError(f"{name} is not contiguous; give a contiguous tensor, such as tensor.contiguous()")
    if writable and view.read_only:
        raise InputError(f"{name} is read-only; give a writable one")


def _device_of(items: list[Any], wanted: int | None) -> int:
    if wanted is not None or not items:
        return wanted or 0
    first = items[0]
    if hasattr(first, "__dlpack_device__"):
        kind, number = first.__dlpack_device__()
        return int(number) if int(kind) in _CUDA_DEVICES else 0
    if hasattr(first, "__cuda_array_interface__"):
        return max(0, int(_native.cuda.device_of(first.__cuda_array_interface__["data"][0])))
    return 0


def _view(value: Any, name: str, device: int, stream: int) -> _View:
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _dlpack_view(value, name, stream)
    if hasattr(value, "__cuda_array_interface__"):
        return _interface_view(value.__cuda_array_interface__, name, device, stream)
    raise InputError(
        f"{name} of type {type(value).__name__} has neither DLPack nor __cuda_array_interface__: it is no device tensor"
    )


def _dlpack_view(value: Any, name: str, stream: int) -> _View:
    kind, number = value.__dlpack_device__()
    if int(kind) not in _CUDA_DEVICES:
        return _View(0, 0, _FLOATS[0], -1, True, False)
    plain = value.detach() if hasattr(value, "detach") else value
    try:
        tensor = _native.cuda.ForeignTensor(plain.__dlpack__(stream=stream or _LEGACY_STREAM))
    except (BufferError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{name} of type {type(value).__name__} cannot be read by DLPack: {error}") from None
    return _View(tensor.address, tensor.length, tensor.dtype, int(number), tensor.contiguous, tensor.read_only, tensor)


def _interface_view(interface: dict[str, Any], name: str, device: int, stream: int) -> _View:
    dtype = np.dtype(interface["typestr"])
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    address, read_only = interface["data"]
    length = math.prod(shape)
    if interface.get("mask") is not None or not dtype.isnative:
        raise InputError(f"{name} has a mask or foreign byte order; give plain numbers")
    producer = interface.get("stream")
    where = int(_native.cuda.device_of(address)) if length else device
    if producer is not None and where >= 0 and int(producer) not in (stream, stream or _LEGACY_STREAM):
        with native_errors():
            _native.cuda.wait(where, stream, int(producer))
    return _View(address, length, dtype.name, where, _contiguous(shape, strides, dtype.itemsize), bool(read_only))


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, step: int) -> bool:
    if strides is None or 0 in shape:
        return True
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True

"""Devices: whether there are any, what they are, and their streams."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pppml_fast import _native
from pppml_fast.errors import DeviceError, DeviceMemoryError, InputError, ParameterError
from pppml_fast.params import CkksParams

__all__ = [
    "DeviceInfo",
    "check_device",
    "current_stream",
    "device_count",
    "device_info",
    "device_scheme",
    "is_available",
    "native_errors",
    "stream_handle",
    "why_unavailable",
]


@dataclass(frozen=True)
class DeviceInfo:
    """A device: its number, name, compute capability, and bytes of memory, all and free."""

    index: int
    name: str
    capability: tuple[int, int]
    memory: int
    free_memory: int


def is_available() -> bool:
    """Whether this build, the driver and the machine have a CUDA device to work on. Never raises."""
    return not _native.cuda.why_unusable()


def why_unavailable() -> str:
    """What :func:`is_available` misses, in words; empty where it misses nothing."""
    return str(_native.cuda.why_unusable())


def device_count() -> int:
    """Number of devices; 0 where none can be used."""
    return int(_native.cuda.device_count()) if is_available() else 0


def device_info(device: int = 0) -> DeviceInfo:
    """What is known of a device. Raises DeviceError where it does not exist."""
    check_device(device)
    with native_errors():
        name, major, minor, memory, free = _native.cuda.describe(device)
    return DeviceInfo(device, name, (major, minor), memory, free)


def check_device(device: int) -> int:
    """``device`` where there is one of that number; raises DeviceError else."""
    if reason := why_unavailable():
        raise DeviceError(reason)
    if not isinstance(device, int) or not 0 <= device < device_count():
        raise DeviceError(f"device {device!r} does not exist; devices 0 .. {device_count() - 1} are here")
    return device


@contextlib.contextmanager
def native_errors() -> Iterator[None]:
    """The errors of the core as those of this package."""
    try:
        yield
    except _native.cuda.DeviceMemoryError as error:
        raise DeviceMemoryError(str(error)) from None
    except _native.cuda.DeviceError as error:
        raise DeviceError(str(error)) from None
    except _native.RequirementError as error:
        raise ParameterError(str(error)) from None


def device_scheme(params: CkksParams, device: int) -> _native.cuda.DeviceScheme:
    """The operations of ``params`` on a device, its tables uploaded at first use and kept with ``params``."""
    check_device(device)
    schemes: dict[int, _native.cuda.DeviceScheme] = params._device_schemes
    if device not in schemes:
        with native_errors():
            schemes[device] = _native.cuda.DeviceScheme(params._scheme, device)
    return schemes[device]


def current_stream(device: int, values: list[Any], stream: Any) -> int:
    """The handle of ``stream``, or for None of the current stream of the library that ``values`` are of."""
    if stream is not None:
        return stream_handle(stream)
    for library, current in (("torch", _torch_stream), ("cupy", _cupy_stream)):
        if library in sys.modules and any(_is_of(library, value) for value in values):
            return current(sys.modules[library], device)
    return 0


def _is_of(library: str, value: Any) -> bool:
    """Whether a tensor is one of that library, and not one of PyTorch's in host memory."""
    return type(value).__module__.split(".")[0] == library and bool(getattr(value, "is_cuda", True))


def stream_handle(stream: Any) -> int:
    """The cudaStream_t of a stream of PyTorch, CuPy, Numba or ``__cuda_stream__``, or an integer that is one."""
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr", "handle"):
        if isinstance(found := getattr(stream, name, None), int):
            return found
    raise InputError(f"stream of type {type(stream).__name__} is no CUDA stream; give torch.cuda.Stream or a handle")


def _torch_stream(torch: Any, device: int) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream)


def _cupy_stream(cupy: Any, device: int) -> int:
    with cupy.cuda.Device(device):
        return int(cupy.cuda.get_current_stream().ptr)

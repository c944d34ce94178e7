"""What callers may hand in as weights, turned into the list of tensors that the core reads in place."""

from __future__ import annotations

import functools
import math
import numbers
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.errors import InputError
from pppml_fast.params import CkksParams

__all__ = [
    "ArrayOutput",
    "TensorInput",
    "check_apart",
    "check_finite",
    "check_weight",
    "explain_non_finite",
    "host_buffer",
    "output_array",
    "reference_list",
    "tensor_list",
    "total_length",
]

# Marks the bits of a tensor that NumPy has no dtype for: (_BFLOAT16, uint16 array).
_BFLOAT16 = "bfloat16"
_CHUNK = 1 << 16
# Devices of DLPack whose memory the processor reads: kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged.
_HOST_DEVICES = (1, 3, 11, 13)
_LARGEST_SINGLE = float(np.finfo(np.float32).max)

# A float array, or a list or tuple of them: NumPy, anything with the buffer protocol, `__array__` or DLPack.
TensorInput = Any
# Writable memory for results: an array, a CPU tensor, or a buffer of numbers.
ArrayOutput = Any


def tensor_list(values: TensorInput) -> list[Any]:
    """The tensors of ``values`` in order, each as the core reads it in place, copied only if it does not.

    It reads contiguous arrays, and rows at equal distances such as ``x[:, :k]``. float32, float64, float16 and bfloat16
    are read as they are; a list of Python numbers counts as one float64 array. Raises InputError for other dtypes,
    naming the tensor.
    """
    if isinstance(values, list | tuple) and not all(isinstance(item, numbers.Real) for item in values):
        return [_tensor(item, index) for index, item in enumerate(values)]
    return [_tensor(values, 0)]


def _tensor(value: Any, index: int) -> Any:
    try:
        _check_on_host(value, f"tensor {index}")
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            # NumPy has no bfloat16: hand over the bits and say what they are.
            bits = value.detach().view(sys.modules["torch"].int16)
            return _BFLOAT16, _readable(np.from_dlpack(bits).view(np.uint16))
        array = _as_array(value)
    except InputError:
        raise
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise InputError(f"tensor {index} of type {type(value).__name__} is no array of numbers: {error}") from None
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(
            f"tensor {index} has dtype {array.dtype}; give float32, float64, float16 or bfloat16 "
            "(integer buffers do not travel as weights)"
        )
    # The core reads native byte order; files of other machines (NIfTI, FITS) arrive in the opposite one.
    return _readable(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def _readable(array: NDArray[Any]) -> NDArray[Any]:
    """``array`` where the core reads it in place, else a copy."""
    return array if _native.reads_in_place(array) else np.ascontiguousarray(array)


def _as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list | tuple):
        return np.asarray(value, dtype=np.float64)
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array_interface__"):
        return np.from_dlpack(value.detach() if hasattr(value, "detach") else value)
    return np.asarray(value)


def _check_on_host(value: Any, name: str) -> None:
    """Raise InputError where a tensor lies in the memory of a device."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return
    kind, _ = value.__dlpack_device__()
    if kind not in _HOST_DEVICES:
        where = getattr(value, "device", f"of DLPack type {int(kind)}")
        raise InputError(f"{name} lies on device {where}; give its copy in host memory, such as tensor.cpu()")


def output_array(out: Any) -> NDArray[Any]:
    """The memory of an array, tensor or buffer as an array that results are written to, never a copy.

    Raises InputError for what lies on a device and for what NumPy cannot look into, lists for one.
    """
    if isinstance(out, np.ndarray):
        return out
    try:
        _check_on_host(out, "out")
        plain = out.detach() if hasattr(out, "detach") else out
        first, second = (_shared_array(plain) for _ in range(2))
    except InputError:
        raise
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise InputError(f"out of type {type(out).__name__} cannot be written to: {error}") from None
    # Whoever makes a copy makes another one each time.
    if first.dtype.kind == "O" or (first.size and not np.may_share_memory(first, second)):
        raise InputError(f"out of type {type(out).__name__} is no memory that results go to; give a writable array")
    return first


def _shared_array(value: Any) -> NDArray[Any]:
    # `__array__` first: arrays of NumPy 1's from_dlpack are read-only.
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def host_buffer(data: Any) -> Any:
    """``data`` where it has the buffer protocol, else the memory of a tensor in an array, which has it."""
    if isinstance(data, bytes | bytearray | memoryview | np.ndarray) or not hasattr(data, "__dlpack__"):
        return data
    return output_array(data)


def total_length(tensors: list[Any]) -> int:
    """Number of weights in the list that :func:`tensor_list` returned."""
    return sum(int((t[1] if isinstance(t, tuple) else t).size) for t in tensors)


def check_apart(out: NDArray[Any], tensors: Sequence[Any]) -> None:
    """Raise InputError when ``out`` shares memory with a tensor."""
    if any(np.may_share_memory(out, t[1] if isinstance(t, tuple) else t) for t in tensors):
        raise InputError("out shares memory with the weights, which are read while it is written; give another buffer")


def check_weight(params: CkksParams, weight: float | None) -> float:
    """The share that multiplies a vector under ``params``, as a float in (0, 1].

    None stands for 1 where shares do not exist (``weights="free"``). Raises InputError for a share out of range and,
    under ``weights="public"``, for a share that was not given: several shares of 1 would sum beyond the headroom.
    """
    if weight is None:
        if params.weights == "public":
            raise InputError(
                "parameters with weights='public' need weight=, this party's share in (0, 1]; all shares sum to 1"
            )
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not 0 < weight <= 1:
        raise InputError(f"weight = {weight!r} is no share in (0, 1]; shares p_i sum to 1")
    return float(weight)


def reference_list(reference: TensorInput | None, tensors: list[Any]) -> list[Any]:
    """The tensors to be subtracted, none for None. Raises InputError unless they are as many values as ``tensors``."""
    if reference is None:
        return []
    subtracted = tensor_list(reference)
    if total_length(subtracted) != total_length(tensors):
        raise InputError(
            f"the reference has {total_length(subtracted)} values, the weights {total_length(tensors)}; "
            "give both in the same layout"
        )
    return subtracted


def check_finite(params: CkksParams, tensors: list[Any], reference: Sequence[Any] = ()) -> None:
    """Read every value once; raise InputError that names tensor and element of the first NaN or Inf.

    With a ``reference`` also of the first value beyond float32, where differences are taken in float32: both might be.
    """
    largest = _LARGEST_SINGLE if reference and params._checked.single_precision else math.inf
    for part, what in ((tensors, "tensor"), (reference, "reference tensor")):
        for index, tensor in enumerate(part):
            found = _first_unfit(tensor, largest)
            if found is not None:
                raise _refusal(what, index, found, tensor)


def _first_unfit(tensor: Any, largest: float) -> int | None:
    values, finite = _bits_or_values(tensor)
    if values.dtype == np.float64 and largest < math.inf:
        finite = functools.partial(_at_most, largest)
    before = 0
    # Pieces in C order, in place wherever they are contiguous.
    pieces: Any = np.nditer(values, flags=["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=_CHUNK)
    for piece in pieces:
        marks = finite(piece)
        if not marks.all():
            return before + int(np.argmin(marks))
        before += piece.size
    return None


def _bits_or_values(tensor: Any) -> tuple[NDArray[Any], Callable[[Any], Any]]:
    """An array, and what marks those of its elements that stand for finite numbers."""
    if isinstance(tensor, tuple):
        return tensor[1], lambda bits: (bits & 0x7F80) != 0x7F80
    return tensor, np.isfinite


def _at_most(largest: float, values: NDArray[Any]) -> Any:
    return np.abs(values) <= largest


def explain_non_finite(error: _native.NonFiniteError, tensors: list[Any], reference: Sequence[Any] = ()) -> InputError:
    """The refusal of a NaN or Inf, naming tensor and element."""
    index = int(error.args[0].split()[1])
    owner, element, tensor = _owner(tensors, index)
    values, finite = _bits_or_values(tensor)
    if reference and finite(values[np.unravel_index(element, values.shape)]):
        number, offset, subtracted = _owner(reference, index)
        values, finite = _bits_or_values(subtracted)
        if not finite(values[np.unravel_index(offset, values.shape)]):
            return _refusal("reference tensor", number, offset, subtracted)
    return _refusal("tensor", owner, element, tensor)


def _owner(tensors: Sequence[Any], index: int) -> tuple[int, int, Any]:
    """Which tensor holds element ``index`` of the flat vector: its number, the element's within it, and itself."""
    for number, tensor in enumerate(tensors):
        size = total_length([tensor])
        if index < size:
            return number, index, tensor
        index -= size
    raise IndexError(index)


def _refusal(what: str, index: int, element: int, tensor: Any) -> InputError:
    values, finite = _bits_or_values(tensor)
    value = values[np.unravel_index(element, values.shape)]
    problem = f"= {value:g} exceeds float32" if finite(value) else "is NaN or Inf"
    return InputError(
        f"{what} {index}, element {element} {problem}; nothing was encrypted. Lower the step size or drop this update"
    )

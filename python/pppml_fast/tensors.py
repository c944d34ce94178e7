"""What callers may hand in as weights, turned into the list of contiguous tensors that the core reads in place."""

from __future__ import annotations

import numbers
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.errors import InputError
from pppml_fast.params import CkksParams

__all__ = ["TensorInput", "check_weight", "explain_non_finite", "tensor_list", "total_length"]

# A float array, or a list or tuple of them: NumPy, anything with the buffer protocol, `__array__` or DLPack.
TensorInput = Any


def tensor_list(values: TensorInput) -> list[Any]:
    """The tensors of ``values`` in order, each contiguous, copied only if it was not.

    float32, float64, float16 and bfloat16 are read as they are; a list of Python numbers counts as one float64 array.
    Raises InputError for other dtypes, naming the tensor.
    """
    if isinstance(values, list | tuple) and not all(isinstance(item, numbers.Real) for item in values):
        return [_tensor(item, index) for index, item in enumerate(values)]
    return [_tensor(values, 0)]


def _tensor(value: Any, index: int) -> Any:
    try:
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            # NumPy has no bfloat16: hand over the bits and say what they are.
            bits = value.detach().contiguous().view(sys.modules["torch"].int16).reshape(-1)
            return "bfloat16", np.from_dlpack(bits).view(np.uint16)
        array = _as_array(value)
    except (TypeError, ValueError, BufferError) as error:
        raise InputError(f"tensor {index} of type {type(value).__name__} is no array of numbers: {error}") from None
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(
            f"tensor {index} has dtype {array.dtype}; give float32, float64, float16 or bfloat16 "
            "(integer buffers do not travel as weights)"
        )
    # The core reads native byte order; files of other machines (NIfTI, FITS) arrive in the opposite one.
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(-1)


def _as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list | tuple):
        return np.asarray(value, dtype=np.float64)
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array_interface__"):
        return np.from_dlpack(value.detach() if hasattr(value, "detach") else value)
    return np.asarray(value)


def total_length(tensors: list[Any]) -> int:
    """Number of weights in the list that :func:`tensor_list` returned."""
    return sum(int((t[1] if isinstance(t, tuple) else t).size) for t in tensors)


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


def explain_non_finite(error: _native.NonFiniteError, tensors: list[Any]) -> InputError:
    """The refusal of a NaN or Inf, naming tensor and element."""
    left = int(error.args[0].split()[1])
    for index, tensor in enumerate(tensors):
        size = int((tensor[1] if isinstance(tensor, tuple) else tensor).size)
        if left < size:
            return InputError(
                f"tensor {index}, element {left} is NaN or Inf; nothing was encrypted. "
                "Lower the step size or drop this update"
            )
        left -= size
    return InputError(str(error))

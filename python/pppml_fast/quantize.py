"""Quantisation: the integers that encryption rounds weights to, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native
from pppml_fast.errors import InputError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.tensors import (
    ArrayOutput,
    TensorInput,
    check_apart,
    check_weight,
    explain_non_finite,
    output_array,
    reference_list,
    tensor_list,
    total_length,
)

__all__ = ["check_out", "count_clipped", "dequantize", "narrowed", "quantize", "quantize_counting"]


def quantize(
    params: CkksParams,
    x: TensorInput,
    weight: float | None = None,
    reference: TensorInput | None = None,
    out: ArrayOutput | None = None,
) -> NDArray[np.int64]:
    """The int64 values that encryption rounds ``x`` to: round(weight * clip(x - reference) / step), one flat vector.

    Of slots they are the coefficients of the polynomials that hold the clipped values, N per block.

    ``x`` is a float array or a list of them; ``weight`` is the share that ``weights="public"`` requires; ``reference``,
    as many values, is subtracted on the way, without an array of differences. Under ``rounding="stochastic"`` every
    call rounds anew, with fresh randomness from the system. ``out``, which is written to where it lies and returned,
    is a contiguous int64 array, buffer or CPU tensor of that length. Raises InputError on NaN, Inf, an unsuitable dtype
    or length.
    """
    values, _ = _quantize(params, x, weight, reference, None if out is None else output_array(out))
    return values if out is None else out


def count_clipped(params: CkksParams, x: TensorInput, reference: TensorInput | None = None) -> int:
    """How many values of ``x - reference`` lie outside ``[-clip, clip]`` and would be clipped."""
    return _quantize(params, x, 1.0, reference, None)[1]


def quantize_counting(params: CkksParams, x: TensorInput, weight: float | None = None) -> tuple[NDArray[np.int64], int]:
    """What `quantize` gives, and how many of the values were clipped, in one pass."""
    return _quantize(params, x, weight, None, None)


def _quantize(
    params: CkksParams,
    x: TensorInput,
    weight: float | None,
    reference: TensorInput | None,
    out: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], int]:
    tensors = tensor_list(x)
    subtracted = reference_list(reference, tensors)
    if out is not None:
        check_out(out, (params.integer_count(total_length(tensors)),), "i")
        if not out.flags.c_contiguous:
            raise InputError("out must be contiguous")
        check_apart(out, tensors + subtracted)
    rounding = _native.StreamKey.from_system() if params.rounding == "stochastic" else None
    try:
        values, clipped = params._scheme.quantize(
            tensors, check_weight(params, weight), reference=subtracted, rounding=rounding, out=out
        )
    except _native.NonFiniteError as error:
        raise explain_non_finite(error, tensors, subtracted) from None
    except _native.RequirementError as error:
        raise ParameterError(str(error)) from None
    return values, int(clipped)


def dequantize(
    params: CkksParams,
    integers: NDArray[np.int64],
    dtype: DTypeLike = np.float32,
    out: ArrayOutput | None = None,
    length: int | None = None,
) -> NDArray[Any]:
    """Weights from quantised integers, float64 until they are brought to ``dtype`` (float32 by default).

    Coefficients: integers times ``step``, in the integers' shape. Slots: the values of the polynomials, rounded to
    ``release_step``; ``length`` weights, by default as many as the blocks hold. Raises InputError when ``integers`` is
    not an integer array or of another size than ``length`` asks for, ``dtype`` is none of floats, or ``out`` does not
    fit.
    """
    values = np.asarray(integers)
    if values.dtype.kind not in "iu":
        raise InputError(f"quantised values have dtype {values.dtype}; they are integers")
    if length is None:
        length = values.size if params.packing == "coefficients" else _full_length(params, values.size)
    if values.size != params.integer_count(length):
        raise InputError(
            f"{length} weights are quantised to {params.integer_count(length)} integers, not {values.size}"
        )
    target = None if out is None else output_array(out)
    shape = values.shape if params.packing == "coefficients" else (length,)
    if target is not None:
        check_out(target, shape, "f")
    if params.packing == "coefficients":
        restored = values.astype(np.float64) * params.step
    else:
        restored = np.empty(length, np.float64)
        params._scheme.restore_slots(np.ascontiguousarray(values.reshape(-1), np.int64), restored)
    result = narrowed(restored, dtype, target)
    return result if out is None else out


def _full_length(params: CkksParams, integers: int) -> int:
    """Weights that whole blocks of so many integers hold."""
    return integers // params.block_integers * params.block_weights


def narrowed(restored: NDArray[np.float64], dtype: DTypeLike, out: NDArray[Any] | None) -> NDArray[Any]:
    """Weights as ``dtype``, or in ``out``. Raises InputError on a dtype that is no float or cannot hold one of them."""
    narrow = np.dtype(dtype if out is None else out.dtype)
    if narrow.kind != "f":
        raise InputError(f"dtype {narrow} cannot hold weights; use a float dtype, or integers=True")
    largest = float(np.abs(restored).max(initial=0.0))
    if largest > float(np.finfo(narrow).max):
        raise InputError(f"a value of {largest:g} does not fit {narrow}; use a wider dtype")
    if out is None:
        return restored.astype(narrow)
    np.copyto(out, restored, casting="same_kind")
    return out


def check_out(out: NDArray[Any], shape: tuple[int, ...], kind: str) -> None:
    """Raise InputError unless ``out`` is a writable array of ``shape``, of floats ("f") or of int64 ("i")."""
    if not isinstance(out, np.ndarray) or out.shape != shape or not out.flags.writeable:
        raise InputError(
            f"out must be a writable array of shape {shape}, not {getattr(out, 'shape', type(out).__name__)}"
        )
    if out.dtype.kind != kind or (kind == "i" and out.dtype.itemsize != 8):
        raise InputError(f"out has dtype {out.dtype}; the values need {'int64' if kind == 'i' else 'a float dtype'}")

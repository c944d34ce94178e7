"""Exact opening: from a summed ciphertext to the integers it holds, or to a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native, memory
from pppml_fast.cipher.ciphertext import Ciphertext
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.wire import Kind
from pppml_fast.errors import CiphertextError, OpeningError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import check_out, dequantize

__all__ = ["check_mode", "open_sum"]


def open_sum(
    params: CkksParams,
    secret: _native.SecretKey,
    ciphertext: Ciphertext,
    dtype: DTypeLike,
    integers: bool,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    """Decrypt ``ciphertext``, check its residuals, and return the exact sum as weights or as int64 integers.

    A refusal leaves nothing behind: ``out`` is then zero.
    """
    if ciphertext.params.id != params.id:
        raise CiphertextError(f"the ciphertext was made under {ciphertext.params.name}, the key under {params.name}")
    if ciphertext.terms > params.parties:
        raise CiphertextError(
            f"the ciphertext adds {ciphertext.terms} encryptions; the parameters hold {params.parties} (parties)"
        )
    if out is not None:
        check_out(out, (ciphertext.length,), "i" if integers else "f")
    expansion = None
    if ciphertext.kind in (Kind.SEEDED, Kind.COLLECTIVE):
        if ciphertext.context is None:
            raise CiphertextError("the ciphertext names no context; give zeros(..., context=) the attempt's 32 bytes")
        expansion = expansion_key(params, ciphertext.context)
    wanted = np.dtype(np.int64 if integers else dtype)
    target = _opening_target(ciphertext.length, wanted, integers, out)
    refused_block, _, _ = params._scheme.open(
        secret, ciphertext.length, ciphertext.terms, ciphertext.first, ciphertext.second, expansion, target
    )
    if refused_block is not None:
        raise OpeningError(
            f"block {refused_block} fails its residual check: a contribution is missing, doubled or foreign, or the "
            "opening key is not the sum of the contributors' keys; nothing was released"
        )
    if target is out or (out is None and target.dtype == wanted and (integers or wanted.kind == "f")):
        return target
    if integers:
        assert out is not None
        np.copyto(out, target)
        return out
    # float16 and the like, and arrays that are not contiguous, are restored from the integers.
    return dequantize(params, target, dtype, out)


def _opening_target(length: int, wanted: np.dtype[Any], integers: bool, out: NDArray[Any] | None) -> NDArray[Any]:
    """What the core writes to: ``out`` or a new array where it can write in place, else int64 integers."""
    direct = (np.dtype(np.int64),) if integers else (np.dtype(np.float32), np.dtype(np.float64))
    if out is None:
        return memory.empty(length, wanted if wanted in direct else np.int64)
    in_place = out.dtype in direct and out.flags.c_contiguous and out.flags.writeable
    return out if in_place else memory.empty(length, np.int64)


def check_mode(params: CkksParams, expected: str, what: str) -> None:
    """Raise ParameterError when ``params`` serve another key mode."""
    if params.keys != expected:
        raise ParameterError(f"{what} needs parameters with keys={expected!r}, not keys={params.keys!r}")

"""Exact opening: from a summed ciphertext to the integers it holds, or to a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native
from pppml_fast.cipher.ciphertext import Ciphertext
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.wire import Kind
from pppml_fast.errors import CiphertextError, OpeningError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import check_out, dequantize

__all__ = ["check_mode", "open_sum", "refuse_pickling"]


def open_sum(
    params: CkksParams,
    secret: _native.SecretKey,
    ciphertext: Ciphertext,
    dtype: DTypeLike,
    integers: bool,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    """Decrypt ``ciphertext``, check its residuals, and return the exact sum as weights or as int64 integers."""
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
    values, refused_block, _ = params._scheme.open(
        secret, ciphertext.length, ciphertext.terms, ciphertext.first, ciphertext.second, expansion
    )
    if refused_block is not None:
        raise OpeningError(
            f"block {refused_block} fails its residual check: a contribution is missing, doubled or foreign, or the "
            "opening key is not the sum of the contributors' keys; nothing was released"
        )
    if integers:
        if out is None:
            return np.asarray(values)
        np.copyto(out, values)
        return out
    return dequantize(params, values, dtype, out)


def check_mode(params: CkksParams, expected: str, what: str) -> None:
    """Raise ParameterError when ``params`` serve another key mode."""
    if params.keys != expected:
        raise ParameterError(f"{what} needs parameters with keys={expected!r}, not keys={params.keys!r}")


def refuse_pickling(self: object) -> tuple[Any, ...]:
    """``__reduce__`` of everything secret."""
    raise TypeError(f"{type(self).__name__} holds a secret and is never pickled or copied")

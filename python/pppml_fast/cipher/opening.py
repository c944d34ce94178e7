"""Exact opening: from a summed ciphertext to the integers it holds, or to a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native, memory
from pppml_fast.cipher.ciphertext import Ciphertext, ReadableBuffer, bytes_view
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.wire import Header, Kind, split_wire
from pppml_fast.errors import CiphertextError, InputError, OpeningError, ParameterError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import check_out, dequantize, narrowed

__all__ = ["check_mode", "check_terms", "open_range", "open_sum", "open_wire", "opening_expansion"]


def open_sum(
    params: CkksParams,
    secret: _native.SecretKey,
    ciphertext: Ciphertext,
    dtype: DTypeLike,
    integers: bool,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    """Decrypt ``ciphertext``, check its residuals, and return the exact sum as weights or as int64 integers.

    A refused residue or block leaves nothing behind: ``out`` is then zero.
    """
    if ciphertext.params.id != params.id:
        raise CiphertextError(f"the ciphertext was made under {ciphertext.params.name}, the key under {params.name}")
    if ciphertext.terms > params.parties:
        raise CiphertextError(
            f"the ciphertext adds {ciphertext.terms} encryptions; the parameters hold {params.parties} (parties)"
        )
    return _open(params, secret, ciphertext, [words for words, _ in ciphertext._polynomials()], dtype, integers, out)


def open_wire(
    params: CkksParams,
    secret: _native.SecretKey,
    terms: int | None,
    data: ReadableBuffer,
    dtype: DTypeLike,
    integers: bool,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    """As :func:`open_sum`, from the bytes of a ciphertext; ``terms``, unless None, is how many it must add."""
    view = bytes_view(data)
    header, rows = split_wire(params, view)
    check_terms(header.terms, terms)
    if isinstance(out, np.ndarray) and np.may_share_memory(out, np.asarray(view)):
        raise InputError("out shares memory with the ciphertext's bytes, which are read while it is written")
    return _open(params, secret, header, rows, dtype, integers, out)


def _open(
    params: CkksParams,
    secret: _native.SecretKey,
    source: Ciphertext | Header,
    rows: Sequence[Any],
    dtype: DTypeLike,
    integers: bool,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    length = params.integer_count(source.length) if integers else source.length
    if out is not None:
        check_out(out, (length,), "i" if integers else "f")
    wanted = np.dtype(np.int64 if integers else dtype)
    target = _opening_target(params, length, wanted, integers, out)
    expansion, blocks = opening_expansion(params, source), params.block_count(source.length)
    try:
        open_range(params, secret, source, rows, expansion, target, 0, blocks)
    except (CiphertextError, OpeningError):
        if out is not None:
            out.fill(0)
        raise
    if target is out or (out is None and target.dtype == wanted and (integers or wanted.kind == "f")):
        return target
    if integers:
        assert out is not None
        np.copyto(out, target)
        return out
    # float16 and the like, and arrays that are not contiguous: from the integers, or from slots in float64.
    if target.dtype == np.int64:
        return dequantize(params, target, dtype, out)
    return narrowed(target, dtype, out)


def open_range(
    params: CkksParams,
    secret: _native.SecretKey,
    source: Ciphertext | Header,
    rows: Sequence[Any],
    expansion: bytes | None,
    target: NDArray[Any],
    start: int,
    stop: int,
) -> None:
    """Open blocks ``[start, stop)`` of ``source`` from their words or packed bytes (``rows``: c0, and c1 or nothing).

    Raises CiphertextError on a residue not below its prime, OpeningError on a block that fails its residual check,
    ParameterError in a forked child; ``target``, a contiguous int64, float32 or float64 array, then holds zeros.
    """
    first, second = rows if len(rows) == 2 else (rows[0], None)
    try:
        refused, _, valid = params._scheme.open(
            secret, source.length, source.terms, first, second, expansion, target, start=start, stop=stop
        )
    except _native.RequirementError as error:  # a key of another process
        raise ParameterError(str(error)) from None
    if not valid:
        raise CiphertextError(f"a residue in blocks {start} .. {stop} is not below its prime: refused")
    if refused is not None:
        kept = f"nothing from block {start} on" if start else "nothing"
        raise OpeningError(
            f"block {refused} fails its residual check: a contribution is missing, doubled or foreign, or the opening "
            f"key is not the sum of the contributors' keys; {kept} was released"
        )


def opening_expansion(params: CkksParams, source: Ciphertext | Header) -> bytes | None:
    """The key of the public polynomials of ``source``, or None where it holds its own."""
    if source.kind not in (Kind.SEEDED, Kind.COLLECTIVE):
        return None
    if source.context is None:
        raise CiphertextError("the ciphertext names no context; give zeros(..., context=) the attempt's 32 bytes")
    return expansion_key(params, source.context)


def check_terms(terms: int, expected: int | None) -> None:
    """Raise CiphertextError unless a ciphertext adds as many encryptions as its opening key sums secrets."""
    if expected is not None and terms != expected:
        raise CiphertextError(
            f"the ciphertext adds {terms} encryptions, the opening key {expected} secrets: "
            "only the sum over the whole live set opens"
        )


def _opening_target(
    params: CkksParams, length: int, wanted: np.dtype[Any], integers: bool, out: NDArray[Any] | None
) -> NDArray[Any]:
    """What the core writes to: ``out`` or a new array where it can write in place, else a new one to convert from."""
    direct = (np.dtype(np.int64),) if integers else (np.dtype(np.float32), np.dtype(np.float64))
    between = np.int64 if integers or params.packing == "coefficients" else np.float64
    if out is None:
        return memory.empty(length, wanted if wanted in direct else between)
    in_place = out.dtype in direct and out.flags.c_contiguous and out.flags.writeable
    return out if in_place else memory.empty(length, between)


def check_mode(params: CkksParams, expected: str, what: str) -> None:
    """Raise ParameterError when ``params`` serve another key mode."""
    if params.keys != expected:
        raise ParameterError(f"{what} needs parameters with keys={expected!r}, not keys={params.keys!r}")

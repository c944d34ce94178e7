"""Checks of what a caller hands in; every message names the value, the limit and the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from pppml_fast.errors import ConfigError, InputError

__all__ = ["check_finite", "check_parameters", "check_positive", "check_steps", "first_non_finite"]

TRAINABLE_DTYPES = (torch.float32, torch.float64)


def check_positive(name: str, value: float) -> float:
    """``value`` as a float when it is finite and above zero; ConfigError otherwise."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}: it must be a finite number above 0")
    return float(value)


def check_steps(name: str, value: int, *, least: int = 1) -> int:
    """``value`` when it is a whole number of at least ``least``; ConfigError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}: it must be a whole number of at least {least}")
    return value


def check_parameters(params: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError when there is nothing to train or a tensor is not float32 (float64 is allowed)."""
    if not params:
        raise InputError("the model has no trainable parameter: set requires_grad on what shall be trained")
    for name, tensor in params.items():
        if tensor.dtype not in TRAINABLE_DTYPES:
            raise InputError(
                f"parameter {name!r} is {tensor.dtype}: training runs in float32; "
                "convert the network with module.float(), or its tensors with to_float32(...)"
            )


def first_non_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the first floating tensor that holds NaN or Inf, or None."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return None
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()])
    if bool(finite.all()):  # one synchronisation with the device in the usual case
        return None
    return list(floating)[int((~finite).nonzero()[0])]


def check_finite(tensors: Mapping[str, torch.Tensor], what: str, remedy: str) -> None:
    """Raise InputError that names the first tensor of ``tensors`` with NaN or Inf."""
    name = first_non_finite(tensors)
    if name is not None:
        raise InputError(f"{what} of {name!r} is not finite (NaN or Inf): {remedy}")

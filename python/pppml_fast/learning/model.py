"""Between a module and plain dictionaries: taking its parameters and buffers, writing them back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pppml_fast.errors import InputError
from pppml_fast.layout import Layout
from pppml_fast.learning.checks import check_parameters
from pppml_fast.learning.types import Buffers, Parameters

__all__ = ["buffers_of", "parameters_of", "to_float32", "write_back"]


def parameters_of(module: nn.Module) -> Parameters:
    """Copies of the trainable parameters, in ``named_parameters()`` order.

    Tied weights appear once, under their first name; frozen ones (``requires_grad`` False) not at all: they
    stay in the module. Raises InputError when nothing is trainable or a tensor is not float32 (or float64).
    """
    params = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    check_parameters(params)
    return params


def buffers_of(module: nn.Module) -> Buffers:
    """Copies of the buffers, in ``named_buffers()`` order. Raises InputError for half precision."""
    buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    for name, buffer in buffers.items():
        if buffer.dtype in (torch.float16, torch.bfloat16):
            raise InputError(f"buffer {name!r} is {buffer.dtype}: statistics need float32; call module.float()")
    return buffers


def to_float32(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The explicit conversion: floating tensors as float32 copies, all others as they are."""
    return {
        name: t.detach().to(torch.float32, copy=True) if t.is_floating_point() else t.detach().clone()
        for name, t in tensors.items()
    }


@torch.no_grad()
def write_back(module: nn.Module, params: Parameters, buffers: Buffers | None = None) -> nn.Module:
    """Copy parameters and buffers into ``module`` (to save or serve it) and return it.

    Raises InputError for an unknown name, LayoutMismatchError for another shape or dtype.
    """
    targets = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    values = {**params, **(buffers or {})}
    unknown = [name for name in values if name not in targets]
    if unknown:
        raise InputError(f"the module has no tensor {unknown[0]!r}: build the network that was trained")
    Layout.from_arrays({name: targets[name] for name in values}).check_same(Layout.from_arrays(values))
    for name, value in values.items():
        targets[name].copy_(value)
    return module

"""Arithmetic on dictionaries of tensors, seen as vectors. Nothing is changed in place, no graph is kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pppml_fast.learning.types import Parameters

__all__ = ["add", "difference", "norm"]


@torch.no_grad()
def add(x: Mapping[str, torch.Tensor], y: Mapping[str, torch.Tensor], scale: float = 1.0) -> Parameters:
    """x + scale * y, tensor by tensor, under the names and in the order of x."""
    return {name: torch.add(tensor, y[name], alpha=scale) for name, tensor in x.items()}


@torch.no_grad()
def difference(x: Mapping[str, torch.Tensor], y: Mapping[str, torch.Tensor]) -> Parameters:
    """x - y, tensor by tensor."""
    return {name: tensor - y[name] for name, tensor in x.items()}


@torch.no_grad()
def norm(x: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm of all tensors as one vector, accumulated in float64."""
    parts = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in x.values()]
    return float(torch.linalg.vector_norm(torch.stack(parts)))

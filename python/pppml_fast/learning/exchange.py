"""What travels: the layout of the exchanged tensors, updates as flat vectors, and what stays with a party.

Updates of a model on a CUDA device stay there: as flat tensors, one per tensor of the layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.dlpack import from_dlpack

from pppml_fast.errors import InputError, LayoutMismatchError
from pppml_fast.layout import Layout
from pppml_fast.learning.checks import check_finite
from pppml_fast.learning.types import Buffers, ClientUpdate, Parameters, ServerState
from pppml_fast.learning.vectors import add, difference

__all__ = [
    "PartyMemory",
    "Update",
    "from_vector",
    "layout_of",
    "outgoing",
    "recall",
    "remember",
    "split_mean",
    "to_vector",
]

Update = list[NDArray[np.float32]] | list[torch.Tensor]
"""An update's tensors in layout order, each flat and float32: arrays in the host's memory, or tensors of one GPU."""


def layout_of(tensors: Mapping[str, torch.Tensor], include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Layout:
    """Layout of the tensors that travel, in their order.

    ``include`` and ``exclude`` are glob patterns on names (``*``, ``?``, ``[...]``, case matters); nothing in
    ``include`` means everything. Frozen ``nn.Parameter`` never travel, tied ones once, by their first name.
    For shared statistics pass ``{**params, **shared_statistics(...)}``. Raises InputError for a pattern that
    matches nothing, for tensors that are not float32, and when nothing is left.
    """
    include, exclude = _patterns(include), _patterns(exclude)
    candidates = _distinct({name: t for name, t in tensors.items() if not _frozen(t)})
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in tensors):
            some = ", ".join(list(tensors)[:5])
            raise InputError(f"pattern {pattern!r} matches no tensor: names are such as {some}")
    chosen = {
        name: t
        for name, t in candidates.items()
        if (not include or _matches(name, include)) and not _matches(name, exclude)
    }
    if not chosen:
        raise InputError("no tensor is left to exchange: widen include or narrow exclude")
    for name, tensor in chosen.items():
        if tensor.dtype != torch.float32:
            raise InputError(f"tensor {name!r} is {tensor.dtype}: float32 travels; use to_float32 or exclude it")
    return Layout.from_arrays(chosen)


def to_vector(layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Update:
    """The layout's tensors, flat and in order: NumPy views of main memory, or tensors on their CUDA device.

    Contiguous tensors are not copied, and nothing leaves a CUDA device. Tensors that the layout does not name are left
    out. Raises LayoutMismatchError when one is missing or has another shape or dtype, InputError when they lie in
    several places.
    """
    missing = [name for name in layout.names if name not in tensors]
    if missing:
        raise LayoutMismatchError(f"tensor {missing[0]!r} of the layout is missing from the update")
    chosen = {name: tensors[name] for name in layout.names}
    layout.check_same(Layout.from_arrays(chosen), "the update")
    first = next(iter(chosen.values()), None)
    for name, tensor in chosen.items():
        if first is not None and tensor.device != first.device:
            raise InputError(
                f"tensor {name!r} lies on {tensor.device}, the first one on {first.device}: an update lies in one "
                "place; train the whole model on one device"
            )
    if first is not None and first.is_cuda:
        return [tensor.detach().reshape(-1) for tensor in chosen.values()]
    return [tensor.detach().cpu().reshape(-1).numpy() for tensor in chosen.values()]


def from_vector(layout: Layout, vector: Any) -> Parameters:
    """Named float32 tensors from ``layout.size`` values; they share their memory if they can, and stay where they are.

    ``vector`` is a flat array, a flat tensor, device memory that speaks DLPack (`pppml_fast.cuda.DeviceArray`), or a
    list of flat tensors as `to_vector` gives it. Raises InputError for another length, and for NaN or Inf, naming the
    tensor.
    """
    tensors = _on_device(layout, vector)
    if tensors is None:
        flat = np.asarray(vector)
        if not flat.flags.writeable:
            flat = flat.copy()
        tensors = {name: torch.from_numpy(array) for name, array in layout.unflatten(flat).items()}
    check_finite(tensors, "the received value", "discard the sum; a contribution or its weights were not finite")
    return tensors


def outgoing(state: ServerState, update: ClientUpdate) -> Parameters:
    """All differences a party could send: of parameters, and of floating buffers. The layout selects."""
    mine = {name: b for name, b in update.buffers.items() if b.is_floating_point()}
    return {**update.delta, **difference(mine, state.buffers)}


def split_mean(state: ServerState, mean: Mapping[str, torch.Tensor]) -> tuple[Parameters, Parameters]:
    """The mean difference, parted into that of parameters and that of buffers (for ``merge_statistics``)."""
    return (
        {name: t for name, t in mean.items() if name not in state.buffers},
        {name: t for name, t in mean.items() if name in state.buffers},
    )


@dataclass(frozen=True)
class PartyMemory:
    """The tensors that a party keeps to itself from round to round: excluded weights, unshared buffers."""

    params: Parameters = field(default_factory=dict)
    buffers: Buffers = field(default_factory=dict)


def recall(state: ServerState, memory: PartyMemory) -> ServerState:
    """The broadcast state as one party sees it: its own tensors in place of those that do not travel."""
    return ServerState(
        {**state.params, **memory.params}, {**state.buffers, **memory.buffers}, state.round, state.optimizer
    )


def remember(seen: ServerState, update: ClientUpdate, layout: Layout) -> PartyMemory:
    """All that ``layout`` leaves out, after a round of the party that began at ``seen`` (from ``recall``)."""
    travels = set(layout.names)
    kept = {name: t for name, t in seen.params.items() if name not in travels}
    return PartyMemory(add(kept, update.delta), {name: b for name, b in update.buffers.items() if name not in travels})


def _on_device(layout: Layout, vector: Any) -> Parameters | None:
    """The named tensors of a list of them, or of one in a CUDA device's memory; None for what else there is."""
    if isinstance(vector, list | tuple) and all(isinstance(item, torch.Tensor) for item in vector):
        parts, sizes = list(vector), [tensor.size for tensor in layout.tensors]
        if [part.numel() for part in parts] != sizes:
            raise InputError(
                f"{len(parts)} tensors of {sum(part.numel() for part in parts)} values do not fit the layout: expected "
                f"one for each of its {len(sizes)}, {layout.size} values in all"
            )
    elif isinstance(vector, torch.Tensor) or hasattr(vector, "__cuda_array_interface__"):
        flat = vector if isinstance(vector, torch.Tensor) else from_dlpack(vector)
        if tuple(flat.shape) != (layout.size,):
            raise InputError(f"vector of shape {tuple(flat.shape)} does not fit the layout: expected ({layout.size},)")
        parts = list(flat.split([tensor.size for tensor in layout.tensors]))
    else:
        return None
    return {
        tensor.name: part.detach().to(torch.float32).reshape(tensor.shape)
        for tensor, part in zip(layout.tensors, parts, strict=True)
    }


def _patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _frozen(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


def _distinct(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tied parameters once; plain tensors that share memory are refused, they would drift apart unnoticed."""
    seen: dict[int, str] = {}
    distinct: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        first = seen.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
        if first == name:
            distinct[name] = tensor
        elif tensors[first] is not tensor or not isinstance(tensor, nn.Parameter):
            raise InputError(
                f"tensors {first!r} and {name!r} share memory: take parameters_of(module), which names tied "
                "weights once"
            )
    return distinct

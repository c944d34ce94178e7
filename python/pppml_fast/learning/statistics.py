"""Running statistics of normalisation layers: shared, local or frozen, always by explicit choice.

=========  ==================================================================================================
shared     Layers normalise by the batch and advance their running means and variances; the floating ones
           travel as differences and are averaged like weights. The mean of variances leaves out the spread
           between the parties' means, as FedAvg always has.
local      The same, but they never travel: every party keeps its own. With the layers' weights excluded
           from the exchange as well (``normalization_parameters``) this is FedBN (Li et al., ICLR 2021).
frozen     Layers normalise by the broadcast statistics, which never change; their weights still learn.
=========  ==================================================================================================

Integer buffers (``num_batches_tracked``) are counts of one party's own batches: never averaged, under any
choice. Buffers of other layers never travel either; they stay what each party has.

Statistics advance once per training step, on the pass at the current weights w. The passes of Per-FedAvg at
the adapted weights and of its Hessian-vector product leave no trace in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from pppml_fast.errors import ConfigError
from pppml_fast.learning.types import Buffers

__all__ = [
    "Statistics",
    "check_statistics",
    "merge_statistics",
    "normalization_parameters",
    "set_training_mode",
    "shared_statistics",
]

Statistics = Literal["shared", "local", "frozen"]


def check_statistics(statistics: str) -> None:
    """Raise ConfigError when ``statistics`` is none of the three choices."""
    if statistics not in get_args(Statistics):
        raise ConfigError(f"statistics is {statistics!r}: choose one of {', '.join(get_args(Statistics))}")


def _layers(module: nn.Module) -> Iterator[tuple[str, _NormBase]]:
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase):
            yield (f"{name}." if name else ""), layer


def normalization_parameters(module: nn.Module) -> tuple[str, ...]:
    """Names of the weights and biases of batch normalisation: what FedBN excludes from the exchange."""
    return tuple(
        prefix + name
        for prefix, layer in _layers(module)
        if isinstance(layer, _BatchNorm)
        for name, _ in layer.named_parameters(recurse=False)
    )


def shared_statistics(module: nn.Module, buffers: Mapping[str, torch.Tensor], statistics: str) -> Buffers:
    """The tensors of ``buffers`` that travel: floating running statistics when shared, otherwise none."""
    check_statistics(statistics)
    if statistics != "shared":
        return {}
    names = {prefix + name for prefix, layer in _layers(module) for name, _ in layer.named_buffers(recurse=False)}
    return {name: t for name, t in buffers.items() if name in names and t.is_floating_point()}


@torch.no_grad()
def merge_statistics(buffers: Buffers, mean_delta: Mapping[str, torch.Tensor]) -> Buffers:
    """New values of the shared statistics named in ``mean_delta``, from the broadcast ones in ``buffers``.

    Variances are held at or above 0: a clipped or rounded difference may undershoot by a rounding step.
    """
    merged = {name: buffers[name] + delta.to(buffers[name]) for name, delta in mean_delta.items()}
    return {name: t.clamp(min=0) if name.endswith("running_var") else t for name, t in merged.items()}


def set_training_mode(module: nn.Module, statistics: str) -> None:
    """Put ``module`` in training mode, with its normalisation layers fixed when statistics are frozen.

    Raises ConfigError for frozen statistics with a batch normalisation layer that tracks none.
    """
    check_statistics(statistics)
    module.train()
    if statistics != "frozen":
        return
    for prefix, layer in _layers(module):
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            raise ConfigError(
                f"layer {prefix.rstrip('.')!r} tracks no running statistics, so they cannot be frozen: "
                "build it with track_running_stats=True or choose statistics='local'"
            )
        layer.eval()

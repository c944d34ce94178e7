"""The server's step: the mean update is the direction; plain averaging by default, momentum by choice.

With ``lr`` 1 and no momentum the next model is the broadcast model plus the mean update, which is FedAvg's
average of models: one rounding per weight, the same bits on every device. With momentum it is FedAvgM (Hsu, Qi,
Brown, 2019):
v <- momentum * v + mean, w <- w + lr * v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pppml_fast.errors import ConfigError, InputError, LayoutMismatchError
from pppml_fast.learning.checks import check_finite, check_parameters, check_positive
from pppml_fast.learning.types import Buffers, Parameters, ServerState
from pppml_fast.learning.vectors import add

__all__ = ["AVERAGE", "ServerOptimizer"]

DISCARD = "discard the round and look for the party whose training diverged"


@dataclass(frozen=True)
class ServerOptimizer:
    """How the server turns a mean update into the next model. ``lr`` > 0, 0 <= ``momentum`` < 1."""

    lr: float = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_positive("the server's lr", self.lr)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"the server's momentum is {self.momentum}: it must lie in [0, 1)")

    def init(self, params: Parameters, buffers: Buffers) -> ServerState:
        """The state of round 0, with copies of the tensors; velocities start at zero."""
        check_parameters(params)
        check_finite(params, "the initial value", "start from a sound model")
        velocity = {name: torch.zeros_like(t) for name, t in params.items()} if self.momentum else {}
        return ServerState(_copies(params), _copies(buffers), 0, velocity)

    def apply(
        self, state: ServerState, mean_delta: Mapping[str, torch.Tensor], buffers: Buffers | None = None
    ) -> ServerState:
        """The next state. Tensors that ``mean_delta`` and ``buffers`` do not name stay as they are.

        ``buffers`` are new values (not differences), from ``statistics.merge_statistics``, or a party's own
        when it trains alone. Raises InputError for an empty mean, an unknown name, or NaN and Inf, and
        LayoutMismatchError for another shape.
        """
        if not mean_delta:
            raise InputError("the mean update is empty: a round in which nobody contributed must not be applied")
        delta = _fitting(mean_delta, state.params, "parameter")
        check_finite(delta, "the mean update", DISCARD)
        if self.momentum:
            old = {name: state.optimizer[name] * self.momentum for name in delta}
            delta = add(old, delta)
        velocity = {**state.optimizer, **delta} if self.momentum else {}
        moved = add({name: state.params[name] for name in delta}, delta, self.lr)
        fresh = _fitting(buffers or {}, state.buffers, "buffer")
        check_finite(fresh, "the new value", DISCARD)
        return ServerState({**state.params, **moved}, {**state.buffers, **fresh}, state.round + 1, velocity)


#: Plain averaging: the next model is the mean of the parties' models.
AVERAGE = ServerOptimizer()


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _fitting(given: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor], kind: str) -> Parameters:
    """``given`` in the order, dtype and device of ``known``."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"the model has no {kind} {unknown[0]!r}: the update belongs to another network")
    for name, tensor in given.items():
        if tensor.shape != known[name].shape:
            raise LayoutMismatchError(
                f"{kind} {name!r} has shape {tuple(known[name].shape)}, the update {tuple(tensor.shape)}; "
                "all parties must train the same network"
            )
    return {name: given[name].detach().to(t, copy=True) for name, t in known.items() if name in given}

"""The values that the algorithms pass around: plain dictionaries of tensors in frozen records.

An algorithm is three pure functions, ``init``, ``client`` and ``apply``, on these records (the manner of
fedjax). Nothing here is ever changed in place: every function returns new tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from pppml_fast.errors import InputError
from pppml_fast.layout import Layout
from pppml_fast.learning.devices import on_host

if TYPE_CHECKING:
    from pppml_fast.learning.objective import Objective

__all__ = [
    "Algorithm",
    "ApplyFunction",
    "Batch",
    "BatchSource",
    "Buffers",
    "ClientUpdate",
    "Parameters",
    "ServerState",
]

#: Trainable parameters by name, in the order of ``module.named_parameters()``; float32 (or float64).
Parameters = dict[str, torch.Tensor]
#: Buffers by name, in the order of ``module.named_buffers()``; any dtype.
Buffers = dict[str, torch.Tensor]
#: Inputs and targets, each with the batch as its first dimension.
Batch = tuple[torch.Tensor, torch.Tensor]


@runtime_checkable
class BatchSource(Protocol):
    """A party's training data as a stream of independent batches, drawn with a generator of its own."""

    def draw(self) -> Batch:
        """A new batch, independent of all batches drawn before."""

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on drawing after a restart."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that ``state_dict`` returned."""


@dataclass(frozen=True)
class ServerState:
    """The model that a round starts from, and the server optimiser's velocity by tensor name."""

    params: Parameters
    buffers: Buffers
    round: int = 0
    optimizer: Parameters = field(default_factory=dict)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state as one flat dictionary of copies in the host's memory, for ``torch.save`` or safetensors."""
        groups = {"params": self.params, "buffers": self.buffers, "optimizer": self.optimizer}
        flat = {f"{group}/{name}": on_host(t) for group, tensors in groups.items() for name, t in tensors.items()}
        return {"round": torch.tensor(self.round, dtype=torch.int64), **flat}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> ServerState:
        """The state that ``state_dict`` wrote, in the order of names and on the device of this one.

        ``self`` is the state of round 0, from ``algorithm.init``. It fixes the order, because files such as
        safetensors sort their tensors while a layout depends on their order. Raises LayoutMismatchError when
        a name, shape or dtype differs, InputError when the round is missing.
        """
        if "round" not in tensors:
            raise InputError("the saved state has no 'round'; pass what ServerState.state_dict() returned")
        mine = {name: tensor for name, tensor in self.state_dict().items() if name != "round"}
        rest = {name: tensors[name] for name in tensors if name != "round"}
        ordered = {name: rest[name] for name in mine if name in rest}
        ordered |= {name: tensor for name, tensor in rest.items() if name not in mine}
        Layout.from_arrays(mine).check_same(Layout.from_arrays(ordered), "the saved state")

        def group(prefix: str, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: torch.empty_like(t).copy_(ordered[f"{prefix}/{name}"]) for name, t in like.items()}

        return ServerState(
            group("params", self.params),
            group("buffers", self.buffers),
            int(tensors["round"]),
            group("optimizer", self.optimizer),
        )


@dataclass(frozen=True)
class ClientUpdate:
    """What one party's training in one round yields.

    ``delta`` is the trained minus the broadcast weights, for every trainable tensor; which of them travel is
    the layout's matter. ``buffers`` are the party's buffers after training. ``gradients`` counts gradient
    evaluations (backward passes). ``loss`` is the mean, over the steps, of what the algorithm lowers.
    """

    delta: Parameters
    buffers: Buffers
    gradients: int
    loss: float


class ApplyFunction(Protocol):
    """The server's half of a round."""

    def __call__(
        self, state: ServerState, mean_delta: Mapping[str, torch.Tensor], buffers: Buffers | None = None
    ) -> ServerState:
        """The state of the next round from the mean update and the new values of shared buffers."""


@dataclass(frozen=True)
class Algorithm:
    """One federated algorithm: its name and its pure functions.

    ``init(params, buffers)`` gives the state of round 0, ``client(state, objective, batches)`` one party's
    update, ``apply(state, mean_delta, buffers=None)`` the next state. With ``federated`` False there is no
    mean: each party keeps a state of its own and applies its own update to it.
    """

    name: str
    init: Callable[[Parameters, Buffers], ServerState]
    client: Callable[[ServerState, Objective, BatchSource], ClientUpdate]
    apply: ApplyFunction
    gradients_per_round: int
    federated: bool = True

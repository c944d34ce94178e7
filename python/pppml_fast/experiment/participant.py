"""One hospital's part in a training: the same in a run in one process and at a site of its own.

Every random draw has a seed derived from (seed, purpose, round, party), so that a hospital draws what it would have
drawn anywhere, after any interruption. A ``salt`` other than 0 joins these derivations: other draws, same model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pppml_fast.experiment.study import Study, batches_of
from pppml_fast.imaging import PartyData, SliceBatches
from pppml_fast.layout import Layout
from pppml_fast.learning import (
    Algorithm,
    Batch,
    ClientUpdate,
    Objective,
    PartyMemory,
    ServerState,
    Update,
    derive_seed,
    from_vector,
    merge_statistics,
    on_host,
    outgoing,
    recall,
    remember,
    seeded,
    split_mean,
    synchronize,
    to_vector,
)
from pppml_fast.learning.vectors import norm

__all__ = ["Participant", "Trained", "apply_mean", "host_values", "mean_norm"]


@dataclass(frozen=True)
class Trained:
    """What one round of training gave: ``values`` travel (flat float32, in layout order), ``memory`` stays."""

    values: Update
    memory: PartyMemory
    loss: float

    def joined(self) -> NDArray[np.float32] | list[torch.Tensor]:
        """The values as they are handed in: one new array, or tensors of a GPU as they are.

        ``values`` is empty afterwards: they never lie in memory twice as a whole.
        """
        tensors = [part for part in self.values if isinstance(part, torch.Tensor)]
        if tensors:
            self.values.clear()
            return tensors
        whole, at = np.empty(sum(np.size(part) for part in self.values), np.float32), 0
        while self.values:
            part = np.asarray(self.values.pop(0))
            whole[at : at + part.size] = part
            at += part.size
        return whole

    def on_host(self) -> Trained:
        """The same in the host's memory: copies of tensors of a GPU."""
        return replace(self, values=host_values(self.values))


def host_values(update: Update) -> list[NDArray[np.float32]]:
    """The arrays of an update, or copies of its tensors in the host's memory."""
    return [on_host(part).numpy() if isinstance(part, torch.Tensor) else part for part in update]


class Participant:
    """A hospital with its training data, and what it keeps to itself from round to round.

    ``check`` is called before every batch; what it raises ends the training of a round.
    """

    def __init__(
        self,
        study: Study,
        algorithm: Algorithm,
        objective: Objective,
        party: PartyData,
        *,
        track: str,
        seed: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = party.name
        self.memory = PartyMemory()
        self.source: SliceBatches = batches_of(study, party.train, derive_seed(seed, "batches", party.name))
        self._layout, self._algorithm, self._objective = study.layout, algorithm, objective
        self._device = study.device
        self._track, self._seed, self._check = track, seed, check

    def update(self, seen: ServerState, round: int, salt: int = 0) -> ClientUpdate:
        """The update of round ``round`` from the model ``seen``. The batches drawn go on where the last ones ended."""
        salted = ("salt", salt) if salt else ()
        if salt:
            self.source.reseed(derive_seed(self._seed, "batches", self.name, round, *salted))
        noise = derive_seed(self._seed, "network noise", self._track, round, self.name, *salted)
        with seeded(noise, self._device):
            return self._algorithm.client(seen, self._objective, _Checked(self.source, self._check))

    def train(self, shared: ServerState, round: int, salt: int = 0) -> Trained:
        """A round from the shared model; ``memory`` stays as it was until the caller takes over the result's."""
        seen = recall(shared, self.memory)
        update = self.update(seen, round, salt)
        memory = remember(seen, update, self._layout)
        trained = Trained(to_vector(self._layout, outgoing(seen, update)), memory, update.loss)
        synchronize(self._device)  # for the clock, and for the thread that the update goes to
        return trained

    def personal(self, shared: ServerState) -> ServerState:
        """The shared model with the hospital's own tensors in their places."""
        return recall(shared, self.memory)


def apply_mean(algorithm: Algorithm, layout: Layout, shared: ServerState, mean: Any) -> ServerState:
    """The next shared model from a round's mean, wherever it lies, as `from_vector` takes it: the same bits.

    Raises InputError for NaN, Inf, another length.
    """
    params, statistics = split_mean(shared, from_vector(layout, mean))
    return algorithm.apply(shared, params, merge_statistics(shared.buffers, statistics))


def mean_norm(layout: Layout, mean: Any) -> float:
    """Euclidean norm of a round's mean; that of a GPU is accumulated in float64."""
    return float(np.linalg.norm(mean)) if isinstance(mean, np.ndarray) else norm(from_vector(layout, mean))


class _Checked:
    """A source of batches that asks before each one whether to go on."""

    def __init__(self, source: SliceBatches, check: Callable[[], None]) -> None:
        self._source, self._check = source, check

    def draw(self) -> Batch:
        self._check()
        return self._source.draw()

    def state_dict(self) -> dict[str, Any]:
        return self._source.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._source.load_state_dict(state)

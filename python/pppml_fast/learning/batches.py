"""A batch source over tensors in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pppml_fast.errors import InputError
from pppml_fast.learning.types import Batch

__all__ = ["TensorBatches"]


class TensorBatches:
    """Independent batches of ``batch_size`` distinct records, each drawn uniformly with an own generator.

    Successive batches are independent draws, not slices of one shuffle: Per-FedAvg needs D, D' and D''
    independent. Inputs (n, ...) and targets (n, ...). Raises InputError for empty or uneven tensors and for a
    batch larger than the data.
    """

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor, *, batch_size: int, seed: int) -> None:
        if len(inputs) == 0 or len(inputs) != len(targets):
            raise InputError(f"{len(inputs)} inputs and {len(targets)} targets: give as many of each, and at least one")
        if not 1 <= batch_size <= len(inputs):
            raise InputError(f"batch_size is {batch_size}: with {len(inputs)} records choose 1 to {len(inputs)}")
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Batch:
        """Inputs (batch_size, ...) and targets (batch_size, ...)."""
        rows = torch.randperm(len(self.inputs), generator=self._generator)[: self.batch_size]
        return self.inputs[rows], self.targets[rows]

    def state_dict(self) -> dict[str, Any]:
        """State of the generator."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Draw on from where ``state_dict`` was taken."""
        self._generator.set_state(state["generator"])

"""Personalised federated learning as pure functions on typed state; needs torch.

One file per algorithm, readable beside its paper: ``fedavg``, ``local``, ``fedprox``, ``per_fedavg``, and
``personalize`` for use. A round, with ``aggregate`` standing for any weighted mean:

    algorithm = per_fedavg("hf", alpha=0.01, beta=0.01, steps=10)
    objective = Objective(module, loss, statistics="local")
    state = algorithm.init(parameters_of(module), buffers_of(module))
    layout = layout_of(state.params)
    updates = {party: algorithm.client(state, objective, source) for party, source in sources.items()}
    mean = aggregate({party: to_vector(layout, update.delta) for party, update in updates.items()})
    state = algorithm.apply(state, from_vector(layout, mean))

A model on a CUDA device (``module.cuda()``) trains there; its updates are tensors of the device, and so is their mean.
"""

from __future__ import annotations

from pppml_fast.learning.batches import TensorBatches
from pppml_fast.learning.budget import (
    GRADIENTS_PER_STEP,
    common_budget,
    gradients_per_step,
    steps_for_gradients,
)
from pppml_fast.learning.devices import device_of, full_precision, on_host, synchronize
from pppml_fast.learning.exchange import (
    PartyMemory,
    Update,
    from_vector,
    layout_of,
    outgoing,
    recall,
    remember,
    split_mean,
    to_vector,
)
from pppml_fast.learning.fedavg import fedavg
from pppml_fast.learning.fedprox import fedprox
from pppml_fast.learning.local import local
from pppml_fast.learning.model import buffers_of, parameters_of, to_float32, write_back
from pppml_fast.learning.objective import Evaluation, Loss, Objective, difference_step
from pppml_fast.learning.per_fedavg import Variant, per_fedavg
from pppml_fast.learning.personalize import personalize
from pppml_fast.learning.randomness import derive_seed, seeded
from pppml_fast.learning.server import AVERAGE, ServerOptimizer
from pppml_fast.learning.statistics import (
    Statistics,
    merge_statistics,
    normalization_parameters,
    shared_statistics,
)
from pppml_fast.learning.types import (
    Algorithm,
    Batch,
    BatchSource,
    Buffers,
    ClientUpdate,
    Parameters,
    ServerState,
)

__all__ = [
    "AVERAGE",
    "GRADIENTS_PER_STEP",
    "Algorithm",
    "Batch",
    "BatchSource",
    "Buffers",
    "ClientUpdate",
    "Evaluation",
    "Loss",
    "Objective",
    "Parameters",
    "PartyMemory",
    "ServerOptimizer",
    "ServerState",
    "Statistics",
    "TensorBatches",
    "Update",
    "Variant",
    "buffers_of",
    "common_budget",
    "derive_seed",
    "device_of",
    "difference_step",
    "fedavg",
    "fedprox",
    "from_vector",
    "full_precision",
    "gradients_per_step",
    "layout_of",
    "local",
    "merge_statistics",
    "normalization_parameters",
    "on_host",
    "outgoing",
    "parameters_of",
    "per_fedavg",
    "personalize",
    "recall",
    "remember",
    "seeded",
    "shared_statistics",
    "split_mean",
    "steps_for_gradients",
    "synchronize",
    "to_float32",
    "to_vector",
    "write_back",
]

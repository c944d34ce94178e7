"""Local training only: each party descends on its own data and nothing is exchanged.

The runner keeps one state per party and applies each party's own update to it:
``state = algorithm.apply(state, update.delta, update.buffers)``. On the pooled data of all parties the same
algorithm is the centralised baseline.
"""

from __future__ import annotations

from pppml_fast.learning.budget import gradients_per_step
from pppml_fast.learning.checks import check_positive, check_steps
from pppml_fast.learning.descent import sgd_step, train
from pppml_fast.learning.objective import Objective
from pppml_fast.learning.server import AVERAGE
from pppml_fast.learning.types import Algorithm, BatchSource, ClientUpdate, ServerState

__all__ = ["local"]


def local(lr: float, steps: int) -> Algorithm:
    """Plain SGD with step size ``lr``, ``steps`` steps between two records. Raises ConfigError."""
    check_positive("lr", lr)
    gradients = check_steps("steps", steps) * gradients_per_step("local")
    step = sgd_step(lr)

    def client(state: ServerState, objective: Objective, batches: BatchSource) -> ClientUpdate:
        return train(step, state, objective, batches, steps=steps, gradients=gradients)

    return Algorithm("local", AVERAGE.init, client, AVERAGE.apply, gradients, federated=False)

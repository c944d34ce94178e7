"""FedAvg: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", 2017.

Each party takes ``steps`` plain SGD steps, w <- w - lr * grad f(w; D), from the broadcast model; the server
averages. FedAvg with fine-tuning is this, followed at use by ``personalize``.
"""

from __future__ import annotations

from pppml_fast.learning.budget import gradients_per_step
from pppml_fast.learning.checks import check_positive, check_steps
from pppml_fast.learning.descent import sgd_step, train
from pppml_fast.learning.objective import Objective
from pppml_fast.learning.server import AVERAGE, ServerOptimizer
from pppml_fast.learning.types import Algorithm, BatchSource, ClientUpdate, ServerState

__all__ = ["fedavg"]


def fedavg(lr: float, steps: int, server: ServerOptimizer = AVERAGE) -> Algorithm:
    """FedAvg with step size ``lr`` and ``steps`` local steps per round. Raises ConfigError."""
    check_positive("lr", lr)
    gradients = check_steps("steps", steps) * gradients_per_step("fedavg")
    step = sgd_step(lr)

    def client(state: ServerState, objective: Objective, batches: BatchSource) -> ClientUpdate:
        return train(step, state, objective, batches, steps=steps, gradients=gradients)

    return Algorithm("fedavg", server.init, client, server.apply, gradients)

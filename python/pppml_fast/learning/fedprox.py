"""FedProx: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020.

FedAvg in which every party lowers f(w; D) + mu/2 |w - w_broadcast|^2, so that no party runs far away.
"""

from __future__ import annotations

from pppml_fast.learning.budget import gradients_per_step
from pppml_fast.learning.checks import check_positive, check_steps
from pppml_fast.learning.descent import Step, StepFunction, train
from pppml_fast.learning.objective import Objective
from pppml_fast.learning.server import AVERAGE, ServerOptimizer
from pppml_fast.learning.types import Algorithm, BatchSource, Buffers, ClientUpdate, Parameters, ServerState
from pppml_fast.learning.vectors import add, difference, norm

__all__ = ["fedprox"]


def fedprox(lr: float, steps: int, mu: float, server: ServerOptimizer = AVERAGE) -> Algorithm:
    """FedProx with step size ``lr``, ``steps`` local steps and proximal weight ``mu``. Raises ConfigError."""
    check_positive("lr", lr)
    check_positive("mu", mu)
    gradients = check_steps("steps", steps) * gradients_per_step("fedprox")

    def client(state: ServerState, objective: Objective, batches: BatchSource) -> ClientUpdate:
        step = proximal_step(lr, mu, state.params)
        return train(step, state, objective, batches, steps=steps, gradients=gradients)

    return Algorithm("fedprox", server.init, client, server.apply, gradients)


def proximal_step(lr: float, mu: float, anchor: Parameters) -> StepFunction:
    """w <- w - lr * (grad f(w; D) + mu * (w - anchor)); one gradient."""

    def step(objective: Objective, params: Parameters, buffers: Buffers, batches: BatchSource) -> Step:
        here = objective.gradient(params, buffers, batches.draw())
        drift = difference(params, anchor)
        direction = add(here.gradient, drift, mu)
        return Step(add(params, direction, -lr), here.buffers, here.loss + 0.5 * mu * norm(drift) ** 2)

    return step

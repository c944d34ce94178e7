"""Per-FedAvg: Fallah, Mokhtari, Ozdaglar, "Personalized Federated Learning with Theoretical Guarantees: A
Model-Agnostic Meta-Learning Approach", NeurIPS 2020, algorithm 1 and section 5.

It seeks the initial model that is good after each party's own step,
min_w (1/n) sum_i f_i(w - alpha grad f_i(w)). Each party takes ``steps`` meta-steps from the broadcast model,
with independent batches D, D', D'':

    w~ = w - alpha grad f(w; D)
    w <- w - beta (I - alpha H(w; D'')) grad f(w~; D')

The server averages. Variants of the product of the Hessian H with v = grad f(w~; D'):

fo      leaves it out (first-order MAML); two gradients per step
hf      [grad f(w + d v; D'') - grad f(w - d v; D'')] / 2d, Hessian-free; four gradients per step
exact   double backward; four
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from pppml_fast.errors import ConfigError
from pppml_fast.learning.budget import gradients_per_step
from pppml_fast.learning.checks import check_positive, check_steps
from pppml_fast.learning.descent import Step, StepFunction, train
from pppml_fast.learning.objective import Objective
from pppml_fast.learning.server import AVERAGE, ServerOptimizer
from pppml_fast.learning.types import (
    Algorithm,
    Batch,
    BatchSource,
    Buffers,
    ClientUpdate,
    Parameters,
    ServerState,
)
from pppml_fast.learning.vectors import add

__all__ = ["Variant", "per_fedavg"]

Variant = Literal["fo", "hf", "exact"]
HessianProduct = Callable[[Objective, Parameters, Buffers, Batch, Parameters], Parameters]


def per_fedavg(
    variant: Variant,
    alpha: float,
    beta: float,
    steps: int,
    hvp_delta: float = 1e-3,
    server: ServerOptimizer = AVERAGE,
) -> Algorithm:
    """Per-FedAvg with inner step ``alpha``, outer step ``beta`` and ``steps`` meta-steps per round.

    ``hvp_delta`` is the relative distance of the central difference (``objective.difference_step``). The
    local steps are plain SGD; momentum, if any, is the server's. Raises ConfigError.
    """
    if variant not in get_args(Variant):
        raise ConfigError(f"the variant of Per-FedAvg is {variant!r}: choose one of {', '.join(get_args(Variant))}")
    check_positive("alpha", alpha)
    check_positive("beta", beta)
    check_positive("hvp_delta", hvp_delta)
    name = f"per_fedavg_{variant}"
    gradients = check_steps("steps", steps) * gradients_per_step(name)
    step = meta_step(alpha, beta, hessian_product(variant, hvp_delta))

    def client(state: ServerState, objective: Objective, batches: BatchSource) -> ClientUpdate:
        return train(step, state, objective, batches, steps=steps, gradients=gradients)

    return Algorithm(name, server.init, client, server.apply, gradients)


def meta_step(alpha: float, beta: float, product: HessianProduct | None) -> StepFunction:
    """One step of algorithm 1; without ``product`` the first-order one, which needs no D''."""

    def step(objective: Objective, params: Parameters, buffers: Buffers, batches: BatchSource) -> Step:
        inner = objective.gradient(params, buffers, batches.draw())  # D
        adapted = add(params, inner.gradient, -alpha)
        outer = objective.gradient(adapted, buffers, batches.draw())  # D'
        direction = outer.gradient
        if product is not None:
            curvature = product(objective, params, buffers, batches.draw(), outer.gradient)  # D''
            direction = add(direction, curvature, -alpha)
        # The step starts at w, not at the adapted weights: those only tell where the gradient is taken.
        return Step(add(params, direction, -beta), inner.buffers, outer.loss)

    return step


def hessian_product(variant: Variant, hvp_delta: float) -> HessianProduct | None:
    """The product of Hessian and vector that ``variant`` uses, None for the first-order one."""
    if variant == "fo":
        return None
    if variant == "exact":
        return Objective.hessian_vector

    def central(
        objective: Objective, params: Parameters, buffers: Buffers, batch: Batch, vector: Parameters
    ) -> Parameters:
        return objective.hessian_vector_difference(params, buffers, batch, vector, hvp_delta)

    return central

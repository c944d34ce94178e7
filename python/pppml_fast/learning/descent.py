"""A party's local steps: the loop that every algorithm shares, and the plain SGD step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pppml_fast.errors import InputError
from pppml_fast.learning.checks import check_finite
from pppml_fast.learning.objective import LOWER_STEP, Objective
from pppml_fast.learning.types import BatchSource, Buffers, ClientUpdate, Parameters, ServerState
from pppml_fast.learning.vectors import add, difference

__all__ = ["Step", "StepFunction", "descend", "sgd_step", "train"]


@dataclass(frozen=True)
class Step:
    """Parameters and buffers after a step (or several) and the (mean) loss that was lowered."""

    params: Parameters
    buffers: Buffers
    loss: float


StepFunction = Callable[[Objective, Parameters, Buffers, BatchSource], Step]


def sgd_step(lr: float) -> StepFunction:
    """w <- w - lr * grad f(w; D); one gradient."""

    def step(objective: Objective, params: Parameters, buffers: Buffers, batches: BatchSource) -> Step:
        here = objective.gradient(params, buffers, batches.draw())
        return Step(add(params, here.gradient, -lr), here.buffers, here.loss)

    return step


def descend(
    step: StepFunction,
    objective: Objective,
    params: Parameters,
    buffers: Buffers,
    batches: BatchSource,
    steps: int,
) -> Step:
    """``steps`` steps one after another; with 0 steps the model as it came and loss NaN (there was none).

    Raises InputError that names the step when a loss, gradient or product is not finite.
    """
    here, total = Step(params, buffers, float("nan")), 0.0
    for index in range(steps):
        try:
            here = step(objective, here.params, here.buffers, batches)
        except InputError as error:
            raise type(error)(f"local step {index + 1} of {steps}: {error}") from error
        total += here.loss
    return Step(here.params, here.buffers, total / steps if steps else here.loss)


def train(
    step: StepFunction,
    state: ServerState,
    objective: Objective,
    batches: BatchSource,
    *,
    steps: int,
    gradients: int,
) -> ClientUpdate:
    """A round of one party: ``steps`` steps from the broadcast model, as a difference from it.

    Raises InputError that names the first tensor of the update that is not finite.
    """
    end = descend(step, objective, state.params, state.buffers, batches, steps)
    delta = difference(end.params, state.params)
    check_finite(delta, f"after {steps} local steps the update", LOWER_STEP)
    return ClientUpdate(delta, end.buffers, gradients, end.loss)

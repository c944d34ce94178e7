"""Personalisation at use: k plain SGD steps on the party's own training data.

The same function personalises a Per-FedAvg model and fine-tunes a FedAvg model, so that a comparison of the
two compares the models. It sees one source, the party's training batches: no step may see test data.
"""

from __future__ import annotations

from pppml_fast.learning.checks import check_finite, check_parameters, check_positive, check_steps
from pppml_fast.learning.descent import descend, sgd_step
from pppml_fast.learning.objective import LOWER_STEP, Objective
from pppml_fast.learning.types import BatchSource, Buffers, Parameters

__all__ = ["personalize"]


def personalize(
    objective: Objective,
    params: Parameters,
    buffers: Buffers,
    batches: BatchSource,
    *,
    steps: int,
    lr: float,
) -> tuple[Parameters, Buffers]:
    """Parameters and buffers after ``steps`` steps w <- w - lr * grad f(w; D) on batches of ``batches``.

    Draws exactly ``steps`` batches and spends as many gradients; with 0 steps the model comes back as it is.
    Raises ConfigError for a bad setting, InputError that names step or tensor when something is not finite.
    """
    check_parameters(params)
    check_steps("steps", steps, least=0)
    check_positive("lr", lr)
    end = descend(sgd_step(lr), objective, params, buffers, batches, steps)
    check_finite(end.params, "after personalisation the value", LOWER_STEP)
    return dict(end.params), dict(end.buffers)

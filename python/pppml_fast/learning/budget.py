"""Gradient evaluations per local step, so that methods are compared at equal work.

One evaluation is one backward pass over one batch. A Hessian-vector product costs two: two gradients for the
central difference, the gradient and its derivative for the exact product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pppml_fast.errors import ConfigError
from pppml_fast.learning.checks import check_steps

__all__ = ["GRADIENTS_PER_STEP", "common_budget", "gradients_per_step", "steps_for_gradients"]

GRADIENTS_PER_STEP = {
    "local": 1,
    "fedavg": 1,
    "fedprox": 1,
    "per_fedavg_fo": 2,
    "per_fedavg_hf": 4,
    "per_fedavg_exact": 4,
    "personalize": 1,
}


def gradients_per_step(name: str) -> int:
    """Gradient evaluations of one local step of the algorithm ``name``; ConfigError for an unknown one."""
    if name not in GRADIENTS_PER_STEP:
        raise ConfigError(f"no algorithm is named {name!r}: choose one of {', '.join(GRADIENTS_PER_STEP)}")
    return GRADIENTS_PER_STEP[name]


def steps_for_gradients(name: str, gradients: int) -> int:
    """Local steps that spend exactly ``gradients`` evaluations.

    Raises ConfigError when the budget is no multiple of the algorithm's cost: rounding would make the
    comparison unequal. ``common_budget`` finds a budget that fits several algorithms.
    """
    cost = gradients_per_step(name)
    check_steps("the gradient budget", gradients)
    if gradients % cost:
        lower, upper = gradients // cost * cost, -(-gradients // cost) * cost
        near = f"{lower} or {upper}" if lower else f"{upper}"
        raise ConfigError(f"a budget of {gradients} gradients is no multiple of the {cost} of {name}: use {near}")
    return gradients // cost


def common_budget(names: Iterable[str], at_least: int) -> int:
    """The smallest budget of at least ``at_least`` evaluations that all of ``names`` spend exactly."""
    unit = math.lcm(*(gradients_per_step(name) for name in names))
    return -(-check_steps("the gradient budget", at_least) // unit) * unit

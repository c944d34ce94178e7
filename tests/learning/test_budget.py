"""The gradients an algorithm declares are the gradients autograd really computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pppml_fast.errors import ConfigError
from pppml_fast.learning import (
    GRADIENTS_PER_STEP,
    Algorithm,
    Objective,
    common_budget,
    fedavg,
    fedprox,
    gradients_per_step,
    local,
    parameters_of,
    per_fedavg,
    personalize,
    steps_for_gradients,
)

STEPS = 3
ALGORITHMS: list[Algorithm] = [
    local(0.1, STEPS),
    fedavg(0.1, STEPS),
    fedprox(0.1, STEPS, 0.1),
    per_fedavg("fo", 0.1, 0.1, STEPS),
    per_fedavg("hf", 0.1, 0.1, STEPS),
    per_fedavg("exact", 0.1, 0.1, STEPS),
]


@pytest.fixture
def backward_passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry per walk of autograd through a graph, whoever starts it."""
    passes: list[str] = []
    for name in ("grad", "backward"):
        original = getattr(torch.autograd, name)

        def counted(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            passes.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(torch.autograd, name, counted)
    return passes


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_declared_gradients_are_counted_gradients(
    network: Callable[..., Any], images: Callable[..., Any], backward_passes: list[str], algorithm: Algorithm
) -> None:
    module = network()
    forwards: list[int] = []
    objective = Objective(module, nn.CrossEntropyLoss())
    objective.module.register_forward_hook(lambda *_: forwards.append(1))
    update = algorithm.client(algorithm.init(parameters_of(module), {}), objective, images())
    assert len(backward_passes) == update.gradients == algorithm.gradients_per_round
    assert update.gradients == STEPS * gradients_per_step(algorithm.name)
    # The exact product shares one forward pass between its two backward ones.
    shared = STEPS if algorithm.name == "per_fedavg_exact" else 0
    assert len(forwards) == update.gradients - shared


def test_personalisation_spends_one_gradient_per_step(
    network: Callable[..., Any], images: Callable[..., Any], backward_passes: list[str]
) -> None:
    module = network()
    objective = Objective(module, nn.CrossEntropyLoss())
    personalize(objective, parameters_of(module), {}, images(), steps=5, lr=0.1)
    assert len(backward_passes) == 5 * gradients_per_step("personalize")


def test_steps_spend_the_budget_exactly() -> None:
    assert {name: steps_for_gradients(name, 40) for name in GRADIENTS_PER_STEP} == {
        "local": 40,
        "fedavg": 40,
        "fedprox": 40,
        "per_fedavg_fo": 20,
        "per_fedavg_hf": 10,
        "per_fedavg_exact": 10,
        "personalize": 40,
    }
    assert {algorithm.name for algorithm in ALGORITHMS} | {"personalize"} == set(GRADIENTS_PER_STEP)
    assert per_fedavg("hf", 0.1, 0.1, steps_for_gradients("per_fedavg_hf", 40)).gradients_per_round == 40


def test_budgets_that_do_not_divide_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="10 gradients is no multiple of the 4 of per_fedavg_hf: use 8 or 12"):
        steps_for_gradients("per_fedavg_hf", 10)
    with pytest.raises(ConfigError, match="use 4"):
        steps_for_gradients("per_fedavg_hf", 3)
    with pytest.raises(ConfigError, match="gradient budget is 0"):
        steps_for_gradients("fedavg", 0)
    with pytest.raises(ConfigError, match="no algorithm is named 'fedsgd'"):
        steps_for_gradients("fedsgd", 4)
    assert common_budget(["fedavg", "per_fedavg_fo", "per_fedavg_hf"], 10) == 12
    assert common_budget(["fedavg", "per_fedavg_fo"], 10) == 10

"""Mistakes that public implementations of personalised federated learning are known for; none may be here."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pppml_fast.learning as learning
from pppml_fast.learning import (
    Batch,
    Buffers,
    Evaluation,
    Objective,
    Parameters,
    TensorBatches,
    fedavg,
    fedprox,
    local,
    parameters_of,
    per_fedavg,
    personalize,
)

ALPHA, BETA = 0.3, 0.2


class SpyBatches:
    """Passes batches on and keeps each one that was drawn."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.drawn: list[Batch] = []

    def draw(self) -> Batch:
        self.drawn.append(self.source.draw())
        return self.drawn[-1]

    def state_dict(self) -> dict[str, Any]:
        return dict(self.source.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source.load_state_dict(state)


class SpyObjective(Objective):
    """Records at which point and on which batch each gradient was taken."""

    def __init__(self, module: nn.Module, loss: Any) -> None:
        super().__init__(module, loss)
        self.calls: list[tuple[Parameters, Batch]] = []

    def gradient(self, params: Parameters, buffers: Buffers, batch: Batch) -> Evaluation:
        self.calls.append((params, batch))
        return super().gradient(params, buffers, batch)


def test_the_meta_step_starts_at_w_and_not_at_the_adapted_weights(quadratic: Callable[..., Any]) -> None:
    """The published code copies the parameters at every batch: its restore undoes nothing.

    What it computes then is two plain steps, w~ - beta grad f(w~).
    """
    world = quadratic()
    update = per_fedavg("fo", ALPHA, BETA, 1).client(
        learning.AVERAGE.init(world.start, {}), world.objective, world.parties[0]
    )
    (a, c), (a1, c1) = world.parties[0].log
    w = world.vector(world.start)
    adapted = w - ALPHA * a @ (w - c)
    meta = w - BETA * a1 @ (adapted - c1)
    mistaken = adapted - BETA * a1 @ (adapted - c1)
    np.testing.assert_allclose(w + world.vector(update.delta), meta, atol=1e-12)
    assert np.abs(meta - mistaken).max() > 0.05


def test_the_second_meta_step_starts_where_the_first_one_ended(quadratic: Callable[..., Any]) -> None:
    world, again = quadratic(), quadratic()
    both = per_fedavg("hf", ALPHA, BETA, 2)
    state = both.init(world.start, {})
    whole = both.client(state, world.objective, world.parties[0]).delta
    one = per_fedavg("hf", ALPHA, BETA, 1)
    middle = one.apply(state, one.client(state, again.objective, again.parties[0]).delta)
    end = one.apply(middle, one.client(middle, again.objective, again.parties[0]).delta)
    np.testing.assert_allclose(world.vector(state.params) + world.vector(whole), world.vector(end.params), atol=1e-12)


def test_the_inner_step_matters(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    """If the meta-step never happened, alpha would change nothing."""
    module, ends = network(), []
    for alpha in (1e-6, 0.5):
        algorithm = per_fedavg("hf", alpha, BETA, 3)
        update = algorithm.client(
            algorithm.init(parameters_of(module), {}), Objective(module, nn.CrossEntropyLoss()), images()
        )
        ends.append(update.delta)
    assert max(float((ends[0][name] - ends[1][name]).abs().max()) for name in ends[0]) > 1e-2


@pytest.mark.parametrize("variant", ["fo", "hf", "exact"])
def test_an_algorithm_is_what_its_name_says(quadratic: Callable[..., Any], variant: Any) -> None:
    """The published code builds FedAvg clients under the name of the personalised method."""
    algorithms = [fedavg(BETA, 3), local(BETA, 3), fedprox(BETA, 3, 0.1), per_fedavg(variant, ALPHA, BETA, 3)]
    assert [a.name for a in algorithms] == ["fedavg", "local", "fedprox", f"per_fedavg_{variant}"]
    ends = []
    for algorithm in (algorithms[0], algorithms[2], algorithms[3]):
        world = quadratic(noise=0.0)
        state = algorithm.init(world.start, {})
        ends.append(world.vector(algorithm.client(state, world.objective, world.parties[0]).delta))
    assert np.abs(ends[0] - ends[1]).max() > 1e-2
    assert np.abs(ends[0] - ends[2]).max() > 1e-2
    assert np.abs(ends[1] - ends[2]).max() > 1e-2


@pytest.mark.parametrize(("variant", "draws"), [("fo", 2), ("hf", 3), ("exact", 3)])
def test_each_batch_is_drawn_anew_and_used_where_the_paper_says(
    network: Callable[..., Any], images: Callable[..., Any], variant: Any, draws: int
) -> None:
    module, steps = network(), 4
    spy, objective = SpyBatches(images()), SpyObjective(module, nn.CrossEntropyLoss())
    algorithm = per_fedavg(variant, ALPHA, BETA, steps)
    state = algorithm.init(parameters_of(module), {})
    algorithm.client(state, objective, spy)
    assert len(spy.drawn) == draws * steps
    inputs = [batch[0] for batch in spy.drawn]
    assert all(not torch.equal(x, y) for i, x in enumerate(inputs) for y in inputs[:i])
    pattern = {"fo": [0, 1], "hf": [0, 1, 2, 2], "exact": [0, 1]}[variant]  # D, D', then D'' twice
    expected = [spy.drawn[draws * step + index] for step in range(steps) for index in pattern]
    assert [id(batch) for _, batch in objective.calls] == [id(batch) for batch in expected]


def test_the_inner_gradient_is_taken_at_w_and_the_outer_one_at_the_adapted_weights(
    quadratic: Callable[..., Any],
) -> None:
    world = quadratic()
    objective = SpyObjective(world.objective.module, world.objective.loss)
    algorithm = per_fedavg("hf", ALPHA, BETA, 1)
    algorithm.client(algorithm.init(world.start, {}), objective, world.parties[0])
    w, adapted, ahead, behind = (world.vector(params) for params, _ in objective.calls)
    a, c = world.parties[0].log[0]
    np.testing.assert_array_equal(w, world.vector(world.start))
    np.testing.assert_allclose(adapted, w - ALPHA * a @ (w - c), atol=1e-13)
    np.testing.assert_allclose((ahead + behind) / 2, w, atol=1e-13)  # around w, not around w~
    assert np.linalg.norm(ahead - behind) == pytest.approx(2e-3 * (1 + np.linalg.norm(w)), rel=1e-9)


def test_in_memory_batches_are_independent_draws() -> None:
    """Batches of one shuffled pass never overlap; independent ones share b * b / n records on average."""
    source = TensorBatches(torch.arange(20), torch.arange(20), batch_size=10, seed=3)
    draws = [set(source.draw()[0].tolist()) for _ in range(2001)]
    assert all(len(draw) == 10 for draw in draws)
    overlaps = [len(x & y) for x, y in itertools.pairwise(draws)]
    # Hypergeometric: mean 5, variance 10 * 1/4 * 10/19 = 1.316; neighbours are pairwise uncorrelated.
    assert abs(np.mean(overlaps) - 5) < 5 * np.sqrt(1.316 / len(overlaps))
    assert np.var(overlaps) == pytest.approx(1.316, rel=0.2)
    counts = np.bincount([row for draw in draws for row in draw], minlength=20)
    assert abs(counts - 1000.5).max() < 5 * np.sqrt(2001 / 4)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_personalisation_draws_from_the_training_source_alone(
    network: Callable[..., Any], images: Callable[..., Any], steps: int
) -> None:
    """PFLlib takes its first step of the evaluation on a test batch: here there is no way to hand one in."""
    module = network()
    spy, objective = SpyBatches(images()), SpyObjective(module, nn.CrossEntropyLoss())
    start = parameters_of(module)
    params, _ = personalize(objective, start, {}, spy, steps=steps, lr=0.1)
    assert [id(batch) for _, batch in objective.calls] == [id(batch) for batch in spy.drawn]
    assert len(spy.drawn) == steps
    moved = any(not torch.equal(params[name], start[name]) for name in start)
    assert moved == (steps > 0)
    assert list(inspect.signature(personalize).parameters) == [
        "objective", "params", "buffers", "batches", "steps", "lr",
    ]  # fmt: skip


def test_nothing_that_trains_can_see_a_second_source() -> None:
    """Checkpoints chosen on the test split: no function of the package takes a test or validation source."""
    for name in learning.__all__:
        value = getattr(learning, name)
        if inspect.isfunction(value):
            assert not {"test", "validation", "test_batches"} & set(inspect.signature(value).parameters), name
    for algorithm in (fedavg(0.1, 1), local(0.1, 1), fedprox(0.1, 1, 0.1), per_fedavg("hf", 0.1, 0.1, 1)):
        assert list(inspect.signature(algorithm.client).parameters) == ["state", "objective", "batches"]


def test_fine_tuning_of_fedavg_is_the_step_that_fedavg_trains_with(
    network: Callable[..., Any], images: Callable[..., Any]
) -> None:
    module = network()
    objective, start = Objective(module, nn.CrossEntropyLoss()), parameters_of(module)
    tuned, _ = personalize(objective, start, {}, images(9), steps=4, lr=0.1)
    algorithm = fedavg(0.1, 4)
    update = algorithm.client(algorithm.init(start, {}), objective, images(9))
    for name, tensor in tuned.items():
        assert torch.equal(tensor - start[name], update.delta[name])

"""Functions of their arguments: nothing handed in changes, and the same inputs give the same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from pppml_fast.learning import (
    Algorithm,
    Objective,
    ServerOptimizer,
    ServerState,
    buffers_of,
    derive_seed,
    fedavg,
    fedprox,
    local,
    parameters_of,
    per_fedavg,
    personalize,
    seeded,
)

CROSS_ENTROPY = nn.CrossEntropyLoss()
MOMENTUM = ServerOptimizer(lr=0.9, momentum=0.5)
ALGORITHMS: list[Algorithm] = [
    fedavg(0.1, 3, server=MOMENTUM),
    local(0.1, 3),
    fedprox(0.1, 3, 0.2, server=MOMENTUM),
    per_fedavg("fo", 0.1, 0.1, 3, server=MOMENTUM),
    per_fedavg("hf", 0.1, 0.1, 3, server=MOMENTUM),
    per_fedavg("exact", 0.1, 0.1, 3, server=MOMENTUM),
]
by_name = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)


def bits(tensors: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


@by_name
def test_inputs_are_never_changed(
    network: Callable[..., Any], images: Callable[..., Any], algorithm: Algorithm
) -> None:
    module = network(batch_norm=True, dropout=0.3).eval()
    params, buffers = parameters_of(module), buffers_of(module)
    given = bits(module.state_dict())
    state = algorithm.init(params, buffers)
    objective, source = Objective(module, CROSS_ENTROPY), images()
    before, records = bits(state.state_dict()), bits({"x": source.inputs})
    update = algorithm.client(state, objective, source)
    delta = bits(update.delta)
    after = algorithm.apply(state, update.delta, update.buffers)
    third = algorithm.apply(after, update.delta)
    personalize(objective, state.params, state.buffers, source, steps=2, lr=0.1)
    assert bits(state.state_dict()) == before
    assert (bits(update.delta), bits({"x": source.inputs})) == (delta, records)
    assert (
        bits(module.state_dict())
        == given
        == bits({**params, **buffers}) | {name: b for name, b in given.items() if name not in {**params, **buffers}}
    )
    assert bits(objective.module.state_dict()) == given, "the form itself stays as it was copied"
    assert not any(m.training for m in module.modules())
    assert bits(third.params) != bits(after.params) != bits(state.params)
    leaves = [*state.params.values(), *update.delta.values(), *after.params.values()]
    assert not any(tensor.requires_grad for tensor in leaves)
    assert all(p.grad is None for p in module.parameters())


def test_the_state_is_a_copy_of_the_model(network: Callable[..., Any]) -> None:
    module = network(batch_norm=True)
    params, buffers = parameters_of(module), buffers_of(module)
    taken = bits({**params, **buffers})
    live = {name: p.detach() for name, p in module.named_parameters()}
    state = fedavg(0.1, 1).init(live, dict(module.named_buffers()))
    before = bits(state.state_dict())
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(7)
    assert bits(state.state_dict()) == before
    assert bits({**params, **buffers}) == taken


def run(module: nn.Module, images: Callable[..., Any], algorithm: Algorithm, seed: int) -> ServerState:
    objective = Objective(module, CROSS_ENTROPY)
    state = algorithm.init(parameters_of(module), buffers_of(module))
    sources = [images(10 * seed + party, shift=party) for party in range(2)]
    for _ in range(2):
        updates = []
        for party, source in enumerate(sources):
            with seeded(derive_seed(seed, "client", state.round, party)):
                updates.append(algorithm.client(state, objective, source))
        mean = {name: sum(u.delta[name] for u in updates) / 2 for name in state.params}
        state = algorithm.apply(state, mean)
    return state


@by_name
def test_the_same_seed_gives_the_same_bits(
    network: Callable[..., Any], images: Callable[..., Any], algorithm: Algorithm
) -> None:
    module = network(dropout=0.3)
    torch.manual_seed(1)
    first = run(module, images, algorithm, seed=1)
    torch.manual_seed(2)  # the global generator has no say
    again = run(module, images, algorithm, seed=1)
    other = run(module, images, algorithm, seed=2)
    assert bits(first.state_dict()) == bits(again.state_dict())
    assert bits(first.params) != bits(other.params)


def test_seeds_of_different_purposes_differ_and_leave_the_generator_alone() -> None:
    seeds = {derive_seed(s, *p) for s in (0, 1) for p in (("a", 1), ("a", 11), ("b", 1), ("a1", 1), ("a", 1, 1))}
    assert len(seeds) == 10
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(7, "client", 3) == derive_seed(7, "client", 3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)


def test_training_lowers_the_loss(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    module = network()
    objective = Objective(module, CROSS_ENTROPY)
    for algorithm in (fedavg(0.1, 60), per_fedavg("fo", 0.05, 0.1, 60), per_fedavg("hf", 0.05, 0.1, 60)):
        state = algorithm.init(parameters_of(module), {})
        losses = []
        for _ in range(3):
            update = algorithm.client(state, objective, images())
            losses.append(update.loss)
            state = algorithm.apply(state, update.delta)
        assert losses[2] < 0.6 * losses[0], algorithm.name


def test_meta_objective_falls_on_a_network(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    """After Per-FedAvg one step on a party's own data helps more than it did at the start."""
    module, alpha = network(), 0.2
    objective = Objective(module, CROSS_ENTROPY)
    parties = [images(seed, shift=shift, batch_size=48) for seed, shift in ((1, -1.0), (2, 0.0), (3, 1.5))]

    def meta_loss(state: ServerState) -> float:
        total = 0.0
        for party in parties:
            params, _ = personalize(objective, state.params, {}, party, steps=1, lr=alpha)
            total += float(objective(params, {}, party.draw()).detach()) / 3
        return total

    algorithm = per_fedavg("exact", alpha, 0.2, 4)
    state = algorithm.init(parameters_of(module), {})
    start = meta_loss(state)
    for _ in range(15):
        updates = [algorithm.client(state, objective, party) for party in parties]
        state = algorithm.apply(state, {n: sum(u.delta[n] for u in updates) / 3 for n in state.params})
    assert meta_loss(state) < 0.5 * start


def test_a_layer_that_assigns_its_buffer_anew_is_followed() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + len(x)
            return self.w * x

    module = Counter()
    objective = Objective(module, lambda output, target: (output - target).square().mean())
    batch = (torch.ones(5), torch.zeros(5))
    evaluation = objective.gradient(parameters_of(module), buffers_of(module), batch)
    assert int(evaluation.buffers["seen"]) == 5
    assert int(module.seen) == int(objective.module.seen) == 0

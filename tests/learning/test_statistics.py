"""Running statistics of batch normalisation under the three policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pppml_fast.errors import ConfigError, InputError
from pppml_fast.learning import (
    Algorithm,
    Objective,
    PartyMemory,
    ServerState,
    buffers_of,
    fedavg,
    from_vector,
    layout_of,
    merge_statistics,
    normalization_parameters,
    outgoing,
    parameters_of,
    per_fedavg,
    personalize,
    recall,
    remember,
    shared_statistics,
    split_mean,
    to_vector,
)

CROSS_ENTROPY = nn.CrossEntropyLoss()
MEAN, VARIANCE, COUNT = "1.running_mean", "1.running_var", "1.num_batches_tracked"


def train(module: nn.Module, source: Any, algorithm: Algorithm, statistics: Any) -> tuple[ServerState, Any]:
    state = algorithm.init(parameters_of(module), buffers_of(module))
    return state, algorithm.client(state, Objective(module, CROSS_ENTROPY, statistics=statistics), source)


@pytest.mark.parametrize("statistics", ["shared", "local"])
@pytest.mark.parametrize(
    "algorithm",
    [fedavg(1e-6, 3), per_fedavg("hf", 1e-6, 1e-6, 3), per_fedavg("exact", 1e-6, 1e-6, 3)],
    ids=lambda a: a.name,
)
def test_statistics_advance_once_per_step_on_the_batch_at_w(
    network: Callable[..., Any], images: Callable[..., Any], statistics: str, algorithm: Algorithm
) -> None:
    module = network(batch_norm=True)
    _, update = train(module, images(), algorithm, statistics)
    replay = images()
    draws = {"fedavg": 1, "per_fedavg_hf": 3, "per_fedavg_exact": 3}[algorithm.name]
    first = [replay.draw() for _ in range(3 * draws)][::draws]
    expected = torch.zeros(4)
    for x, _ in first:  # torch: running <- 0.9 running + 0.1 batch; steps of 1e-6 leave the weights in place
        expected = 0.9 * expected + 0.1 * module[0](x).mean((0, 2, 3)).detach()
    torch.testing.assert_close(update.buffers[MEAN], expected, rtol=1e-3, atol=1e-4)
    assert int(update.buffers[COUNT]) == 3


@pytest.mark.parametrize("algorithm", [fedavg(0.1, 3), per_fedavg("hf", 0.1, 0.1, 3)], ids=lambda a: a.name)
def test_frozen_statistics_stay_and_are_what_normalises(
    network: Callable[..., Any], images: Callable[..., Any], algorithm: Algorithm
) -> None:
    module = network(batch_norm=True)
    module[1].running_mean.fill_(0.5)
    module[1].running_var.fill_(3.0)
    state, update = train(module, images(), algorithm, "frozen")
    assert all(torch.equal(update.buffers[name], buffer) for name, buffer in state.buffers.items())
    assert float(update.delta["1.weight"].abs().max()) > 0, "its weights still learn"
    batch = images().draw()
    frozen = Objective(module, CROSS_ENTROPY, statistics="frozen")(state.params, state.buffers, batch)
    expected = CROSS_ENTROPY(module.eval()(batch[0]), batch[1])
    torch.testing.assert_close(frozen, expected)
    by_batch = Objective(module, CROSS_ENTROPY, statistics="local")(state.params, state.buffers, batch)
    assert abs(float(by_batch) - float(frozen)) > 1e-3


def test_frozen_keeps_other_layers_in_training_mode(network: Callable[..., Any]) -> None:
    objective = Objective(network(batch_norm=True, dropout=0.5), CROSS_ENTROPY, statistics="frozen")
    modes = {type(m).__name__: m.training for m in objective.module}
    assert modes["Dropout"] and modes["Conv2d"] and not modes["BatchNorm2d"]


def test_only_shared_floating_statistics_travel(network: Callable[..., Any]) -> None:
    module = nn.Sequential(*network(batch_norm=True))
    module.register_buffer("positions", torch.ones(3))
    buffers = buffers_of(module)
    assert set(buffers) == {MEAN, VARIANCE, COUNT, "positions"}
    assert list(shared_statistics(module, buffers, "shared")) == [MEAN, VARIANCE]
    assert shared_statistics(module, buffers, "local") == {}
    assert shared_statistics(module, buffers, "frozen") == {}
    with pytest.raises(ConfigError, match=r"'both'.*shared, local, frozen"):
        shared_statistics(module, buffers, "both")
    with pytest.raises(ConfigError, match="statistics is 'none'"):
        Objective(module, CROSS_ENTROPY, statistics="none")  # type: ignore[arg-type]


def test_a_round_with_shared_statistics_averages_them_and_keeps_the_counts(
    network: Callable[..., Any], images: Callable[..., Any]
) -> None:
    module, algorithm = network(batch_norm=True), fedavg(0.1, 2)
    objective = Objective(module, CROSS_ENTROPY, statistics="shared")
    state = algorithm.init(parameters_of(module), buffers_of(module))
    layout = layout_of({**state.params, **shared_statistics(module, state.buffers, "shared")})
    assert layout.names == (*state.params, MEAN, VARIANCE)
    updates = [algorithm.client(state, objective, images(p, shift=float(p))) for p in range(2)]
    vectors = [layout.flatten(outgoing(state, update)) for update in updates]
    delta, statistics = split_mean(state, from_vector(layout, 0.25 * vectors[0] + 0.75 * vectors[1]))
    after = algorithm.apply(state, delta, merge_statistics(state.buffers, statistics))
    for name in (MEAN, VARIANCE):
        expected = 0.25 * updates[0].buffers[name] + 0.75 * updates[1].buffers[name]
        torch.testing.assert_close(after.buffers[name], expected)
        assert not torch.equal(updates[0].buffers[name], updates[1].buffers[name])
    assert int(after.buffers[COUNT]) == 0
    memory = remember(state, updates[0], layout)
    assert list(memory.buffers) == [COUNT] and memory.params == {}
    assert int(recall(after, memory).buffers[COUNT]) == 2


def test_variances_never_fall_below_zero(network: Callable[..., Any]) -> None:
    buffers = buffers_of(network(batch_norm=True))
    merged = merge_statistics(buffers, {VARIANCE: torch.full((4,), -1.0001), MEAN: torch.full((4,), -2.0)})
    assert merged[VARIANCE].tolist() == [0.0] * 4
    assert merged[MEAN].tolist() == [-2.0] * 4


def test_fedbn_keeps_normalisation_with_each_party(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    module, algorithm = network(batch_norm=True), fedavg(0.1, 2)
    own = normalization_parameters(module)
    assert own == ("1.weight", "1.bias")
    objective = Objective(module, CROSS_ENTROPY, statistics="local")
    state = algorithm.init(parameters_of(module), buffers_of(module))
    layout = layout_of(state.params, exclude=own)
    assert not set(own) & set(layout.names)
    memories = [PartyMemory(), PartyMemory()]
    sources = [images(p, shift=2.0 * p) for p in range(2)]
    for _ in range(2):
        vectors = []
        for p in range(2):
            seen = recall(state, memories[p])
            update = algorithm.client(seen, objective, sources[p])
            vectors.append(layout.flatten({name: update.delta[name] for name in layout.names}))
            for name in own:  # training went on from the party's own values
                expected = seen.params[name] + update.delta[name]
                memories[p] = remember(seen, update, layout)
                assert torch.equal(memories[p].params[name], expected)
        state = algorithm.apply(state, from_vector(layout, (vectors[0] + vectors[1]) / 2))
    assert torch.equal(state.params["1.weight"], torch.ones(4)), "the server never saw them"
    assert torch.equal(state.buffers[MEAN], torch.zeros(4))
    assert int(memories[0].buffers[COUNT]) == 4
    assert float((memories[0].params["1.weight"] - memories[1].params["1.weight"]).abs().max()) > 1e-4
    assert float((memories[0].buffers[MEAN] - memories[1].buffers[MEAN]).abs().max()) > 1e-2


def test_personalisation_advances_the_partys_own_statistics(
    network: Callable[..., Any], images: Callable[..., Any]
) -> None:
    module = network(batch_norm=True)
    start, buffers = parameters_of(module), buffers_of(module)
    _, moved = personalize(Objective(module, CROSS_ENTROPY), start, buffers, images(), steps=2, lr=0.1)
    assert int(moved[COUNT]) == 2 and int(buffers[COUNT]) == 0
    objective = Objective(module, CROSS_ENTROPY, statistics="frozen")
    _, kept = personalize(objective, start, buffers, images(), steps=2, lr=0.1)
    assert all(torch.equal(kept[name], buffers[name]) for name in buffers)


def test_untracked_batch_normalisation_cannot_be_frozen() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ConfigError, match=r"layer '1' tracks no running statistics.*track_running_stats=True"):
        Objective(module, CROSS_ENTROPY, statistics="frozen")
    instance = nn.Sequential(nn.Conv2d(1, 1, 1), nn.InstanceNorm2d(1, affine=True))
    Objective(instance, CROSS_ENTROPY, statistics="frozen")  # keeps no statistics: nothing to freeze
    assert buffers_of(instance) == {} and normalization_parameters(instance) == ()


def test_half_precision_statistics_are_refused(network: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"buffer '1.running_mean' is torch.float16.*module.float\(\)"):
        buffers_of(network(batch_norm=True).half())


def test_to_vector_leaves_local_statistics_out(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    module = network(batch_norm=True)
    state, update = train(module, images(), fedavg(0.1, 1), "local")
    layout = layout_of(state.params)
    assert sum(view.size for view in to_vector(layout, outgoing(state, update))) == layout.size
    assert layout.size == sum(p.numel() for p in module.parameters())

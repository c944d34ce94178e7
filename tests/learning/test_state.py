"""Server step, saving and resuming, and errors that name step or tensor."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pppml_fast.errors import ConfigError, InputError, LayoutMismatchError
from pppml_fast.learning import (
    BatchSource,
    Objective,
    ServerOptimizer,
    ServerState,
    TensorBatches,
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


def one_round(algorithm: Any, state: ServerState, objective: Objective, sources: list[TensorBatches]) -> ServerState:
    updates = []
    for party, source in enumerate(sources):
        with seeded(derive_seed(1, "client", state.round, party)):
            updates.append(algorithm.client(state, objective, source))
    mean = {name: 0.5 * (updates[0].delta[name] + updates[1].delta[name]) for name in state.params}
    return algorithm.apply(state, mean, updates[0].buffers)  # type: ignore[no-any-return]


@pytest.mark.parametrize("through", ["torch", "safetensors"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    network: Callable[..., Any], images: Callable[..., Any], tmp_path: Path, through: str
) -> None:
    module = network(batch_norm=True, dropout=0.2)
    algorithm = per_fedavg("hf", 0.1, 0.1, 2, server=ServerOptimizer(momentum=0.9))
    objective = Objective(module, CROSS_ENTROPY)
    sources = [images(1), images(2)]
    state = algorithm.init(parameters_of(module), buffers_of(module))
    for _ in range(2):
        state = one_round(algorithm, state, objective, sources)
    if through == "torch":
        file = io.BytesIO()
        torch.save({"state": state.state_dict(), "sources": [s.state_dict() for s in sources]}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
    else:
        save_file(state.state_dict(), tmp_path / "state.safetensors")
        saved = {
            "state": load_file(tmp_path / "state.safetensors"),
            "sources": [s.state_dict() for s in sources],
        }
    for _ in range(2):
        state = one_round(algorithm, state, objective, sources)

    fresh = [images(1), images(2)]
    for source, position in zip(fresh, saved["sources"], strict=True):
        source.load_state_dict(position)
    resumed = algorithm.init(parameters_of(module), buffers_of(module)).restore(saved["state"])
    assert resumed.round == 2
    for _ in range(2):
        resumed = one_round(algorithm, resumed, Objective(module, CROSS_ENTROPY), fresh)
    assert list(resumed.state_dict()) == list(state.state_dict())
    for name, tensor in state.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert resumed.round == 4 and int(resumed.buffers["1.num_batches_tracked"]) == 8


def test_a_state_of_another_model_is_refused(network: Callable[..., Any]) -> None:
    plain = fedavg(0.1, 1).init(parameters_of(network()), {})
    heavy = fedavg(0.1, 1, server=ServerOptimizer(momentum=0.5)).init(parameters_of(network()), {})
    with pytest.raises(LayoutMismatchError, match=r"optimizer/0\.weight"):
        heavy.restore(plain.state_dict())
    with pytest.raises(LayoutMismatchError, match=r"optimizer/0\.weight"):
        plain.restore(heavy.state_dict())
    with pytest.raises(InputError, match="no 'round'"):
        plain.restore(plain.params)
    wrong = plain.state_dict() | {"params/0.bias": torch.zeros(5)}
    with pytest.raises(LayoutMismatchError, match=r"params/0.bias\[4\].*params/0.bias\[5\]"):
        plain.restore(wrong)


def test_states_are_frozen_and_batches_are_sources(images: Callable[..., Any]) -> None:
    state = ServerState({"w": torch.zeros(1)}, {})
    with pytest.raises(FrozenInstanceError):
        state.round = 3  # type: ignore[misc]
    assert isinstance(images(), BatchSource)


def test_plain_averaging_adds_the_mean_exactly() -> None:
    server = ServerOptimizer()
    w, d = torch.randn(100), torch.randn(100) * 1e-3
    state = server.init({"w": w, "head": torch.ones(2)}, {"b": torch.zeros(1)})
    after = server.apply(state, {"w": d})
    assert torch.equal(after.params["w"], w + d)
    assert torch.equal(after.params["head"], torch.ones(2)) and after.optimizer == {}
    assert float(after.buffers["b"]) == 0 and after.round == 1


@pytest.mark.parametrize(
    ("delta", "buffers", "error", "words"),
    [
        ({}, None, InputError, "mean update is empty"),
        ({"v": torch.zeros(2)}, None, InputError, "no parameter 'v'"),
        ({"w": torch.zeros(3)}, None, LayoutMismatchError, r"'w' has shape \(2,\), the update \(3,\)"),
        ({"w": torch.tensor([0.0, float("nan")])}, None, InputError, "mean update of 'w' is not finite"),
        ({"w": torch.zeros(2)}, {"x": torch.zeros(1)}, InputError, "no buffer 'x'"),
        (
            {"w": torch.zeros(2)},
            {"b": torch.tensor([float("inf")])},
            InputError,
            "value of 'b' is not finite",
        ),
    ],
)
def test_updates_that_do_not_fit_are_refused(delta: Any, buffers: Any, error: Any, words: str) -> None:
    server = ServerOptimizer()
    state = server.init({"w": torch.zeros(2)}, {"b": torch.zeros(1)})
    with pytest.raises(error, match=words):
        server.apply(state, delta, buffers)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: fedavg(0.0, 1), "lr is 0.0"),
        (lambda: fedavg(float("nan"), 1), "lr is nan"),
        (lambda: local(0.1, 0), "steps is 0"),
        (lambda: fedprox(0.1, 1, -1.0), "mu is -1.0"),
        (lambda: per_fedavg("sf", 0.1, 0.1, 1), "'sf': choose one of fo, hf, exact"),  # type: ignore[arg-type]
        (lambda: per_fedavg("hf", -0.1, 0.1, 1), "alpha is -0.1"),
        (lambda: per_fedavg("hf", 0.1, float("inf"), 1), "beta is inf"),
        (lambda: per_fedavg("hf", 0.1, 0.1, 1, hvp_delta=0.0), "hvp_delta is 0.0"),
        (lambda: per_fedavg("hf", 0.1, 0.1, True), "steps is True"),
        (lambda: ServerOptimizer(lr=-1.0), "server's lr is -1.0"),
        (lambda: ServerOptimizer(momentum=1.0), "momentum is 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build()


class Faulty:
    """A source whose third batch holds a NaN."""

    def __init__(self, source: TensorBatches) -> None:
        self.source, self.drawn = source, 0

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.drawn += 1
        x, y = self.source.draw()
        return (torch.full_like(x, float("nan")), y) if self.drawn == 3 else (x, y)


def test_nan_in_the_data_names_step_and_tensor(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    module = network()
    objective, start = Objective(module, CROSS_ENTROPY), parameters_of(module)
    algorithm = fedavg(0.1, 5)
    with pytest.raises(InputError, match=r"local step 3 of 5: the batch tensor of 'inputs'.*clean the data"):
        algorithm.client(algorithm.init(start, {}), objective, Faulty(images()))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="local step 3 of 4"):
        personalize(objective, start, {}, Faulty(images()), steps=4, lr=0.1)  # type: ignore[arg-type]
    algorithm = per_fedavg("hf", 0.1, 0.1, 5)
    with pytest.raises(InputError, match="local step 1 of 5"):  # its third batch is D'' of the first step
        algorithm.client(algorithm.init(start, {}), objective, Faulty(images()))  # type: ignore[arg-type]


def test_divergence_is_an_error_with_a_remedy(quadratic: Callable[..., Any]) -> None:
    world = quadratic(torch.float32)
    algorithm = fedavg(1e30, 5)
    state = algorithm.init(world.start, {})
    with pytest.raises(InputError, match=r"local step \d of 5: the loss is (inf|nan): lower the step size"):
        algorithm.client(state, world.objective, world.parties[0])


def test_nan_in_a_gradient_names_the_tensor() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.bad = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.good + self.bad.sqrt() * x  # the slope of the root at 0 is infinite

    module = Root()
    objective = Objective(module, lambda output, target: output.sum())
    with pytest.raises(InputError, match="the gradient of 'bad' is not finite"):
        objective.gradient(parameters_of(module), {}, (torch.ones(1), torch.ones(1)))


def test_a_last_step_into_infinity_is_caught_in_the_update(quadratic: Callable[..., Any]) -> None:
    world = quadratic(torch.float32)
    algorithm = fedavg(3e38, 1)  # loss and gradient are finite, the step is not
    state = algorithm.init({name: tensor * 50 for name, tensor in world.start.items()}, {})
    with pytest.raises(InputError, match=r"after 1 local steps the update of '(head|body)' is not finite"):
        algorithm.client(state, world.objective, world.parties[0])
    with pytest.raises(InputError, match=r"after personalisation the value of '(head|body)' is not finite"):
        personalize(world.objective, state.params, {}, world.parties[0], steps=1, lr=3e38)


def test_objective_refuses_what_it_cannot_lower(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    module, batch = network(), images().draw()
    params = parameters_of(module)
    with pytest.raises(InputError, match=r"loss has shape \(8,\)"):
        Objective(module, nn.CrossEntropyLoss(reduction="none"))(params, {}, batch)
    with pytest.raises(InputError, match="depends on no trainable parameter"):
        Objective(module, lambda output, target: torch.ones(())).gradient(params, {}, batch)
    with pytest.raises(InputError, match="'nonsense' is not in both"):
        Objective(module, CROSS_ENTROPY)({**params, "nonsense": torch.ones(1)}, {}, batch)
    for p in module.parameters():
        p.requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameter: set requires_grad"):
        parameters_of(module)


def test_in_memory_batches_refuse_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="0 inputs and 0 targets"):
        TensorBatches(torch.zeros(0), torch.zeros(0), batch_size=1, seed=0)
    with pytest.raises(InputError, match="3 inputs and 2 targets"):
        TensorBatches(torch.zeros(3), torch.zeros(2), batch_size=1, seed=0)
    with pytest.raises(InputError, match="batch_size is 4: with 3 records choose 1 to 3"):
        TensorBatches(torch.zeros(3), torch.zeros(3), batch_size=4, seed=0)

"""Which tensors travel, and their way to flat vectors and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pppml_fast.errors import InputError, LayoutMismatchError
from pppml_fast.learning import (
    Objective,
    ServerState,
    buffers_of,
    fedavg,
    from_vector,
    layout_of,
    parameters_of,
    personalize,
    to_float32,
    to_vector,
    write_back,
)


class Tied(nn.Module):
    """An encoder whose weight is used again, transposed, by the decoder, and a frozen scale."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3, bias=False)
        self.middle = nn.Linear(3, 4, bias=False)
        self.decoder = nn.Linear(4, 3, bias=False)
        self.decoder.weight = self.encoder.weight
        self.scale = nn.Parameter(torch.full((3,), 2.0), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.decoder(self.middle(torch.tanh(self.encoder(x)))) * self.scale)


def squared(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean()


def test_vectors_are_views_and_come_back_bit_for_bit(network: Callable[..., Any]) -> None:
    params = parameters_of(network())
    layout = layout_of(params)
    views = to_vector(layout, params)
    assert [view.size for view in views] == [t.numel() for t in params.values()]
    for view, tensor in zip(views, params.values(), strict=True):
        assert view.ctypes.data == tensor.data_ptr() and view.dtype == np.float32 and view.ndim == 1
    vector = np.concatenate(views)
    back = from_vector(layout, vector)
    assert list(back) == list(params)
    assert all(torch.equal(back[name], params[name]) for name in params)
    first = next(iter(back.values()))
    assert first.data_ptr() == vector.ctypes.data, "no copy on the way back either"
    np.testing.assert_array_equal(layout.flatten(params), vector)


def test_tensors_in_another_memory_format_travel_in_logical_order() -> None:
    weight = torch.randn(2, 3, 4, 5)
    other = weight.to(memory_format=torch.channels_last)
    layout = layout_of({"w": weight})
    np.testing.assert_array_equal(to_vector(layout, {"w": other})[0], weight.reshape(-1).numpy())


def test_read_only_vectors_are_copied() -> None:
    layout = layout_of({"w": torch.zeros(3)})
    vector = np.array([1, 2, 3], np.float32)
    vector.setflags(write=False)
    tensors = from_vector(layout, vector)
    tensors["w"] += 1
    assert vector.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ((), (), ["0.weight", "0.bias", "2.weight", "2.bias", "5.weight", "5.bias"]),
        (["*.weight"], (), ["0.weight", "2.weight", "5.weight"]),
        ((), ["5.*"], ["0.weight", "0.bias", "2.weight", "2.bias"]),
        (["[02].*", "5.bias"], ["*.weight"], ["0.bias", "2.bias", "5.bias"]),
        ("0.*", "*.bias", ["0.weight"]),
    ],
)
def test_patterns_choose_tensors(network: Callable[..., Any], include: Any, exclude: Any, names: list[str]) -> None:
    params = parameters_of(network())
    layout = layout_of(params, include=include, exclude=exclude)
    assert list(layout.names) == names
    assert len(to_vector(layout, params)) == len(names)


def test_a_local_head_stays_at_home(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    module, algorithm = network(), fedavg(0.1, 2)
    state = algorithm.init(parameters_of(module), {})
    layout = layout_of(state.params, exclude=["5.*"])
    update = algorithm.client(state, Objective(module, nn.CrossEntropyLoss()), images())
    assert float(update.delta["5.weight"].abs().max()) > 0
    vector = np.concatenate(to_vector(layout, update.delta))
    after = algorithm.apply(state, from_vector(layout, vector))
    assert torch.equal(after.params["5.weight"], state.params["5.weight"])
    assert list(after.params) == list(state.params), "the order of names survives"
    torch.testing.assert_close(after.params["0.weight"], state.params["0.weight"] + update.delta["0.weight"])


def test_pattern_mistakes_are_named(network: Callable[..., Any]) -> None:
    params = parameters_of(network())
    with pytest.raises(InputError, match=r"pattern 'haed.\*' matches no tensor: names are such as 0.weight"):
        layout_of(params, exclude=["haed.*"])
    with pytest.raises(InputError, match="no tensor is left"):
        layout_of(params, exclude=["*"])


def test_tied_weights_travel_once_and_learn_from_both_uses() -> None:
    torch.manual_seed(0)
    module = Tied()
    params = parameters_of(module)
    assert list(params) == ["encoder.weight", "middle.weight"]
    every = dict(module.named_parameters(remove_duplicate=False))
    assert layout_of(every).names == layout_of(params).names == ("encoder.weight", "middle.weight")
    x, y = torch.randn(5, 4), torch.randn(5, 3)
    gradient = Objective(module, squared).gradient(params, {}, (x, y)).gradient
    squared(module(x), y).backward()
    torch.testing.assert_close(gradient["encoder.weight"], module.encoder.weight.grad)
    with pytest.raises(InputError, match=r"'encoder.weight' and 'decoder.weight' share memory.*parameters_of"):
        layout_of(module.state_dict())
    write_back(module, {name: tensor + 1 for name, tensor in params.items()})
    assert module.decoder.weight is module.encoder.weight
    torch.testing.assert_close(module.decoder.weight.detach(), params["encoder.weight"] + 1)


def test_frozen_weights_never_travel_and_never_move() -> None:
    module = Tied()
    module.middle.weight.requires_grad_(False)
    params = parameters_of(module)
    assert list(params) == ["encoder.weight"]
    assert layout_of(dict(module.named_parameters())).names == ("encoder.weight",)
    algorithm = fedavg(0.1, 3)
    objective = Objective(module, squared)
    frozen = module.middle.weight.detach().clone()

    class Source:
        def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.ones(2, 4), torch.zeros(2, 3)

    update = algorithm.client(ServerState(params, {}), objective, Source())  # type: ignore[arg-type]
    assert list(update.delta) == ["encoder.weight"]
    assert torch.equal(module.middle.weight, frozen) and torch.equal(objective.module.middle.weight, frozen)


def test_mismatches_name_the_tensor(network: Callable[..., Any]) -> None:
    params = parameters_of(network())
    layout = layout_of(params)
    other = {**params, "2.weight": torch.zeros(4, 4, 5, 5)}
    with pytest.raises(LayoutMismatchError, match=r"2\.weight\[4, 4, 3, 3\].*2\.weight\[4, 4, 5, 5\]"):
        to_vector(layout, other)
    with pytest.raises(LayoutMismatchError, match=r"'5\.bias' of the layout is missing"):
        to_vector(layout, {name: t for name, t in params.items() if name != "5.bias"})
    with pytest.raises(InputError, match="does not fit the layout"):
        from_vector(layout, np.zeros(layout.size - 1, np.float32))
    vector = np.zeros(layout.size, np.float32)
    vector[params["0.weight"].numel()] = np.nan
    with pytest.raises(InputError, match=r"'0\.bias' is not finite"):
        from_vector(layout, vector)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_or_converted_explicitly(
    network: Callable[..., Any], images: Callable[..., Any], dtype: torch.dtype
) -> None:
    module = network().to(dtype)
    kind = str(dtype)
    with pytest.raises(InputError, match=rf"'0\.weight' is {kind}.*module\.float\(\)"):
        parameters_of(module)
    half = {name: p.detach() for name, p in module.named_parameters()}
    objective = Objective(network(), nn.CrossEntropyLoss())
    with pytest.raises(InputError, match=rf"'0\.weight' is {kind}"):
        layout_of(half)
    with pytest.raises(InputError, match=kind):
        fedavg(0.1, 1).init(half, {})
    with pytest.raises(InputError, match=kind):
        personalize(objective, half, {}, images(), steps=1, lr=0.1)
    converted = to_float32({**half, "count": torch.tensor(3)})
    assert converted["count"].dtype == torch.int64
    assert all(torch.equal(converted[name].to(dtype), tensor) for name, tensor in half.items())
    del converted["count"]
    assert layout_of(converted).size == sum(t.numel() for t in half.values())
    personalize(objective, converted, {}, images(), steps=1, lr=0.1)


def test_float64_trains_but_does_not_travel(network: Callable[..., Any]) -> None:
    params = parameters_of(network().double())
    with pytest.raises(InputError, match=r"torch\.float64: float32 travels"):
        layout_of(params)


def test_write_back_checks_names_and_shapes(network: Callable[..., Any]) -> None:
    module = network(batch_norm=True)
    params, buffers = parameters_of(module), buffers_of(module)
    fresh = network(batch_norm=True, seed=9)
    write_back(fresh, params, {**buffers, "1.running_mean": torch.full((4,), 3.0)})
    assert torch.equal(fresh[0].weight, params["0.weight"]) and float(fresh[1].running_mean[0]) == 3.0
    with pytest.raises(InputError, match="no tensor 'extra'"):
        write_back(fresh, {"extra": torch.zeros(1)})
    with pytest.raises(LayoutMismatchError, match=r"0\.bias"):
        write_back(fresh, {"0.bias": torch.zeros(9)})

"""What training asks of devices; on a GPU itself: tests/cuda/device/test_torch_training.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from pppml_fast.errors import InputError
from pppml_fast.learning import (
    AVERAGE,
    Objective,
    buffers_of,
    device_of,
    from_vector,
    full_precision,
    layout_of,
    objective,
    on_host,
    parameters_of,
    synchronize,
    to_vector,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def flags() -> tuple[bool, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


def test_convolutions_of_a_gpu_are_float32s_and_the_programs_settings_come_back() -> None:
    before = flags()
    with full_precision(CPU):
        assert flags() == before
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(ZeroDivisionError), full_precision(GPU):
            assert flags() == (before[0], False, True, False)
            raise ZeroDivisionError
        assert flags() == (before[0], True, before[2], True)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1], before[3]


def test_every_gradient_and_product_is_taken_in_full_precision(
    network: Callable[..., Any], images: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []

    @contextlib.contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        asked.append(device)
        yield

    monkeypatch.setattr(objective, "full_precision", noted)
    module, batch = network(), images().draw()
    form, params, buffers = Objective(module, nn.CrossEntropyLoss()), parameters_of(module), buffers_of(module)
    vector = form.gradient(params, buffers, batch).gradient
    assert asked == [CPU]
    form.hessian_vector(params, buffers, batch, vector)
    form.hessian_vector_difference(params, buffers, batch, vector)
    assert asked == [CPU] * 4


def test_copies_on_the_host_are_copies() -> None:
    grid = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
    copy = on_host(grid)
    assert torch.equal(copy, grid) and copy.is_contiguous() and not copy.requires_grad
    assert copy.data_ptr() != grid.data_ptr()
    assert device_of({}) == device_of({"w": grid}) == CPU
    synchronize(CPU)


def test_an_update_lies_in_one_place() -> None:
    tensors = {"a": torch.zeros(2), "b": torch.zeros(2, device="meta")}
    with pytest.raises(InputError, match="tensor 'b' lies on meta, the first one on cpu: an update lies in one place"):
        to_vector(layout_of({"a": torch.zeros(2), "b": torch.zeros(2)}), tensors)


def test_a_mean_comes_back_as_tensors_too() -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7.0)}
    layout = layout_of(tensors)
    parts = [tensor.reshape(-1) for tensor in tensors.values()]
    for mean in (parts, tuple(parts), torch.cat(parts), torch.cat(parts).double()):
        back = from_vector(layout, mean)
        assert all(back[name].dtype == torch.float32 and torch.equal(back[name], t) for name, t in tensors.items())
    assert from_vector(layout, parts)["a"].data_ptr() == tensors["a"].data_ptr()
    for wrong in (parts[:1], parts[::-1], []):
        with pytest.raises(InputError, match="do not fit the layout: expected one for each of its 2, 7 values in all"):
            from_vector(layout, wrong)
    with pytest.raises(InputError, match=r"vector of shape \(2, 3\) does not fit the layout: expected \(7,\)"):
        from_vector(layout, tensors["a"])


def test_a_state_comes_back_in_the_memory_format_and_place_of_the_first(network: Callable[..., Any]) -> None:
    module = network()
    state = AVERAGE.init(parameters_of(module), buffers_of(module))
    again = state.restore(state.state_dict())
    for name, tensor in state.params.items():
        assert torch.equal(again.params[name], tensor) and again.params[name].stride() == tensor.stride()
        assert again.params[name].data_ptr() != tensor.data_ptr()

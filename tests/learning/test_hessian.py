"""Products of Hessian and vector: exact against the full matrix, the central difference against the exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from pppml_fast.errors import InputError
from pppml_fast.learning import Objective, buffers_of, difference_step, parameters_of, per_fedavg

CROSS_ENTROPY = nn.CrossEntropyLoss()


def flat(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.double().reshape(-1) for tensor in tensors.values()])


def relative_error(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    return float((flat(a) - flat(b)).norm() / flat(b).norm())


def case(module: nn.Module, images: Callable[..., Any], dtype: torch.dtype) -> tuple[Any, ...]:
    """Objective, point, buffers, batch and the gradient at the point as the vector."""
    module = module.to(dtype)
    objective = Objective(module, CROSS_ENTROPY)
    params, buffers = parameters_of(module), buffers_of(module)
    x, y = images(3).draw()
    batch = (x.to(dtype), y)
    return objective, params, buffers, batch, objective.gradient(params, buffers, batch).gradient


def test_exact_product_is_a_product_with_the_full_hessian() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    objective = Objective(module, CROSS_ENTROPY)
    params = parameters_of(module)
    batch = (torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1]))
    vector = {name: torch.randn_like(tensor) for name, tensor in params.items()}
    sizes = [tensor.numel() for tensor in params.values()]

    def loss_of(point: torch.Tensor) -> torch.Tensor:
        parts = zip(params, point.split(sizes), strict=True)
        return objective({name: part.reshape(params[name].shape) for name, part in parts}, {}, batch)

    hessian = torch.autograd.functional.hessian(loss_of, flat(params))
    product = flat(objective.hessian_vector(params, {}, batch, vector))
    torch.testing.assert_close(product, hessian @ flat(vector), rtol=1e-10, atol=1e-12)


def test_both_products_on_a_quadratic_are_exact_up_to_rounding(quadratic: Callable[..., Any]) -> None:
    world = quadratic()
    batch = world.parties[0].draw()
    vector = {name: torch.randn_like(tensor) for name, tensor in world.start.items()}
    expected = batch[0].numpy() @ world.vector(vector)
    exact = world.objective.hessian_vector(world.start, {}, batch, vector)
    np.testing.assert_allclose(world.vector(exact), expected, atol=1e-13)
    for delta in (1e-4, 1e-2, 1.0):  # no truncation error at any distance
        central = world.objective.hessian_vector_difference(world.start, {}, batch, vector, delta)
        np.testing.assert_allclose(world.vector(central), expected, atol=1e-15 / delta + 1e-11)


def test_central_difference_agrees_with_double_backward_on_a_convolutional_network(
    network: Callable[..., Any], images: Callable[..., Any]
) -> None:
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 1e-3)):
        objective, params, buffers, batch, vector = case(network(), images, dtype)
        exact = objective.hessian_vector(params, buffers, batch, vector)
        central = objective.hessian_vector_difference(params, buffers, batch, vector)
        assert relative_error(central, exact) < tolerance
        assert relative_error(vector, exact) > 0.1, "the product is something else than the vector"


def test_truncation_error_falls_with_the_square_of_delta(
    network: Callable[..., Any], images: Callable[..., Any]
) -> None:
    objective, params, buffers, batch, vector = case(network(), images, torch.float64)
    exact = objective.hessian_vector(params, buffers, batch, vector)
    errors = [
        relative_error(objective.hessian_vector_difference(params, buffers, batch, vector, delta), exact)
        for delta in (4e-2, 2e-2, 1e-2)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("length", [1e-8, 1.0, 1e6])
def test_central_difference_does_not_depend_on_the_length_of_the_vector(
    network: Callable[..., Any], images: Callable[..., Any], length: float
) -> None:
    objective, params, buffers, batch, vector = case(network(), images, torch.float32)
    scaled = {name: tensor * length for name, tensor in vector.items()}
    exact = objective.hessian_vector(params, buffers, batch, scaled)
    central = objective.hessian_vector_difference(params, buffers, batch, scaled)
    assert relative_error(central, exact) < 1e-3
    step = difference_step(params, scaled, 1e-3)
    assert step * float(flat(scaled).norm()) == pytest.approx(1e-3 * (1 + float(flat(params).norm())), rel=1e-5)


def test_zero_vector_has_a_zero_product(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    objective, params, buffers, batch, _ = case(network(), images, torch.float32)
    zero = {name: torch.zeros_like(tensor) for name, tensor in params.items()}
    for product in (objective.hessian_vector, objective.hessian_vector_difference):
        assert float(flat(product(params, buffers, batch, zero)).norm()) == 0.0


def test_both_passes_of_the_difference_see_the_same_dropout_mask(
    network: Callable[..., Any], images: Callable[..., Any]
) -> None:
    objective, params, buffers, batch, vector = case(network(dropout=0.5), images, torch.float64)
    torch.manual_seed(21)
    exact = objective.hessian_vector(params, buffers, batch, vector)
    after_one_pass = torch.get_rng_state()
    torch.manual_seed(21)
    central = objective.hessian_vector_difference(params, buffers, batch, vector)
    assert relative_error(central, exact) < 1e-5
    assert torch.equal(torch.get_rng_state(), after_one_pass)
    torch.manual_seed(22)
    other = objective.hessian_vector(params, buffers, batch, vector)
    assert relative_error(other, exact) > 1e-2, "another mask is another function"


def test_batch_normalisation_leaves_the_product_right_and_the_statistics_alone(
    network: Callable[..., Any], images: Callable[..., Any]
) -> None:
    objective, params, buffers, batch, vector = case(network(batch_norm=True), images, torch.float64)
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    exact = objective.hessian_vector(params, buffers, batch, vector)
    central = objective.hessian_vector_difference(params, buffers, batch, vector)
    assert relative_error(central, exact) < 1e-4
    assert all(torch.equal(buffers[name], before[name]) for name in before)


def test_linear_loss_has_a_zero_hessian() -> None:
    module = nn.Linear(3, 1, bias=False)
    objective = Objective(module, lambda output, target: (output.squeeze(1) * target).sum())
    params = parameters_of(module)
    batch = (torch.ones(2, 3), torch.ones(2))
    vector = objective.gradient(params, {}, batch).gradient
    assert float(flat(objective.hessian_vector(params, {}, batch, vector)).norm()) == 0.0
    assert float(flat(objective.hessian_vector_difference(params, {}, batch, vector)).norm()) < 1e-4


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        return 2 * ctx.saved_tensors[0] * slope


class OnceDifferentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(Once.apply(self.w * x)).sum()


def test_missing_second_derivative_is_an_error_that_names_the_way_out() -> None:
    module = OnceDifferentiable()
    objective = Objective(module, lambda output, target: output)
    batch = (torch.ones(3), torch.ones(1))
    params = parameters_of(module)
    vector = {"w": torch.tensor([1.0, 2.0, 3.0])}
    with pytest.raises(InputError, match=r"second derivative.*use the variant 'hf' or 'fo'"):
        objective.hessian_vector(params, {}, batch, vector)
    central = objective.hessian_vector_difference(params, {}, batch, vector)
    torch.testing.assert_close(central["w"], 2 * vector["w"], rtol=1e-3, atol=1e-3)


def test_hf_and_exact_train_alike_and_fo_does_not(network: Callable[..., Any], images: Callable[..., Any]) -> None:
    ends = {}
    for variant in ("fo", "hf", "exact"):
        module = network()
        algorithm = per_fedavg(variant, alpha=0.2, beta=0.1, steps=5)
        state = algorithm.init(parameters_of(module), {})
        ends[variant] = algorithm.client(state, Objective(module, CROSS_ENTROPY), images(4)).delta
    assert relative_error(ends["hf"], ends["exact"]) < 1e-3
    assert relative_error(ends["fo"], ends["exact"]) > 2e-2

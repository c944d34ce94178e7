"""The function that a party lowers, f(w; D), with its gradient and its products of Hessian and vector.

Sources: Fallah, Mokhtari, Ozdaglar, "Personalized Federated Learning with Theoretical Guarantees", NeurIPS
2020, section 5 (Hessian-free product); Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from pppml_fast.errors import InputError
from pppml_fast.learning.checks import check_finite
from pppml_fast.learning.devices import device_of, full_precision
from pppml_fast.learning.randomness import remember_randomness, replay_randomness
from pppml_fast.learning.statistics import Statistics, set_training_mode
from pppml_fast.learning.types import Batch, Buffers, Parameters
from pppml_fast.learning.vectors import add, difference, norm

__all__ = ["Evaluation", "Loss", "Objective", "difference_step"]

Loss = Callable[[Any, torch.Tensor], torch.Tensor]

LOWER_STEP = "lower the step size (lr, alpha, beta), or look for a division by zero or a logarithm in the loss"


@dataclass(frozen=True)
class Evaluation:
    """Loss and gradient at one point on one batch, and the buffers after that forward pass."""

    loss: float
    gradient: Parameters
    buffers: Buffers


class Objective:
    """A module and a loss as a function of parameters, buffers and a batch.

    The module is copied once and serves as a form: its trainable parameters and its buffers are replaced at
    every call (frozen parameters are its own, so it lies on the device of the parameters), it runs in training
    mode, and neither it nor any argument is changed. The batch is moved to the device of the parameters; on a
    GPU convolutions are float32's, see ``devices.full_precision``. While a call lasts the copy holds the caller's
    tensors, so threads need one objective each.

    ``statistics`` is the choice explained in ``pppml_fast.learning.statistics``.
    """

    def __init__(self, module: nn.Module, loss: Loss, *, statistics: Statistics = "shared") -> None:
        self.module = copy.deepcopy(module)
        self.loss = loss
        self.statistics: Statistics = statistics
        set_training_mode(self.module, statistics)
        self._trainable = {name for name, p in self.module.named_parameters() if p.requires_grad}

    def __call__(self, params: Parameters, buffers: Buffers, batch: Batch) -> torch.Tensor:
        """The loss, a scalar that can be differentiated by ``params``."""
        return self.with_buffers(params, buffers, batch)[0]

    def with_buffers(self, params: Parameters, buffers: Buffers, batch: Batch) -> tuple[torch.Tensor, Buffers]:
        """The loss and the buffers after the forward pass.

        Raises InputError when ``params`` are not those of the module or the loss is no scalar.
        """
        self._check_names(params)
        device = device_of(params)
        inputs, targets = (tensor.to(device) for tensor in batch)
        # Layers write their running statistics in place, so they get copies; functional_call puts tensors
        # that a layer assigned anew back into the dictionary.
        tensors = {**params, **{name: buffer.detach().clone() for name, buffer in buffers.items()}}
        loss = self.loss(functional_call(self.module, tensors, (inputs,)), targets)
        if loss.numel() != 1:
            raise InputError(f"the loss has shape {tuple(loss.shape)}: it must be one number; use a mean or a sum")
        return loss.reshape(()), {name: tensors[name].detach() for name in buffers}

    def gradient(self, params: Parameters, buffers: Buffers, batch: Batch) -> Evaluation:
        """Loss and gradient; one gradient evaluation.

        Raises InputError when the loss or the gradient of a tensor (which it names) is not finite.
        """
        with torch.enable_grad(), full_precision(device_of(params)):
            leaves = _leaves(params)
            loss, after = self.with_buffers(leaves, buffers, batch)
            value = self._check_loss(loss, batch)
            slopes = torch.autograd.grad(loss, tuple(leaves.values()), materialize_grads=True)
        gradient = dict(zip(leaves, slopes, strict=True))
        check_finite(gradient, "the gradient", LOWER_STEP)
        return Evaluation(value, gradient, after)

    def hessian_vector(
        self, params: Parameters, buffers: Buffers, batch: Batch, vector: Mapping[str, torch.Tensor]
    ) -> Parameters:
        """The exact product of Hessian and ``vector`` by double backward; two gradient evaluations.

        Raises InputError when an operation of the network has no second derivative in torch.
        """
        inputs, targets = batch
        with torch.enable_grad(), full_precision(device_of(params)):
            leaves = _leaves(params)
            loss = self(leaves, buffers, (inputs.detach(), targets.detach()))
            self._check_loss(loss, batch)
            # The factor 1 asks for a gradient so that an operation without a second derivative notices.
            one = torch.ones_like(loss, requires_grad=True)
            slopes = torch.autograd.grad(loss, tuple(leaves.values()), one, create_graph=True, materialize_grads=True)
            along = torch.stack([(g * vector[name]).sum() for name, g in zip(leaves, slopes, strict=True)]).sum()
            products = _second_derivative(along, tuple(leaves.values()))
        product = dict(zip(leaves, products, strict=True))
        check_finite(product, "the Hessian-vector product", LOWER_STEP)
        return product

    def hessian_vector_difference(
        self,
        params: Parameters,
        buffers: Buffers,
        batch: Batch,
        vector: Mapping[str, torch.Tensor],
        delta: float = 1e-3,
    ) -> Parameters:
        """The product by a central difference of gradients (Fallah et al., section 5); two evaluations.

        ``delta`` is relative, see ``difference_step``. Both gradients see the same batch and the same random
        numbers: with two dropout masks the difference would be their noise, divided by a small number.
        """
        step = difference_step(params, vector, delta)
        device = device_of(params)
        states = remember_randomness(device)
        ahead = self.gradient(add(params, vector, step), buffers, batch).gradient
        with replay_randomness(states, device):
            behind = self.gradient(add(params, vector, -step), buffers, batch).gradient
        return {name: slope / (2 * step) for name, slope in difference(ahead, behind).items()}

    def _check_names(self, params: Parameters) -> None:
        # functional_call would pass over an unknown name in silence, and train the rest.
        differing = sorted(self._trainable ^ params.keys())
        if differing:
            raise InputError(
                f"parameter {differing[0]!r} is not in both the module and the parameters given: take "
                "parameters_of(module), and set requires_grad to False on what shall not train"
            )

    def _check_loss(self, loss: torch.Tensor, batch: Batch) -> float:
        if not loss.requires_grad:
            raise InputError("the loss depends on no trainable parameter: check module, loss and requires_grad")
        value = loss.item()
        if math.isfinite(value):
            return value
        check_finite({"inputs": batch[0], "targets": batch[1]}, "the batch tensor", "clean the data")
        raise InputError(f"the loss is {value}: {LOWER_STEP}")


def difference_step(params: Parameters, vector: Mapping[str, torch.Tensor], delta: float) -> float:
    """The factor of ``vector`` in the central difference: delta * (1 + |w|) / |v|, Euclidean norms.

    The two points then lie ``delta`` apart from w relative to the size of w, whatever the length of v: the
    plain delta of the paper drowns in float32 rounding where gradients are small, and leaves the
    neighbourhood of w where they are large. The error is O(delta^2) by truncation plus O(2^-24 / delta) by
    rounding, so 1e-3 to 1e-2 suits float32. For v = 0 the factor is ``delta`` and the product 0.
    """
    length = norm(vector)
    if not math.isfinite(length) or length == 0.0:
        return delta
    return delta * (1.0 + norm(params)) / length


def _leaves(params: Parameters) -> Parameters:
    """The same numbers as new leaves of a graph; storage is shared, the caller's tensors stay as they are."""
    return {name: tensor.detach().requires_grad_(True) for name, tensor in params.items()}


def _second_derivative(along: torch.Tensor, points: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The derivative of ``along`` by ``points``, which are leaves without a gradient yet.

    ``backward`` walks the whole graph, where ``autograd.grad`` walks only the ways that reach ``points``: an
    operation marked as differentiable once cuts its way, and its share would be missing in silence.
    """
    try:
        torch.autograd.backward(along)
    except (RuntimeError, NotImplementedError) as error:
        if not any(reason in str(error) for reason in ("not implemented", "differentiate twice")):
            raise
        raise InputError(
            f"an operation of the network has no second derivative ({error}): use the variant 'hf' or 'fo'"
        ) from error
    return tuple(torch.zeros_like(point) if point.grad is None else point.grad for point in points)

"""Worlds in which everything is known: noisy quadratics with their oracle, and small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pppml_fast.learning import Batch, Objective, Parameters, TensorBatches

Array = NDArray[np.float64]


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Point(nn.Module):
    """Eight weights in two tensors; the output carries the curvature along to the loss."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.head = nn.Parameter(torch.zeros(2, dtype=dtype))
        self.body = nn.Parameter(torch.zeros(2, 3, dtype=dtype))

    def forward(self, curvature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return curvature, torch.cat([self.head, self.body.reshape(-1)])


def quadratic_loss(output: tuple[torch.Tensor, torch.Tensor], center: torch.Tensor) -> torch.Tensor:
    curvature, w = output
    return 0.5 * (w - center) @ curvature @ (w - center)


class QuadraticBatches:
    """Draws (A, c) of f(w; A, c) = (w - c)' A (w - c) / 2 around a party's own A and c, and logs them."""

    def __init__(self, seed: int, dtype: torch.dtype, noise: float) -> None:
        own = np.random.default_rng(seed)
        basis = np.linalg.qr(own.normal(size=(8, 8)))[0]
        self.curvature: Array = basis @ np.diag(own.uniform(0.2, 2.0, 8)) @ basis.T
        self.center: Array = own.normal(size=8)
        self.noise, self.dtype = noise, dtype
        self.log: list[tuple[Array, Array]] = []
        self._generator = np.random.default_rng(seed + 1000)

    def draw(self) -> Batch:
        root = self._generator.normal(size=(8, 8)) * self.noise
        a = torch.tensor(self.curvature + root @ root.T, dtype=self.dtype)
        c = torch.tensor(self.center + self.noise * self._generator.normal(size=8), dtype=self.dtype)
        self.log.append((a.double().numpy(), c.double().numpy()))
        return a, c

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._generator.bit_generator.state = state["generator"]


@dataclass
class QuadraticWorld:
    """Parties with different Hessians and minima, one objective, and helpers between tensors and vectors."""

    dtype: torch.dtype
    objective: Objective
    parties: list[QuadraticBatches]
    start: Parameters
    weights: list[float] = field(default_factory=lambda: [0.5, 0.3, 0.2])

    @staticmethod
    def vector(params: Mapping[str, torch.Tensor]) -> Array:
        return torch.cat([params["head"], params["body"].reshape(-1)]).double().numpy()

    def mean(self, deltas: list[Parameters]) -> Parameters:
        pairs = list(zip(self.weights, deltas, strict=True))
        return {name: sum(p * delta[name] for p, delta in pairs) for name in self.start}


@pytest.fixture
def quadratic() -> Callable[..., QuadraticWorld]:
    def make(dtype: torch.dtype = torch.float64, noise: float = 0.2) -> QuadraticWorld:
        generator = torch.Generator().manual_seed(5)
        start = {
            "head": torch.randn(2, generator=generator, dtype=dtype),
            "body": torch.randn(2, 3, generator=generator, dtype=dtype),
        }
        parties = [QuadraticBatches(seed, dtype, noise) for seed in (11, 12, 13)]
        return QuadraticWorld(dtype, Objective(Point(dtype), quadratic_loss), parties, start)

    return make


def build_network(*, batch_norm: bool = False, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """A small smooth convolutional classifier of 1 x 6 x 6 images into 3 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle: list[nn.Module] = [nn.BatchNorm2d(4)] if batch_norm else []
        drop: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            *middle,
            nn.Tanh(),
            nn.Conv2d(4, 4, 3, stride=2),
            nn.Softplus(),
            nn.Flatten(),
            *drop,
            nn.Linear(16, 3),
        )


@pytest.fixture
def network() -> Callable[..., nn.Sequential]:
    return build_network


@pytest.fixture
def images() -> Callable[..., TensorBatches]:
    """Learnable images: the class is where the bright row lies; ``shift`` makes parties differ."""

    def make(seed: int = 0, *, shift: float = 0.0, batch_size: int = 8, count: int = 48) -> TensorBatches:
        generator = torch.Generator().manual_seed(seed)
        y = torch.randint(3, (count,), generator=generator)
        x = 0.5 * torch.randn(count, 1, 6, 6, generator=generator) + shift
        x[torch.arange(count), 0, 2 * y] += 2.0
        return TensorBatches(x, y, batch_size=batch_size, seed=seed + 77)

    return make

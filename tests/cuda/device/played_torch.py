"""PyTorch on the played device: tensors of the processor that say, and whose sums say, that they lie on a GPU.

Where PyTorch has no CUDA this is as near as it gets: every line that asks a tensor where it is takes the way of a GPU's
tensor, and `left` tells what took values to the host. The numbers are the processor's own, to the bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from pppml_fast import _native
from pppml_fast.cuda import DeviceArray
from pppml_fast.cuda.arrays import DeviceTensors
from pppml_fast.experiment import site_training, study, training
from pppml_fast.learning import exchange

sys.path.append(str(Path(__file__).parents[2] / "experiment"))


class PlayedTensor(torch.Tensor):
    """What PyTorch computes from it is one as well. ``left`` counts what was taken to the host, by way."""

    left: ClassVar[list[str]] = []

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __dlpack_device__(self) -> tuple[int, int]:  # type: ignore[override]
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        plain = self.detach().as_subclass(torch.Tensor)
        assert plain.is_contiguous(), "CUDA tensors are read where they lie"
        name = str(plain.dtype).removeprefix("torch.")
        return _native.cuda.export_tensor(self, plain.data_ptr(), plain.numel(), name, 2, 0)

    def to(self, *arguments: Any, **options: Any) -> Any:
        moved = super().to(*arguments, **options)
        if not arguments or str(arguments[0]) != "cpu" or not options.get("copy"):
            return moved
        self.left.append("to")
        return moved.as_subclass(torch.Tensor)

    def cpu(self, *_: Any) -> Any:
        self.left.append("cpu")
        return self.detach().clone().as_subclass(torch.Tensor)

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")


class _Memory:
    """A DeviceArray's memory as NumPy sees it, which it keeps."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array
        data = (array.address, False)
        self.__array_interface__ = {"version": 3, "shape": (array.size,), "typestr": array.dtype.str, "data": data}


def shared(array: DeviceArray) -> PlayedTensor:
    """What `torch.from_dlpack` makes of device memory: a tensor over it."""
    return torch.from_numpy(np.asarray(_Memory(array))).as_subclass(PlayedTensor)


def on_device(tensor: torch.Tensor) -> PlayedTensor:
    """A copy in memory of the played device."""
    array = DeviceArray.from_host(tensor.detach().numpy())
    return shared(array).reshape(tensor.shape).as_subclass(PlayedTensor)


def _moved(take: Callable[[torch.nn.Module], dict[str, torch.Tensor]]) -> Callable[..., dict[str, torch.Tensor]]:
    def taken(module: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        return {
            name: on_device(tensor) if tensor.is_floating_point() else tensor for name, tensor in take(module).items()
        }

    return taken  # type: ignore[return-value]


def play_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on experiments train on the played device."""
    PlayedTensor.left.clear()
    copy = DeviceTensors.to_host

    def copied(tensors: DeviceTensors) -> list[np.ndarray]:
        PlayedTensor.left.append("to_host")
        return copy(tensors)

    monkeypatch.setattr(DeviceTensors, "to_host", copied)
    monkeypatch.setattr(exchange, "from_dlpack", shared)
    monkeypatch.setattr(study, "check_device", lambda *_, **__: torch.device("cpu"))
    monkeypatch.setattr(study, "torch_device", lambda _: torch.device("cpu"))
    for module in (training, site_training):
        for name in ("parameters_of", "buffers_of"):
            monkeypatch.setattr(module, name, _moved(getattr(module, name)))

"""Training on a GPU: where tensors are, when work on them is done, and how it is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

__all__ = ["device_of", "full_precision", "on_host", "synchronize"]


def device_of(tensors: Mapping[str, torch.Tensor]) -> torch.device:
    """The device of a model, by its first tensor; the processor where there is none."""
    return next((tensor.device for tensor in tensors.values()), torch.device("cpu"))


def synchronize(device: torch.device) -> None:
    """Wait for what was queued on a GPU, before its time is taken or other threads use its result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, contiguous, without a graph."""
    return tensor.detach().to("cpu", copy=True).contiguous()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Run a block with convolutions in float32 itself, and by the same algorithm every time, where it is a GPU.

    By default cuDNN rounds their inputs to TensorFloat-32, to 2^-11, which a Hessian-free product magnifies: it is a
    difference of gradients at points 10^-3 apart. Products of matrices are float32 unless a program asks torch for
    less.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield

"""The device that a training computes on: a wish for a GPU is checked before anything is loaded."""

from __future__ import annotations

import torch

from pppml_fast import cuda
from pppml_fast.cuda.device import device_scheme
from pppml_fast.errors import ConfigError, ParameterError
from pppml_fast.experiment.config import device_name
from pppml_fast.params import CkksParams

__all__ = ["check_device", "check_kernels", "describe_device", "torch_device"]


def torch_device(name: str) -> torch.device:
    """The device of a configuration's ``device``: cpu, cuda (the first GPU) or cuda:N."""
    return torch.device("cuda", 0) if name == "cuda" else torch.device(name)


def check_device(name: str, key: str = "device", *, encrypts: bool = True) -> torch.device:
    """The device that ``key`` of a configuration names. Raises ConfigError, with the reason, where it cannot be used.

    ``encrypts``: whether updates are encrypted there as well, which takes a build of this package with CUDA.
    """
    try:
        device = torch_device(device_name(name))
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    if device.type != "cuda":
        return device
    asked, otherwise = f"{key} = {name!r}", f"or set {key} = 'cpu'"
    if not torch.cuda.is_available():
        raise ConfigError(f"{asked}: torch {torch.__version__} sees no GPU, {_why_without_gpu()}, {otherwise}")
    _check_number(device, torch.cuda.device_count(), asked, otherwise)
    if encrypts:
        if reason := cuda.why_unavailable():
            raise ConfigError(f"{asked}: updates cannot be encrypted there: {reason}; {otherwise}")
        _check_number(device, cuda.device_count(), asked, otherwise)
    return device


def check_kernels(params: CkksParams, device: torch.device, key: str = "device") -> None:
    """Raise ConfigError where a GPU has no kernels for the parameters of the updates."""
    if device.type != "cuda":
        return
    try:
        device_scheme(params, device.index)
    except ParameterError as error:
        raise ConfigError(
            f"{key} = {str(device)!r}: parameter set {params.name!r} cannot be used there: {error}; choose another "
            f"aggregation.params, or set {key} = 'cpu'"
        ) from None


def describe_device(name: str) -> str:
    """The device in words, for plans and provenance: ``cpu``, or a GPU with its name and CUDA's version."""
    device = torch_device(name)
    if device.type != "cuda" or not torch.cuda.is_available():
        return str(device)
    return f"{device}, {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def _why_without_gpu() -> str:
    if torch.version.cuda is None:
        return "as it was built without CUDA; install a build of torch with CUDA"
    return f"though it was built with CUDA {torch.version.cuda}; see nvidia-smi and CUDA_VISIBLE_DEVICES"


def _check_number(device: torch.device, count: int, asked: str, otherwise: str) -> None:
    if device.index >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 .. cuda:{count - 1}"
        raise ConfigError(f"{asked}: there is no such GPU; choose one of {there}, {otherwise}")

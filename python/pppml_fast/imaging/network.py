"""Networks named as `module:Class` with arguments, and the U-Nets of this package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pppml_fast.errors import ConfigError


@dataclass(frozen=True)
class NetworkSpec:
    """What to build: `target` names a class as `module:Class`, `arguments` are its keyword arguments.

    `multiple`: rows and columns of the input are padded to a multiple of it (the product of the strides).
    `window`: larger slices are predicted by sliding windows of this many rows and columns.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 16
    window: int = 256

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a model card."""
        return {
            "target": self.target,
            "arguments": dict(self.arguments),
            "multiple": self.multiple,
            "window": self.window,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of `to_dict`. Raises ConfigError for unknown or missing keys."""
        unknown = set(values) - {"target", "arguments", "multiple", "window"}
        if unknown:
            raise ConfigError(
                f"network has unknown key '{min(unknown)}'; known are target, arguments, multiple, window"
            )
        if "target" not in values:
            raise ConfigError("network has no `target`; name it as module:Class, e.g. monai.networks.nets:UNet")
        return cls(**values)


def unet(features: Sequence[int] = (16, 32, 64, 128, 256), *, channels: int = 3) -> NetworkSpec:
    """MONAI's BasicUNet: two convolutions per level at full resolution; 1.95 M weights at 16..256 features.

    This is the size of the paper's 2D U-Net. `features` needs five levels; `channels` are the neighbouring
    slices of the input. Raises ConfigError for another number of levels.
    """
    if len(features) != 5:
        raise ConfigError(f"unet has {len(features)} feature levels, needs 5, e.g. 16, 32, 64, 128, 256")
    arguments = {
        "spatial_dims": 2,
        "in_channels": channels,
        "out_channels": 1,
        "features": [*features, features[0]],
        "norm": ["instance", {"affine": True}],
    }
    return NetworkSpec("monai.networks.nets:BasicUNet", arguments)


def fast_unet(features: Sequence[int] = (16, 32, 64, 128, 256), *, channels: int = 3) -> NetworkSpec:
    """MONAI's UNet with one strided convolution per level: 0.66 M weights, an eighth of `unet`'s time.

    Raises ConfigError for fewer than two levels.
    """
    if len(features) < 2:
        raise ConfigError(f"fast_unet has {len(features)} feature level, needs at least 2")
    arguments = {
        "spatial_dims": 2,
        "in_channels": channels,
        "out_channels": 1,
        "channels": list(features),
        "strides": [2] * (len(features) - 1),
        "norm": ["instance", {"affine": True}],
    }
    return NetworkSpec("monai.networks.nets:UNet", arguments, multiple=2 ** (len(features) - 1))


def build_network(spec: NetworkSpec, seed: int) -> nn.Module:
    """The module of `spec`, initialised from `seed` alone; torch's global generator is left as it was.

    Raises ConfigError for a target that cannot be imported, is no torch module, or refuses its arguments.
    """
    kind = _module_class(spec.target)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the processor's alone: others stay as they are
        try:
            return kind(**spec.arguments)
        except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
            raise ConfigError(f"network '{spec.target}' refuses its arguments: {error}") from error


def count_weights(module: nn.Module) -> int:
    """How many trainable weights a module has."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _module_class(target: str) -> type[nn.Module]:
    module_name, separator, class_name = target.partition(":")
    if not separator or not module_name or not class_name:
        raise ConfigError(f"network target '{target}' is not module:Class; e.g. monai.networks.nets:UNet")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"network target '{target}' cannot be imported: {error}; check its spelling") from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"network target '{target}' is no torch.nn.Module class; name one")
    return kind

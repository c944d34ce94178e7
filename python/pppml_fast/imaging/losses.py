"""Losses, MONAI's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.losses import DiceCELoss, DiceFocalLoss

from pppml_fast.errors import ConfigError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def segmentation_loss(name: str = "dice_ce") -> Loss:
    """The loss of logits (B, 1, H, W) against masks (B, 1, H, W): `dice_ce` or `dice_focal`.

    The Dice term is taken over the whole batch: a slice with three lesion pixels has no meaningful Dice of
    its own, and its gradient would dominate plain SGD. Raises ConfigError for an unknown name.
    """
    if name == "dice_ce":
        loss: Loss = DiceCELoss(sigmoid=True, batch=True)
    elif name == "dice_focal":
        loss = DiceFocalLoss(sigmoid=True, batch=True)
    else:
        raise ConfigError(f"loss '{name}' is unknown; use dice_ce or dice_focal")
    return loss

"""Dice per volume, through MONAI; a volume with neither lesion nor prediction scores 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import DiceMetric

from pppml_fast.errors import DataError


def dice(prediction: npt.NDArray[Any], mask: npt.NDArray[Any]) -> float:
    """Dice of two binary volumes of one shape: 2|P∩M| / (|P| + |M|), and 1.0 where both are empty.

    Raises DataError for different shapes or empty arrays.
    """
    if prediction.shape != mask.shape or mask.size == 0:
        raise DataError(f"prediction {prediction.shape} and mask {mask.shape} must share one non-empty shape")
    metric = DiceMetric(include_background=True, reduction="none", ignore_empty=False)
    value = metric(_as_batch(prediction), _as_batch(mask))
    return float(value.item())


def lung_dice(prediction: npt.NDArray[Any], mask: npt.NDArray[Any], lung: npt.NDArray[Any]) -> float:
    """Dice inside the lungs only: what is predicted or drawn outside `lung` does not count.

    Raises DataError for different shapes.
    """
    if lung.shape != mask.shape:
        raise DataError(f"lung mask {lung.shape} and mask {mask.shape} must share one shape")
    inside = lung > 0
    return dice((prediction > 0) & inside, (mask > 0) & inside)


def _as_batch(volume: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(volume > 0)).float()[None, None]

"""Intensity and matrix transforms between a scanner's numbers and what a network reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pppml_fast.errors import ConfigError, DataError

LUNG_WINDOW = (-1000.0, 400.0)
"""Hounsfield units shown from black to white; wide enough for air, lung, soft tissue and some bone."""


def unit_range(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 to float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(255)


def apply_window(hounsfield: npt.NDArray[Any], window: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Hounsfield units to float32 in [0, 1]: window[0] and below is 0, window[1] and above is 1.

    Raises ConfigError for an empty window and DataError for NaN.
    """
    low, high = float(window[0]), float(window[1])
    if not low < high:
        raise ConfigError(f"window [{low:g}, {high:g}] is empty; the first value must be below the second")
    values = np.asarray(hounsfield, dtype=np.float32)
    if not np.isfinite(values).all():
        raise DataError("the volume holds NaN or Inf voxels; replace them before loading")
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)


def simulate_thickness(volume: npt.NDArray[Any], slices: int) -> npt.NDArray[np.float32]:
    """Means of `slices` neighbouring slices, centred along the first axis in zeros.

    The paper simulates scanners of 1, 5 and 10 mm this way: (D, H, W) gives D // slices thick slices in the
    middle of a float32 volume of the same shape. Slices left over at the end are dropped.
    Raises DataError when `slices` is not between 1 and D.
    """
    depth = volume.shape[0]
    if not 1 <= slices <= depth:
        raise DataError(f"thickness of {slices} slices does not fit a volume of {depth}; use 1 to {depth}")
    count = depth // slices
    groups = np.asarray(volume[: count * slices], dtype=np.float32)
    means = groups.reshape(count, slices, *volume.shape[1:]).mean(axis=1, dtype=np.float32)
    result = np.zeros(volume.shape, dtype=np.float32)
    start = (depth - count) // 2
    result[start : start + count] = means
    return result


def resize_slices(volume: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Every slice of (D, H, W) resampled to (rows, columns), float32: areas averaged down, linear up."""
    if volume.shape[1:] == (rows, columns):
        return np.ascontiguousarray(volume, dtype=np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[:, None]
    shrink = rows <= volume.shape[1] and columns <= volume.shape[2]
    options: dict[str, Any] = {"mode": "area"} if shrink else {"mode": "bilinear", "align_corners": False}
    return torch.nn.functional.interpolate(tensor, size=(rows, columns), **options)[:, 0].numpy()


@dataclass(frozen=True)
class Preprocessing:
    """How a CT in Hounsfield units becomes the network's input; a model card carries it.

    `window` are the Hounsfield units of 0 and 1. `matrix` resamples slices to so many rows and columns (None
    keeps them): 512 rows cost sixteen times the work of 128.
    Raises ConfigError for an empty window or a matrix below 16.
    """

    window: tuple[float, float] = LUNG_WINDOW
    matrix: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", (float(self.window[0]), float(self.window[1])))
        if not self.window[0] < self.window[1]:
            raise ConfigError(f"window {list(self.window)} is empty; the first value must be below the second")
        if self.matrix is not None and self.matrix < 16:
            raise ConfigError(f"matrix {self.matrix} is below 16 rows; use e.g. 128, or leave it out")

    def image(self, hounsfield: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(D, H, W) Hounsfield units to float32 in [0, 1] on the network's matrix."""
        values = apply_window(hounsfield, self.window)
        return self._resized(values)

    def mask(self, mask: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """(D, H, W) mask to uint8 0 and 1 on the network's matrix: 1 where at least half is covered."""
        return (self._resized((mask > 0).astype(np.float32)) >= 0.5).astype(np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a model card."""
        result: dict[str, Any] = {"window": list(self.window)}
        if self.matrix is not None:
            result["matrix"] = self.matrix
        return result

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises ConfigError for unknown keys."""
        unknown = set(values) - {"window", "matrix"}
        if unknown:
            raise ConfigError(f"preprocessing has unknown key '{min(unknown)}'; known are window and matrix")
        window = values.get("window", LUNG_WINDOW)
        if len(window) != 2:
            raise ConfigError(f"window {list(window)} has {len(window)} values, needs 2, e.g. [-1000, 400]")
        return cls(window=(float(window[0]), float(window[1])), matrix=values.get("matrix"))

    def _resized(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return values if self.matrix is None else resize_slices(values, self.matrix, self.matrix)

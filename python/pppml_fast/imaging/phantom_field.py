"""Grids in patient millimetres and the smooth random fields that phantoms are made of; NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in mm: z (D, 1, 1) from feet to head, y (1, H, 1) to the back, x (1, 1, W) to the left.

    The origin of x and y is the middle of the chest; z starts at the lowest slice.
    """

    z: Field
    y: Field
    x: Field
    spacing: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return (self.z.size, self.y.size, self.x.size)


def make_grid(depth_mm: float, slice_mm: float, field_of_view_mm: float, size: int) -> Grid:
    """A grid of round(depth / slice) slices of size x size voxels."""
    count = max(1, round(depth_mm / slice_mm))
    pixel = field_of_view_mm / size
    z = (np.arange(count, dtype=np.float32) + 0.5) * np.float32(slice_mm)
    line = (np.arange(size, dtype=np.float32) + 0.5 - size / 2) * np.float32(pixel)
    return Grid(z[:, None, None], line[None, :, None], line[None, None, :], (slice_mm, pixel, pixel))


def smooth_noise(random: np.random.Generator, grid: Grid, correlation_mm: float) -> Field:
    """A Gaussian-like random field (D, H, W), mean about 0 and deviation about 1, smooth over a length.

    Cubic B-splines between random control points one correlation length apart.
    """
    weights = [
        _spline_weights(count, step, correlation_mm)
        for count, step in zip(grid.shape, grid.spacing, strict=True)
    ]
    control = random.standard_normal([matrix.shape[1] for matrix in weights]).astype(np.float32)
    field = control @ weights[2].T
    field = weights[1] @ field
    field = np.tensordot(weights[0], field, axes=1)
    # A cubic B-spline keeps 0.479 of the variance of independent control points per dimension on average.
    return np.asarray(field / np.float32(0.479**1.5), dtype=np.float32)


def _spline_weights(count: int, step: float, correlation: float) -> Field:
    positions = (np.arange(count) + 0.5) * step / correlation
    cells = np.floor(positions).astype(np.intp)
    t = positions - cells
    matrix = np.zeros((count, int(cells[-1]) + 4), dtype=np.float32)
    rows = np.arange(count)
    matrix[rows, cells] = (1 - t) ** 3 / 6
    matrix[rows, cells + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    matrix[rows, cells + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    matrix[rows, cells + 3] = t**3 / 6
    return matrix


def disc(
    grid: Grid, x: float | Field, y: float | Field, radius_x: float, radius_y: float | None = None
) -> Field:
    """Squared normalised distance from an axis along z, (D or 1, H, W): below 1 inside the ellipse."""
    return ((grid.x - x) / radius_x) ** 2 + ((grid.y - y) / (radius_y or radius_x)) ** 2


def capsule(grid: Grid, start: tuple[float, float], end: tuple[float, float]) -> Field:
    """Distance in mm, (1, H, W), from the segment between two (x, y) points."""
    delta_x, delta_y = end[0] - start[0], end[1] - start[1]
    along = ((grid.x - start[0]) * delta_x + (grid.y - start[1]) * delta_y) / (delta_x**2 + delta_y**2)
    along = np.clip(along, 0, 1)
    return np.hypot(grid.x - start[0] - along * delta_x, grid.y - start[1] - along * delta_y)

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
    taps = [_spline_taps(n, step, correlation_mm) for n, step in zip(grid.shape, grid.spacing, strict=True)]
    field = random.standard_normal([int(cells[-1]) + 4 for cells, _ in taps]).astype(np.float32)
    for axis in (2, 1, 0):
        field = _interpolate(field, axis, *taps[axis])
    # A cubic B-spline keeps 0.479 of the variance of independent control points per dimension on average.
    field /= np.float32(0.479**1.5)
    return field


def _spline_taps(count: int, step: float, correlation: float) -> tuple[npt.NDArray[np.intp], Field]:
    """For every position its first control point, and the weights (count, 4) of that and the next three."""
    positions = (np.arange(count) + 0.5) * step / correlation
    cells = np.floor(positions).astype(np.intp)
    t = positions - cells
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    return cells, (weights / 6).astype(np.float32)


def _interpolate(field: Field, axis: int, cells: npt.NDArray[np.intp], weights: Field) -> Field:
    """Four multiply-adds per plane, in cache; a matrix product would start BLAS threads for little work."""
    source = np.moveaxis(field, axis, 0)
    shape = list(field.shape)
    shape[axis] = len(cells)
    result = np.empty(shape, dtype=np.float32)
    target = np.moveaxis(result, axis, 0)
    part = np.empty(source.shape[1:], dtype=np.float32)
    for index, (cell, weight) in enumerate(zip(cells, weights, strict=True)):
        np.multiply(source[cell], weight[0], out=target[index])
        for tap in (1, 2, 3):
            np.multiply(source[cell + tap], weight[tap], out=part)
            target[index] += part
    return result


def disc(grid: Grid, x: float | Field, y: float | Field, radius_x: float, radius_y: float | None = None) -> Field:
    """Squared normalised distance from an axis along z, (D or 1, H, W): below 1 inside the ellipse."""
    return ((grid.x - x) / radius_x) ** 2 + ((grid.y - y) / (radius_y or radius_x)) ** 2


def capsule(grid: Grid, start: tuple[float, float], end: tuple[float, float]) -> Field:
    """Distance in mm, (1, H, W), from the segment between two (x, y) points."""
    delta_x, delta_y = end[0] - start[0], end[1] - start[1]
    along = ((grid.x - start[0]) * delta_x + (grid.y - start[1]) * delta_y) / (delta_x**2 + delta_y**2)
    along = np.clip(along, 0, 1)
    return np.hypot(grid.x - start[0] - along * delta_x, grid.y - start[1] - along * delta_y)

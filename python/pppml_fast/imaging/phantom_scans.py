"""RAD-like phantoms: 3-D chest volumes whose label says whether more than a tenth of the lung is infected.

The classification task of the paper without its gated data: lung mask x CT, the lungs' box, the middle
slices, and a thickness simulated per client.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.imaging.phantom_anatomy import build_chest, draw_patient
from pppml_fast.imaging.phantom_field import make_grid
from pppml_fast.imaging.phantom_lesions import (
    LesionStyle,
    draw_lesions,
    fill_lungs,
    lesion_mask,
    lung_vessels,
)
from pppml_fast.imaging.phantom_scanner import dose_noise
from pppml_fast.imaging.transforms import LUNG_WINDOW, apply_window, resize_slices, simulate_thickness

INFECTED_RATIO = 0.1


@dataclass(frozen=True)
class ScanClient:
    """A client of the classification task: `thickness` slices are averaged; `noise_hu` of its scanner."""

    name: str
    thickness: int = 1
    noise_hu: float = 20.0
    scans: int = 8


DEFAULT_CLIENTS = (
    ScanClient("thin", thickness=1, noise_hu=45),
    ScanClient("medium", thickness=5, noise_hu=25),
    ScanClient("thick", thickness=10, noise_hu=15),
)
"""The paper's three thicknesses: means of 1, 5 and 10 slices."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One volume (S, S, S) float32 in [0, 1], its label 0 or 1, and the ratio the label comes from."""

    name: str
    image: npt.NDArray[np.float32]
    label: int
    ratio: float


def infection_ratio(mask: npt.NDArray[np.generic], lung: npt.NDArray[np.generic]) -> float:
    """Infected lung voxels over lung voxels. Raises DataError for different shapes or an empty lung."""
    if mask.shape != lung.shape:
        raise DataError(f"mask {mask.shape} and lung {lung.shape} must share one shape")
    inside = np.asarray(lung, dtype=bool)
    if not inside.any():
        raise DataError("the lung mask is empty; a ratio needs a lung")
    return float(np.asarray(mask, dtype=bool)[inside].mean())


def infection_label(
    mask: npt.NDArray[np.generic], lung: npt.NDArray[np.generic], threshold: float = INFECTED_RATIO
) -> int:
    """1 where more than `threshold` of the lung is infected, else 0. Raises as `infection_ratio`."""
    return int(infection_ratio(mask, lung) > threshold)


def lung_box_volume(
    image: npt.NDArray[np.float32], lung: npt.NDArray[np.generic], size: int = 70
) -> npt.NDArray[np.float32]:
    """Lung mask x CT, cut to the lungs' box, resampled in the plane, middle slices: (size, size, size).

    Fewer slices than `size` are centred in zeros. Raises DataError for an empty lung.
    """
    inside = np.asarray(lung, dtype=bool)
    if image.shape != inside.shape or not inside.any():
        raise DataError(f"image {image.shape} and lung {inside.shape} must share one shape with some lung in it")
    voxels = np.argwhere(inside)
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    cut = resize_slices((image * inside)[box], size, size)
    depth = cut.shape[0]
    if depth >= size:
        start = (depth - size) // 2
        return np.ascontiguousarray(cut[start : start + size])
    result = np.zeros((size, size, size), dtype=np.float32)
    start = (size - depth) // 2
    result[start : start + depth] = cut
    return result


def make_scans(
    clients: Sequence[ScanClient] = DEFAULT_CLIENTS, seed: int = 0, size: int = 70
) -> dict[str, tuple[Scan, ...]]:
    """The scans of every client by name; the same seed gives the same voxels.

    Raises ConfigError for two clients of one name or a size below 16.
    """
    names = [client.name for client in clients]
    if len(set(names)) < len(names) or size < 16:
        raise ConfigError(f"clients {names} must have different names and size {size} must be at least 16")
    return {client.name: tuple(_scan(client, seed, i, size) for i in range(client.scans)) for client in clients}


def _scan(client: ScanClient, seed: int, index: int, size: int) -> Scan:
    random = np.random.default_rng([seed, zlib.crc32(client.name.encode()), index, 1])
    patient = draw_patient(random, 0.0)
    # The lungs fill about nine tenths of the scanned length: a step that leaves `size` slices of lung.
    grid = make_grid(patient.height, 0.8 * patient.height / size, 350.0, 2 * round(0.7 * size))
    chest = build_chest(random, patient, grid)
    share = 0.17 if index % 2 else 0.05
    extent, density, texture = draw_lesions(random, grid, chest, LesionStyle(13.0, share, 0.4))
    vessels = lung_vessels(random, patient, grid, chest)
    hounsfield = fill_lungs(chest, vessels, extent, density, texture)
    hounsfield += dose_noise(random, grid.shape, grid.spacing[1], 0.3, client.noise_hu)
    image = lung_box_volume(apply_window(hounsfield, LUNG_WINDOW), chest.lung, size)
    mask = lesion_mask(chest, extent)
    return Scan(
        name=f"{client.name}_{index:03d}",
        image=simulate_thickness(image, client.thickness),
        label=infection_label(mask, chest.lung),
        ratio=infection_ratio(mask, chest.lung),
    )

"""What lies inside the phantom lungs: vessel trees, and ground-glass and consolidation lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pppml_fast.imaging.phantom_anatomy import Chest, Patient
from pppml_fast.imaging.phantom_field import Field, Flags, Grid, smooth_noise

Points = npt.NDArray[np.float64]

MAX_LESIONS = 80
TWIG_MM, TRUNK_MM = 1.0, 6.0
"""Radii of the thinnest and the thickest vessel drawn."""


@dataclass(frozen=True)
class LesionStyle:
    """How disease looks at a hospital: median radius in mm, the share of the lung that is ill, and its kind.

    `consolidation` is the share of lesions with a dense core.
    """

    radius: float
    infected_share: float
    consolidation: float


def lung_vessels(random: np.random.Generator, patient: Patient, grid: Grid, chest: Chest, ends: int = 300) -> Field:
    """Occupancy (D, H, W) in [0, 1] of the vessel trees of both lungs, arteries and veins.

    Random end points join the nearest branch, from the hilum outwards; radii follow Murray's law.
    """
    occupancy = np.zeros(grid.shape, dtype=np.float32)
    candidates = np.argwhere(chest.lung)
    if len(candidates) == 0:
        return occupancy
    chosen = candidates[random.integers(len(candidates), size=4 * ends)]
    points = _millimetres(grid, chosen) + random.uniform(-0.5, 0.5, (len(chosen), 3)) * np.asarray(grid.spacing)
    for side, x in ((-1, -34.0), (1, 38.0)):
        own = points[np.sign(points[:, 2]) == side]
        half = len(own) // 2
        for level, y, part in ((0.545, 2.0, own[:half]), (0.46, 14.0, own[half:])):
            root = np.asarray([level * patient.height, y, x])
            _draw_tree(occupancy, grid, _grow_tree(root, part[:ends]))
    return np.where(chest.lung, occupancy, np.float32(0))


def draw_lesions(
    random: np.random.Generator, grid: Grid, chest: Chest, style: LesionStyle
) -> tuple[Field, Field, Field]:
    """Extent and density of disease, and the texture in it: three fields (D, H, W).

    Extent is 0 to 1 (lesion where above 0.5); density is 0 for faint ground glass and 1 for consolidation.
    Lesions are added until the share of the lung asked for is ill; they prefer the periphery, the back and
    the lower lobes, as COVID-19 pneumonia does.
    """
    extent = np.zeros(grid.shape, dtype=np.float32)
    density = np.zeros(grid.shape, dtype=np.float32)
    texture = smooth_noise(random, grid, 7.0)
    ragged = 0.22 * smooth_noise(random, grid, 13.0) + 0.12 * texture
    voxels = np.argwhere(chest.lung)
    if len(voxels) == 0:
        return extent, density, texture
    target = style.infected_share * float(random.lognormal(0, 0.45)) * len(voxels)
    centres = _lesion_centres(random, grid, chest, voxels)
    for centre in centres:
        radius = float(np.clip(style.radius * random.lognormal(0, 0.4), 3.5, 60))
        core = float(random.uniform(0.45, 1.0)) if random.random() < style.consolidation else 0.0
        _add_lesion(random, grid, centre, radius, core, ragged, extent, density)
        if np.count_nonzero((extent > 0.5) & chest.lung) >= target:
            break
    extent[~chest.lung] = 0
    return extent, density, texture


def fill_lungs(chest: Chest, vessels: Field, extent: Field, density: Field, texture: Field) -> Field:
    """Hounsfield units with disease and vessels in the lungs."""
    glass = np.clip(-560 + 200 * density + 60 * texture, -740, 60)
    solid = np.clip(15 + 14 * texture, -60, 70)
    ill = glass + np.clip(2.2 * density - 0.9, 0, 1) * (solid - glass)
    hounsfield = chest.hounsfield + np.where(chest.lung, extent * (ill - chest.hounsfield), 0)
    return np.asarray(hounsfield + vessels * np.maximum(45 - hounsfield, 0), dtype=np.float32)


def _millimetres(grid: Grid, voxels: npt.NDArray[np.intp]) -> Points:
    lines = (grid.z.ravel(), grid.y.ravel(), grid.x.ravel())
    return np.stack([line[voxels[:, k]] for k, line in enumerate(lines)], axis=1).astype(np.float64)


def _grow_tree(root: Points, ends: Points) -> tuple[Points, Points, npt.NDArray[np.float64]]:
    """Segments (start, end) and radii of a tree from the root through all end points."""
    order = np.argsort(np.linalg.norm(ends - root, axis=1), kind="stable")
    nodes = np.concatenate([root[None], ends[order]])
    parent = np.zeros(len(nodes), dtype=np.intp)
    path = np.zeros(len(nodes))
    for i in range(1, len(nodes)):
        reach = np.linalg.norm(nodes[:i] - nodes[i], axis=1)
        parent[i] = int(np.argmin(reach + 0.25 * path[:i]))
        path[i] = path[parent[i]] + reach[parent[i]]
    # Murray: the cube of a branch's radius is the sum of the cubes of what it feeds.
    volume = np.full(len(nodes), TWIG_MM**3)
    for i in range(len(nodes) - 1, 0, -1):
        volume[parent[i]] += volume[i]
    radius = np.minimum(volume ** (1 / 3), TRUNK_MM)
    return nodes[parent[1:]], nodes[1:], radius[1:]


def _draw_tree(occupancy: Field, grid: Grid, tree: tuple[Points, Points, npt.NDArray[np.float64]]) -> None:
    """Stamps round blobs along slightly bent segments; the largest occupancy wins."""
    start, end, radius = tree
    count = np.maximum(2, np.ceil(np.linalg.norm(end - start, axis=1) / 1.6)).astype(np.intp)
    which = np.repeat(np.arange(len(start)), count)
    first = np.cumsum(count) - count
    t = ((np.arange(len(which)) - first[which]) / count[which])[:, None]
    points = start[which] + t * (end - start)[which]
    points[:, 0] -= 4 * (t * (1 - t))[:, 0] * 0.06 * np.linalg.norm(end - start, axis=1)[which]
    for low, high in ((0.0, 1.6), (1.6, 3.2), (3.2, TRUNK_MM + 0.1)):
        part = (radius[which] >= low) & (radius[which] < high)
        _stamp(occupancy, grid, points[part], radius[which][part], high)


def _stamp(occupancy: Field, grid: Grid, points: Points, radius: npt.NDArray[np.float64], most: float) -> None:
    spacing = np.asarray(grid.spacing)
    pixel = spacing[1:].mean()
    origin = np.asarray([grid.z.flat[0], grid.y.flat[0], grid.x.flat[0]])
    base = np.round((points - origin) / spacing).astype(np.intp)
    reach = np.ceil((most + pixel / 2) / spacing).astype(int)
    voxels, squares = [], []
    for axis in range(3):
        steps = np.arange(-reach[axis], reach[axis] + 1)[:, None]
        places = base[:, axis] + steps
        squares.append((origin[axis] + places * spacing[axis] - points[:, axis]) ** 2)
        squares[axis][(places < 0) | (places >= occupancy.shape[axis])] = np.inf
        voxels.append(places)
    limit = (radius + pixel / 2) ** 2
    for i, j, k in np.ndindex(*(2 * reach + 1)):
        square = squares[0][i] + squares[1][j] + squares[2][k]
        near = np.flatnonzero(square < limit)
        # Partial volume: a vessel thinner than a voxel fills that share of it.
        share = np.clip((radius[near] - np.sqrt(square[near])) / pixel + 0.5, 0, 1)
        place = (voxels[0][i][near], voxels[1][j][near], voxels[2][k][near])
        np.maximum.at(occupancy, place, share.astype(np.float32))


def _lesion_centres(random: np.random.Generator, grid: Grid, chest: Chest, voxels: npt.NDArray[np.intp]) -> Points:
    sample = voxels[random.integers(len(voxels), size=4000)]
    points = _millimetres(grid, sample)
    outer = chest.periphery[tuple(sample.T)]
    weight = np.exp(3.0 * outer) * np.exp(points[:, 1] / 45) * np.exp(-points[:, 0] / 160)
    chosen = random.choice(len(sample), size=MAX_LESIONS, replace=False, p=weight / weight.sum())
    return points[chosen]


def _add_lesion(
    random: np.random.Generator,
    grid: Grid,
    centre: Points,
    radius: float,
    core: float,
    ragged: Field,
    extent: Field,
    density: Field,
) -> None:
    radii = radius * random.uniform(0.7, 1.3, 3)
    box: list[slice] = []
    for line, middle, half in zip((grid.z, grid.y, grid.x), centre, 1.7 * radii, strict=True):
        box.append(slice(*np.searchsorted(line.ravel(), (middle - half, middle + half))))
    where = tuple(box)
    squares = [
        ((line[tuple(box[k] if k == axis else slice(None) for k in range(3))] - centre[axis]) / radii[axis]) ** 2
        for axis, line in enumerate((grid.z, grid.y, grid.x))
    ]
    distance = np.sqrt(squares[0] + squares[1] + squares[2]) + ragged[where]
    edge = np.clip((1 - distance) * radius / 5 + 0.5, 0, 1)
    inner = np.clip((core - distance) * radius / 6 + 0.5, 0, 1) if core else 0.0
    faint = float(random.uniform(0, 0.3))
    np.maximum(extent[where], edge, out=extent[where])
    np.maximum(density[where], np.minimum(edge, faint + (1 - faint) * inner), out=density[where])


def lesion_mask(chest: Chest, extent: Field) -> Flags:
    """The voxels an expert would outline."""
    return (extent > 0.5) & chest.lung

"""The healthy chest of one phantom patient in Hounsfield units: wall, bones, heart, lungs, abdomen.

Shapes are analytic in patient millimetres (phantom_field.Grid); sizes follow an adult and vary by patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pppml_fast.imaging.phantom_field import Field, Flags, Grid, capsule, disc, smooth_noise

AIR, FAT, MUSCLE, WATER = -1000.0, -95.0, 52.0, 15.0
LUNG, LIVER, SPLEEN, CARTILAGE = -850.0, 62.0, 52.0, 95.0
CANCELLOUS, CORTEX = 190.0, 620.0


@dataclass(frozen=True)
class Patient:
    """What differs between patients; lengths in mm. `height` is the scanned length, just over the lungs'."""

    height: float
    chest_width: float
    chest_depth: float
    fat: float
    heart: float
    right_dome: float
    left_dome: float
    blood: float
    stomach_gas: bool
    turn: float


@dataclass(frozen=True, eq=False)
class Chest:
    """Hounsfield units (D, H, W) without lung vessels, the lung voxels, and where in the lung they lie.

    `periphery` is 1 at the chest wall and falls to 0 in the middle of the chest.
    """

    hounsfield: Field
    lung: Flags
    periphery: Field


def draw_patient(random: np.random.Generator, contrast: float) -> Patient:
    """A random adult; `contrast` is the blood's enhancement in HU (0 without contrast agent)."""
    scale = random.normal(1.0, 0.05)
    return Patient(
        height=float(np.clip(250 * scale * random.normal(1, 0.04), 210, 290)),
        chest_width=float(np.clip(130 * scale * random.normal(1, 0.05), 108, 150)),
        chest_depth=float(np.clip(93 * scale * random.normal(1, 0.07), 76, 112)),
        fat=float(np.clip(random.gamma(6, 2.4), 5, 30)),
        heart=float(random.normal(1.0, 0.08)),
        right_dome=float(random.uniform(66, 90)),
        left_dome=float(random.uniform(54, 78)),
        blood=48.0 + contrast * float(random.uniform(0.8, 1.2)),
        stomach_gas=bool(random.random() < 0.7),
        turn=float(random.normal(0, 0.03)),
    )


def build_chest(random: np.random.Generator, patient: Patient, grid: Grid) -> Chest:
    """Renders a patient on a grid."""
    level = grid.z / patient.height
    cavity, outward = _cavity(random, patient, grid, level)
    hounsfield = _body_wall(random, patient, grid, level, outward)
    _ribs(patient, grid, outward, hounsfield)
    _shoulder_blades(grid, level, outward, hounsfield)
    _sternum(patient, grid, level, hounsfield)
    lung = cavity < 1
    hounsfield[lung] = FAT
    middle = _mediastinum(random, patient, grid, level, hounsfield, lung)
    abdomen = _abdomen(random, patient, grid, lung, hounsfield)
    spine = _spine(random, grid, hounsfield)
    lung &= ~(middle | abdomen | spine)
    texture = smooth_noise(random, grid, 5.0) * np.float32(14)
    gravity = np.clip(grid.y / 80, -1, 1) * np.float32(28)
    hounsfield[lung] = (np.float32(LUNG) + texture + gravity)[lung]
    _airways(patient, grid, level, hounsfield, lung)
    _table(patient, grid, hounsfield)
    return Chest(hounsfield, lung, np.clip(1 - outward / -60, 0, 1).astype(np.float32))


def _cavity(random: np.random.Generator, patient: Patient, grid: Grid, level: Field) -> tuple[Field, Field]:
    """Normalised radius (1 at the pleura) and distance in mm outside it, both (D, H, W)."""
    taper = np.clip(level / 0.95, 0, 1)
    width = patient.chest_width * np.sqrt(np.clip(1 - taper**4.6, 1e-3, 1))
    depth = patient.chest_depth * np.sqrt(np.clip(1 - taper**6, 1e-3, 1))
    x, y = grid.x + patient.turn * grid.y, grid.y - patient.turn * grid.x + 4
    wobble = 1 + 0.03 * smooth_noise(random, grid, 70.0)
    radius = ((np.abs(x) / width) ** 2.3 + (np.abs(y) / depth) ** 2.3) ** np.float32(1 / 2.3) * wobble
    reach = np.hypot(grid.x, grid.y) / np.maximum(radius, 1e-3)
    return radius.astype(np.float32), ((radius - 1) * reach).astype(np.float32)


def _body_wall(random: np.random.Generator, patient: Patient, grid: Grid, level: Field, outward: Field) -> Field:
    """Skin, fat and muscle around the cavity, air outside."""
    shoulders = 1 + 0.16 * np.clip((level - 0.78) / 0.2, 0, 1)
    width = (patient.chest_width + 22 + patient.fat) * shoulders
    depth = patient.chest_depth + 24 + 0.8 * patient.fat + 0 * level
    radius = ((np.abs(grid.x) / width) ** 2.4 + (np.abs(grid.y - 6) / depth) ** 2.4) ** np.float32(1 / 2.4)
    below_skin = (1 - radius) * np.hypot(grid.x, grid.y - 6) / np.maximum(radius, 1e-3)
    fatty = smooth_noise(random, grid, 11.0)
    front = np.clip(-grid.y / 90, 0, 1)
    fat_depth = patient.fat * (0.75 + 0.5 * front) * (1 + 0.18 * fatty)
    hounsfield = np.where(below_skin < fat_depth, FAT, MUSCLE).astype(np.float32)
    # Fat between the muscles, mostly beside the ribs and in the armpits.
    hounsfield[(fatty > 0.95) & (outward > 9)] = FAT
    hounsfield += 7 * fatty
    hounsfield[(below_skin >= 0) & (below_skin < 2.2)] = WATER
    hounsfield[np.broadcast_to(below_skin < 0, hounsfield.shape)] = AIR
    return hounsfield


def _ribs(patient: Patient, grid: Grid, outward: Field, hounsfield: Field) -> None:
    """Twelve pairs that run down from the spine to the front; cartilage near the sternum."""
    angle = np.abs(np.arctan2(grid.x, grid.y + 4))
    spacing = patient.height / 10.0
    drop = 62 * (1 - np.cos(np.minimum(angle, 2.6))) / 1.86
    phase = (grid.z + drop) / spacing
    along = (phase - np.round(phase)) * spacing
    distance = np.sqrt((along / 6.5) ** 2 + ((outward - 6.5) / 4.3) ** 2)
    rib = (distance < 1) & (angle > 0.42) & (angle < 2.75)
    front = angle > 2.35
    hounsfield[rib & ~front] = CORTEX
    hounsfield[rib & ~front & (distance < 0.62)] = CANCELLOUS
    hounsfield[rib & front] = CARTILAGE
    between = (np.abs(outward - 6.5) < 3.2) & ~rib & (hounsfield > AIR + 1)
    hounsfield[between] = MUSCLE - 8


def _shoulder_blades(grid: Grid, level: Field, outward: Field, hounsfield: Field) -> None:
    angle = np.abs(np.arctan2(grid.x, grid.y + 4))
    centre = 25 + 7 * np.sin(3.2 * angle)
    blade = (np.abs(outward - centre) < 3.4) & (angle > 0.62) & (angle < 1.25 + 0.3 * (level - 0.6))
    blade &= (level > 0.56) & (hounsfield > AIR + 1)
    hounsfield[blade] = CORTEX * 0.8


def _sternum(patient: Patient, grid: Grid, level: Field, hounsfield: Field) -> None:
    front = -patient.chest_depth * np.sqrt(np.clip(1 - np.clip(level / 0.95, 0, 1) ** 6, 1e-3, 1)) - 4
    distance = np.maximum(np.abs(grid.x) / 17, np.abs(grid.y - front + 8) / 6.5)
    inside = (distance < 1) & (level > 0.34) & (level < 0.9)
    hounsfield[inside] = CANCELLOUS * 0.8
    hounsfield[inside & (distance > 0.72)] = CORTEX * 0.7


def _mediastinum(
    random: np.random.Generator, patient: Patient, grid: Grid, level: Field, hounsfield: Field, cavity: Flags
) -> Flags:
    """Heart and great vessels in fat, between the lungs."""
    bulge = 1 + 0.07 * smooth_noise(random, grid, 45.0)
    narrow = 1 - 0.25 * np.clip((level - 0.62) / 0.3, 0, 1)
    region = disc(grid, 0, 4, 38.0, 68.0) < (narrow * bulge) ** 2
    region |= (np.abs(grid.x - 3) < 7 * bulge) & (grid.y < 0) & (level > 0.3)
    size = patient.heart
    tilt = grid.x - 26 + 0.25 * (grid.y + 20)
    heart_level = 0.36 * patient.height
    heart = (
        (tilt / (60 * size)) ** 2
        + ((grid.y + 20 + 0.25 * (grid.x - 26)) / (47 * size)) ** 2
        + ((grid.z - heart_level) / (58 * size)) ** 2
    ) * (2 - bulge)
    pericardium = heart < 1.1
    region = (region | pericardium) & cavity
    hounsfield[region] = FAT + 6 * bulge[region]
    _paint(hounsfield, region & (heart < 1.0), MUSCLE)
    chambers = region & (heart < 0.68) & (bulge > 0.965)
    _paint(hounsfield, chambers, patient.blood)
    blood = patient.blood
    _paint(hounsfield, (disc(grid, 24, 46, 12.0) < 1) & (level < 0.73), blood)
    _paint(hounsfield, (disc(grid, -15, -20, 15.0) < 1) & (level > 0.44) & (level < 0.72), blood)
    arch = (capsule(grid, (-14, -20), (24, 46)) < 12.5) & (np.abs(level - 0.71) < 0.045)
    _paint(hounsfield, arch & region, blood)
    _paint(hounsfield, (disc(grid, -27, -14, 8.0) < 1) & (level > 0.45) & region, blood)
    trunk = (capsule(grid, (14, -30), (34, 6)) < 12) & (np.abs(level - 0.57) < 0.04)
    right_artery = (capsule(grid, (10, -24), (-36, 2)) < 10) & (np.abs(level - 0.535) < 0.035)
    _paint(hounsfield, (trunk | right_artery) & (region | cavity), blood)
    _paint(hounsfield, (disc(grid, 6, 44, 7.0) < 1) & region & (level > 0.2), 38.0)
    for x in (-16, 0, 14):
        _paint(hounsfield, (disc(grid, x, -24, 5.0) < 1) & (level > 0.76), blood)
    return region | ((trunk | right_artery) & cavity)


def _abdomen(random: np.random.Generator, patient: Patient, grid: Grid, cavity: Flags, hounsfield: Field) -> Flags:
    """Domes of the diaphragm, and what lies below: liver, spleen, stomach."""
    floor = 6.0
    top = np.full((1, *grid.shape[1:]), floor, dtype=np.float32)
    for centre, height, radius in ((-60.0, patient.right_dome, 82.0), (64.0, patient.left_dome, 78.0)):
        inside = np.clip(1 - disc(grid, centre, -18, radius, 84.0), 0, 1)
        top = np.maximum(top, floor + height * inside**0.62)
    bridge = np.clip(1 - disc(grid, 0, -20, 60.0, 78.0), 0, 1)
    top = np.maximum(top, floor + 0.8 * patient.left_dome * bridge)
    below = cavity & (grid.z < top + 2 * smooth_noise(random, grid, 40.0))
    texture = 5 * smooth_noise(random, grid, 9.0)
    hounsfield[below] = (FAT + 2 * texture)[below]
    depth = top - grid.z
    edge = 34 - 0.35 * grid.z - 0.35 * grid.y + 9 * smooth_noise(random, grid, 22.0)
    _paint(hounsfield, below & (depth > 2.5) & (grid.x < edge), LIVER)
    spleen = disc(grid, 82, 34, 36.0, 40.0) < 1
    _paint(hounsfield, below & (depth > 3) & spleen, SPLEEN)
    stomach = (disc(grid, 62, -22, 44.0, 40.0) < 1) & below & (depth > 5) & (grid.x > edge + 4)
    _paint(hounsfield, stomach, MUSCLE)
    inner = (disc(grid, 62, -22, 39.0, 35.0) < 1) & stomach & (depth > 9)
    _paint(hounsfield, inner, 28.0)
    if patient.stomach_gas:
        _paint(hounsfield, inner & (grid.y < -30), AIR + 40)
    hounsfield[below & (depth < 2.5)] = MUSCLE
    hounsfield += np.where(below, texture, np.float32(0))
    return below


def _spine(random: np.random.Generator, grid: Grid, hounsfield: Field) -> Flags:
    """Vertebrae with discs, canal, arches and processes; returns what no lung may fill."""
    period = 25.0
    along = np.abs(grid.z / period - np.round(grid.z / period)) * period
    body = disc(grid, 0, 66, 19.0, 16.0)
    grain = 45 * smooth_noise(random, grid, 4.0)
    surrounding = (disc(grid, 0, 68, 24.0, 21.0) < 1) | (disc(grid, 0, 96, 34.0, 22.0) < 1)
    _paint(hounsfield, surrounding & (hounsfield > AIR + 1), MUSCLE)
    inside = np.broadcast_to(body < 1, grid.shape)
    hounsfield[inside] = (CANCELLOUS + grain)[inside]
    _paint(hounsfield, (body < 1) & (body > 0.8), CORTEX * 0.75)
    _paint(hounsfield, (body < 1) & (along < 2.6), CARTILAGE)
    arch = disc(grid, 0, 90, 15.0, 13.0)
    _paint(hounsfield, (arch < 1) & (along > 5), CORTEX * 0.7)
    transverse = (np.abs(grid.y - 88 + 0.12 * np.abs(grid.x)) < 4.5) & (np.abs(grid.x) < 34) & (along > 8)
    _paint(hounsfield, transverse & (body > 1), CORTEX * 0.6)
    spinous = (np.abs(grid.x) < 3.2) & (grid.y > 98) & (grid.y < 116) & (along > 4)
    _paint(hounsfield, spinous & (hounsfield > AIR + 1), CORTEX * 0.6)
    _paint(hounsfield, disc(grid, 0, 90, 9.0, 7.5) < 1, 32.0)
    return np.broadcast_to(surrounding, grid.shape)


def _airways(patient: Patient, grid: Grid, level: Field, hounsfield: Field, lung: Flags) -> None:
    """Windpipe and main bronchi, with their walls; not counted as lung."""
    carina = 0.60
    trachea = disc(grid, 1, 4, 8.5)
    upper = level > carina
    _paint(hounsfield, (trachea < 1.55) & upper, 35.0)
    _paint(hounsfield, (trachea < 1) & upper, AIR + 15)
    fall = (carina - level) * patient.height
    for side in (-1, 1):
        steep = 1.0 if side < 0 else 1.35
        bronchus = disc(grid, side * (5 + steep * fall), 6 + 0.25 * fall, 6.0)
        span = (level <= carina) & (fall < 30 / steep)
        _paint(hounsfield, (bronchus < 1.7) & span & ~lung, 35.0)
        _paint(hounsfield, (bronchus < 1) & span, AIR + 20)
        lung &= ~((bronchus < 1) & span)


def _table(patient: Patient, grid: Grid, hounsfield: Field) -> None:
    back = patient.chest_depth + 24 + 0.8 * patient.fat + 6
    for offset, value in ((7.0, -350.0), (30.0, -500.0)):
        surface = back + offset - (grid.x / 62) ** 2 * (1.0 if offset < 20 else 2.2)
        line = (np.abs(grid.y - surface) < 1.6) & (np.abs(grid.x) < 205)
        _paint(hounsfield, line & (hounsfield <= AIR + 1), value)


def _paint(hounsfield: Field, where: Flags, value: float) -> None:
    """Sets a region that may lack dimensions of the volume."""
    np.copyto(hounsfield, np.float32(value), where=where)

"""Chest-CT phantoms: hospitals with different scanners and patients, made from a seed, no download needed.

Anatomy, vessels and lesions are drawn in patient millimetres, then scanned as each hospital scans. NumPy
alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pppml_fast.errors import ConfigError
from pppml_fast.imaging.cases import Case, PartyData
from pppml_fast.imaging.phantom_anatomy import build_chest, draw_patient
from pppml_fast.imaging.phantom_field import make_grid
from pppml_fast.imaging.phantom_lesions import (
    LesionStyle,
    draw_lesions,
    fill_lungs,
    lesion_mask,
    lung_vessels,
)
from pppml_fast.imaging.phantom_scanner import (
    PIXEL_SUPERSAMPLING,
    average_blocks,
    blacken_corners,
    dose_noise,
    reconstruct,
    to_grey,
)
from pppml_fast.imaging.transforms import unit_range

SUBSLICE_MM = 3.0
"""Slices are averaged from sub-slices of about this thickness: partial volume."""


@dataclass(frozen=True)
class PhantomHospital:
    """A hospital's scanner, protocol and patients.

    `slice_mm` slice thickness; `noise_hu` standard deviation of the noise of a 5 mm slice; `sharpness` of the
    kernel, -1 soft to 1 sharp; `offset_hu` calibration error; `field_mm` field of view; `window` HU of
    black and white; `lesion_mm` median radius; `infected_share` typical share of the lung;
    `consolidation` share of lesions with a dense core; `contrast_hu` enhancement of blood; `circular`
    blackens what lies outside the circle of reconstruction.
    Raises ConfigError for values no scanner has.
    """

    name: str
    slice_mm: float = 5.0
    noise_hu: float = 25.0
    sharpness: float = 0.0
    offset_hu: float = 0.0
    field_mm: float = 370.0
    window: tuple[float, float] = (-1000.0, 400.0)
    lesion_mm: float = 14.0
    infected_share: float = 0.1
    consolidation: float = 0.4
    contrast_hu: float = 0.0
    circular: bool = False
    train_cases: int = 4
    test_cases: int = 2

    def __post_init__(self) -> None:
        limits = {
            "slice_mm": (0.5, 20.0),
            "noise_hu": (0.0, 300.0),
            "sharpness": (-1.0, 1.0),
            "field_mm": (250.0, 600.0),
            "lesion_mm": (3.0, 60.0),
            "infected_share": (0.0, 0.7),
            "consolidation": (0.0, 1.0),
            "train_cases": (1, 1000),
            "test_cases": (1, 1000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"hospital '{self.name}': {name} {value} is outside {low:g} to {high:g}")
        if not self.window[0] < self.window[1]:
            raise ConfigError(f"hospital '{self.name}': window {self.window} is empty; black must be below white")


DEFAULT_HOSPITALS = (
    PhantomHospital(
        "north", slice_mm=2.5, noise_hu=24, sharpness=0.8, field_mm=350, lesion_mm=11, infected_share=0.09,
        consolidation=0.3, train_cases=5,
    ),
    PhantomHospital(
        "east", slice_mm=10, noise_hu=16, sharpness=-0.8, offset_hu=25, field_mm=400, window=(-1150, 350),
        lesion_mm=20, infected_share=0.2, consolidation=0.7, circular=True, train_cases=4,
    ),
    PhantomHospital(
        "south", slice_mm=5, noise_hu=85, sharpness=0.3, offset_hu=-30, field_mm=370, window=(-1024, 600),
        lesion_mm=16, infected_share=0.12, consolidation=0.2, train_cases=4,
    ),
    PhantomHospital(
        "west", slice_mm=7.5, noise_hu=22, sharpness=-0.3, offset_hu=-60, field_mm=420, window=(-1350, 150),
        lesion_mm=12, infected_share=0.07, consolidation=0.5, contrast_hu=140, circular=True, train_cases=3,
    ),
)  # fmt: skip
"""Thin and sharp; thick and soft with heavy disease; low dose; wide field, contrast and small lesions."""


def make_phantoms(
    hospitals: Sequence[PhantomHospital] = DEFAULT_HOSPITALS,
    seed: int = 0,
    size: int = 96,
    *,
    workers: int = 2,
) -> tuple[PartyData, ...]:
    """One party per hospital with size x size slices; the same seed gives the same voxels.

    A hospital's patients depend on the seed and its name alone, not on the other hospitals, nor on how many
    threads (`workers`) draw them.
    Raises ConfigError for a size below 32 or two hospitals of one name.
    """
    if size < 32:
        raise ConfigError(f"phantom size {size} is below 32 pixels; use e.g. 96")
    names = [hospital.name for hospital in hospitals]
    if len(set(names)) < len(names):
        raise ConfigError(f"hospital names {names} repeat; name each one differently")
    jobs = [(hospital, index) for hospital in hospitals for index in range(_count(hospital))]
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        cases = iter(list(pool.map(lambda job: make_case(job[0], seed, job[1], size), jobs)))
    return tuple(_party(hospital, list(islice(cases, _count(hospital)))) for hospital in hospitals)


def make_case(hospital: PhantomHospital, seed: int, index: int, size: int = 96) -> Case:
    """One patient of a hospital, with lesion and lung masks and spacing."""
    random = np.random.default_rng([seed, zlib.crc32(hospital.name.encode()), index])
    patient = draw_patient(random, hospital.contrast_hu)
    subslices = max(1, round(hospital.slice_mm / SUBSLICE_MM))
    pixels = PIXEL_SUPERSAMPLING
    slices = max(1, round(patient.height / hospital.slice_mm))
    grid = make_grid(slices * hospital.slice_mm, hospital.slice_mm / subslices, hospital.field_mm, size * pixels)
    chest = build_chest(random, patient, grid)
    vessels = lung_vessels(random, patient, grid, chest)
    style = LesionStyle(hospital.lesion_mm, hospital.infected_share, hospital.consolidation)
    extent, density, texture = draw_lesions(random, grid, chest, style)
    fine = fill_lungs(chest, vessels, extent, density, texture)
    lung = average_blocks(chest.lung, subslices, pixels) > 0.5
    mask = (average_blocks(lesion_mask(chest, extent), subslices, pixels) > 0.5) & lung
    pixel_mm = hospital.field_mm / size
    scan = reconstruct(average_blocks(fine, subslices, pixels), pixel_mm, hospital.sharpness)
    # Fewer photons per slice: noise goes with the inverse root of the thickness.
    sigma = hospital.noise_hu * float(np.sqrt(5.0 / hospital.slice_mm))
    scan += dose_noise(random, (slices, size, size), pixel_mm, hospital.sharpness, sigma) + hospital.offset_hu
    if hospital.circular:
        blacken_corners(scan, hospital.window[0])
    return Case(
        name=f"{hospital.name}_{index:03d}",
        image=unit_range(to_grey(scan, hospital.window)),
        mask=mask.astype(np.uint8),
        lung=lung.astype(np.uint8),
        spacing=(hospital.slice_mm, pixel_mm, pixel_mm),
    )


def _count(hospital: PhantomHospital) -> int:
    return hospital.train_cases + hospital.test_cases


def _party(hospital: PhantomHospital, cases: list[Case]) -> PartyData:
    train, test = cases[: hospital.train_cases], cases[hospital.train_cases :]
    return PartyData(hospital.name, tuple(train), tuple(test))

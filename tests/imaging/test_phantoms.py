from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.imaging import (
    DEFAULT_HOSPITALS,
    Case,
    PhantomHospital,
    ScanClient,
    infection_label,
    infection_ratio,
    lung_box_volume,
    make_case,
    make_phantoms,
    make_scans,
)


def digest(case: Case) -> str:
    total = hashlib.sha256()
    for array in (case.image, case.mask, case.lung):
        assert array is not None
        total.update(array.tobytes())
    return total.hexdigest()


SMALL = PhantomHospital("small", slice_mm=15, train_cases=1, test_cases=1)


def test_a_seed_gives_the_same_voxels_and_another_seed_others() -> None:
    first = make_case(SMALL, seed=5, index=0, size=48)
    assert digest(first) == digest(make_case(SMALL, seed=5, index=0, size=48))
    assert digest(first) != digest(make_case(SMALL, seed=6, index=0, size=48))
    assert digest(first) != digest(make_case(SMALL, seed=5, index=1, size=48))


def test_a_hospital_does_not_depend_on_its_neighbours() -> None:
    other = replace(SMALL, name="other")
    alone = make_phantoms([SMALL], seed=1, size=32)[0]
    beside = make_phantoms([other, SMALL], seed=1, size=32)[1]
    assert [digest(case) for case in alone.train + alone.test] == [digest(case) for case in beside.train + beside.test]
    assert digest(make_case(other, 1, 0, 32)) != digest(alone.train[0])


def test_lesions_lie_in_lungs_of_plausible_size(thin_cases: tuple[Case, ...], thick_cases: tuple[Case, ...]) -> None:
    for case in thin_cases + thick_cases:
        assert case.lung is not None
        assert case.spacing is not None
        assert case.mask.sum() > 0
        assert not (case.mask & ~case.lung & 1).any()
        litres = case.lung.sum() * np.prod(case.spacing) / 1e6
        assert 1.5 < litres < 7
        assert case.lung[:, :, : case.lung.shape[2] // 2].any()
        assert case.lung[:, :, case.lung.shape[2] // 2 :].any()


def test_grey_values_are_those_of_a_chest(thin_cases: tuple[Case, ...]) -> None:
    """Lung near -850 HU, lesions between lung and soft tissue, bone brighter, the spine below the lungs."""
    for case in thin_cases:
        assert case.lung is not None
        hounsfield = case.image * 1400 - 1000
        healthy = (case.lung == 1) & (case.mask == 0)
        assert -890 < np.median(hounsfield[healthy]) < -780
        assert -700 < hounsfield[case.mask == 1].mean() < -100
        assert (hounsfield > 250).sum() > 0
        middle = hounsfield[case.image.shape[0] // 2]
        spine = middle[40:56, 28:36]
        assert spine.max() > 150
        assert middle[0, 0] < -900


def test_hospitals_differ_by_construction(thin_cases: tuple[Case, ...], thick_cases: tuple[Case, ...]) -> None:
    def mean(cases: tuple[Case, ...], what: str) -> float:
        values = []
        for case in cases:
            assert case.lung is not None
            healthy = (case.lung == 1) & (case.mask == 0)
            outside = case.image[:, :3]
            values.append(
                {
                    "lung": float(case.image[healthy].mean()),
                    "share": case.infected_share,
                    "noise": float(outside.std()),
                    "slices": float(case.image.shape[0]),
                    "area": float(case.lung.mean()),
                }[what]
            )
        return float(np.mean(values))

    assert mean(thick_cases, "lung") > mean(thin_cases, "lung") + 0.03
    assert mean(thick_cases, "share") < 0.6 * mean(thin_cases, "share")
    assert mean(thick_cases, "noise") > 1.5 * mean(thin_cases, "noise")
    assert mean(thick_cases, "slices") < 0.6 * mean(thin_cases, "slices")
    assert mean(thick_cases, "area") < 0.85 * mean(thin_cases, "area")


def test_noise_is_correlated_by_the_kernel() -> None:
    """White noise has no correlation between neighbours; a soft kernel's noise has much, a sharp one's less."""

    def neighbours(sharpness: float) -> float:
        hospital = replace(SMALL, slice_mm=20, noise_hu=250, sharpness=sharpness, window=(-3000, 1000))
        case = make_case(hospital, seed=0, index=0, size=64)
        air = case.image[:, 1:7]
        air = air - air.mean(axis=(1, 2), keepdims=True)
        return float((air[:, :, 1:] * air[:, :, :-1]).mean() / (air**2).mean())

    soft, sharp = neighbours(-1.0), neighbours(1.0)
    assert soft > 0.3
    assert sharp < soft - 0.3


def test_default_hospitals_are_different_in_every_respect() -> None:
    for field in ("name", "slice_mm", "noise_hu", "sharpness", "offset_hu", "field_mm", "window", "lesion_mm",
                  "infected_share", "consolidation"):  # fmt: skip
        assert len({getattr(hospital, field) for hospital in DEFAULT_HOSPITALS}) == len(DEFAULT_HOSPITALS), field


def test_values_no_scanner_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"slice_mm 0\.1 is outside 0.5 to 20"):
        PhantomHospital("x", slice_mm=0.1)
    with pytest.raises(ConfigError, match=r"window .* is empty"):
        PhantomHospital("x", window=(400, -1000))
    with pytest.raises(ConfigError, match="repeat"):
        make_phantoms([SMALL, SMALL])
    with pytest.raises(ConfigError, match="size 16 is below 32"):
        make_phantoms([SMALL], size=16)


def test_infection_label_is_the_ratio_in_the_lung() -> None:
    lung = np.zeros((1, 10, 10), bool)
    lung[0, :2] = True
    mask = np.zeros_like(lung)
    mask[0, 5:] = True
    mask[0, 0, :2] = True
    assert infection_ratio(mask, lung) == 0.1
    assert infection_label(mask, lung) == 0
    mask[0, 0, 2] = True
    assert infection_label(mask, lung) == 1
    assert infection_label(mask, lung, threshold=0.2) == 0
    with pytest.raises(DataError, match="empty"):
        infection_ratio(mask, np.zeros_like(lung))


def test_lung_box_keeps_the_lung_alone() -> None:
    image = np.ones((6, 10, 12), np.float32)
    lung = np.zeros(image.shape, np.uint8)
    lung[1:5, 2:8, 3:11] = 1
    volume = lung_box_volume(image, lung, size=16)
    assert volume.shape == (16, 16, 16)
    np.testing.assert_array_equal(volume[:, 0, 0], [0] * 6 + [1] * 4 + [0] * 6)
    lung[2, 2, 3] = 0
    assert lung_box_volume(image, lung, size=16)[7, 0, 0] < 1


def test_scans_have_both_labels_and_their_thickness() -> None:
    clients = (ScanClient("one", thickness=1, scans=4), ScanClient("ten", thickness=4, scans=2))
    scans = make_scans(clients, seed=0, size=24)
    assert {scan.label for scan in scans["one"]} == {0, 1}
    for scan in scans["one"] + scans["ten"]:
        assert scan.image.shape == (24, 24, 24)
        assert scan.label == int(scan.ratio > 0.1)
    filled = [int((scan.image.max(axis=(1, 2)) > 0).sum()) for scan in scans["ten"]]
    assert max(filled) <= 6
    again = make_scans(clients, seed=0, size=24)
    np.testing.assert_array_equal(again["ten"][1].image, scans["ten"][1].image)

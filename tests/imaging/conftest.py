"""One thread: the tests share a machine, and sums must not depend on how many cores it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pppml_fast.imaging import Case, PhantomHospital, make_case

torch.set_num_threads(1)

THIN = PhantomHospital("thin", slice_mm=7.5, noise_hu=15, sharpness=0.7, lesion_mm=16, infected_share=0.15)
THICK = PhantomHospital(
    "thick", slice_mm=15, noise_hu=90, sharpness=-0.7, offset_hu=60, field_mm=430, lesion_mm=9, infected_share=0.04
)


@pytest.fixture(scope="session")
def thin_cases() -> tuple[Case, ...]:
    return tuple(make_case(THIN, seed=3, index=index, size=64) for index in range(2))


@pytest.fixture(scope="session")
def thick_cases() -> tuple[Case, ...]:
    return tuple(make_case(THICK, seed=3, index=index, size=64) for index in range(2))


@pytest.fixture
def tiny_case() -> Case:
    """Four slices of 20 x 24 whose pixels tell the slice: slice k is k / 10 everywhere; lesion in slice 2."""
    image = np.repeat(np.arange(4, dtype=np.float32) / 10, 20 * 24).reshape(4, 20, 24)
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[2, 5:9, 6:12] = 1
    return Case("tiny", image, mask, lung=np.ones_like(mask))

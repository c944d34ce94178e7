from __future__ import annotations

import numpy as np
import pytest

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.imaging import Preprocessing, apply_window, resize_slices, simulate_thickness, unit_range


def test_window_and_bytes() -> None:
    values = np.array([-2000.0, -1000, -300, 400, 3000])
    np.testing.assert_allclose(apply_window(values, (-1000, 400)), [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(unit_range(np.array([0, 51, 255], np.uint8)), np.float32([0, 0.2, 1]))
    with pytest.raises(ConfigError, match=r"window \[400, 400\] is empty"):
        apply_window(values, (400, 400))
    with pytest.raises(DataError, match="NaN"):
        apply_window(np.array([np.nan]), (0, 1))


def test_thickness_is_means_centred_in_zeros() -> None:
    volume = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    np.testing.assert_array_equal(simulate_thickness(volume, 1), volume)
    thick = simulate_thickness(volume, 5)[:, 0, 0]
    np.testing.assert_array_equal(thick, [0, 0, 0, 0, 0, 2, 7, 0, 0, 0, 0, 0])
    assert (simulate_thickness(np.ones((70, 3, 3)), 10)[:, 0, 0] != 0).nonzero()[0].tolist() == list(range(31, 38))
    for bad in (0, 13):
        with pytest.raises(DataError, match=f"thickness of {bad} slices"):
            simulate_thickness(volume, bad)


def test_resizing_keeps_means_and_shapes() -> None:
    volume = np.random.default_rng(0).random((3, 8, 12), dtype=np.float32)
    small = resize_slices(volume, 4, 6)
    np.testing.assert_allclose(small, volume.reshape(3, 4, 2, 6, 2).mean(axis=(2, 4)), rtol=1e-5)
    assert resize_slices(small, 9, 13).shape == (3, 9, 13)


def test_preprocessing_round_trip_and_masks() -> None:
    steps = Preprocessing(window=(-1000, 0), matrix=16)
    assert Preprocessing.from_dict(steps.to_dict()) == steps
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 4:8, 4:7] = 1
    shrunk = steps.mask(mask)
    assert shrunk.shape == (1, 16, 16)
    assert shrunk[0, 2:4, 2:4].all()
    assert shrunk.sum() == 4
    with pytest.raises(ConfigError, match="unknown key 'size'"):
        Preprocessing.from_dict({"size": 3})
    with pytest.raises(ConfigError, match="matrix 8 is below 16"):
        Preprocessing(matrix=8)

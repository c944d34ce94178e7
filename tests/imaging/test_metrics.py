from __future__ import annotations

import numpy as np
import pytest

from pppml_fast.errors import DataError
from pppml_fast.imaging import dice, lung_dice


def volume(*ones: int) -> np.ndarray:
    flat = np.zeros(24, np.uint8)
    flat[list(ones)] = 1
    return flat.reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("prediction", "mask", "expected"),
    [
        (volume(0, 1, 2), volume(0, 1, 2), 1.0),
        (volume(0, 1), volume(2, 3), 0.0),
        (volume(0, 1, 2), volume(2, 3), 2 / 5),
        (volume(0), volume(0, 1, 2, 3), 2 / 5),
        (volume(), volume(), 1.0),
        (volume(1), volume(), 0.0),
        (volume(), volume(1), 0.0),
    ],
)
def test_known_answers(prediction: np.ndarray, mask: np.ndarray, expected: float) -> None:
    assert dice(prediction, mask) == pytest.approx(expected)


def test_it_is_dice_of_the_volume_not_the_mean_of_slices() -> None:
    """Slice 0: 1 of 1 found; slice 1: 0 of 3 found. Mean of slices 0.5, F-beta otherwise, Dice 2 / 5."""
    assert dice(volume(0), volume(0, 12, 13, 14)) == pytest.approx(2 / 5)


def test_lung_dice_ignores_what_lies_outside() -> None:
    lung = volume(0, 1, 2, 3)
    assert lung_dice(volume(0, 1, 20), volume(1, 2, 23), lung) == pytest.approx(2 / 4)
    assert lung_dice(volume(20), volume(23), lung) == 1.0


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match="share one"):
        dice(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(DataError, match="share one"):
        dice(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(DataError, match="lung mask"):
        lung_dice(volume(), volume(), np.zeros(24))

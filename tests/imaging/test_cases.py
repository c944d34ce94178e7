from __future__ import annotations

import numpy as np
import pytest

from pppml_fast.errors import DataError
from pppml_fast.imaging import Case, PartyData

SHAPE = (3, 8, 8)


def case(name: str = "a") -> Case:
    return Case(name, np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8))


def test_bytes_become_unit_floats() -> None:
    image = np.full(SHAPE, 255, np.uint8)
    image[0] = 51
    built = Case("a", image, np.full(SHAPE, 7, np.uint8))
    assert built.image.dtype == np.float32
    assert built.image[0, 0, 0] == np.float32(0.2)
    assert built.image[1, 0, 0] == 1
    assert built.mask.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        built.image[0, 0, 0] = 0


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (np.zeros(SHAPE), np.zeros((3, 8, 9)), r"mask has shape \(3, 8, 9\).*grid"),
        (np.zeros((8, 8)), np.zeros((8, 8)), "slices, rows, columns"),
        (np.zeros((0, 8, 8)), np.zeros((0, 8, 8)), "non-empty"),
        (np.full(SHAPE, np.nan), np.zeros(SHAPE), "192 NaN or Inf"),
        (np.full(SHAPE, -800.0), np.zeros(SHAPE), r"limit is \[0, 1\].*window"),
        (np.zeros(SHAPE), np.full(SHAPE, np.nan), "mask holds NaN"),
    ],
)
def test_what_cannot_be_a_case_is_refused(image: np.ndarray, mask: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        Case("broken", image, mask)
    assert "\n" not in str(caught.value)
    assert "broken" in str(caught.value)


def test_lung_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(DataError, match="lung mask has shape"):
        Case("a", np.zeros(SHAPE), np.zeros(SHAPE), lung=np.zeros((3, 4, 8)))


def test_infected_share_is_over_the_lung() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 0, :4] = 1
    lung = np.zeros(SHAPE, np.uint8)
    lung[0, 0] = 1
    assert Case("a", np.zeros(SHAPE), mask, lung).infected_share == 0.5


def test_a_party_needs_training_and_test_cases() -> None:
    with pytest.raises(DataError, match=r"'north' has 0 test cases.*testing"):
        PartyData("north", (case(),), ())
    with pytest.raises(DataError, match="0 training cases"):
        PartyData("north", (), (case(),))
    assert PartyData("north", (case(),), (), untested=True).test == ()


def test_a_case_in_both_halves_is_refused() -> None:
    with pytest.raises(DataError, match="lists case 'a' twice"):
        PartyData("north", (case("a"),), (case("a"),))


def test_leave_out_never_touches_the_test() -> None:
    party = PartyData("north", (case("a"), case("b"), case("c")), (case("held"),))
    left = party.leave_out(1)
    assert [item.name for item in left.train] == ["a", "c"]
    assert [item.name for item in left.test] == ["b"]
    with pytest.raises(DataError, match="at least 2"):
        PartyData("north", (case("a"),), (case("held"),)).leave_out(0)

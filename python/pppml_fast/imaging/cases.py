"""Cases (one CT volume with its masks) and the data of one party, checked where they are built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pppml_fast.errors import DataError

FloatVolume = npt.NDArray[np.float32]
MaskVolume = npt.NDArray[np.uint8]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Case:
    """One CT volume: slices first, rows from front to back, columns from the patient's right to left.

    `image` (D, H, W) becomes float32 in [0, 1]; uint8 is divided by 255. `mask` (lesion) and `lung` become
    uint8 of 0 and 1. `spacing` is (slice, row, column) in mm, NaN where it is not known. `affine` (4, 4)
    maps voxel indices (slice, row, column) to world mm. The arrays are made read-only.

    Raises DataError for empty data, NaN, values outside [0, 1], or masks of another shape than the image.
    """

    name: str
    image: FloatVolume
    mask: MaskVolume
    lung: MaskVolume | None = None
    spacing: Spacing | None = None
    affine: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        image = _checked_image(self.name, np.asarray(self.image))
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "mask", _checked_mask(self.name, "mask", self.mask, image.shape))
        if self.lung is not None:
            object.__setattr__(self, "lung", _checked_mask(self.name, "lung mask", self.lung, image.shape))

    @property
    def infected_share(self) -> float:
        """Lesion voxels over lung voxels, or over all voxels when no lung mask is known."""
        total = self.image.size if self.lung is None else int(self.lung.sum())
        return float(self.mask.sum()) / max(total, 1)


@dataclass(frozen=True, eq=False)
class PartyData:
    """One hospital's cases, whole volumes held out for the test.

    `untested` says that the party has no test cases on purpose (personalisation without evaluation).
    Raises DataError for a party without training cases, without test cases, or with a case name that
    occurs twice, which would be a leak where it occurs in both halves.
    """

    name: str
    train: tuple[Case, ...]
    test: tuple[Case, ...]
    untested: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", tuple(self.train))
        object.__setattr__(self, "test", tuple(self.test))
        if not self.train:
            raise DataError(f"party '{self.name}' has 0 training cases, needs at least 1; add some to its data")
        if not self.test and not self.untested:
            raise DataError(
                f"party '{self.name}' has 0 test cases, needs at least 1; mark whole volumes as test (NPZ key"
                " `test`) or list them under `testing` (datalist)"
            )
        twice = _first_repeated(case.name for case in self.train + self.test)
        if twice is not None:
            raise DataError(
                f"party '{self.name}' lists case '{twice}' twice; a volume belongs to training or test, once"
            )

    def leave_out(self, index: int) -> PartyData:
        """The same party with training case `index` as its only test case: how step sizes are chosen.

        Raises DataError when fewer than two training cases exist.
        """
        if len(self.train) < 2:
            raise DataError(f"party '{self.name}' has 1 training case; leaving one out needs at least 2")
        rest = self.train[:index] + self.train[index + 1 :]
        return replace(self, train=rest, test=(self.train[index],), untested=False)


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _checked_image(name: str, image: npt.NDArray[np.generic]) -> FloatVolume:
    if image.ndim != 3 or image.size == 0:
        raise DataError(f"case '{name}': image has shape {image.shape}, needs a non-empty (slices, rows, columns)")
    if image.dtype == np.uint8:
        values = image.astype(np.float32) / np.float32(255)
    else:
        values = image.astype(np.float32)
        _refuse_bad_values(name, values)
    values.setflags(write=False)
    return values


def _refuse_bad_values(name: str, values: FloatVolume) -> None:
    if not np.isfinite(values).all():
        count = int(np.size(values) - np.isfinite(values).sum())
        raise DataError(f"case '{name}': image holds {count} NaN or Inf voxels; replace them before loading")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise DataError(
            f"case '{name}': image values span [{low:g}, {high:g}], the limit is [0, 1]; pass uint8"
            " or apply an intensity window (pppml_fast.imaging.Preprocessing)"
        )


def _checked_mask(name: str, kind: str, mask: npt.ArrayLike, shape: tuple[int, ...]) -> MaskVolume:
    array = np.asarray(mask)
    if array.shape != shape:
        raise DataError(
            f"case '{name}': {kind} has shape {array.shape}, the image has {shape}; give masks on the image's grid"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"case '{name}': {kind} holds NaN or Inf; give a mask of 0 and 1")
    binary = (array > 0).astype(np.uint8)
    binary.setflags(write=False)
    return binary

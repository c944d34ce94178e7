"""A folder of DICOM slices as one volume in Hounsfield units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from pppml_fast.errors import DataError
from pppml_fast.imaging.nifti import Volume, oriented_volume


def read_dicom_folder(folder: str | Path) -> Volume:
    """The one axial series in a folder, sorted by position, rescaled to Hounsfield units.

    Files that are no DICOM are passed over. Raises DataError when there is no series, more than one, slices
    of different size or orientation, two slices at one position, or pixels that cannot be decoded.
    """
    folder = Path(folder)
    slices = _read_slices(folder)
    series = {str(item.get("SeriesInstanceUID", "")) for item in slices}
    if len(series) > 1:
        raise DataError(f"{folder} holds {len(series)} DICOM series, needs 1; move the others away")
    try:
        row, column, normal = _directions(slices[0])
        positions = [float(np.dot(normal, _vector(item, "ImagePositionPatient"))) for item in slices]
        order = np.argsort(positions, kind="stable")
        pixels = np.stack([_hounsfield(slices[i]) for i in order])
        spacing = [float(value) for value in slices[0].PixelSpacing]
        origin = _vector(slices[order[0]], "ImagePositionPatient")
    except (AttributeError, ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{folder} cannot be stacked into a volume ({error}); export it as NIfTI") from error
    steps = np.diff(np.asarray(positions)[order])
    step = _slice_step(folder, slices[0], steps)
    affine = np.eye(4)
    affine[:3, 0] = row * spacing[1]
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = origin
    # DICOM's world is left, posterior, superior; NIfTI's is right, anterior, superior.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return oriented_volume(folder, pixels.transpose(2, 1, 0), affine)


def _read_slices(folder: Path) -> list[Any]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder that holds the DICOM slices")
    slices = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            try:
                item = pydicom.dcmread(path)
            except (InvalidDicomError, OSError, EOFError):
                continue
            if "PixelData" in item:
                slices.append(item)
    if not slices:
        raise DataError(f"{folder} holds no DICOM slices; give the folder of one series")
    return slices


def _vector(item: Any, name: str) -> npt.NDArray[np.float64]:
    return np.asarray([float(value) for value in getattr(item, name)], dtype=np.float64)


def _directions(
    item: Any,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    cosines = _vector(item, "ImageOrientationPatient")
    row, column = cosines[:3], cosines[3:]
    return row, column, np.cross(row, column)


def _hounsfield(item: Any) -> npt.NDArray[np.float32]:
    slope = float(item.get("RescaleSlope", 1))
    intercept = float(item.get("RescaleIntercept", 0))
    return (item.pixel_array.astype(np.float32) * slope + intercept).astype(np.float32)


def _slice_step(folder: Path, first: Any, steps: npt.NDArray[np.float64]) -> float:
    if steps.size == 0:
        return float(first.get("SliceThickness", 1) or 1)
    if steps.min() < 1e-3:
        raise DataError(f"{folder} has two slices at one position; keep one reconstruction only")
    step = float(np.median(steps))
    if steps.max() > 1.5 * step:
        raise DataError(f"{folder} lacks slices: gaps of {steps.max():.2f} mm where {step:.2f} is usual; copy it again")
    return step

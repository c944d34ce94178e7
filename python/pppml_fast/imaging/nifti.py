"""NIfTI volumes in one orientation, and masks written back on exactly the grid they came from."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError

from pppml_fast.errors import DataError

CASE_AXES = ("S", "P", "L")
"""Slices from feet to head, rows from front to back, columns from the patient's right to left."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume as cases want it, and what is needed to write on its own grid again.

    `voxels` float32 (D, H, W) in the file's units; `affine` (4, 4) from (slice, row, column) to world mm
    (right, anterior, superior); `spacing` (slice, row, column) in mm; `stored_*` describe the source's grid,
    `header` is its NIfTI header (None for DICOM).
    """

    path: Path
    voxels: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    spacing: tuple[float, float, float]
    stored_shape: tuple[int, int, int]
    stored_affine: npt.NDArray[np.float64]
    header: Any = None


def read_nifti(path: str | Path) -> Volume:
    """The volume of a `.nii` or `.nii.gz`, turned to (slice, row, column).

    Raises DataError when the file is missing, is no NIfTI, is truncated, or does not hold one 3-D volume.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the path of a .nii or .nii.gz file")
    try:
        image = nibabel.load(path)
        stored = np.asanyarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is no readable NIfTI file ({_one_line(error)}); convert or copy it again") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise DataError(f"{path} is a {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    stored = _three_dimensional(path, stored)
    return oriented_volume(path, stored, image.affine, header=image.header.copy())


def oriented_volume(
    path: Path, stored: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, header: Any = None
) -> Volume:
    """Stored voxels and their affine as a Volume of (slice, row, column).

    Raises DataError when the affine does not span three dimensions.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise DataError(f"{path} has a singular affine; repair its geometry (sform or qform)")
    turn = _turn(matrix)
    voxels = orientations.apply_orientation(stored, turn)
    turned = matrix @ orientations.inv_ornt_aff(turn, stored.shape)
    spacing = np.linalg.norm(turned[:3, :3], axis=0)
    return Volume(
        path=path,
        voxels=np.ascontiguousarray(voxels, dtype=np.float32),
        affine=turned,
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        stored_shape=(stored.shape[0], stored.shape[1], stored.shape[2]),
        stored_affine=matrix,
        header=header,
    )


def write_mask(path: str | Path, mask: npt.NDArray[Any], like: Volume) -> None:
    """Writes a (D, H, W) mask as uint8 NIfTI on the grid `like` was read from: same shape, affine and codes.

    The file appears complete or not at all. Raises DataError for another shape or a name that is no NIfTI's.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise DataError(f"{path} does not end in .nii or .nii.gz; name the mask so")
    if mask.shape != like.voxels.shape:
        raise DataError(f"mask has shape {mask.shape}, the volume has {like.voxels.shape}; predict on its grid")
    if not path.parent.is_dir():
        raise DataError(f"folder {path.parent} does not exist; make it first")
    back = orientations.ornt_transform(orientations.axcodes2ornt(CASE_AXES), _orientation(like.stored_affine))
    stored = np.ascontiguousarray(orientations.apply_orientation((mask > 0).astype(np.uint8), back))
    image = _mask_image(stored, like)
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{suffix}")
    try:
        nibabel.save(image, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {_one_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _mask_image(stored: npt.NDArray[np.uint8], like: Volume) -> Any:
    if like.header is None:
        return nibabel.Nifti1Image(stored, like.stored_affine)
    header = like.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    return kind(stored, like.stored_affine, header)


def _three_dimensional(path: Path, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if stored.dtype.kind not in "iuf":
        raise DataError(f"{path} holds values of type {stored.dtype}, needs grey values; convert it")
    while stored.ndim > 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    if stored.ndim != 3 or stored.size == 0:
        raise DataError(f"{path} has shape {stored.shape}, needs one 3-D volume; split series into files")
    return stored


def _orientation(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(orientations.io_orientation(affine))


def _turn(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    target = orientations.axcodes2ornt(CASE_AXES)
    return np.asarray(orientations.ornt_transform(_orientation(affine), target))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

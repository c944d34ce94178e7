"""Phantoms as files: NIfTI volumes in Hounsfield units with masks, and one datalist per hospital.

What a hospital would have on its own disk, so that `predict` and `personalize` can be tried without real
data.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import DataError
from pppml_fast.imaging import Case, PhantomHospital, make_phantoms

__all__ = ["write_phantoms"]


def write_phantoms(hospitals: tuple[PhantomHospital, ...], out: Path, *, seed: int = 0, size: int = 96) -> list[Path]:
    """Write every hospital's cases below `out` with its datalist; the paths of the datalists.

    The folder appears complete or not at all. Raises DataError when it exists already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{str(out)!r} exists and is not empty; choose another --out")
    parties = make_phantoms(hospitals, seed=seed, size=size)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    unfinished.mkdir()
    try:
        for hospital, party in zip(hospitals, parties, strict=True):
            listing: dict[str, Any] = {"name": party.name, "window": list(hospital.window), "matrix": size}
            for section, cases in (("training", party.train), ("testing", party.test)):
                listing[section] = [_write_case(unfinished, party.name, case, hospital.window) for case in cases]
            text = json.dumps(listing, indent=2) + "\n"
            (unfinished / f"{party.name}.json").write_text(text, encoding="utf-8")
        if out.exists():
            out.rmdir()
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [out / f"{party.name}.json" for party in parties]


def _write_case(base: Path, party: str, case: Case, window: tuple[float, float]) -> dict[str, str]:
    folder = base / party
    folder.mkdir(exist_ok=True)
    low, high = window
    hounsfield = np.rint(case.image * (high - low) + low).astype(np.int16)
    entry = {
        "image": f"{party}/{case.name}_ct.nii.gz",
        "label": f"{party}/{case.name}_lesion.nii.gz",
        "name": case.name,
    }
    _save(base / entry["image"], hounsfield, case)
    _save(base / entry["label"], case.mask, case)
    if case.lung is not None:
        entry["lung"] = f"{party}/{case.name}_lung.nii.gz"
        _save(base / entry["lung"], case.lung, case)
    return entry


def _save(path: Path, voxels: NDArray[Any], case: Case) -> None:
    """(slices, rows, columns) as the usual axial NIfTI: columns to the left, rows to the back, slices up."""
    slice_mm, row_mm, column_mm = case.spacing or (1.0, 1.0, 1.0)
    affine = np.diag([-column_mm, -row_mm, slice_mm, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)

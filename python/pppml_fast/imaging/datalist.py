"""MONAI datalists: a JSON that lists one hospital's images and masks, and the reading of what it lists.

Form: `{"name": ..., "training": [{"image": ..., "label": ..., "lung": ...}], "testing": [...]}`. Paths are
relative to the JSON. Optional at the top: `window` ([low, high] Hounsfield units of black and white) and
`matrix` (rows and columns to resample to); an item may have its own `window` and `name`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pppml_fast.errors import DataError
from pppml_fast.imaging.cases import Case, PartyData
from pppml_fast.imaging.dicom import read_dicom_folder
from pppml_fast.imaging.nifti import Volume, read_nifti
from pppml_fast.imaging.npz import read_npz
from pppml_fast.imaging.transforms import Preprocessing, unit_range

IMAGE_KEYS = ("image", "ct", "x")
LABEL_KEYS = ("label", "mask", "infection")
LUNG_KEYS = ("lung", "lungs", "mask")
_EXTENSIONS = (".nii.gz", ".nii", ".npz", ".dcm")


@dataclass(frozen=True, eq=False)
class _Grid:
    """Voxels (D, H, W) and, where the file knows it, their geometry."""

    voxels: npt.NDArray[Any]
    volume: Volume | None = None


def load_datalist(
    path: str | Path,
    *,
    name: str | None = None,
    preprocessing: Preprocessing | None = None,
    untested: bool = False,
) -> PartyData:
    """One party from a datalist JSON of NIfTI files, DICOM folders or NPZ files.

    `testing` is the test; a datalist without it is tested on `validation`. Where both exist, `validation`
    joins the training: nothing here selects on it. `preprocessing` overrides the file's `window` and
    `matrix`; `untested` allows a list without any test. Raises DataError naming the entry that does not fit.
    """
    path = Path(path)
    listing = read_datalist(path)
    steps = preprocessing if preprocessing is not None else _preprocessing(path, listing)
    training, testing = _halves(path, listing)

    def read(section: str, entries: list[Any]) -> tuple[Case, ...]:
        return tuple(_read_case(path, f"{section}[{i}]", entry, steps) for i, entry in enumerate(entries))

    party = name or str(listing.get("name") or path.stem)
    return PartyData(party, read("training", training), read("testing", testing), untested=untested)


def read_datalist(path: str | Path) -> dict[str, Any]:
    """The JSON object of a datalist. Raises DataError when it is missing, no JSON, or lists no `training`."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the path of a datalist JSON")
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable JSON ({error}); write a MONAI datalist") from error
    if not isinstance(listing, dict) or not isinstance(listing.get("training"), list):
        raise DataError(f"{path} is no datalist: it needs a list named `training` of image and label paths")
    return listing


def write_datalist(path: str | Path, listing: Mapping[str, Any]) -> None:
    """Writes a datalist as JSON, complete or not at all. Raises DataError when it cannot."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_volume(path: str | Path) -> Volume:
    """The CT of a NIfTI file or a DICOM folder, as `pppml predict` reads it. Raises DataError."""
    path = Path(path)
    return read_dicom_folder(path) if path.is_dir() else read_nifti(path)


def load_case(
    image: str | Path, label: str | Path | None = None, *, preprocessing: Preprocessing | None = None
) -> Case:
    """A case from files; without `label` its mask is empty (prediction). Raises DataError."""
    entry: dict[str, Any] = {"image": str(Path(image).absolute())}
    if label is not None:
        entry["label"] = str(Path(label).absolute())
    where = Path(image).absolute()
    return _read_case(where, "image", entry, preprocessing or Preprocessing(), unlabelled=label is None)


def _preprocessing(path: Path, listing: Mapping[str, Any]) -> Preprocessing:
    values = {key: listing[key] for key in ("window", "matrix") if key in listing}
    try:
        return Preprocessing.from_dict(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def _halves(path: Path, listing: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    sections = {key: listing.get(key) or [] for key in ("training", "validation", "testing")}
    for key, entries in sections.items():
        if not isinstance(entries, list):
            raise DataError(f"{path}: `{key}` is a {type(entries).__name__}, needs a list of items")
    if sections["testing"]:
        return sections["training"] + sections["validation"], sections["testing"]
    return sections["training"], sections["validation"]


def _read_case(path: Path, where: str, entry: Any, preprocessing: Preprocessing, *, unlabelled: bool = False) -> Case:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
        raise DataError(f"{path}: {where} has no `image` path; write {{'image': ..., 'label': ...}}")
    if not unlabelled and not isinstance(entry.get("label"), str):
        raise DataError(f"{path}: {where} ({entry['image']}) has no `label`; give the path of its mask")
    name = str(entry.get("name") or case_name(entry["image"]))
    image = _read_grid(path.parent / entry["image"], IMAGE_KEYS)
    steps = preprocessing
    if "window" in entry:
        steps = replace(preprocessing, window=_window(path, where, entry["window"]))
    voxels = _intensities(name, image, steps, windowed="window" in entry)
    masks = {
        key: _read_mask(name, path.parent / entry[key], keys, image, preprocessing)
        for key, keys in (("label", LABEL_KEYS), ("lung", LUNG_KEYS))
        if isinstance(entry.get(key), str)
    }
    label = masks.get("label", np.zeros(voxels.shape, dtype=np.uint8))
    spacing, affine = _geometry(image, voxels.shape)
    return Case(name, voxels, label, masks.get("lung"), spacing, affine)


def case_name(path: str | Path) -> str:
    """A file's or folder's name without what says its format."""
    name = Path(path).name
    for extension in _EXTENSIONS:
        name = name.removesuffix(extension)
    return name


def _window(path: Path, where: str, value: Any) -> tuple[float, float]:
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {where} has window {value}, needs two numbers such as [-1000, 400]") from error
    return low, high


def _read_grid(path: Path, keys: tuple[str, ...]) -> _Grid:
    if path.is_dir() or path.name.endswith((".nii", ".nii.gz")):
        volume = load_volume(path)
        return _Grid(volume.voxels, volume)
    if path.suffix == ".npz":
        arrays = read_npz(path)
        for key in keys:
            if key in arrays:
                return _Grid(arrays[key])
        raise DataError(f"{path} has none of the keys {', '.join(keys)} (it has {', '.join(sorted(arrays))})")
    if not path.exists():
        raise DataError(f"{path} does not exist; paths in a datalist are relative to its folder")
    raise DataError(f"{path} is of no known kind; use .nii, .nii.gz, .npz or a folder of DICOM slices")


def _intensities(name: str, image: _Grid, steps: Preprocessing, *, windowed: bool) -> npt.NDArray[np.float32]:
    if image.voxels.ndim != 3 or image.voxels.size == 0:
        raise DataError(f"case '{name}': image has shape {image.voxels.shape}, needs (slices, rows, columns)")
    if image.voxels.dtype == np.uint8 and not windowed:
        return replace(steps, window=(0.0, 1.0)).image(unit_range(image.voxels))
    if not windowed and np.nanmin(image.voxels) >= 0:
        low, high = float(np.nanmin(image.voxels)), float(np.nanmax(image.voxels))
        raise DataError(
            f"case '{name}' spans [{low:g}, {high:g}], which is not Hounsfield units (air is -1000); give its"
            f' range in the datalist entry, "window": [{low:g}, {high:g}]'
        )
    return steps.image(image.voxels)


def _read_mask(
    name: str, path: Path, keys: tuple[str, ...], image: _Grid, preprocessing: Preprocessing
) -> npt.NDArray[np.uint8]:
    grid = _read_grid(path, keys)
    if grid.voxels.shape != image.voxels.shape:
        raise DataError(
            f"case '{name}': mask {path.name} has shape {grid.voxels.shape}, the image has"
            f" {image.voxels.shape}; give masks on the image's grid"
        )
    if grid.volume is not None and image.volume is not None:
        shift = float(np.abs(grid.volume.affine - image.volume.affine).max())
        if shift > 0.1 * min(image.volume.spacing) and shift > 0.1:
            raise DataError(
                f"case '{name}': mask {path.name} lies elsewhere than the image (affines differ by"
                f" {shift:.3g} mm); resample it onto the image's grid"
            )
    return preprocessing.mask(grid.voxels)


def _geometry(
    image: _Grid, shape: tuple[int, ...]
) -> tuple[tuple[float, float, float] | None, npt.NDArray[np.float64] | None]:
    """Spacing and affine on the case's matrix, which may be another than the file's."""
    if image.volume is None:
        return None, None
    factors = np.asarray(image.voxels.shape) / np.asarray(shape)
    spacing = np.asarray(image.volume.spacing) * factors
    scale = np.diag([*factors, 1.0])
    # Voxel centres: the middle of the first coarse voxel lies (factor - 1) / 2 fine voxels further in.
    scale[:3, 3] = (factors - 1) / 2
    return (float(spacing[0]), float(spacing[1]), float(spacing[2])), image.volume.affine @ scale

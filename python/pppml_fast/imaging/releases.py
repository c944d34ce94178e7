"""Datalists for the published layouts of two chest-CT sets, listed from the folders they unpack to."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from pppml_fast.errors import DataError
from pppml_fast.imaging.datalist import case_name, write_datalist
from pppml_fast.imaging.nifti import read_nifti

Datalist = dict[str, Any]

COVID_IMAGES = "COVID-19-CT-Seg_20cases"
COVID_INFECTION = "Infection_Mask"
COVID_LUNG = "Lung_Mask"
COVID_WINDOW = [-1250.0, 250.0]
"""The lung window of Ma et al.; the radiopaedia volumes are published as grey values 0..255."""

THICK_SLICE_MM = 5.0


def list_covid_ct_seg(folder: str | Path) -> dict[str, Datalist]:
    """Datalists of COVID-19-CT-Seg (Zenodo 3757476) by party: coronacases, radiopaedia thin and thick.

    `folder` holds the unpacked `COVID-19-CT-Seg_20cases`, `Infection_Mask` and, if present, `Lung_Mask`.
    Slices of 5 mm and more are thick. Every third volume of a party is its test, except where a patient was
    scanned twice: those stay in training. Paths are absolute. Raises DataError for a missing folder or mask.
    """
    folder = Path(folder).absolute()
    images = sorted((folder / COVID_IMAGES).glob("*.nii.gz"))
    if not images:
        raise DataError(f"{folder} has no {COVID_IMAGES}/*.nii.gz; unpack Zenodo record 3757476 there")
    patients = Counter(_patient(path) for path in images)
    parties: dict[str, list[tuple[Path, Datalist]]] = {}
    for path in images:
        parties.setdefault(_covid_party(path), []).append((path, _covid_item(folder, path)))
    result: dict[str, Datalist] = {}
    for party, members in parties.items():
        held_out = [position % 3 == 2 and patients[_patient(path)] == 1 for position, (path, _) in enumerate(members)]
        result[party] = {
            "name": party,
            "description": "COVID-19-CT-Seg, Zenodo 3757476, Ma et al., doi 10.1002/mp.14676",
            "window": COVID_WINDOW,
            "training": [item for (_, item), test in zip(members, held_out, strict=True) if not test],
            "testing": [item for (_, item), test in zip(members, held_out, strict=True) if test],
        }
    return result


def list_rad_chestct(folder: str | Path, masks: str | Path | None = None) -> Datalist:
    """The datalist of RAD-ChestCT (Zenodo 6406114): `trn*.npz`, `val*.npz`, `tst*.npz` with the key `ct`.

    The release has no lesion masks. `masks` names a folder with `infection/` and optionally `lung/`, whose
    files carry the scans' names (.npz or .nii.gz); scans without an infection mask are then left out.
    Raises DataError when there are no scans or no masks for any.
    """
    folder = Path(folder).absolute()
    sections = {"training": "trn", "validation": "val", "testing": "tst"}
    listing: Datalist = {"name": "rad_chestct", "description": "RAD-ChestCT, Zenodo 6406114"}
    for section, prefix in sections.items():
        items = [_rad_item(path, masks) for path in sorted(folder.glob(f"{prefix}*.npz"))]
        listing[section] = [item for item in items if masks is None or "label" in item]
    if not any(listing[section] for section in sections):
        what = "scans trn*.npz, val*.npz or tst*.npz" if masks is None else f"scans with a mask in {masks}/infection"
        raise DataError(f"{folder} has no {what}; unpack RAD-ChestCT there")
    return listing


def write_datalists(folder: str | Path, listings: dict[str, Datalist]) -> list[Path]:
    """One JSON per party in `folder`, made if need be; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{party}.json" for party in listings]
    for path, listing in zip(paths, listings.values(), strict=True):
        write_datalist(path, listing)
    return paths


def _patient(path: Path) -> str:
    """`radiopaedia_10_85902_3.nii.gz` is the third series of patient 10_85902."""
    return re.sub(r"^(radiopaedia_\d+_\d+)_\d+$", r"\1", case_name(path))


def _covid_party(path: Path) -> str:
    if path.name.startswith("coronacases"):
        return "coronacases"
    thickness = read_nifti(path).spacing[0]
    return "radiopaedia_thick" if thickness >= THICK_SLICE_MM else "radiopaedia_thin"


def _covid_item(folder: Path, path: Path) -> Datalist:
    infection = folder / COVID_INFECTION / path.name
    lung = folder / COVID_LUNG / path.name
    if not infection.is_file():
        raise DataError(f"{infection} does not exist; unpack {COVID_INFECTION}.zip of Zenodo record 3757476")
    item: Datalist = {"image": str(path), "label": str(infection)}
    if lung.is_file():
        item["lung"] = str(lung)
    if path.name.startswith("radiopaedia"):
        item["window"] = [0, 255]
    return item


def _rad_item(path: Path, masks: str | Path | None) -> Datalist:
    item: Datalist = {"image": str(path)}
    if masks is None:
        return item
    for key, kind in (("label", "infection"), ("lung", "lung")):
        for extension in (".npz", ".nii.gz"):
            mask = Path(masks).absolute() / kind / f"{case_name(path)}{extension}"
            if mask.is_file():
                item[key] = str(mask)
                break
    return item

"""Using a model that a run left: fitting it to one hospital, segmenting one CT."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.experiment.cards import Model, load_model, save_model
from pppml_fast.experiment.devices import check_device
from pppml_fast.experiment.provenance import utc_now, versions
from pppml_fast.imaging import (
    Case,
    PartyData,
    Preprocessing,
    SliceBatches,
    evaluate,
    load_datalist,
    load_npz,
    load_volume,
    predict_volume,
    read_datalist,
    segmentation_loss,
    write_mask,
)
from pppml_fast.learning import Objective, derive_seed, seeded
from pppml_fast.learning import personalize as take_steps

__all__ = ["PersonalOutcome", "PredictOutcome", "personalize_model", "predict_file"]


@dataclass(frozen=True)
class PersonalOutcome:
    """A personal model's card, what it was fitted to, and Dice (before, after) per test case."""

    card: Path
    party: str
    cases_train: int
    dice: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class PredictOutcome:
    """Size of the predicted lesion in voxels and millilitres, and the threshold that was used."""

    voxels: int
    total: int
    millilitres: float
    threshold: float


def personalize_model(
    model_path: Path,
    data: Path,
    out: Path,
    *,
    steps: int,
    lr: float | None = None,
    seed: int = 0,
    party: str | None = None,
    device: str = "cpu",
) -> PersonalOutcome:
    """Fit a model to one hospital's training cases and write the personal model's card and tensors to `out`.

    Test cases are scored where there are some and used for nothing else. `device` is cpu, cuda or cuda:N. Raises
    DataError or ConfigError before anything is written.
    """
    where = check_device(device, encrypts=False)
    card = _card_path(out)
    model = load_model(model_path).to(where)
    hospital, preprocessing = _hospital(data, party, model.preprocessing)
    rate = model.personal_lr if lr is None else lr
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"lr = {rate} must be a finite number above 0; leave it out to use the card's")
    module = model.module()
    objective = Objective(module, segmentation_loss(model.loss), statistics=model.statistics)
    source = SliceBatches(
        hospital.train,
        batch_size=model.batch_size,
        seed=derive_seed(seed, "personal batches", hospital.name),
        neighbours=model.neighbours,
        augment=model.augment,
        multiple=model.spec.multiple,
    )
    with seeded(derive_seed(seed, "personal noise", hospital.name), where):
        params, buffers = take_steps(objective, model.params, model.buffers, source, steps=steps, lr=rate)
    personal = replace(
        model,
        params=params,
        buffers=buffers,
        preprocessing=preprocessing,
        party=hospital.name,
        personal_steps=model.personal_steps + steps,
        personal_lr=rate,
        seed=seed,
        provenance={**model.provenance, "personalised": utc_now(), **versions()},
    )
    before, after = _scores(model, hospital.test), _scores(personal, hospital.test)
    save_model(personal, card)
    dice = {case: (before[case], after[case]) for case in before}
    return PersonalOutcome(card, hospital.name, len(hospital.train), dice)


def predict_file(
    model_path: Path,
    image: Path,
    out: Path,
    *,
    window: tuple[float, float] | None = None,
    threshold: float | None = None,
    device: str = "cpu",
) -> PredictOutcome:
    """Segment a CT (NIfTI or DICOM folder) and write the mask on the CT's own grid.

    `window` are the values of black and white where the CT is not in Hounsfield units, `device` is cpu, cuda or
    cuda:N. Raises DataError or ConfigError before anything is written.
    """
    where = check_device(device, encrypts=False)
    if not out.name.endswith((".nii", ".nii.gz")):
        raise DataError(f"{str(out)!r} does not end in .nii or .nii.gz; name the mask so")
    model = load_model(model_path).to(where)
    limit = model.threshold if threshold is None else threshold
    if not 0 < limit < 1:
        raise ConfigError(f"threshold = {limit} is not between 0 and 1; 0.5 is usual")
    volume = load_volume(image)
    preprocessing = model.preprocessing if window is None else replace(model.preprocessing, window=window)
    lowest, highest = float(np.nanmin(volume.voxels)), float(np.nanmax(volume.voxels))
    if window is None and lowest >= 0:
        raise DataError(
            f"{str(image)!r} spans [{lowest:g}, {highest:g}], which is not Hounsfield units (air is -1000); "
            f"give its range with --window {lowest:g} {highest:g}"
        )
    mask = predict_volume(
        model.module(),
        model.params,
        model.buffers,
        volume,
        preprocessing,
        limit,
        neighbours=model.neighbours,
        multiple=model.spec.multiple,
        window=model.spec.window,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_mask(out, mask, volume)
    voxels = int(mask.sum())
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    return PredictOutcome(voxels, int(mask.size), voxels * voxel_ml, limit)


def _card_path(out: Path) -> Path:
    if out.suffix not in (".toml", ".safetensors"):
        raise ConfigError(f"{str(out)!r} does not end in .toml; name the card of the personal model, e.g. ours.toml")
    return out.with_suffix(".toml")


def _hospital(data: Path, party: str | None, trained_on: Preprocessing) -> tuple[PartyData, Preprocessing]:
    """One hospital and how its CTs are read: as the model's, unless its datalist says otherwise."""
    if data.suffix != ".npz":
        listing = read_datalist(data)
        own: dict[str, Any] = {key: listing[key] for key in ("window", "matrix") if key in listing}
        preprocessing = Preprocessing.from_dict({**trained_on.to_dict(), **own})
        return load_datalist(data, name=party, preprocessing=preprocessing, untested=True), preprocessing
    parties = load_npz(data)
    names = ", ".join(one.name for one in parties)
    if party is None and len(parties) > 1:
        raise DataError(f"{str(data)!r} holds {len(parties)} hospitals ({names}); choose one with --party")
    for one in parties:
        if party in (None, one.name):
            return one, trained_on
    raise DataError(f"{str(data)!r} has no hospital {party!r}; it has: {names}")


def _scores(model: Model, cases: tuple[Case, ...]) -> dict[str, float]:
    return evaluate(
        model.module(),
        model.params,
        model.buffers,
        cases,
        model.threshold,
        neighbours=model.neighbours,
        multiple=model.spec.multiple,
        window=model.spec.window,
    )

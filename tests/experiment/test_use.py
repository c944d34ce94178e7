"""Models in use: a CT segmented on its own grid, a model fitted to a hospital that never trained."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tiny_study

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.experiment.cards import load_model
from pppml_fast.experiment.phantom_files import write_phantoms
from pppml_fast.experiment.results import RunResult
from pppml_fast.experiment.use import personalize_model, predict_file
from pppml_fast.imaging import PhantomHospital, load_datalist, make_phantoms

Finished = tuple[RunResult, Path]

NEWCOMER = PhantomHospital("newcomer", slice_mm=20, lesion_mm=25, infected_share=0.3, train_cases=2, test_cases=1)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a hospital that took part in nothing, with its datalist `newcomer.json`."""
    folder = tmp_path_factory.mktemp("phantoms") / "files"
    assert write_phantoms((NEWCOMER,), folder, seed=5, size=32) == [folder / "newcomer.json"]
    return folder


@pytest.fixture(scope="module")
def card(finished: Finished) -> Path:
    return finished[1] / "models" / "per_fedavg_hf" / "global.toml"


def ct_of(folder: Path) -> Path:
    return next(iter(sorted(folder.rglob("*_ct.nii.gz"))))


def test_phantom_files_are_the_phantoms(newcomer: Path) -> None:
    (expected,) = make_phantoms((NEWCOMER,), seed=5, size=32)
    read = load_datalist(newcomer / "newcomer.json")
    assert read.name == "newcomer"
    assert [case.name for case in read.train + read.test] == [case.name for case in expected.train + expected.test]
    for mine, theirs in zip(read.train + read.test, expected.train + expected.test, strict=True):
        # Files hold whole Hounsfield units of a window of 1400.
        assert np.abs(mine.image - theirs.image).max() <= 0.51 / 1400
        assert np.array_equal(mine.mask, theirs.mask)
        assert mine.lung is not None and theirs.lung is not None and np.array_equal(mine.lung, theirs.lung)
        assert mine.spacing == pytest.approx(theirs.spacing, rel=1e-5)


def test_phantom_files_never_overwrite(newcomer: Path) -> None:
    before = sorted(newcomer.rglob("*"))
    with pytest.raises(DataError, match="not empty"):
        write_phantoms((NEWCOMER,), newcomer, size=32)
    assert sorted(newcomer.rglob("*")) == before


def test_a_prediction_lies_on_the_grid_of_its_ct(card: Path, newcomer: Path, tmp_path: Path) -> None:
    source = nibabel.load(ct_of(newcomer))
    # An oblique, anisotropic, permuted grid: whatever the scanner stored must come back.
    turn = np.array([[0, 0.9, -0.1, 3], [-0.2, 0.1, 2.0, -40], [1.1, 0, 0.3, 7], [0, 0, 0, 1.0]])
    stored = np.ascontiguousarray(np.asanyarray(source.dataobj).transpose(2, 0, 1)[:, ::-1])
    nibabel.save(nibabel.Nifti1Image(stored, turn), tmp_path / "in.nii.gz")
    outcome = predict_file(card, tmp_path / "in.nii.gz", tmp_path / "new" / "mask.nii.gz")
    mask = nibabel.load(tmp_path / "new" / "mask.nii.gz")
    voxels = np.asanyarray(mask.dataobj)
    assert mask.shape == stored.shape and np.allclose(mask.affine, turn, atol=1e-5)
    assert mask.header.get_zooms() == pytest.approx(nibabel.load(tmp_path / "in.nii.gz").header.get_zooms())
    assert mask.get_data_dtype() == np.uint8 and set(np.unique(voxels)) <= {0, 1}
    assert outcome.voxels == int(voxels.sum()) and outcome.total == voxels.size
    assert outcome.millilitres == pytest.approx(outcome.voxels * abs(np.linalg.det(turn[:3, :3])) / 1000, rel=1e-3)


def test_the_threshold_moves_the_mask(card: Path, newcomer: Path, tmp_path: Path) -> None:
    sizes = [
        predict_file(card, ct_of(newcomer), tmp_path / "m.nii.gz", threshold=limit).voxels
        for limit in (0.05, 0.5, 0.95)
    ]
    assert sizes[0] >= sizes[1] >= sizes[2] and sizes[0] > sizes[2]


def test_what_cannot_be_predicted(card: Path, newcomer: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake.nii.gz"
    fake.write_bytes(b"this is no NIfTI")
    grey = tmp_path / "grey.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((8, 8, 3), 90, np.uint8), np.eye(4)), grey)
    out = tmp_path / "out" / "mask.nii.gz"
    cases = (
        (fake, out, {}, DataError, "no readable NIfTI"),
        (tmp_path / "none.nii.gz", out, {}, DataError, "does not exist"),
        (grey, out, {}, DataError, r"not Hounsfield units.*--window 90 90"),
        (ct_of(newcomer), tmp_path / "mask.png", {}, DataError, r"\.nii"),
        (ct_of(newcomer), out, {"threshold": 1.5}, ConfigError, "between 0 and 1"),
        (ct_of(newcomer), out, {"window": (5.0, 5.0)}, ConfigError, "empty"),
    )
    for image, target, options, error, words in cases:
        with pytest.raises(error, match=words):
            predict_file(card, image, target, **options)
    assert not out.parent.exists() and not (tmp_path / "mask.png").exists()
    assert predict_file(card, grey, out, window=(0.0, 255.0)).total == 192


def test_a_hospital_that_never_trained(card: Path, newcomer: Path, tmp_path: Path) -> None:
    outcome = personalize_model(card, newcomer / "newcomer.json", tmp_path / "ours.toml", steps=3, seed=1)
    assert outcome.party == "newcomer" and outcome.cases_train == 2
    assert list(outcome.dice) == ["newcomer_002"]
    start, personal = load_model(card), load_model(tmp_path / "ours.toml")
    assert personal.party == "newcomer" and personal.personal_steps == 3 and personal.seed == 1
    assert personal.preprocessing.window == NEWCOMER.window and personal.preprocessing.matrix == 32
    assert any(not np.array_equal(personal.params[n].numpy(), start.params[n].numpy()) for n in start.params)
    again = personalize_model(card, newcomer / "newcomer.json", tmp_path / "again.toml", steps=3, seed=1)
    assert again.dice == outcome.dice
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()
    predicted = predict_file(tmp_path / "ours.toml", ct_of(newcomer), tmp_path / "mask.nii.gz")
    assert predicted.total > 0


def test_no_step_is_the_model_itself(card: Path, newcomer: Path, tmp_path: Path) -> None:
    outcome = personalize_model(card, newcomer / "newcomer.json", tmp_path / "same.toml", steps=0)
    assert all(before == after for before, after in outcome.dice.values())
    start, same = load_model(card), load_model(tmp_path / "same.toml")
    assert all(np.array_equal(start.params[n].numpy(), same.params[n].numpy()) for n in start.params)


def test_test_cases_do_not_shape_a_personal_model(card: Path, npz: Path, tmp_path: Path) -> None:
    with np.load(npz) as archive:
        arrays = dict(archive)
    arrays["x"] = np.where(arrays["test"][:, None, None], 255 - arrays["x"], arrays["x"])
    np.savez(tmp_path / "other.npz", **arrays)
    first = personalize_model(card, npz, tmp_path / "a.toml", steps=2, party="east")
    second = personalize_model(card, tmp_path / "other.npz", tmp_path / "b.toml", steps=2, party="east")
    assert first.dice != second.dice
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_cannot_be_personalised(card: Path, npz: Path, newcomer: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "ours.toml"
    empty = tmp_path / "empty.json"
    empty.write_text('{"training": []}')
    cases = (
        (npz, out, {}, DataError, "holds 3 hospitals.*--party"),
        (npz, out, {"party": "west"}, DataError, "no hospital 'west'"),
        (empty, out, {}, DataError, "0 training cases"),
        (tmp_path / "none.json", out, {}, DataError, "does not exist"),
        (newcomer / "newcomer.json", tmp_path / "ours.pt", {}, ConfigError, r"\.toml"),
        (newcomer / "newcomer.json", out, {"lr": -1.0}, ConfigError, "above 0"),
    )
    for data, target, options, error, words in cases:
        with pytest.raises(error, match=words):
            personalize_model(card, data, target, steps=1, **options)
    assert not out.parent.exists()


def test_one_hospital_of_a_set_needs_no_name(card: Path, tmp_path: Path) -> None:
    single = tiny_study.write_npz(tmp_path / "one.npz", sites=1)
    assert personalize_model(card, single, tmp_path / "ours.toml", steps=1).party == "north"

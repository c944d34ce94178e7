"""What the program does when all is well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from pppml_fast import CkksParams


def test_version_and_help(pppml: Any) -> None:
    version = pppml("version")
    assert version.code == 0 and "torch" in version.out and "python 3" in version.out
    usage = pppml("--help")
    assert usage.code == 0
    for command in (
        "demo",
        "run",
        "personalize",
        "predict",
        "params",
        "phantoms",
        "bench",
        "version",
        "watch",
        "transcript",
    ):
        assert command in usage.out


def test_params_chooses_a_set(pppml: Any) -> None:
    shown = pppml("params", "--parties", "16", "--clip", "1.0", "--json", "--keys", "collective")
    expected = CkksParams.for_sum(parties=16, clip=1.0, bits=16, level="128", keys="collective")
    values = json.loads(shown.out)
    assert shown.code == 0 and {key: values[key] for key in expected.to_dict()} == expected.to_dict()
    for name in ("level", "bytes_per_weight", "exact_bits", "step", "failure_log2"):
        assert values[name] == getattr(expected, name)
    for_people = pppml("params", "--parties", "16", "--clip", "1.0", "--bits", "20", "--level", "192")
    chosen = CkksParams.for_sum(parties=16, clip=1.0, bits=20, level="192", keys="public")
    assert for_people.out.strip() == chosen.describe()


def test_params_and_help_load_nothing_heavy() -> None:
    for arguments in (["--help"], ["params", "--parties", "3", "--clip", "1"]):
        script = (
            "import sys\nfrom pppml_fast.cli import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
            "heavy = {'torch', 'monai', 'matplotlib', 'nibabel', 'jinja2', 'cryptography'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr


def test_a_dry_run_tells_all_and_writes_nothing(
    pppml: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pppml_fast.experiment import runner, selection

    def work(*_: Any) -> None:
        raise AssertionError("a dry run must not train")

    for user in (runner, selection):
        monkeypatch.setattr(user, "train_track", work)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    shown = pppml("run", config, "--dry-run", "--set", "rounds=7")
    assert shown.code == 0 and shown.err == ""
    assert sorted(tmp_path.rglob("*")) == before
    for words in ("north", "south", "collective", "192 classical", "exact bits", "blocks", "MB", "7 of 4 gradients"):
        assert words in shown.out, words


def test_a_run_tells_its_story_and_leaves_its_files(pppml: Any, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = pppml("run", config, "--out", out, "--set", "board=['fedavg', 'fedavg_ft']")
    assert done.code == 0 and done.err == ""
    assert "FedAvg, seed 0: round 2/2 loss" in done.out
    assert "identical bit for bit" in done.out and "bytes per weight" in done.out
    assert "FedAvg + fine-tuning" in done.out and "→" in done.out
    names = {path.name for path in out.iterdir()}
    assert names >= {"summary.json", "report.html", "scores.csv", "cases.csv", "rounds.csv", "plots", "models"}
    again = pppml("run", config, "--out", out, "--set", "board=['fedavg', 'fedavg_ft']")
    assert again.code == 0 and "goes on after round 2" in again.out
    other = pppml("run", config, "--out", out, "--set", "board=['fedavg']")
    assert other.code == 2 and "another configuration" in other.err


def test_demo_takes_data_from_the_option_or_the_environment(
    pppml: Any, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_option = pppml("demo", "--data", npz.parent, "--dry-run", "--rounds", "3", "--seed", "4")
    monkeypatch.setenv("PPPML_DATA", str(npz.parent))
    by_environment = pppml("demo", "--dry-run", "--rounds", "3", "--seed", "4", "--out", tmp_path / "x")
    assert by_option.code == by_environment.code == 0
    assert by_option.out == by_environment.out
    assert "NPZ set tiny.npz" in by_option.out and "3 of " in by_option.out
    assert not (tmp_path / "x").exists()


def test_a_ready_configuration_by_name(pppml: Any, npz: Path, tmp_path: Path) -> None:
    settings = [f"data.path='{npz}'", "data.mapping={}"]
    options = [part for setting in settings for part in ("--set", setting)]
    shown = pppml("run", "covid_ct_seg", "--dry-run", "--out", tmp_path / "x", *options)
    assert shown.code == 0 and "COVID-19" in shown.out


def test_phantoms_predict_and_personalize(pppml: Any, trained: Path, tmp_path: Path) -> None:
    files = tmp_path / "phantoms"
    few = ("--cases-train", "1", "--cases-test", "1")
    written = pppml("phantoms", "--out", files, "--size", "32", "--hospital", "east", *few)
    assert written.code == 0 and written.out.strip() == str(files / "east.json")
    card = trained / "models" / "per_fedavg_fo" / "global.toml"
    ours = tmp_path / "ours.toml"
    fitted = pppml("personalize", "--model", card, "--data", files / "east.json", "--steps", "1", "--out", ours)
    assert fitted.code == 0 and fitted.err == ""
    assert "east: 1 steps on 1 training cases" in fitted.out and "test case east_001: Dice" in fitted.out
    ct, mask = files / "east" / "east_001_ct.nii.gz", tmp_path / "mask.nii.gz"
    predicted = pppml("predict", "--model", ours, ct, "-o", mask)
    assert predicted.code == 0 and predicted.err == "" and "lesion voxels" in predicted.out
    source, written_mask = nibabel.load(ct), nibabel.load(mask)
    assert written_mask.shape == source.shape and np.array_equal(written_mask.affine, source.affine)


def test_bench_shows_and_writes_its_table(pppml: Any, tmp_path: Path) -> None:
    options = ("--size", "2500", "--repetitions", "1", "--setting", "p31/collective")
    shown = pppml("bench", *options, "--json", tmp_path / "deep" / "b.json", "--markdown", tmp_path / "b.md")
    assert shown.code == 0 and shown.out == (tmp_path / "b.md").read_text()
    report = json.loads((tmp_path / "deep" / "b.json").read_text())
    mine = [row["operation"] for row in report["rows"] if row["system"] == "pppml_fast"]
    assert sorted(mine) == ["add16", "add2", "encrypt", "encrypt_prepared", "hop", "open", "pack", "unpack"]
    assert report["machine"]["commit"] and "bytes per weight" in shown.out
    refused = pppml("bench", "--against", "seal")
    assert refused.code == 2 and "tenseal, openfhe" in refused.err and refused.out == ""

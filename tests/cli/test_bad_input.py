"""Bad input ends as one line on stderr with its remedy, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tiny_study
import torch

from pppml_fast.experiment import runner


def check_refused(outcome: Any, words: str) -> None:
    assert outcome.code == 2, outcome
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("pppml: error: ")
    assert words in lines[0], lines[0]
    assert "Traceback" not in outcome.err + outcome.out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["aggregation.protcol=plain"], "did you mean 'aggregation.protocol'"),
        (["aggregation.params=p99"], "p31, p50, p62, compact"),
        (["aggregation.clip=0"], "aggregation.clip = 0"),
        (["aggregation.clip=-1.0"], "aggregation.clip = -1.0"),
        (["rounds"], "is not key=value"),
        (["data.path=missing.npz"], "does not exist"),
        (["gradients_per_round=3"], "no multiple"),
        (["network.target='os:system'"], "no torch.nn.Module"),
        (["device=gpu"], "device: 'gpu' is no device; use 'cpu', 'cuda' (the first GPU) or 'cuda:N'"),
        (["device=1"], "device = 1"),
    ],
)
def test_configurations(pppml: Any, config: Path, tmp_path: Path, overrides: list[str], words: str) -> None:
    options = [part for override in overrides for part in ("--set", override)]
    check_refused(pppml("run", config, "--out", tmp_path / "run", *options), words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(
    pppml: Any, config: Path, npz: Path, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "run"
    calls: list[tuple[Any, ...]] = [
        ("run", config, "--out", out),
        ("run", config, "--out", out, "--dry-run"),
        ("demo", "--out", out),
        ("demo", "--data", npz, "--out", out),
    ]
    for call in calls:
        check_refused(pppml(*call, "--device", device), f"device = '{device}': torch")
    assert not out.exists()


def test_a_gpu_without_memory(pppml: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB."
        )

    monkeypatch.setattr(runner, "run_study", exhausted)
    words = "CUDA out of memory. Tried to allocate 2.00 GiB; take smaller batches, free the GPU, or set device = 'cpu'"
    check_refused(pppml("run", config, "--out", tmp_path / "run"), words)


def spoiled(npz: Path, path: Path, **changes: Any) -> Path:
    with np.load(npz) as archive:
        arrays = {**dict(archive), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_data(pppml: Any, npz: Path, config: Path, tmp_path: Path) -> None:
    with np.load(npz) as archive:
        x, mask, test = archive["x"], archive["mask"], archive["test"]
    unreadable = tmp_path / "unreadable.npz"
    unreadable.write_bytes(npz.read_bytes()[:500])
    cases = {
        unreadable: "no readable NPZ",
        spoiled(npz, tmp_path / "shape.npz", mask=mask[:, :16]): "mask",
        spoiled(npz, tmp_path / "notest.npz", test=np.zeros_like(test)): "0 test cases",
        spoiled(npz, tmp_path / "nomask.npz", mask=None): "no key 'mask'",
        spoiled(npz, tmp_path / "empty.npz", x=x[:0], mask=mask[:0]): "non-empty",
        spoiled(npz, tmp_path / "nan.npz", x=np.full(x.shape, np.nan, np.float32)): "NaN",
        tiny_study.write_npz(tmp_path / "two.npz", sites=2): "fewer than 3",
    }
    for path, words in cases.items():
        refused = pppml("run", config, "--set", f"data.path='{path}'", "--out", tmp_path / "run")
        check_refused(refused, words)
    assert not (tmp_path / "run").exists()


def test_a_party_without_test_cases_in_a_datalist(pppml: Any, config: Path, tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.full((8, 8, 3), -500, np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "no_nifti.nii.gz").write_bytes(b"nothing of the kind")
    lists = tmp_path / "lists"
    lists.mkdir()
    for name, image in (("one", "a.nii.gz"), ("two", "a.nii.gz"), ("zero", "no_nifti.nii.gz")):
        entry = {"image": f"../{image}", "label": "../a.nii.gz"}
        (lists / f"{name}.json").write_text(json.dumps({"training": [entry]}))
    options = ("--set", "data.kind=datalists", "--set", f"data.path='{lists}'", "--out", tmp_path / "run")
    check_refused(pppml("run", config, *options), "party 'one' has 0 test cases")
    (lists / "one.json").unlink()
    (lists / "two.json").unlink()
    check_refused(pppml("run", config, *options), "no readable NIfTI")
    (lists / "zero.json").unlink()
    check_refused(pppml("run", config, *options), "no data")
    assert not (tmp_path / "run").exists()


def test_places(pppml: Any, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    check_refused(pppml("run", config, "--out", other), "choose another --out")
    check_refused(pppml("run", tmp_path / "none.toml", "--out", tmp_path / "run"), "cannot be read")
    check_refused(pppml("run", config, "--out", config / "below"), "--out")
    check_refused(pppml("demo", "--data", tmp_path / "none", "--out", tmp_path / "run"), "does not exist")
    check_refused(pppml("phantoms", "--out", other), "not empty")
    check_refused(pppml("phantoms", "--hospital", "nowhere", "--out", tmp_path / "run"), "north")
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["params", "--parties", "2", "--clip", "1"], "parties = 2"),
        (["params", "--parties", "0", "--clip", "1"], "parties = 0"),
        (["params", "--parties", "16", "--clip", "0"], "clip"),
        (["params", "--parties", "16", "--clip", "-3"], "clip"),
        (["params", "--parties", "16", "--clip", "nan"], "clip"),
        (["params", "--parties", "16", "--clip", "1", "--bits", "90"], "fewer bits"),
        (["params", "--parties", "16", "--clip", "1", "--level", "999"], "level"),
        (["params", "--parties", "many", "--clip", "1"], "parties"),
        (["params", "--clip", "1"], "parties"),
        (["nonsense"], "nonsense"),
        (["params", "--colour", "red"], "colour"),
        (["--log-level", "loud", "version"], "loud"),
    ],
)
def test_arguments(pppml: Any, arguments: list[str], words: str) -> None:
    check_refused(pppml(*arguments), words)


def test_models_and_volumes(pppml: Any, trained: Path, tmp_path: Path) -> None:
    card = trained / "models" / "per_fedavg_fo" / "global.toml"
    fake = tmp_path / "fake.nii.gz"
    fake.write_bytes(b"no NIfTI at all")
    out = tmp_path / "mask.nii.gz"
    check_refused(pppml("predict", fake, "--model", card, "-o", out), "no readable NIfTI")
    check_refused(pppml("predict", tmp_path / "no.nii.gz", "--model", card, "-o", out), "does not exist")
    check_refused(pppml("predict", fake, "--model", tmp_path / "no.toml", "-o", out), "card")
    check_refused(pppml("predict", fake, "--model", fake, "-o", out), "no model card")
    refused = pppml("personalize", "--model", card, "--data", fake, "--out", tmp_path / "p.toml")
    check_refused(refused, "JSON")
    steps = ("--steps", "-1", "--out", tmp_path / "p.toml")
    check_refused(pppml("personalize", "--model", card, "--data", fake, *steps), "steps")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake.nii.gz"]


def test_a_real_process_refuses_the_same_way(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pppml_fast.cli", "run", str(config), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--set", "data.path='none.npz'"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "none.npz" in done.stderr
    assert not (tmp_path / "run").exists()

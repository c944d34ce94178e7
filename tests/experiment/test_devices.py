"""A wish for a GPU: who may say it, what is refused before anything is loaded, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_study
import torch
from site_files import make_site_files

from pppml_fast import CkksParams, cuda
from pppml_fast.errors import ConfigError, ParameterError
from pppml_fast.experiment import build_config, devices
from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.experiment.devices import check_device, check_kernels, describe_device, torch_device
from pppml_fast.experiment.folder import RunFolder
from pppml_fast.experiment.plan import device_lines, plan_lines
from pppml_fast.experiment.runner import run_experiment
from pppml_fast.experiment.site_config import load_site
from pppml_fast.experiment.site_setup import prepare_site
from pppml_fast.experiment.study import Study, prepare, study_of
from pppml_fast.experiment.use import personalize_model, predict_file


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as questions go."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Example {device.index}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(cuda, "why_unavailable", lambda: "")
    monkeypatch.setattr(cuda, "device_count", lambda: 2)


def asking(table: dict[str, Any], device: str, **changes: Any) -> ExperimentConfig:
    return build_config({**table, **changes, "device": device})


def test_names_of_devices(table: dict[str, Any]) -> None:
    assert build_config(table).device == "cpu"
    for name, device in (("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:12", "cuda:12")):
        assert torch_device(asking(table, name).device) == torch.device(device)
    for name in ("gpu", "cuda:", "cuda:-1", "cuda:01", "CUDA", "mps", "", "cuda:1 "):
        with pytest.raises(ConfigError, match=r"^device: '.*' is no device; use 'cpu', 'cuda' .* or 'cuda:N'$"):
            asking(table, name)
        with pytest.raises(ConfigError, match="is no device"):
            check_device(name)


def test_a_torch_without_a_gpu_is_said_before_data_is_read(
    table: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = {"kind": "npz", "path": str(tmp_path / "absent.npz")}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    for name in ("cuda", "cuda:1"):
        wanted = rf"^device = '{name}': torch \S+ sees no GPU, as it was built without CUDA; .* set device = 'cpu'$"
        with pytest.raises(ConfigError, match=wanted):
            prepare(asking(table, name, data=absent))
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    with pytest.raises(ConfigError, match=r"built with CUDA 12\.6; see nvidia-smi and CUDA_VISIBLE_DEVICES, or set"):
        prepare(asking(table, "cuda", data=absent))


@pytest.mark.usefixtures("gpus")
def test_what_cannot_encrypt_there_is_said(
    table: dict[str, Any], study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"^device = 'cuda:2': there is no such GPU; choose one of cuda:0 .. cuda:1"):
        prepare(asking(table, "cuda:2"))
    monkeypatch.setattr(cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"^device = 'cuda:1': there is no such GPU; choose one of cuda:0, or"):
        prepare(asking(table, "cuda:1"))
    assert check_device("cuda:1", encrypts=False) == torch.device("cuda", 1)

    def refuse(params: CkksParams, device: int) -> None:
        raise ParameterError(f"a ring of 8192 has no kernels on {device}")

    monkeypatch.setattr(devices, "device_scheme", refuse)
    wanted = (
        r"^device = 'cuda:0': parameter set .* a ring of 8192 has no kernels on 0; choose another aggregation.params"
    )
    with pytest.raises(ConfigError, match=wanted):
        check_kernels(study.params, torch.device("cuda", 0))
    check_kernels(study.params, torch.device("cpu"))
    monkeypatch.setattr(cuda, "why_unavailable", lambda: "this build has no CUDA; build it with PPPML_CUDA=ON")
    wanted = r"^device = 'cuda': updates cannot be encrypted there: .*PPPML_CUDA=ON; or set device = 'cpu'$"
    with pytest.raises(ConfigError, match=wanted):
        prepare(asking(table, "cuda"))
    # Noise is drawn on the host, where updates are then encrypted.
    assert prepare(asking(table, "cuda", privacy={"colluders": 1})).privacy is not None


@pytest.mark.usefixtures("gpus")
def test_a_site_names_its_own_device(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_site_files(tmp_path, npz)["north"]
    text = path.read_text()
    assert load_site(path).experiment.device == "cpu"
    (tmp_path / "experiment.toml").write_text("device = 'cuda'\n" + (tmp_path / "experiment.toml").read_text())
    assert load_site(path).experiment.device == "cpu", "the experiment's is not the site's"
    path.write_text(text.replace("[site]", "[site]\ndevice = 'cuda:1'"))
    config = load_site(path)
    assert (config.experiment.device, config.node.name) == ("cuda:1", "north")
    monkeypatch.setattr(cuda, "why_unavailable", lambda: "it has no CUDA")
    (tmp_path / "federation.json").unlink()  # it is not even looked at
    with pytest.raises(ConfigError, match=r"^site.device = 'cuda:1': .*it has no CUDA; or set site.device = 'cpu'$"):
        prepare_site(config)
    path.write_text(text.replace("[site]", "[site]\ndevice = 'gpu'"))
    with pytest.raises(ConfigError, match=r"^site.device: 'gpu' is no device"):
        load_site(path)
    path.write_text(text.replace('path = "../experiment.toml"', "device = 'cuda'"))
    with pytest.raises(ConfigError, match=r"\[experiment\] holds 'device'; set site.device instead"):
        load_site(path)


@pytest.mark.usefixtures("gpus")
def test_a_plan_says_where_it_computes_and_what_leaves_it(table: dict[str, Any], study: Study) -> None:
    assert device_lines(study) == [] and describe_device("cpu") == "cpu"
    assert "copies" not in dict(plan_lines(study))["encrypted sums"]
    words = {
        "what leaves it of them is ciphertext": {},
        "noise is drawn on the host: updates are copied there": {"privacy": {"colluders": 1}},
        "nothing is encrypted: updates are copied": {"aggregation": {"protocol": "plain"}},
    }
    for said, changes in words.items():
        config = asking(table, "cuda:1", **changes)
        lines = dict(plan_lines(study_of(config, study.parties)))
        assert lines["device"].startswith("cuda:1, Example 1, CUDA 13.0: ") and said in lines["device"]
        assert lines["encrypted sums"].endswith("compared with its plain sum, from copies on the host")


def test_a_run_stays_on_its_device_and_a_site_may_change_it(table: dict[str, Any], tmp_path: Path) -> None:
    config = build_config(table)
    RunFolder.claim(tmp_path, config, "data")
    other = config.model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"another configuration \(device was 'cpu', is 'cuda'\)"):
        RunFolder.claim(tmp_path, other, "data")
    assert RunFolder.claim(tmp_path, other, "data", any_device=True).resumed
    with pytest.raises(ConfigError, match="rounds was 2, is 3"):
        RunFolder.claim(tmp_path, other.model_copy(update={"rounds": 3}), "data", any_device=True)
    # A run from before there was a choice was the processor's.
    mark = tmp_path / "run.json"
    kept = json.loads(mark.read_text())
    del kept["config"]["device"]
    mark.write_text(json.dumps(kept))
    assert RunFolder.claim(tmp_path, config, "data").resumed
    with pytest.raises(ConfigError, match="device was 'cpu', is 'cuda'"):
        RunFolder.claim(tmp_path, other, "data")


def test_where_a_result_comes_from_names_the_device(finished: Any) -> None:
    result, out = finished
    assert result.provenance["machine"]["device"] == result.provenance["config"]["device"] == "cpu"
    card = next((out / "models").rglob("global.toml")).read_text()
    assert 'device = "cpu"' in card


def test_models_are_used_where_they_are_wanted(finished: Any, npz: Path, tmp_path: Path) -> None:
    _, out = finished
    card = next((out / "models").rglob("global.toml"))
    with pytest.raises(ConfigError, match="device = 'cuda': torch"):
        personalize_model(card, npz, tmp_path / "ours.toml", steps=1, party=tiny_study.SITES[0], device="cuda")
    with pytest.raises(ConfigError, match="'tpu' is no device"):
        predict_file(card, tmp_path / "absent.nii.gz", tmp_path / "mask.nii.gz", device="tpu")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_the_device_is_known(table: dict[str, Any], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        return  # tests/cuda/device trains there
    with pytest.raises(ConfigError, match="sees no GPU"):
        run_experiment(asking(table, "cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()

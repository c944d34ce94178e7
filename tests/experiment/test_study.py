"""What is checked before any work: hospitals, weights, network, patterns, parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_study

from pppml_fast.errors import ConfigError, DataError, InputError, ParameterError
from pppml_fast.experiment import build_config
from pppml_fast.experiment.folder import RunFolder, public_config
from pppml_fast.experiment.plan import plan_lines
from pppml_fast.experiment.study import Study, data_fingerprint, prepare


def test_the_study_knows_its_hospitals(study: Study) -> None:
    infos = study.infos()
    assert [info.name for info in infos] == ["north", "east", "south"]
    assert {(info.cases_train, info.cases_test, info.slices_train) for info in infos} == {(2, 1, 8)}
    assert sum(info.weight for info in infos) == pytest.approx(1)
    assert study.layout.size == study.weight_count


def test_two_hospitals_are_refused_unless_said(tmp_path: Path) -> None:
    table = tiny_study.table(tiny_study.write_npz(tmp_path / "two.npz", sites=2))
    with pytest.raises(ConfigError, match=r"2 parties.*fewer than 3"):
        prepare(build_config(table))
    assert len(prepare(build_config(table, ["aggregation.allow_two_parties=true"])).parties) == 2


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["network.arguments.in_channels=1"], ConfigError, "does not take 3 slices.*in.* channels to 3"),
        (["network.arguments.out_channels=2"], ConfigError, "output channels to 1"),
        (["network.target='monai.networks.nets:UNett'"], ConfigError, "cannot be imported"),
        (["network.target='os:system'"], ConfigError, "no torch.nn.Module"),
        (["network.arguments.width=3"], ConfigError, "refuses its arguments"),
        (["aggregation.weights={north=1.0}"], ConfigError, "differ in"),
        (["aggregation.weights={north=8.0, east=1.0, south=1.0}"], ConfigError, "above the limit of 0.5"),
        (["aggregation.params=p99"], ParameterError, "p99"),
        (["aggregation.bits=60"], ParameterError, "fewer bits"),
        (["include=['nothing*']"], InputError, "matches no tensor"),
        (["exclude=['*']"], InputError, "no tensor is left"),
        (["data.path='missing.npz'"], DataError, "missing.npz"),
        (["data.mapping.mask='masks'"], DataError, "masks"),
        (["data.mapping.colour='x'"], ConfigError, "colour"),
    ],
)
def test_what_does_not_fit_is_refused(
    table: dict[str, Any], overrides: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        prepare(build_config(table, overrides))
    assert "\n" not in str(caught.value)


def test_weights_by_cases_and_by_name(table: dict[str, Any]) -> None:
    named = prepare(build_config(table, ["aggregation.weights={north=2.0, east=1.0, south=1.0}"]))
    assert named.weights == {"north": 0.5, "east": 0.25, "south": 0.25}
    by_cases = prepare(build_config(table, ["aggregation.weights=cases"]))
    assert list(by_cases.weights.values()) == pytest.approx([1 / 3] * 3)


def test_the_plan_says_what_the_run_will_do(study: Study) -> None:
    found = plan_lines(study)
    lines = dict(found)
    assert len(lines) == len(found), "nothing is said twice"
    text = " ".join(lines.values())
    assert "2 training cases (8 slices), 1 test cases (4 slices)" in lines["party north"]
    assert study.params.name in lines["parameters"] and study.params.level in lines["parameters"]
    assert "2 of 4 gradients per party: 8 for every method" in lines["rounds"]
    assert f"{study.params.block_count(study.layout.size)} blocks" in lines["ciphertexts"]
    assert "exact bits" in lines["precision"] and "MB" in lines["bytes"]
    # Two rounds of three federated trainings.
    assert lines["encrypted sums"].startswith("6 (fedavg, per_fedavg_fo, per_fedavg_hf)")
    assert f"{study.weight_count:,}" in text


def test_a_folder_belongs_to_one_configuration_and_one_set_of_data(study: Study, tmp_path: Path) -> None:
    fingerprint = data_fingerprint(study.parties)
    first = RunFolder.claim(tmp_path / "run", study.config, fingerprint)
    again = RunFolder.claim(tmp_path / "run", study.config, fingerprint)
    assert (first.resumed, again.resumed) == (False, True) and first.started == again.started
    other = study.config.model_copy(update={"rounds": 5})
    with pytest.raises(ConfigError, match=r"rounds was 2, is 5.*--out"):
        RunFolder.claim(tmp_path / "run", other, fingerprint)
    with pytest.raises(ConfigError, match="other data"):
        RunFolder.claim(tmp_path / "run", study.config, "0" * 64)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear to someone")
    with pytest.raises(DataError, match="no run of this program"):
        RunFolder.claim(tmp_path / "mine", study.config, fingerprint)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_fingerprint_follows_every_pixel(study: Study) -> None:
    party = study.parties[0]
    image = np.array(party.train[0].image)
    image[0, 0, 0] += np.float32(1 / 255)
    changed = replace(party, train=(replace(party.train[0], image=image), *party.train[1:]))
    assert data_fingerprint((changed, *study.parties[1:])) != data_fingerprint(study.parties)
    assert data_fingerprint(study.parties) == data_fingerprint(tuple(study.parties))


def test_reports_carry_no_paths(study: Study) -> None:
    config = public_config(study.config)
    assert config["data"]["path"] == "tiny.npz"

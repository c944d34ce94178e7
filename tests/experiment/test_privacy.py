"""Noise in an experiment: what the section admits, what a run reports, and that no released sum is forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from pppml_fast.aggregation.accounting import PrivacyLedger
from pppml_fast.errors import ConfigError, DataError, ParameterError
from pppml_fast.experiment import build_config
from pppml_fast.experiment.checkpoint import CheckpointFolder
from pppml_fast.experiment.federation import CheckedFederation
from pppml_fast.experiment.plan import plan_lines
from pppml_fast.experiment.privacy import privacy_statement, privacy_summary
from pppml_fast.experiment.progress import Progress
from pppml_fast.experiment.runner import run_experiment
from pppml_fast.experiment.study import prepare
from pppml_fast.experiment.summary import summary_schema
from pppml_fast.experiment.training import train_track

NOISE = {"mechanism": "discrete_gaussian", "l2_clip": 0.5, "noise_multiplier": 4.0}


@pytest.fixture
def noised(table: dict[str, Any]) -> dict[str, Any]:
    return {**table, "board": ["fedavg", "fedavg_ft"], "privacy": NOISE}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("privacy.mechanism='gauss'", "privacy.mechanism = 'gauss'"),
        ("privacy.l2_clip=0", "privacy.l2_clip = 0"),
        ("privacy.noise_multiplier=-1", "privacy.noise_multiplier = -1"),
        ("privacy.delta=1", "privacy.delta = 1"),
        ("privacy.colluders=-1", "privacy.colluders = -1"),
        ("privacy.sigma=1", "'privacy.sigma'"),
        ("aggregation.protocol='plain'", "use 'collective'"),
        ("aggregation.protocol='initiator'", "use 'collective'"),
        ("selection.enabled=true", "selection.enabled"),
    ],
)
def test_a_section_that_cannot_be_kept_is_refused(noised: dict[str, Any], override: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(noised, [override])
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_too_many_colluders_are_refused_before_anything_runs(noised: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="leave 1 honest"):
        prepare(build_config(noised, ["privacy.colluders=2"]))


def test_none_is_none(table: dict[str, Any]) -> None:
    study = prepare(build_config(table, ["privacy.mechanism='none'"]))
    assert study.privacy is None and study.params.weights == "public"
    assert ("privacy", "none: sums are exact") in plan_lines(study)
    assert "not bounded" in privacy_statement(None)


def test_too_little_noise_is_called_so(noised: dict[str, Any]) -> None:
    study = prepare(build_config(noised, ["privacy.noise_multiplier=0.05"]))
    assert study.privacy is not None
    summary = privacy_summary(study.privacy, {"fedavg, seed 0": PrivacyLedger({2: 2})})
    assert summary["epsilon_run"] is None
    assert "Treat the sums as exact" in privacy_statement(summary)


def test_without_colluders_no_member_is_claimed_to_be_kept_out(noised: dict[str, Any]) -> None:
    study = prepare(build_config(noised, ["privacy.colluders=0"]))
    assert study.privacy is not None
    statement = privacy_statement(privacy_summary(study.privacy, {"fedavg, seed 0": PrivacyLedger({3: 2})}))
    assert "against no member" in statement and "noise of 3 honest" in statement


def test_the_plan_tells_the_price_beforehand(noised: dict[str, Any]) -> None:
    lines = dict(plan_lines(prepare(build_config(noised))))
    assert lines["noise multiplier"] == "4, from 2 honest members"
    assert lines["sums released"] == "fedavg 2"
    assert float(lines["epsilon of the whole run"].split()[0]) > float(lines["epsilon of one sum"])


def test_hospitals_of_other_weights_stay_within_the_agreed_bound(noised: dict[str, Any]) -> None:
    weights = "aggregation.weights={north=2, east=1, south=1}"
    study = prepare(build_config(noised, [weights]))
    assert study.privacy is not None
    assert study.privacy.terms.largest_weight == pytest.approx(1.5)
    federation = CheckedFederation(study)
    update = [np.ones(study.layout.size, np.float32)]
    sent, costs = federation._noised(dict.fromkeys(study.party_names, update))
    federation.close()
    assert costs["l2_clipped"] == 3 and costs["saturated"] == 0
    assert not np.array_equal(sent["north"], sent["east"])


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_a_run_reports_its_epsilon_and_equals_the_plain_sum(
    noised: dict[str, Any], tmp_path: Path, mechanism: str
) -> None:
    config = build_config(noised, [f"privacy.mechanism='{mechanism}'"])
    result = run_experiment(config, tmp_path / "run", command="pppml run tiny.toml")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    jsonschema.validate(summary, summary_schema())
    privacy = summary["aggregation"]["privacy"]
    assert summary["aggregation"]["max_difference_from_plain"] == 0 and summary["aggregation"]["identical_models"]
    assert privacy["mechanism"] == mechanism and privacy["honest"] == 2 and privacy["saturated"] == 0
    assert privacy["sums"] == {"fedavg, seed 0": 2}
    assert privacy["epsilon_per_sum"] < privacy["epsilon_run"] == privacy["epsilon_training"]
    assert privacy["epsilon_run"] < privacy["epsilon_run_replaced"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Privacy of a hospital" in report and f"{privacy['epsilon_run']:.3g}" in report
    assert "DP-SGD" in report and "coalitions of up to 1 other" in report
    assert result.aggregation["privacy"] == privacy


def test_a_sum_released_before_a_crash_counts_though_its_round_is_done_again(
    noised: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = prepare(build_config(noised)), CheckpointFolder(tmp_path)
    save, rounds = CheckpointFolder.save, []

    def crash_in_round_two(self: CheckpointFolder, checkpoint: Any) -> None:
        rounds.append(checkpoint.round)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        save(self, checkpoint)

    monkeypatch.setattr(CheckpointFolder, "save", crash_in_round_two)
    with pytest.raises(KeyboardInterrupt):
        train_track(study, "fedavg", 0, Progress(), folder)
    finished = train_track(study, "fedavg", 0, Progress(), folder)
    assert rounds == [1, 2, 2]
    assert finished.ledger.releases == {2: 3}
    assert train_track(study, "fedavg", 0, Progress(), folder).ledger.releases == {2: 3}


def test_a_damaged_ledger_stops_the_run(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.load_ledger().releases == {}
    for text in ("", "{", '{"2": -1}', "[1]"):
        (tmp_path / "released_sums.json").write_text(text)
        with pytest.raises(DataError, match="released sums"):
            folder.load_ledger()

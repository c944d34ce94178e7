"""Training: the encrypted federation is the plain one bit for bit, and a resumed run is the uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pppml_fast.errors import ConfigError
from pppml_fast.experiment import build_config
from pppml_fast.experiment.checkpoint import CheckpointFolder
from pppml_fast.experiment.progress import Progress, RoundReport
from pppml_fast.experiment.study import Study, prepare
from pppml_fast.experiment.tracks import algorithm_of, methods_of, personal_step_size, tracks_of
from pppml_fast.experiment.training import train_track


def prepared(table: dict[str, Any], *overrides: str) -> Study:
    return prepare(build_config(table, overrides))


class StopAfter(Progress):
    """Raises after so many rounds, when the checkpoint is on disk."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def round_done(self, report: RoundReport) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_every_protocol_trains_the_same_model_bit_for_bit(table: dict[str, Any]) -> None:
    ways = (
        ("collective", "ring"),
        ("collective", "star"),
        ("initiator", "ring"),
        ("plain", "ring"),
    )
    digests = {}
    for protocol, topology in ways:
        # One set of parameters for all: another quantisation step would be another model.
        study = prepared(
            table,
            f"aggregation.protocol={protocol}",
            f"aggregation.topology={topology}",
            "aggregation.params=p50",
        )
        result = train_track(study, "fedavg", 0, Progress())
        assert all(record["max_difference_from_plain"] == 0 for record in result.records)
        assert all(record["identical"] for record in result.records)
        digests[protocol, topology] = (result.sha256(), study.params.step)
    same_step = {way: digest for way, (digest, step) in digests.items() if step == digests["plain", "ring"][1]}
    assert len(same_step) >= 3
    assert len(set(same_step.values())) == 1


@pytest.mark.parametrize("track", ["local", "fedavg", "fedprox", "per_fedavg_fo", "per_fedavg_hf"])
def test_interrupted_training_ends_in_the_same_bits(table: dict[str, Any], tmp_path: Path, track: str) -> None:
    study = prepared(table, "rounds=3", "aggregation.protocol=plain")
    whole = train_track(study, track, 0, Progress())
    folder = CheckpointFolder(tmp_path)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_track(study, track, 0, StopAfter(1), folder)
    resumed = train_track(study, track, 0, Progress(), folder)
    assert resumed.sha256() == whole.sha256()
    assert [record["round"] for record in resumed.records] == [1, 2, 3]
    assert [record["losses"] for record in resumed.records] == [record["losses"] for record in whole.records]


@pytest.mark.parametrize("statistics", ["shared", "local", "frozen"])
def test_normalisation_statistics_and_private_tensors_survive_a_resume(
    table: dict[str, Any], tmp_path: Path, statistics: str
) -> None:
    batch_norm = {**table["network"], "arguments": {**table["network"]["arguments"], "norm": "batch"}}
    study = prepared(
        {**table, "network": batch_norm},
        f"statistics={statistics}",
        "aggregation.protocol=plain",
        'exclude=["*adn.N*"]' if statistics != "shared" else "exclude=[]",
    )
    whole = train_track(study, "fedavg", 0, Progress())
    with pytest.raises(KeyboardInterrupt):
        train_track(study, "fedavg", 0, StopAfter(1), CheckpointFolder(tmp_path))
    resumed = train_track(study, "fedavg", 0, Progress(), CheckpointFolder(tmp_path))
    assert resumed.sha256() == whole.sha256()
    north, east = (whole.models[name].buffers for name in ("north", "east"))
    same = all(torch.equal(north[name], east[name]) for name in north if "running" in name)
    assert same == (statistics != "local")


def test_what_is_excluded_stays_with_each_hospital(table: dict[str, Any]) -> None:
    study = prepared(table, 'exclude=["model.2*"]', "aggregation.protocol=plain")
    assert study.layout.size < study.weight_count
    result = train_track(study, "fedavg", 0, Progress())
    north, east = result.models["north"].params, result.models["east"].params
    for name in north:
        assert torch.equal(north[name], east[name]) == (name in study.layout.names)


def test_all_methods_start_from_one_model_and_spend_the_same(study: Study) -> None:
    initial = {name: study.network(0).state_dict() for name in ("a", "b")}
    assert all(torch.equal(initial["a"][key], initial["b"][key]) for key in initial["a"])
    other = study.network(1).state_dict()
    assert any(not torch.equal(initial["a"][key], other[key]) for key in other)
    budgets = {algorithm_of(study.config, track).gradients_per_round for track in tracks_of(study.config.board)}
    assert budgets == {4}


def test_fine_tuning_shares_the_training_of_fedavg(study: Study) -> None:
    board = study.config.board
    assert tracks_of(board) == ["local", "fedavg", "per_fedavg_fo", "per_fedavg_hf"]
    assert methods_of("fedavg", board) == ["fedavg", "fedavg_ft"]
    assert tracks_of(["fedavg_ft"]) == ["fedavg"]
    with pytest.raises(ConfigError, match="fedavg"):
        algorithm_of(study.config, "fedavg_ft")


def test_step_size_of_personalisation(table: dict[str, Any]) -> None:
    config = build_config(
        table, ["methods.fedavg.lr=0.7", "methods.per_fedavg_hf.alpha=0.2", "methods.local.personal_lr=0.05"]
    )
    assert personal_step_size(config, "fedavg_ft") == 0.7
    assert personal_step_size(config, "per_fedavg_hf") == 0.2
    assert personal_step_size(config, "local") == 0.05


def test_local_training_exchanges_nothing(table: dict[str, Any]) -> None:
    result = train_track(prepared(table), "local", 0, Progress())
    assert result.shared is None
    assert all("ring_s" not in record for record in result.records)
    weights = [result.models[name].params for name in ("north", "east")]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

"""Scores: personalisation sees training data alone, and the test cases decide nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pppml_fast.errors import ConfigError
from pppml_fast.experiment import build_config
from pppml_fast.experiment.evaluation import personal_models, score_party
from pppml_fast.experiment.progress import Progress
from pppml_fast.experiment.results import MethodResult, PartyScores, confidence_half_width
from pppml_fast.experiment.selection import candidates_of, choose_step_sizes, with_step_sizes
from pppml_fast.experiment.study import Study, batches_of, prepare
from pppml_fast.experiment.training import train_track
from pppml_fast.imaging import PartyData
from pppml_fast.learning import ServerState, buffers_of, derive_seed, parameters_of, personalize


def start_of(study: Study) -> ServerState:
    module = study.network(0)
    return ServerState(parameters_of(module), buffers_of(module))


def with_other_test(party: PartyData) -> PartyData:
    case = party.test[0]
    return replace(party, test=(replace(case, image=1 - case.image, mask=1 - case.mask),))


def test_test_cases_change_scores_and_nothing_else(study: Study) -> None:
    party, objective = study.parties[0], study.objective(study.network(0))
    other = with_other_test(party)
    scores, models = score_party(study, objective, party, start_of(study), seed=0, lr=0.2, steps=[1, 2])
    scores_other, models_other = score_party(study, objective, other, start_of(study), seed=0, lr=0.2, steps=[1, 2])
    assert scores.dice != scores_other.dice
    for k, model in models.items():
        for name, tensor in model.params.items():
            assert torch.equal(tensor, models_other[k].params[name])


def test_k_steps_on_the_way_are_k_steps_from_the_start(study: Study) -> None:
    party, objective, start = study.parties[1], study.objective(study.network(0)), start_of(study)
    on_the_way = dict(personal_models(study, objective, party, start, seed=5, lr=0.1, steps=[0, 1, 3]))
    assert list(on_the_way) == [0, 1, 3]
    assert all(torch.equal(on_the_way[0].params[name], start.params[name]) for name in start.params)
    source = batches_of(study, party.train, derive_seed(5, "personal batches", party.name))
    direct, _ = personalize(objective, start.params, start.buffers, source, steps=3, lr=0.1)
    for name, tensor in direct.items():
        assert torch.equal(tensor, on_the_way[3].params[name])
    assert any(not torch.equal(tensor, start.params[name]) for name, tensor in direct.items())


def test_scores_hold_every_k_and_every_test_case(study: Study) -> None:
    party, objective = study.parties[2], study.objective(study.network(0))
    scores, models = score_party(study, objective, party, start_of(study), seed=0, lr=0.1, steps=[2])
    assert sorted(scores.dice) == [0, 2] == sorted(models)
    assert list(scores.dice[0]) == [case.name for case in party.test]
    assert all(0 <= value <= 1 for cases in scores.dice.values() for value in cases.values())


def test_tables_over_hospitals_and_seeds() -> None:
    def scores(before: float, after: float) -> PartyScores:
        return PartyScores({0: {"a": before, "b": before}, 5: {"a": after, "b": after + 0.1}})

    method = MethodResult(
        "fedavg_ft",
        5,
        80,
        {
            0: {"north": scores(0.2, 0.4), "east": scores(0.4, 0.6)},
            1: {"north": scores(0.2, 0.6), "east": scores(0.4, 0.8)},
        },
    )
    assert method.party("north", 5) == pytest.approx(0.55)
    assert method.mean(5) == pytest.approx(0.65) and method.worst(5) == pytest.approx(0.55)
    assert method.spread(5) == pytest.approx(0.2)
    assert method.cases("north", 5) == {"a": pytest.approx(0.5), "b": pytest.approx(0.6)}
    assert method.interval(5) == pytest.approx(12.706 * np.std([0.55, 0.75], ddof=1) / np.sqrt(2))
    assert confidence_half_width([0.5]) is None


def test_selection_never_sees_the_test_cases(table: dict[str, Any]) -> None:
    grid = {"enabled": True, "rounds": 1, "grid": {"fedavg": {"lr": [1e-6, 0.5]}, "per_fedavg_fo": {"alpha": [0.1]}}}
    study = prepare(build_config({**table, "selection": grid, "board": ["fedavg", "per_fedavg_fo"]}))
    chosen = choose_step_sizes(study, Progress())
    other = replace(study, parties=tuple(with_other_test(party) for party in study.parties))
    assert choose_step_sizes(other, Progress()) == chosen
    assert set(chosen) == {"fedavg", "per_fedavg_fo"}
    rows = chosen["fedavg"]["candidates"]
    assert [row["sizes"] for row in rows] == [{"lr": 1e-6}, {"lr": 0.5}]
    best = max(rows, key=lambda row: row["dice"])
    assert chosen["fedavg"]["chosen"] == best["sizes"]
    assert with_step_sizes(study.config, "fedavg", best["sizes"]).methods.fedavg.lr == best["sizes"]["lr"]


def test_a_grid_of_what_is_no_step_size(table: dict[str, Any]) -> None:
    config = build_config({**table, "selection": {"enabled": True, "grid": {"fedavg": {"alpha": [0.1]}}}})
    with pytest.raises(ConfigError, match=r"selection.grid.fedavg.alpha.*it has lr"):
        candidates_of(config, "fedavg")


def test_training_lowers_the_loss(table: dict[str, Any]) -> None:
    study = prepare(build_config(table, ["rounds=6", "aggregation.protocol=plain", "task.augment=false"]))
    result = train_track(study, "fedavg", 0, Progress())
    assert result.records[-1]["loss"] < 0.9 * result.records[0]["loss"]

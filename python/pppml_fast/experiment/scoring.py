"""The methods that rest on a finished training: personal models, their scores on test cases, their cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pppml_fast.experiment.cards import Model, save_model
from pppml_fast.experiment.data import describe_data, preprocessing_of
from pppml_fast.experiment.devices import describe_device
from pppml_fast.experiment.evaluation import score_party
from pppml_fast.experiment.folder import RunFolder
from pppml_fast.experiment.provenance import versions
from pppml_fast.experiment.results import PartyScores
from pppml_fast.experiment.study import Study
from pppml_fast.experiment.tracks import methods_of, personal_step_size, reported_steps
from pppml_fast.learning import ServerState

__all__ = ["Scores", "score_track", "scores_from_json", "scores_to_json"]

Scores = dict[str, dict[str, PartyScores]]
"""By method and party."""


def score_track(
    study: Study,
    folder: RunFolder,
    seed: int,
    track: str,
    models: Mapping[str, ServerState],
    shared: ServerState | None,
) -> Scores:
    """Personalise every party's model, score it on the party's test cases, and leave all models with their cards."""
    config = study.config
    objective = study.objective(study.network(seed))
    scores: Scores = {}
    for method in methods_of(track, config.board):
        lr = personal_step_size(config, method)
        k = reported_steps(config, method)
        steps = (0,) if method == "fedavg" else config.personal_steps
        if shared is not None:
            _save(study, folder, seed, method, shared, lr, None, 0)
        for party in study.parties:
            start = models[party.name]
            result, personal = score_party(study, objective, party, start, seed=seed, lr=lr, steps=steps)
            scores.setdefault(method, {})[party.name] = result
            if method != "fedavg":
                _save(study, folder, seed, method, personal[k], lr, party.name, k)
    return scores


def _save(
    study: Study,
    folder: RunFolder,
    seed: int,
    method: str,
    state: ServerState,
    lr: float,
    party: str | None,
    steps: int,
) -> None:
    config = study.config
    model = Model(
        method=method,
        spec=study.spec,
        params=state.params,
        buffers=state.buffers,
        preprocessing=preprocessing_of(config.data, study.parties, party),
        neighbours=config.task.neighbours,
        threshold=config.task.threshold,
        personal_lr=lr,
        batch_size=config.task.batch_size,
        augment=config.task.augment,
        loss=config.task.loss,
        statistics=config.statistics,
        party=party,
        personal_steps=steps,
        seed=seed,
        data=describe_data(config.data),
        provenance={
            "run": config.name,
            "started": folder.started,
            "device": describe_device(config.device),
            **versions(),
        },
    )
    save_model(model, folder.card(config, seed, method, party))


def scores_to_json(scores: Scores) -> dict[str, Any]:
    """Plain values for a JSON file."""
    return {
        method: {party: {str(k): cases for k, cases in result.dice.items()} for party, result in by_party.items()}
        for method, by_party in scores.items()
    }


def scores_from_json(table: Mapping[str, Any]) -> Scores:
    """What `scores_to_json` gave."""
    return {
        method: {
            party: PartyScores({int(k): dict(cases) for k, cases in dice.items()}) for party, dice in by_party.items()
        }
        for method, by_party in table.items()
    }

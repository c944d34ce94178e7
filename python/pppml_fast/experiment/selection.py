"""Step sizes chosen inside the training data: one training volume of every hospital is left out and scored.

Off unless a configuration says so. The sum is taken in plain, which gives the same model bit for bit; the
test cases are not even handed to this code.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pppml_fast.errors import ConfigError
from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.experiment.evaluation import score_party
from pppml_fast.experiment.progress import Progress
from pppml_fast.experiment.study import Study, study_of
from pppml_fast.experiment.tracks import personal_step_size, reported_steps, track_of
from pppml_fast.experiment.training import train_track
from pppml_fast.imaging import PartyData

__all__ = ["candidates_of", "choose_step_sizes", "with_step_sizes"]

Sizes = dict[str, float]


def choose_step_sizes(study: Study, progress: Progress) -> dict[str, Any]:
    """The best step sizes of every method of the grid, with the Dice of every candidate.

    Result: ``{method: {"chosen": {...}, "candidates": [{"sizes": {...}, "dice": ...}]}}``. Raises ConfigError
    for a grid that names no step size of its method, and when no hospital has two training cases.
    """
    config = study.config
    if all(len(party.train) < 2 for party in study.parties):
        raise ConfigError("selection needs a hospital with at least 2 training cases; set selection.enabled = false")
    table = {method: candidates_of(config, method) for method in config.board if method in config.selection.grid}
    chosen: dict[str, Any] = {}
    for method, candidates in table.items():
        progress.stage(f"choosing step sizes of {method}: {len(candidates)} candidates, one training volume left out")
        rows: list[dict[str, Any]] = []
        for sizes in candidates:
            rows.append({"sizes": sizes, "dice": _score(study, with_step_sizes(config, method, sizes), method)})
        best = max(rows, key=lambda row: float(row["dice"]))
        chosen[method] = {"chosen": best["sizes"], "candidates": rows}
        # Fine-tuning is chosen on the FedAvg that was chosen before it.
        config = with_step_sizes(config, method, best["sizes"])
    return chosen


def candidates_of(config: ExperimentConfig, method: str) -> list[Sizes]:
    """Every combination of a method's grid. Raises ConfigError for a name that is no step size of it."""
    grid = config.selection.grid[method]  # type: ignore[index]
    known = type(config.method(method)).model_fields
    for name in grid:
        if name not in known:
            raise ConfigError(
                f"selection.grid.{method}.{name} is no step size of {method}; it has {', '.join(known) or 'none'}"
            )
        if not grid[name]:
            raise ConfigError(f"selection.grid.{method}.{name} is empty; list at least one value")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def with_step_sizes(config: ExperimentConfig, method: str, sizes: Mapping[str, float]) -> ExperimentConfig:
    """The same experiment with other step sizes for one method."""
    section = config.method(method).model_copy(update=dict(sizes))
    return config.model_copy(update={"methods": config.methods.model_copy(update={method: section})})


def _score(study: Study, config: ExperimentConfig, method: str) -> float:
    """Mean Dice over hospitals and folds on the volumes left out, after the reported k."""
    selection = config.selection
    quick = config.model_copy(
        update={
            "rounds": selection.rounds,
            "aggregation": config.aggregation.model_copy(update={"protocol": "plain", "topology": "ring"}),
        }
    )
    scores = []
    for fold in range(selection.folds):
        parties = tuple(_leave_out(party, fold) for party in study.parties)
        inner = study_of(quick, parties)
        seed = config.seeds[0]
        trained = train_track(inner, track_of(method), seed, Progress())
        objective = inner.objective(inner.network(seed))
        k, lr = reported_steps(config, method), personal_step_size(config, method)
        for party in parties:
            if party.test:
                result, _ = score_party(
                    inner, objective, party, trained.models[party.name], seed=seed, lr=lr, steps=[k]
                )
                scores.append(result.mean(k))
    return statistics.fmean(scores)


def _leave_out(party: PartyData, fold: int) -> PartyData:
    if len(party.train) < 2:
        return replace(party, test=(), untested=True)
    return party.leave_out(fold % len(party.train))

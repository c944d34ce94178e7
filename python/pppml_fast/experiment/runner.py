"""A whole run: train every method of the board, score it, leave models, tables, plots and a report.

What is finished is on disk and is not done again: a run that was killed goes on from its last finished round.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pppml_fast.aggregation.accounting import PrivacyLedger
from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.experiment.data import describe_data
from pppml_fast.experiment.devices import describe_device
from pppml_fast.experiment.files import write_json
from pppml_fast.experiment.folder import RunFolder, public_config
from pppml_fast.experiment.outputs import aggregation_summary, write_outputs
from pppml_fast.experiment.progress import Progress
from pppml_fast.experiment.provenance import command_line, machine, versions
from pppml_fast.experiment.results import MethodResult, PartyScores, RunResult
from pppml_fast.experiment.scoring import score_track, scores_from_json, scores_to_json
from pppml_fast.experiment.selection import choose_step_sizes, with_step_sizes
from pppml_fast.experiment.study import Study, data_fingerprint, prepare
from pppml_fast.experiment.tracks import reported_steps, tracks_of
from pppml_fast.experiment.training import train_track

__all__ = ["run_experiment", "run_study"]


def run_experiment(
    config: ExperimentConfig, out: Path, progress: Progress | None = None, command: str | None = None
) -> RunResult:
    """Load, check, train, score and report into `out`; goes on where an earlier call was cut off.

    Raises what `prepare` raises before anything is written.
    """
    return run_study(prepare(config), out, progress, command)


def run_study(study: Study, out: Path, progress: Progress | None = None, command: str | None = None) -> RunResult:
    """`run_experiment` on a study that is already prepared."""
    progress = progress or Progress()
    started = time.perf_counter()
    fingerprint = data_fingerprint(study.parties)
    folder = RunFolder.claim(out, study.config, fingerprint)
    original = study.config
    try:
        selection = _select(study, folder, progress)
        for method, outcome in selection.items():
            study = replace(study, config=with_step_sizes(study.config, method, outcome["chosen"]))
        runner = _Runner(study, folder, progress)
        for seed in study.config.seeds:
            for track in tracks_of(study.config.board):
                runner.run_track(seed, track)
        provenance = {
            "versions": versions(),
            "machine": machine(study.config.threads, describe_device(study.config.device)),
            "seeds": list(original.seeds),
            "command": command if command is not None else command_line(),
            "started": folder.started,
            "seconds": time.perf_counter() - started,
            "resumed": folder.resumed,
            "config": public_config(study.config),
            "data": {"kind": describe_data(original.data), "sha256": fingerprint},
            "models": runner.digests,
            **({"selection": selection} if selection else {}),
        }
        result = runner.result(provenance)
        write_outputs(study, result, folder)
        return result
    finally:
        progress.close()


def _select(study: Study, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    if not study.config.selection.enabled:
        return {}
    path = folder.path / "selection.json"
    if not path.is_file():
        write_json(path, choose_step_sizes(study, progress))
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


class _Runner:
    """Collects the results of the trainings of one run."""

    def __init__(self, study: Study, folder: RunFolder, progress: Progress) -> None:
        self.study, self.folder, self.progress = study, folder, progress
        self.scores: dict[str, dict[int, dict[str, PartyScores]]] = {}
        self.records: list[dict[str, Any]] = []
        self.digests: dict[str, str] = {}
        self.ledgers: dict[str, PrivacyLedger] = {}

    def run_track(self, seed: int, track: str) -> None:
        """Train a track to its end and score every method that rests on it."""
        self.progress.stage(f"training {track}, seed {seed}")
        trained = train_track(self.study, track, seed, self.progress, self.folder.checkpoint(seed, track))
        self.records += trained.records
        if trained.ledger.releases:
            self.ledgers[f"{track}, seed {seed}"] = trained.ledger
        self.digests[f"seed {seed} {track}"] = trained.sha256()
        kept = self.folder.scores(seed, track)
        if not kept.is_file():
            scores = score_track(self.study, self.folder, seed, track, trained.models, trained.shared)
            write_json(kept, scores_to_json(scores))
        for method, by_party in scores_from_json(json.loads(kept.read_text(encoding="utf-8"))).items():
            self.scores.setdefault(method, {})[seed] = by_party
            k = reported_steps(self.study.config, method)
            for party, result in by_party.items():
                self.progress.evaluated(seed, method, party, result.mean(0), result.mean(k))

    def result(self, provenance: dict[str, Any]) -> RunResult:
        config = self.study.config
        gradients = config.rounds * config.gradients_per_round
        methods = tuple(
            MethodResult(method, reported_steps(config, method), gradients, self.scores[method])
            for method in config.board
        )
        return RunResult(
            config.name,
            config.title,
            self.study.infos(),
            methods,
            aggregation_summary(self.study, self.records, self.ledgers),
            tuple(self.records),
            provenance,
        )

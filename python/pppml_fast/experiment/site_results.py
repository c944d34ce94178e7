"""What a site has at the end: its personal models with their cards, scores on its own test cases, a summary."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from pppml_fast.errors import InputError
from pppml_fast.experiment.data import describe_data
from pppml_fast.experiment.devices import describe_device
from pppml_fast.experiment.files import write_json
from pppml_fast.experiment.folder import RunFolder, public_config
from pppml_fast.experiment.provenance import machine, versions
from pppml_fast.experiment.scoring import score_track, scores_to_json
from pppml_fast.experiment.site_training import SiteTraining
from pppml_fast.experiment.tracks import reported_steps

__all__ = ["conclude"]

FORMAT = "pppml-site-1"


def conclude(training: SiteTraining, folder: RunFolder) -> dict[str, Any]:
    """Personalise, score and save the models of a finished training; the summary, as it is written to summary.json.

    What is there from an earlier call is not done again. Raises InputError before the last round.
    """
    study, seed, track = training.study, training.seed, training.track
    if not training.finished():
        raise InputError(f"the training is at round {training.states[0].round} of {study.config.rounds}")
    name = study.parties[0].name
    newest = training.states[0]
    kept = folder.path / "summary.json"
    if kept.is_file():
        summary: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if summary["model"] == {"round": newest.round, "sha256": newest.hash.hex()}:
            return summary
    torch.set_num_threads(study.config.threads)
    scores = score_track(study, folder, seed, track, {name: training.personal}, training.shared)
    table = scores_to_json(scores)
    write_json(folder.scores(seed, track), table)
    methods = {
        method: {"k": reported_steps(study.config, method), "dice": by_party[name]}
        for method, by_party in table.items()
    }
    summary = {
        "format": FORMAT,
        "site": name,
        "experiment": study.config.name,
        "track": track,
        "seed": seed,
        "model": {"round": newest.round, "sha256": newest.hash.hex()},
        "methods": methods,
        "privacy": None if training.noise is None else training.noise.summary(track),
        "models": _models(folder),
        "rounds": training.records,
        "started": folder.started,
        "versions": versions(),
        "machine": machine(study.config.threads, describe_device(study.config.device)),
        "data": {"kind": describe_data(study.config.data)},
        "config": public_config(study.config),
    }
    write_json(kept, summary)
    return summary


def _models(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of every model's tensors, by file."""
    paths = sorted((folder.path / "models").rglob("*.safetensors"))
    return {path.relative_to(folder.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

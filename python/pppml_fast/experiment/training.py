"""One training of the board, round by round, with a checkpoint after every round.

Hospitals train one after another in this process. Every random draw has a seed derived from (seed, purpose,
round, party), so a run that was killed and goes on ends in the same bits as one that was not; but for noise, which is
always fresh, and on a GPU for operations that do not repeat their bits. Every noised sum is entered in the ledger on
disk before it is opened, so a round done twice counts twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pppml_fast.aggregation.accounting import PrivacyLedger
from pppml_fast.experiment.checkpoint import Checkpoint, CheckpointFolder
from pppml_fast.experiment.federation import CheckedFederation
from pppml_fast.experiment.participant import Participant, apply_mean, mean_norm
from pppml_fast.experiment.progress import Progress, RoundReport
from pppml_fast.experiment.state import memory_of, memory_state, model_sha256
from pppml_fast.experiment.study import Study
from pppml_fast.experiment.tracks import algorithm_of
from pppml_fast.learning import Algorithm, ServerState, buffers_of, parameters_of, synchronize

__all__ = ["TrackResult", "train_track"]


@dataclass(frozen=True)
class TrackResult:
    """A finished training: each hospital's model, the shared one (None for local), a record per round."""

    models: Mapping[str, ServerState]
    shared: ServerState | None
    records: list[dict[str, Any]]
    ledger: PrivacyLedger = field(default_factory=PrivacyLedger)

    def sha256(self) -> str:
        """Hash of all tensors of all models, to compare two runs bit for bit."""
        states = {**self.models, **({"shared model": self.shared} if self.shared else {})}
        return model_sha256(states).hex()


class _Track:
    """The moving parts of one training; `finished` rounds are done."""

    def __init__(self, study: Study, name: str, seed: int) -> None:
        module = study.network(seed)
        self.study, self.name, self.seed = study, name, seed
        self.algorithm: Algorithm = algorithm_of(study.config, name)
        objective = study.objective(module)
        initial = self.algorithm.init(parameters_of(module), buffers_of(module))
        self.shared = initial
        self.own: dict[str, ServerState] = {party: initial for party in study.party_names}
        self.parties: dict[str, Participant] = {
            party.name: Participant(study, self.algorithm, objective, party, track=name, seed=seed)
            for party in study.parties
        }
        self.records: list[dict[str, Any]] = []
        self.finished = 0
        self.ledger = PrivacyLedger()

    def checkpoint(self) -> Checkpoint:
        state: dict[str, Any] = {"sources": {name: one.source.state_dict() for name, one in self.parties.items()}}
        if self.algorithm.federated:
            state["shared"] = self.shared.state_dict()
            state["memory"] = {name: memory_state(one.memory) for name, one in self.parties.items()}
        else:
            state["own"] = {party: own.state_dict() for party, own in self.own.items()}
        return Checkpoint(self.finished, state, self.records)

    def restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        for name, one in self.parties.items():
            one.source.load_state_dict(state["sources"][name])
        if self.algorithm.federated:
            self.shared = self.shared.restore(state["shared"])
            for name, one in self.parties.items():
                one.memory = memory_of(state["memory"][name], self.study.device)
        else:
            self.own = {party: self.own[party].restore(kept) for party, kept in state["own"].items()}
        self.records, self.finished = checkpoint.records, checkpoint.round

    def local_round(self) -> dict[str, Any]:
        started = time.perf_counter()
        losses = {}
        for name, own in self.own.items():
            update = self.parties[name].update(own, self.finished)
            self.own[name] = self.algorithm.apply(own, update.delta, update.buffers)
            losses[name] = update.loss
        synchronize(self.study.device)
        return _record(losses, time.perf_counter() - started)

    def enter_sum(self, folder: CheckpointFolder | None) -> None:
        """Count the sum that is about to be opened; on disk first."""
        plan = self.study.privacy
        if plan is None:
            return
        self.ledger.enter(plan.terms.honest(plan.parties))
        if folder:
            folder.save_ledger(self.ledger)

    def federated_round(self, federation: CheckedFederation, folder: CheckpointFolder | None) -> dict[str, Any]:
        started = time.perf_counter()
        trained = {name: one.train(self.shared, self.finished) for name, one in self.parties.items()}
        seconds = time.perf_counter() - started
        self.enter_sum(folder)
        mean = federation.mean({name: result.values for name, result in trained.items()}, self.finished)
        self.shared = apply_mean(self.algorithm, self.study.layout, self.shared, mean.vector)
        federation.compare_models(self.shared)
        for name, one in self.parties.items():
            one.memory = trained[name].memory
        vector = mean.vector.astype(np.float64) if isinstance(mean.vector, np.ndarray) else mean.vector
        losses = {name: result.loss for name, result in trained.items()}
        return {**_record(losses, seconds), "update_norm": mean_norm(self.study.layout, vector), **mean.costs}

    def result(self) -> TrackResult:
        if not self.algorithm.federated:
            return TrackResult(self.own, None, self.records, self.ledger)
        models = {name: one.personal(self.shared) for name, one in self.parties.items()}
        return TrackResult(models, self.shared, self.records, self.ledger)


def train_track(
    study: Study, name: str, seed: int, progress: Progress, folder: CheckpointFolder | None = None
) -> TrackResult:
    """Train one track to the end of its rounds, from its last finished round where `folder` holds one.

    Without a folder nothing is written. Raises what training and protocol raise.
    """
    torch.set_num_threads(study.config.threads)
    track = _Track(study, name, seed)
    kept = folder.load() if folder else None
    if folder:
        track.ledger = folder.load_ledger()
    if kept is not None:
        track.restore(kept)
        progress.resumed(seed, name, track.finished)
    needs_sums = track.algorithm.federated and track.finished < study.config.rounds
    federation = CheckedFederation(study) if needs_sums else None
    try:
        while track.finished < study.config.rounds:
            _one_round(track, federation, folder, progress)
    finally:
        if federation:
            federation.close()
    return track.result()


def _one_round(
    track: _Track, federation: CheckedFederation | None, folder: CheckpointFolder | None, progress: Progress
) -> None:
    """Train, add up, keep on disk, tell."""
    record = track.federated_round(federation, folder) if federation else track.local_round()
    track.finished += 1
    track.records.append({"seed": track.seed, "track": track.name, "round": track.finished, **record})
    if folder:
        folder.save(track.checkpoint())
    rounds, ring_s = track.study.config.rounds, float(record.get("ring_s", 0.0))
    progress.round_done(
        RoundReport(track.seed, track.name, track.finished, rounds, record["loss"], record["train_s"], ring_s)
    )


def _record(losses: dict[str, float], seconds: float) -> dict[str, Any]:
    mean = math.fsum(losses.values()) / len(losses)
    return {"loss": mean, "losses": losses, "train_s": seconds}

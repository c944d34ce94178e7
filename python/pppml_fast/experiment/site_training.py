"""A site's training on its own data alone: what `pppml_fast.site` drives through its rounds.

The newest state and the one before are on disk, each with the shared model, what the site keeps to itself, and where
its draws of batches stand. A change counts once it is on disk: memory follows the disk, never the other way.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from pppml_fast.aggregation.base import check_finite
from pppml_fast.errors import ConfigError, DataError, InputError, PppmlError
from pppml_fast.experiment.checkpoint import Checkpoint, StateFolder
from pppml_fast.experiment.participant import Participant, Trained, apply_mean, host_values, mean_norm
from pppml_fast.experiment.site_job import Job, Private, StoppedError
from pppml_fast.experiment.site_noise import SiteNoise
from pppml_fast.experiment.state import memory_of, memory_state, model_sha256
from pppml_fast.experiment.study import Study
from pppml_fast.experiment.tracks import algorithm_of
from pppml_fast.learning import PartyMemory, ServerState, Update, buffers_of, parameters_of
from pppml_fast.learning.checks import check_finite as check_tensors
from pppml_fast.learning.objective import LOWER_STEP
from pppml_fast.site.application import StateId, keeping

__all__ = ["Failed", "Ready", "SiteTraining", "state_id"]

Ready = Callable[[int, int, Any, Any], None]
"""``ready(round, salt, values, out)``: one flat float array in layout order, or flat tensors of a GPU, and where the
mean may be written, as `PartyMachine.contribute` takes it: mostly over the values. Called in the training's thread."""
Failed = Callable[[Exception], None]

_TORCH = threading.Lock()
"""torch has one set of global generators and one number of threads per process: one training at a time."""


@dataclass(frozen=True)
class _Kept:
    """A state on disk."""

    id: StateId
    shared: ServerState
    private: Private
    checkpoint: Checkpoint


class SiteTraining:
    """The `Application` of a site that trains one federated method on its own cases.

    ``study`` is a `site_study`, ``folder`` the site's alone, ``noise`` that of ``study.privacy``. ``ready`` and
    ``failed`` are called from a thread of the training. Raises ConfigError when the method exchanges nothing or the
    agreed noise is missing, DataError when kept states cannot be used.
    """

    def __init__(
        self,
        study: Study,
        folder: StateFolder,
        *,
        track: str,
        seed: int,
        ready: Ready,
        failed: Failed,
        noise: SiteNoise | None = None,
    ) -> None:
        self.study, self.track, self.seed, self.noise = study, track, seed, noise
        if (study.privacy is None) != (noise is None):
            raise ConfigError("noise and [privacy] go together: a site adds the noise it agreed on, and no other")
        self._algorithm = algorithm_of(study.config, track)
        if not self._algorithm.federated:
            raise ConfigError(f"method {track!r} exchanges nothing; a site trains one that does")
        module = study.network(seed)
        self._initial = self._algorithm.init(parameters_of(module), buffers_of(module))
        self._job: Job | None = None
        self._participant = Participant(
            study,
            self._algorithm,
            study.objective(module),
            study.parties[0],
            track=track,
            seed=seed,
            check=self._check_wanted,
        )
        self._folder, self._ready, self._failed = folder, ready, failed
        self._mutex = threading.Lock()
        self._running: Job | None = None
        self._threads: list[threading.Thread] = []
        self._kept: list[_Kept] = [self._restored(checkpoint) for checkpoint in folder.load()]
        self._check_sources()
        if not self._kept:
            private = Private(PartyMemory(), self._participant.source.state_dict())
            self._keep([_kept(self._initial, private, [])])

    # --- what the runtime calls -------------------------------------------------------------------------------------

    @property
    def states(self) -> tuple[StateId, ...]:
        """The kept states, newest first."""
        return tuple(kept.id for kept in self._kept)

    def train(self, round: int, salt: int) -> None:
        """Train round ``round`` from the newest state in a thread; the result goes to ``ready``.

        Raises InputError unless the newest state is of this round.
        """
        newest = self._kept[0]
        if round != newest.id.round:
            raise InputError(f"round {round} was asked for, the newest model is of round {newest.id.round}")
        with self._mutex:
            job = self._job
            if job is not None and (job.round, job.salt) == (round, salt):
                if job.result is None:
                    return
                self._start(job, lambda: self._give(job))
                return
            self._drop()
            fresh = self._job = Job(round, salt)
            self._start(fresh, lambda: self._work(fresh, newest))

    def commit(self, round: int, mean: Any) -> StateId:
        """Apply the mean of a round to the newest state: (layout.size,) float32, or what `from_vector` takes of a GPU.

        Raises InputError for another round, another length, NaN and Inf; SiteError when the disk refuses.
        """
        newest = self._kept[0]
        if round != newest.id.round:
            raise InputError(
                f"the mean of round {round} does not fit the newest model, which is of round {newest.id.round}"
            )
        shared = apply_mean(self._algorithm, self.study.layout, newest.shared, mean)
        job = self._through(round)
        record = {
            "seed": self.seed,
            "track": self.track,
            "round": shared.round,
            "update_norm": mean_norm(self.study.layout, mean),
            **({} if job is None else {"device": str(self.study.device), **job.costs()}),
        }
        private = newest.private if job is None or job.private is None else job.private
        fresh = _kept(shared, private, [*newest.checkpoint.records, record])
        self._keep([fresh, newest])
        return fresh.id

    def export(self, state: StateId) -> bytes:
        """The shared tensors of a kept state as safetensors, the server's optimiser among them.

        Raises DataError for a state that is not kept.
        """
        shared = self._find(state).shared
        data: bytes = save({name: tensor.contiguous() for name, tensor in shared.state_dict().items()})
        return data

    def adopt(self, state: StateId, data: bytes) -> None:
        """Keep what another site exported in place of all states; what is the site's own stays the site's.

        Raises DataError unless ``data`` is a model of this network that hashes to ``state``; SiteError when the disk
        refuses.
        """
        shared = self._parsed(state, data)
        private, records = self._own_part(state.round)
        records = [record for record in records if record["round"] < state.round]
        adopted = {"seed": self.seed, "track": self.track, "round": state.round, "adopted": True}
        self._keep([_kept(shared, private, [*records, adopted])])
        if self.noise is not None:
            with keeping(state.round):
                self.noise.close_round()

    def step_back(self, state: StateId) -> None:
        """Forget the newest state; ``state`` is the one before. Raises DataError when it is not kept."""
        if len(self._kept) < 2 or self._kept[1].id != state:
            raise DataError(f"the model before the newest one is not that of round {state.round}; nothing was changed")
        self._keep([self._kept[1]])

    def finished(self) -> bool:
        """Whether the newest state is the last of the training."""
        return self._kept[0].id.round >= self.study.config.rounds

    def describe(self) -> dict[str, Any]:
        """Name, method, rounds, sizes."""
        return {
            "name": self._participant.name,
            "experiment": self.study.config.name,
            "method": self.track,
            "seed": self.seed,
            "rounds": self.study.config.rounds,
            "weights": self.study.layout.size,
            "training_cases": len(self.study.parties[0].train),
        }

    # --- what its own program calls ---------------------------------------------------------------------------------

    @property
    def shared(self) -> ServerState:
        """The newest shared model."""
        return self._kept[0].shared

    @property
    def personal(self) -> ServerState:
        """The newest shared model with the site's own tensors in their places, before personalisation."""
        self._participant.memory = self._kept[0].private.memory
        return self._participant.personal(self._kept[0].shared)

    @property
    def records(self) -> list[dict[str, Any]]:
        """One record per finished round, plain JSON values."""
        return list(self._kept[0].checkpoint.records)

    def close(self) -> None:
        """End a training that is under way, at its next batch, and wait for its thread."""
        with self._mutex:
            self._drop()
            threads, self._threads = self._threads, []
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    # --- the training's thread --------------------------------------------------------------------------------------

    def _start(self, job: Job, target: Callable[[], None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        name = f"training round {job.round}"
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, job: Job, base: _Kept) -> None:
        try:
            with _TORCH:
                job.check()
                self._running = job
                torch.set_num_threads(self.study.config.threads)
                result, private = self._train(job, base)
                if self.noise is not None:
                    result = result.on_host()  # where noise is drawn
                update = result.values
                noised = None if self.noise is None else self.noise.noised(base.id, job.salt, host_values(update))
                # Nothing is ever spent under `plain`, which encrypts nothing.
                job.hold(result, noised, spends=self.study.config.aggregation.protocol != "plain")
        except StoppedError:
            return
        except Exception as error:
            with self._mutex:
                wanted = self._job is job
                self._job = None if wanted else self._job
            if wanted:
                self._failed(error)
            return
        with self._mutex:
            job.result, job.private = result, private
        self._give(job)

    def _train(self, job: Job, base: _Kept) -> tuple[Trained, Private]:
        own = self._participant
        own.memory = base.private.memory
        own.source.load_state_dict(base.private.source)
        started = time.perf_counter()
        result = own.train(base.shared, job.round, job.salt)
        job.seconds = time.perf_counter() - started
        _check_finite(result.values, self.study.layout.names)
        if not math.isfinite(result.loss):
            raise InputError(f"the loss of round {job.round} is {result.loss}; lower the step size of {self.track!r}")
        return result, Private(result.memory, own.source.state_dict())

    def _give(self, job: Job) -> None:
        with self._mutex:
            values = job.values if self._job is job else None
        if values is not None:
            self._ready(job.round, job.salt, values, job.out)

    def _check_wanted(self) -> None:
        if self._running is not None:
            self._running.check()

    def _drop(self) -> None:
        """Forget the training that is under way or through; the caller holds the mutex."""
        if self._job is not None:
            self._job.stop.set()
        self._job = None

    def _through(self, round: int) -> Job | None:
        """The training of a round whose result is there."""
        with self._mutex:
            job = self._job
        return job if job is not None and job.round == round and job.result is not None else None

    # --- states -----------------------------------------------------------------------------------------------------

    def _keep(self, states: list[_Kept]) -> None:
        try:
            self._folder.keep([kept.checkpoint for kept in states])
        except DataError:
            with keeping(states[0].id.round):
                # The disk may have refused before or after the change was made: it decides, where it can be read.
                self._kept = [self._restored(checkpoint) for checkpoint in self._folder.load()] or self._kept
                raise
        self._kept = states
        with self._mutex:
            self._drop()

    def _restored(self, checkpoint: Checkpoint) -> _Kept:
        state = checkpoint.state
        try:
            shared = self._initial.restore(state["shared"])
            private = Private(memory_of(state["memory"], self.study.device), state["source"])
        except (PppmlError, KeyError) as error:
            raise self._foreign(error) from None
        return _Kept(state_id(shared), shared, private, checkpoint)

    def _check_sources(self) -> None:
        for kept in self._kept:
            try:
                self._participant.source.load_state_dict(kept.private.source)
            except (PppmlError, KeyError, TypeError, RuntimeError) as error:
                raise self._foreign(error) from None

    def _foreign(self, error: Exception) -> DataError:
        return DataError(
            f"the states in {str(self._folder.folder)!r} are of another training ({error}); use the configuration "
            "and data they were made with, or delete that folder to take over the other sites' model"
        )

    def _find(self, state: StateId) -> _Kept:
        for kept in self._kept:
            if kept.id == state:
                return kept
        raise DataError(f"no model of round {state.round} with hash {state.hash.hex()[:16]} is kept here")

    def _parsed(self, state: StateId, data: bytes) -> ServerState:
        try:
            shared = self._initial.restore(load(data))
        except (SafetensorError, PppmlError, ValueError, RuntimeError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"the model of round {state.round} cannot be read: {reason}; ask another site") from None
        found = state_id(shared)
        if found != state:
            raise DataError(
                f"the model received is of round {found.round} with hash {found.hash.hex()[:16]}, expected round "
                f"{state.round} with {state.hash.hex()[:16]}; ask another site"
            )
        if not 0 <= state.round <= self.study.config.rounds:
            raise DataError(
                f"the model received is of round {state.round}, this training has {self.study.config.rounds}"
            )
        return shared

    def _own_part(self, round: int) -> tuple[Private, list[dict[str, Any]]]:
        """What the site keeps to itself under a model of ``round`` that it did not compute, and its records.

        Its own training of the round before is the best there is: the site may have taken part without seeing the end.
        """
        job = self._through(round - 1)
        for kept in self._kept:
            if job is not None and job.private is not None and kept.id.round == job.round:
                return job.private, kept.checkpoint.records
            if kept.id.round == round:
                return kept.private, kept.checkpoint.records
        return self._kept[0].private, self._kept[0].checkpoint.records


def _check_finite(values: Update, names: Sequence[str]) -> None:
    """Raise InputError that names the tensor of an update that holds NaN or Inf, where it lies."""
    tensors = {name: part for name, part in zip(names, values, strict=True) if isinstance(part, torch.Tensor)}
    check_tensors(tensors, "the update", LOWER_STEP)
    if not tensors:
        check_finite([part for part in values if isinstance(part, np.ndarray)], names)


def state_id(shared: ServerState) -> StateId:
    """How sites call a shared model: finished rounds, SHA-256 of its tensors."""
    return StateId(shared.round, model_sha256({"": shared}))


def _kept(shared: ServerState, private: Private, records: list[dict[str, Any]]) -> _Kept:
    state = {
        "shared": shared.state_dict(),
        "memory": memory_state(private.memory),
        "source": private.source,
    }
    return _Kept(state_id(shared), shared, private, Checkpoint(shared.round, state, records))

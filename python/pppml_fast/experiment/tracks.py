"""The board: which trainings its methods need, and the algorithm behind each.

FedAvg and FedAvg with fine-tuning are one training evaluated twice, so that they share the very same model.
"""

from __future__ import annotations

from collections.abc import Iterable

from pppml_fast.errors import ConfigError
from pppml_fast.experiment.config import (
    ExperimentConfig,
    FedAvgMethod,
    FedProxMethod,
    LocalMethod,
    MetaMethod,
)
from pppml_fast.learning import Algorithm, Variant, fedavg, fedprox, local, per_fedavg, steps_for_gradients

__all__ = ["algorithm_of", "methods_of", "personal_step_size", "reported_steps", "track_of", "tracks_of"]


def track_of(method: str) -> str:
    """The training that a method of the board is evaluated on."""
    return "fedavg" if method == "fedavg_ft" else method


def tracks_of(board: Iterable[str]) -> list[str]:
    """The trainings a board needs, each once, in order."""
    return list(dict.fromkeys(track_of(method) for method in board))


def methods_of(track: str, board: Iterable[str]) -> list[str]:
    """The methods of the board that are evaluated on a training."""
    return [method for method in board if track_of(method) == track]


def algorithm_of(config: ExperimentConfig, track: str) -> Algorithm:
    """The algorithm of a training with its step sizes; every one spends the same gradients per round.

    Raises ConfigError when the budget is no multiple of what one step of the algorithm costs.
    """
    try:
        steps = steps_for_gradients(track, config.gradients_per_round)
    except ConfigError as error:
        raise ConfigError(f"gradients_per_round = {config.gradients_per_round}: {error}") from None
    section = config.method(track)
    if isinstance(section, LocalMethod):
        return local(section.lr, steps)
    if isinstance(section, FedAvgMethod):
        return fedavg(section.lr, steps)
    if isinstance(section, FedProxMethod):
        return fedprox(section.lr, steps, section.mu)
    if isinstance(section, MetaMethod):
        variant: Variant = "fo" if track == "per_fedavg_fo" else "hf"
        return per_fedavg(variant, section.alpha, section.beta, steps, hvp_delta=section.hvp_delta)
    raise ConfigError(f"method {track!r} trains nothing of its own; put 'fedavg' on the board")


def personal_step_size(config: ExperimentConfig, method: str) -> float:
    """The step size of personalisation: the method's own, by default the one it was trained with."""
    section = config.method(method)
    if isinstance(section, FedAvgMethod):
        return section.lr
    if section.personal_lr is not None:
        return section.personal_lr
    if isinstance(section, MetaMethod):
        return section.alpha
    if isinstance(section, LocalMethod | FedProxMethod):
        return section.lr
    return config.methods.fedavg.lr


def reported_steps(config: ExperimentConfig, method: str) -> int:
    """The k that the method's `after` reports: none for FedAvg, which is not personalised."""
    return 0 if method == "fedavg" else config.reported_steps

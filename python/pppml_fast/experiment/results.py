"""What a run measured, as plain immutable values; summary, tables and plots read these and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MethodResult", "PartyInfo", "PartyScores", "RunResult", "confidence_half_width"]

# Student's t, two-sided 95 %, for 1 to 9 degrees of freedom: up to ten seeds without SciPy.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class PartyInfo:
    """One hospital: how many cases and slices it trains and is tested on, its share in the mean."""

    name: str
    cases_train: int
    cases_test: int
    slices_train: int
    slices_test: int
    weight: float


@dataclass(frozen=True)
class PartyScores:
    """Dice per test case of one hospital, for every number k of personalisation steps: ``dice[k][case]``."""

    dice: dict[int, dict[str, float]]

    def mean(self, steps: int) -> float:
        """Mean over cases after k steps."""
        return statistics.fmean(self.dice[steps].values())


@dataclass(frozen=True)
class MethodResult:
    """One method of the board: scores per seed and hospital. `steps` is the k that `after` reports."""

    name: str
    steps: int
    gradients: int
    scores: dict[int, dict[str, PartyScores]] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """Seeds the method ran with."""
        return list(self.scores)

    @property
    def all_steps(self) -> list[int]:
        """Numbers of personalisation steps that were evaluated."""
        first = next(iter(self.scores.values()))
        return sorted(next(iter(first.values())).dice)

    def party(self, party: str, steps: int) -> float:
        """Mean Dice of a hospital over its cases and the seeds, after k steps."""
        return statistics.fmean(by_party[party].mean(steps) for by_party in self.scores.values())

    def cases(self, party: str, steps: int) -> dict[str, float]:
        """Dice per case, mean over seeds, after k steps."""
        runs = [by_party[party].dice[steps] for by_party in self.scores.values()]
        return {case: statistics.fmean(run[case] for run in runs) for case in runs[0]}

    def parties(self) -> list[str]:
        """Names of the hospitals."""
        return list(next(iter(self.scores.values())))

    def mean(self, steps: int) -> float:
        """Mean over hospitals (each counts once)."""
        return statistics.fmean(self.party(name, steps) for name in self.parties())

    def worst(self, steps: int) -> float:
        """The hospital served worst."""
        return min(self.party(name, steps) for name in self.parties())

    def spread(self, steps: int) -> float:
        """Best hospital minus worst hospital."""
        return max(self.party(name, steps) for name in self.parties()) - self.worst(steps)

    def interval(self, steps: int) -> float | None:
        """Half width of the 95 % interval of the mean over seeds; None with one seed."""
        return confidence_half_width(
            [statistics.fmean(scores.mean(steps) for scores in by_party.values()) for by_party in self.scores.values()]
        )


@dataclass(frozen=True)
class RunResult:
    """A whole run. `rounds` holds one record per seed, track and round as written to the checkpoints."""

    name: str
    title: str
    parties: tuple[PartyInfo, ...]
    methods: tuple[MethodResult, ...]
    aggregation: dict[str, Any]
    rounds: tuple[dict[str, Any], ...]
    provenance: dict[str, Any]


def confidence_half_width(values: Sequence[float]) -> float | None:
    """Half width of the 95 % Student interval of the mean; None for a single value."""
    if len(values) < 2:
        return None
    t = _T_95[len(values) - 2] if len(values) - 2 < len(_T_95) else 1.96
    return t * statistics.stdev(values) / math.sqrt(len(values))


def mean_of(records: Iterable[dict[str, Any]], key: str) -> float:
    """Mean of a numeric entry over records; 0 where there are none."""
    values = [float(record[key]) for record in records]
    return statistics.fmean(values) if values else 0.0

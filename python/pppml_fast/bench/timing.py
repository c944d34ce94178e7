"""Interleaved repetitions: every case, then every case again, so that all of them see the same weather."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pppml_fast.bench.rows import Row

__all__ = ["Case", "measure"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """One operation to time: ``run(prepare())`` is timed, ``check(result)`` is not.

    ``check`` asserts the answer and returns its largest error (0 where it is exact). ``clock`` takes seconds from the
    result where the work is done, and timed, in another process.
    """

    system: str
    setting: str
    operation: str
    backend: str
    threads: int
    weights: int
    bytes_per_weight: float | None
    run: Callable[[Any], Any]
    check: Callable[[Any], float]
    prepare: Callable[[], Any] = lambda: None
    clock: Callable[[Any], float] | None = None
    moved_bytes_per_weight: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """``system setting operation``."""
        return f"{self.system} {self.setting} {self.operation}"


def measure(cases: Sequence[Case], repetitions: int, progress: Progress = lambda text: None) -> tuple[Row, ...]:
    """The median of ``repetitions`` timed runs of every case, each right after an untimed one.

    The untimed run leaves code, tables and what fits of the data in the caches, where the case before left its own.
    Every timed run's answer is checked; raises AssertionError when one is wrong.
    """
    seconds: list[list[float]] = [[] for _ in cases]
    errors = [0.0] * len(cases)
    for repetition in range(repetitions):
        progress(f"repetition {repetition + 1} of {repetitions}")
        for index, case in enumerate(cases):
            case.run(case.prepare())
            taken, error = _once(case)
            errors[index] = max(errors[index], error)
            seconds[index].append(taken)
    return tuple(_row(case, taken, error) for case, taken, error in zip(cases, seconds, errors, strict=True))


def _once(case: Case) -> tuple[float, float]:
    argument = case.prepare()
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        result = case.run(argument)
        taken = time.perf_counter() - start
    finally:
        if collecting:
            gc.enable()
    if case.clock is not None:
        taken = case.clock(result)
    return taken, float(case.check(result))


def _row(case: Case, seconds: list[float], error: float) -> Row:
    scale = 1e9 / case.weights
    return Row(
        system=case.system,
        setting=case.setting,
        operation=case.operation,
        backend=case.backend,
        threads=case.threads,
        ns_per_weight=statistics.median(seconds) * scale,
        bytes_per_weight=case.bytes_per_weight,
        weights=case.weights,
        repetitions=len(seconds),
        ns_least=min(seconds) * scale,
        ns_most=max(seconds) * scale,
        max_error=error,
        moved_bytes_per_weight=case.moved_bytes_per_weight,
        note=case.note,
    )

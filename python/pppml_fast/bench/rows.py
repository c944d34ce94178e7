"""What a benchmark reports: rows, the machine they come from, and ratios between rows of one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pppml_fast.errors import DataError

__all__ = ["OPERATIONS", "OURS", "Ratio", "Report", "Row", "SetupRow"]

OURS = "pppml_fast"
MEMORY = "memory"
OPERATIONS = (
    "encrypt",
    "encrypt_prepared",
    "pack",
    "unpack",
    "add2",
    "add16",
    "hop",
    "open",
    "stream_encrypt",
    "stream_open",
    "memcpy",
)

# The plain memory loops that a memory-bound operation is held against: one with as many streams, and for the long sum
# also the addition of two, whose share of the machine's bandwidth is the larger.
_MEMORY_LOOPS = {
    "add2": ("add2",),
    "add16": ("add16", "add2"),
    "hop": ("add2",),
    "encrypt_prepared": ("memcpy",),
}


@dataclass(frozen=True)
class Row:
    """One operation of one system: median nanoseconds per weight over ``repetitions``, with the extremes.

    ``bytes_per_weight`` is what travels, headers included, or None where nothing does. ``moved_bytes_per_weight`` is
    the memory traffic the operation cannot avoid (bytes read plus written), where that is its limit.
    ``max_error`` is the largest error of the answer against the exact sum; 0 for exact systems.
    """

    system: str
    setting: str
    operation: str
    backend: str
    threads: int
    ns_per_weight: float
    bytes_per_weight: float | None
    weights: int
    repetitions: int
    ns_least: float
    ns_most: float
    max_error: float
    moved_bytes_per_weight: float | None = None
    note: str = ""


@dataclass(frozen=True)
class SetupRow:
    """Something paid once, whatever the number of weights: median milliseconds, with the extremes."""

    system: str
    setting: str
    operation: str
    ms: float
    ms_least: float
    ms_most: float
    repetitions: int
    note: str = ""


@dataclass(frozen=True)
class Ratio:
    """``value`` times better than ``against`` in the same run.

    ``kind`` is "time" (their time ÷ ours), "bytes" (theirs ÷ ours), "bandwidth" (our share of the bandwidth of the
    memory loop ``against``; 1 is its speed) or "threads" (our time on one thread ÷ that on several).
    """

    setting: str
    operation: str
    against: str
    kind: str
    value: float


@dataclass(frozen=True)
class Report:
    """All rows of one run."""

    rows: tuple[Row, ...]
    setup: tuple[SetupRow, ...]
    machine: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def ratios(self) -> tuple[Ratio, ...]:
        """Every ratio between our rows and the peers' and memory loops' rows of this run."""
        found: list[Ratio] = []
        for mine in (row for row in self.rows if row.system == OURS):
            for other in self.rows:
                found.extend(_ratios(mine, other))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; ``schema/bench.schema.json`` describes it."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "setup": [dataclasses.asdict(row) for row in self.setup],
            "ratios": [dataclasses.asdict(ratio) for ratio in self.ratios()],
            "machine": dict(self.machine),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report that :meth:`to_dict` wrote; its ratios are computed anew. Raises DataError on anything else."""
        try:
            rows = tuple(Row(**row) for row in values["rows"])
            setup = tuple(SetupRow(**row) for row in values["setup"])
            return cls(rows, setup, dict(values["machine"]), tuple(values["notes"]))
        except (KeyError, TypeError) as error:
            raise DataError(f"not a report of pppml bench: {error}; write one with pppml bench --json FILE") from None


def _ratios(mine: Row, other: Row) -> list[Ratio]:
    if other.system == OURS:
        return _scaling(mine, other)
    if other.threads != mine.threads:
        return []
    if other.system == MEMORY:
        if other.operation not in _MEMORY_LOOPS.get(mine.operation, ()):
            return []
        if not mine.moved_bytes_per_weight or not other.moved_bytes_per_weight:
            return []
        share = (mine.moved_bytes_per_weight / mine.ns_per_weight) / (
            other.moved_bytes_per_weight / other.ns_per_weight
        )
        return [Ratio(mine.setting, mine.operation, f"{MEMORY} {other.operation}", "bandwidth", share)]
    if other.operation != mine.operation:
        return []
    against = f"{other.system} {other.setting}"
    found = [Ratio(mine.setting, mine.operation, against, "time", other.ns_per_weight / mine.ns_per_weight)]
    if mine.operation == "encrypt" and mine.bytes_per_weight and other.bytes_per_weight:
        smaller = other.bytes_per_weight / mine.bytes_per_weight
        found.append(Ratio(mine.setting, mine.operation, against, "bytes", smaller))
    return found


def _scaling(mine: Row, other: Row) -> list[Ratio]:
    same = (mine.setting, mine.operation) == (other.setting, other.operation)
    if not same or other.threads != 1 or mine.threads == 1:
        return []
    against = f"1 thread, on {mine.threads}"
    return [Ratio(mine.setting, mine.operation, against, "threads", other.ns_per_weight / mine.ns_per_weight)]

"""Rows of a network benchmark: medians of rounds, ratios within pairs, the model of the pipeline, the aims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from pppml_fast import CkksParams
from pppml_fast.bench.network_split import STEPS

__all__ = ["Result", "Run", "Shape", "markdown", "to_json", "verdicts"]

_SHAPED_AIM, _LOOPBACK_AIM, _BYTES_AIM, _MEMORY_AIM = 1.10, 1.30, 1.02, 256 << 20
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Shape:
    """What is measured: parties in ring order, rate of each one's link each way (None: loopback), and sizes.

    ``isolated``: the network's counters count these parties alone.
    """

    parties: tuple[str, ...]
    mbit: float | None
    weights: int
    chunk_blocks: int
    threads: int
    isolated: bool = True

    @property
    def link(self) -> str:
        """The link in words."""
        return "loopback" if self.mbit is None else f"{self.mbit:g} Mbit/s"

    def describe(self) -> str:
        """The shape in words."""
        return f"ring of {len(self.parties)}, {self.link}, {self.weights:,} weights"


@dataclass(frozen=True)
class Run:
    """One round: wall seconds from the first party's beginning to the last one's mean, and each party's figures."""

    encrypted: bool
    seconds: float
    parties: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, encrypted: bool, told: Mapping[str, Mapping[str, Any]]) -> Run:
        """The round that the parties told of. Raises AssertionError where a mean is not exact."""
        for name, figures in told.items():
            assert figures["exact"], f"{figures['wrong']} values of {name}'s mean are wrong"
        ended = max(figures["ended"] for figures in told.values())
        return cls(encrypted, ended - min(figures["began"] for figures in told.values()), told)

    def cpu(self) -> float:
        """CPU seconds of all parties."""
        return float(sum(figures["user_s"] + figures["system_s"] for figures in self.parties.values()))

    def sent(self, shared: bool) -> int:
        """Bytes that all parties' devices sent; ``shared``: they have one device together."""
        counted = [int(figures["sent"]) for figures in self.parties.values()]
        return max(counted) if shared else sum(counted)

    def highest(self) -> int:
        """The largest party's highest memory so far, bytes."""
        return max(int(figures["highest"]) for figures in self.parties.values())

    def split(self) -> dict[str, float]:
        """CPU seconds per party by step, links and kernel last."""
        count = len(self.parties)
        steps = {step: sum(f["split"].get(step, 0.0) for f in self.parties.values()) / count for step in STEPS}
        return {**steps, "links": self.cpu() / count - sum(steps.values())}


@dataclass(frozen=True)
class Result:
    """Pairs of rounds (plain, encrypted) of one shape."""

    shape: Shape
    params: CkksParams
    pairs: Sequence[tuple[Run, Run]]

    def ratio(self) -> float:
        """Encrypted over plain, wall time: median of the pairs."""
        return median(theirs.seconds / plain.seconds for plain, theirs in self.pairs)

    def cpu_ratio(self) -> float:
        """Encrypted over plain, CPU time of all parties: median of the pairs."""
        return median(theirs.cpu() / plain.cpu() for plain, theirs in self.pairs)

    def bytes_ratio(self) -> float | None:
        """Encrypted over plain, bytes that left: median of the pairs; None where others share the counters."""
        if not self.shape.isolated:
            return None
        shared = self.shape.mbit is None
        return median(theirs.sent(shared) / plain.sent(shared) for plain, theirs in self.pairs)

    def runs(self, encrypted: bool) -> list[Run]:
        """The rounds of one kind."""
        return [pair[int(encrypted)] for pair in self.pairs]

    def beyond_model(self, encrypted: bool) -> int:
        """Memory of the largest party's process beyond 4 bytes per weight, bytes."""
        return max(run.highest() for run in self.runs(encrypted)) - _FLOAT_BYTES * self.shape.weights

    def chunks(self) -> int:
        """Chunks of the grid."""
        return -(-self.params.block_count(self.shape.weights) // self.shape.chunk_blocks)

    def predicted(self, encrypted: bool) -> float | None:
        """Seconds by the model: chunks + 2n chunk times of the busiest link, where links have a rate.

        A party between two others sends a chunk on and the sum's chunk back in each chunk time, over one link.
        """
        if self.shape.mbit is None:
            return None
        blocks = min(self.shape.chunk_blocks, self.params.block_count(self.shape.weights))
        size = blocks * self.params.block_weights * _FLOAT_BYTES
        if encrypted:
            size = int(self.params._scheme.packed_bytes(self.shape.weights, True, 0, blocks))
        return (self.chunks() + 2 * len(self.shape.parties)) * 2 * size * 8 / (self.shape.mbit * 1e6)

    def row(self, encrypted: bool) -> dict[str, Any]:
        """One row, plain JSON values."""
        runs = self.runs(encrypted)
        seconds = [run.seconds for run in runs]
        count = len(self.shape.parties)
        return {
            "kind": "encrypted" if encrypted else "plain float32",
            "parties": count,
            "link": self.shape.link,
            "weights": self.shape.weights,
            "chunk_blocks": self.shape.chunk_blocks,
            "chunks": self.chunks(),
            "seconds": median(seconds),
            "seconds_all": seconds,
            "predicted_s": self.predicted(encrypted),
            "ratio": self.ratio() if encrypted else None,
            "cpu_ratio": self.cpu_ratio() if encrypted else None,
            "bytes_ratio": self.bytes_ratio() if encrypted else None,
            "bytes_sent": median(run.sent(self.shape.mbit is None) for run in runs),
            "beyond_model_mib": self.beyond_model(encrypted) / 2**20,
            "cpu_s_per_party": median(run.cpu() / count for run in runs),
            "system_s_per_party": median(sum(f["system_s"] for f in run.parties.values()) / count for run in runs),
            "cpu_split_s": {key: median(run.split()[key] for run in runs) for key in (*STEPS, "links")},
            "exact": True,
        }


def to_json(results: Sequence[Result], machine: Mapping[str, Any]) -> dict[str, Any]:
    """All rows, all rounds, provenance and verdicts."""
    return {
        "format": "pppml network bench 1",
        "machine": dict(machine),
        "rows": [result.row(encrypted) for result in results for encrypted in (False, True)],
        "rounds": [
            {"parties": len(result.shape.parties), "link": result.shape.link, **asdict(run)}
            for result in results
            for pair in result.pairs
            for run in pair
        ],
        "verdicts": verdicts(results),
    }


_HEAD = (
    "ring of",
    "link",
    "bytes",
    "weights",
    "seconds",
    "least … most",
    "(chunks + 2n) model",
    "ratio",
    "CPU ratio",
    "bytes ratio",
    "MiB beyond the model",
    "CPU s per party",
)


def markdown(results: Sequence[Result], machine: Mapping[str, Any]) -> str:
    """Tables of the rows and of the CPU split, and where they come from."""
    rows = [result.row(encrypted) for result in results for encrypted in (False, True)]
    provenance = f"{machine['cpu']}, {machine['cores']} cores, load {machine['load'][0]}, {machine['date'][:16]}"
    split = [[str(row["parties"]), row["link"], row["kind"], *_split_cells(row)] for row in rows]
    head = ["ring of", "link", "bytes", *STEPS, "links", "of all: kernel"]
    return "\n".join(
        [
            f"The ring over networks, {provenance}, commit {machine['commit']}",
            "",
            _table(_HEAD, [_cells(row) for row in rows]),
            "",
            "CPU seconds per party and round by step (links: gRPC, TLS and the kernel's part on their threads)",
            "",
            _table(head, split),
            "",
        ]
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    least, most = min(row["seconds_all"]), max(row["seconds_all"])
    return [
        str(row["parties"]),
        row["link"],
        row["kind"],
        f"{row['weights']:,}",
        f"{row['seconds']:.2f}",
        f"{least:.2f} … {most:.2f}",
        "" if row["predicted_s"] is None else f"{row['predicted_s']:.2f} s",
        *("" if row[key] is None else f"{row[key]:.3f}" for key in ("ratio", "cpu_ratio", "bytes_ratio")),
        f"{row['beyond_model_mib']:.0f}",
        f"{row['cpu_s_per_party']:.2f}",
    ]


def _split_cells(row: Mapping[str, Any]) -> list[str]:
    return [*(f"{row['cpu_split_s'][step]:.2f}" for step in (*STEPS, "links")), f"{row['system_s_per_party']:.2f}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def verdicts(results: Sequence[Result]) -> list[str]:
    """One line per aim and shape: met, or missed by how much."""
    found = []
    for result in results:
        shape = result.shape
        aim = _LOOPBACK_AIM if shape.mbit is None else _SHAPED_AIM
        where = f"ring of {len(shape.parties)}, {shape.link}"
        found.append(f"{where}: encrypted / plain time {result.ratio():.3f}, {_verdict(result.ratio(), aim)}")
        sent = result.bytes_ratio()
        told = "not measured, others use this device" if sent is None else f"{sent:.4f}, {_verdict(sent, _BYTES_AIM)}"
        found.append(f"{where}: bytes on the wire {told}")
        beyond = result.beyond_model(True) / 2**20
        found.append(f"{where}: model + {beyond:.0f} MiB per party, {_verdict(beyond, _MEMORY_AIM / 2**20)}")
    return found


def _verdict(value: float, aim: float) -> str:
    if value <= aim:
        return f"met (aim <= {aim:g})"
    return f"missed by {100 * (value / aim - 1):.0f} % (aim <= {aim:g})"

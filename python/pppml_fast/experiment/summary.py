"""`summary.json` and the CSV tables of a run."""

from __future__ import annotations

import csv
import io
import json
from importlib.resources import files
from typing import Any

from pppml_fast.experiment.results import MethodResult, RunResult

__all__ = ["case_table", "round_table", "score_table", "summary_of", "summary_schema"]

FORMAT = "pppml-summary-1"


def summary_schema() -> dict[str, Any]:
    """The JSON Schema that every `summary.json` follows."""
    text = (files("pppml_fast.experiment") / "schema" / "summary.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def summary_of(result: RunResult) -> dict[str, Any]:
    """The summary of a run, following `summary_schema`."""
    return {
        "format": FORMAT,
        "name": result.name,
        "parties": [vars(party).copy() for party in result.parties],
        "methods": {method.name: _method(method) for method in result.methods},
        "aggregation": result.aggregation,
        "provenance": result.provenance,
    }


def _method(method: MethodResult) -> dict[str, Any]:
    steps = method.steps
    return {
        "mean": method.mean(steps),
        "worst": method.worst(steps),
        "spread": method.spread(steps),
        "interval": method.interval(steps),
        "steps": steps,
        "gradients": method.gradients,
        "by_steps": {str(k): {"mean": method.mean(k), "worst": method.worst(k)} for k in method.all_steps},
        "per_party": {name: _party(method, name) for name in method.parties()},
    }


def _party(method: MethodResult, name: str) -> dict[str, Any]:
    before, after = method.cases(name, 0), method.cases(name, method.steps)
    return {
        "before": method.party(name, 0),
        "after": method.party(name, method.steps),
        "cases": [{"name": case, "before": before[case], "after": after[case]} for case in before],
    }


def score_table(result: RunResult) -> str:
    """CSV: one line per method, hospital, seed and number of personalisation steps."""
    rows = [
        [method.name, party, seed, steps, f"{by_party[party].mean(steps):.6f}"]
        for method in result.methods
        for seed, by_party in method.scores.items()
        for party in by_party
        for steps in method.all_steps
    ]
    return _csv(["method", "party", "seed", "personal_steps", "dice"], rows)


def case_table(result: RunResult) -> str:
    """CSV: one line per method, hospital, seed, test case and number of personalisation steps."""
    rows = [
        [method.name, party, seed, case, steps, f"{dice:.6f}"]
        for method in result.methods
        for seed, by_party in method.scores.items()
        for party, scores in by_party.items()
        for steps in method.all_steps
        for case, dice in scores.dice[steps].items()
    ]
    return _csv(["method", "party", "seed", "case", "personal_steps", "dice"], rows)


ROUND_COLUMNS = (
    "seed",
    "track",
    "round",
    "loss",
    "update_norm",
    "train_s",
    "encrypt_s",
    "add_s",
    "open_s",
    "ring_s",
    "plain_s",
    "bytes_ring",
    "overhead_bytes",
    "clipped",
    "max_difference_from_plain",
)


def round_table(result: RunResult) -> str:
    """CSV: one line per seed, track and round: loss, seconds, bytes, difference from the plain sum."""
    rows = [[record.get(column, "") for column in ROUND_COLUMNS] for record in result.rounds]
    return _csv(list(ROUND_COLUMNS), rows)


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()

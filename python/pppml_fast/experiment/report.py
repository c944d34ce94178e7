"""`report.html`: one file that needs nothing else, images included."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any

from pppml_fast.experiment import plots
from pppml_fast.experiment.privacy import privacy_lines, privacy_statement
from pppml_fast.experiment.results import RunResult

__all__ = ["figures_of", "identity_line", "render_report"]


def figures_of(result: RunResult, overlay: bytes | None = None) -> dict[str, bytes]:
    """The figures of a run by file name, PNG. `overlay` is given for phantoms only."""
    figures = {
        "dice_by_hospital.png": plots.dice_by_hospital(result),
        "dice_by_steps.png": plots.dice_by_steps(result),
        "training_loss.png": plots.training_curves(result),
    }
    if result.aggregation["rounds"]:
        figures["round_cost.png"] = plots.aggregation_cost(result.aggregation)
    if overlay is not None:
        figures["examples.png"] = overlay
    return figures


def identity_line(aggregation: dict[str, Any]) -> str:
    """Whether the encrypted federation trained the very model that a plain one would have."""
    rounds = aggregation["rounds"]
    if not rounds:
        return "No federated method ran, so nothing was encrypted."
    if aggregation["protocol"] == "plain":
        return "This run was not encrypted: the parties' quantised updates were added in plain."
    if aggregation["identical_models"]:
        return (
            f"Plain and encrypted models are identical bit for bit: in all {rounds} rounds the opened sum "
            "equalled "
            "the plain sum of the same quantised updates in every bit (largest difference: 0)."
        )
    difference = aggregation["max_difference_from_plain"]
    return f"Plain and encrypted models DIFFER by up to {difference:g} quantisation steps: do not use them."


def render_report(result: RunResult, figures: dict[str, bytes]) -> str:
    """The report as HTML text; figures (from `figures_of`) are embedded as data URIs."""
    from jinja2 import Environment, StrictUndefined

    text = (files("pppml_fast.experiment") / "templates" / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    embedded = {
        key: _data_uri(figures[name]) if name in figures else ""
        for key, name in (
            ("hospitals", "dice_by_hospital.png"),
            ("steps", "dice_by_steps.png"),
            ("curves", "training_loss.png"),
            ("cost", "round_cost.png"),
            ("overlays", "examples.png"),
        )
    }
    provenance = result.provenance
    return environment.from_string(text).render(
        title=result.title or result.name,
        subtitle=f"{result.name}, {provenance['started']}, seeds {', '.join(map(str, provenance['seeds']))}",
        parties=result.parties,
        gradients=max(method.gradients for method in result.methods),
        rows=_rows(result),
        cases=_cases(result),
        interval_note=_interval_note(result),
        images=embedded,
        identical=bool(result.aggregation["identical_models"]),
        proof=identity_line(result.aggregation),
        cost=cost_lines(result.aggregation),
        privacy_statement=privacy_statement(result.aggregation.get("privacy")),
        privacy=privacy_lines(result.aggregation.get("privacy")),
        provenance=_provenance_lines(provenance),
        config=json.dumps(provenance["config"], indent=2),
        models="\n".join(f"{name}  {digest}" for name, digest in provenance["models"].items()),
    )


def cost_lines(aggregation: dict[str, Any]) -> list[tuple[str, str]]:
    """What encryption cost, as pairs of a name and a value with its unit."""
    if not aggregation["rounds"]:
        return []
    kilobytes = aggregation["overhead_bytes"] / 1024
    return [
        ("protocol", f"{aggregation['protocol']}, {aggregation['topology']}"),
        ("parameters", f"{aggregation['params']}, security level {aggregation['level']}"),
        ("precision", f"{aggregation['exact_bits']:.1f} exact bits, step {aggregation['step']:.3g}"),
        ("weights per update", f"{aggregation['weights']:,} in {aggregation['ciphertexts']} blocks"),
        ("bytes per weight", f"{aggregation['bytes_per_weight']:.3f} (float32: 4)"),
        ("key shares and control", f"{kilobytes:.1f} KiB per hospital and round"),
        ("encrypt, slowest hospital", _milliseconds(aggregation["encrypt_s"])),
        ("add, slowest hospital", _milliseconds(aggregation["add_s"])),
        ("open, slowest hospital", _milliseconds(aggregation["open_s"])),
        ("whole aggregation, all hospitals on this machine", _milliseconds(aggregation["ring_s"])),
        ("the same sum in plain", _milliseconds(aggregation["plain_s"])),
        ("share of the round", f"{100 * aggregation['share_of_round']:.2f} %"),
        ("values clipped", f"{100 * aggregation['clipped_share']:.3g} %"),
        ("largest difference from plain", f"{aggregation['max_difference_from_plain']:g}"),
    ]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms per round"


def _rows(result: RunResult) -> list[dict[str, Any]]:
    names = [party.name for party in result.parties]
    best = {name: max(method.party(name, method.steps) for method in result.methods) for name in names}
    best_mean = max(method.mean(method.steps) for method in result.methods)
    rows = []
    for method in result.methods:
        cells = [
            {
                "before": method.party(name, 0),
                "after": method.party(name, method.steps),
                "best": method.party(name, method.steps) == best[name],
            }
            for name in names
        ]
        rows.append(
            {
                "title": plots.METHOD_TITLES[method.name],
                "steps": method.steps,
                "cells": cells,
                "mean": method.mean(method.steps),
                "worst": method.worst(method.steps),
                "spread": method.spread(method.steps),
                "interval": method.interval(method.steps),
                "best": method.mean(method.steps) == best_mean,
            }
        )
    return rows


def _cases(result: RunResult) -> list[dict[str, Any]]:
    return [
        {
            "party": party.name,
            "name": case,
            "scores": [method.cases(party.name, method.steps)[case] for method in result.methods],
        }
        for party in result.parties
        for case in result.methods[0].cases(party.name, 0)
    ]


def _interval_note(result: RunResult) -> str:
    count = len(result.provenance["seeds"])
    if count == 1:
        return "One seed: no interval can be given, and small differences mean nothing."
    return f"± is the half width of the 95 % interval over {count} seeds."


def _provenance_lines(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    machine = ", ".join(f"{name} {value}" for name, value in provenance["machine"].items())
    data = ", ".join(f"{name} {value}" for name, value in provenance["data"].items())
    return [
        ("command", provenance["command"]),
        ("started (UTC)", provenance["started"]),
        ("seconds", f"{provenance['seconds']:.0f}" + (" (resumed)" if provenance.get("resumed") else "")),
        ("seeds", ", ".join(map(str, provenance["seeds"]))),
        ("versions", versions),
        ("machine", machine),
        ("data", data),
    ]


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

"""The files that a finished run leaves: summary, tables, plots, report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pppml_fast.aggregation.accounting import PrivacyLedger
from pppml_fast.experiment import plots
from pppml_fast.experiment.cards import load_model
from pppml_fast.experiment.config import PhantomData
from pppml_fast.experiment.files import write_bytes, write_json, write_text
from pppml_fast.experiment.folder import RunFolder
from pppml_fast.experiment.privacy import privacy_summary
from pppml_fast.experiment.report import figures_of, render_report
from pppml_fast.experiment.results import RunResult, mean_of
from pppml_fast.experiment.study import Study
from pppml_fast.experiment.summary import case_table, round_table, score_table, summary_of
from pppml_fast.imaging import predict_case

__all__ = ["aggregation_summary", "write_outputs"]

# The pictured method is fixed beforehand: picking the best one would pick by the test cases.
PICTURED = ("per_fedavg_hf", "per_fedavg_fo", "fedavg_ft", "fedprox", "local")


def write_outputs(study: Study, result: RunResult, folder: RunFolder) -> None:
    """Write summary.json, three CSV tables, plots and report.html into the run's folder, the summary last."""
    figures = figures_of(result, _examples(study, folder))
    for name, png in figures.items():
        write_bytes(folder.path / "plots" / name, png)
    write_text(folder.path / "scores.csv", score_table(result))
    write_text(folder.path / "cases.csv", case_table(result))
    write_text(folder.path / "rounds.csv", round_table(result))
    write_text(folder.path / "report.html", render_report(result, figures))
    write_json(folder.path / "summary.json", summary_of(result))


def aggregation_summary(
    study: Study, records: list[dict[str, Any]], ledgers: Mapping[str, PrivacyLedger] | None = None
) -> dict[str, Any]:
    """The summary's `aggregation`: means over all federated rounds, the largest difference from plain, and privacy.

    ``ledgers`` count the noised sums of each training.
    """
    sums = [record for record in records if "ring_s" in record]
    params, section = study.params, study.config.aggregation
    plain = section.protocol == "plain"
    train, ring = mean_of(sums, "train_s"), mean_of(sums, "ring_s")
    means = {
        key: mean_of(sums, key)
        for key in (
            "bytes_per_weight",
            "bytes_ring",
            "overhead_bytes",
            "encrypt_s",
            "add_s",
            "open_s",
            "ring_s",
            "plain_s",
            "train_s",
            "clipped_share",
        )
    }
    return {
        "protocol": section.protocol,
        "topology": section.topology,
        "params": params.name,
        "level": "none" if plain else params.level,
        "exact_bits": float(params.exact_bits),
        "step": float(params.step),
        "weights": study.layout.size,
        "ciphertexts": 0 if plain else params.block_count(study.layout.size),
        "rounds": len(sums),
        **means,
        "share_of_round": ring / (ring + train) if ring + train > 0 else 0.0,
        "max_difference_from_plain": max((record["max_difference_from_plain"] for record in sums), default=0),
        "identical_models": all(record["identical"] for record in sums),
        **_privacy(study, sums, ledgers or {}),
    }


def _privacy(study: Study, sums: list[dict[str, Any]], ledgers: Mapping[str, PrivacyLedger]) -> dict[str, Any]:
    if study.privacy is None:
        return {}
    noised = len(sums) * len(study.parties)
    clipped = sum(record["l2_clipped"] for record in sums) / noised if noised else 0.0
    saturated = sum(record["saturated"] for record in sums)
    return {"privacy": {**privacy_summary(study.privacy, ledgers), "l2_clipped_share": clipped, "saturated": saturated}}


def _examples(study: Study, folder: RunFolder) -> bytes | None:
    """Overlays of phantoms; None for real data, whose pixels never enter a report."""
    config = study.config
    method = next((name for name in PICTURED if name in config.board), None)
    if not isinstance(config.data, PhantomData) or method is None:
        return None
    panels: list[plots.Panel] = []
    for party in study.parties:
        model = load_model(folder.card(config, config.seeds[0], method, party.name))
        case = party.test[0]
        prediction = predict_case(
            model.module(),
            model.params,
            model.buffers,
            case,
            model.threshold,
            neighbours=model.neighbours,
            multiple=model.spec.multiple,
            window=model.spec.window,
        )
        widest = int(np.argmax(case.mask.sum(axis=(1, 2))))
        panels.append((party.name, case.image[widest], case.mask[widest], prediction[widest]))
    return plots.overlays(panels)

"""Noise in an experiment: from the `[privacy]` section to the agreed terms, and what the report says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pppml_fast.aggregation.accounting import PrivacyLedger, epsilon
from pppml_fast.aggregation.sharing import default_threshold
from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.privacy import PrivacyPlan, PrivacyTerms, private_parameters, tolerated_colluders

__all__ = [
    "noise_asked",
    "plan_of",
    "planned_epsilon",
    "planned_lines",
    "privacy_lines",
    "privacy_statement",
    "privacy_summary",
]


def noise_asked(config: ExperimentConfig) -> bool:
    """Whether a configuration asks for noise. It is drawn on the host, so that updates are encrypted there, too."""
    return config.privacy is not None and config.privacy.mechanism != "none"


def plan_of(config: ExperimentConfig, weights: Mapping[str, float], length: int) -> PrivacyPlan | None:
    """The noise that a configuration asks for, on a set with room for it; None where it asks for none.

    Raises ParameterError when no set fits.
    """
    section, parties = config.privacy, len(weights)
    if section is None or section.mechanism == "none":
        return None
    colluders = section.colluders
    if colluders is None:
        colluders = tolerated_colluders(parties, default_threshold(parties))
    terms = PrivacyTerms(
        mechanism=section.mechanism,
        l2_clip=section.l2_clip,
        noise_multiplier=section.noise_multiplier,
        delta=section.delta,
        colluders=colluders,
        rounds=config.rounds,
        largest_weight=max(parties * share for share in weights.values()),
    )
    aggregation = config.aggregation
    params = private_parameters(terms, parties=parties, length=length, name=aggregation.params, level=aggregation.level)
    return PrivacyPlan.of(terms, params, parties=parties, length=length)


def privacy_summary(plan: PrivacyPlan, ledgers: Mapping[str, PrivacyLedger]) -> dict[str, Any]:
    """The summary's `aggregation.privacy`: the terms, and epsilon by the sums that each training released.

    ``ledgers`` are by training. An epsilon is None where nothing is guaranteed.
    """
    terms = plan.terms
    honest = terms.honest(plan.parties)
    trainings = {name: sum(ledger.releases.values()) for name, ledger in ledgers.items()}
    run: dict[int, int] = {}
    for ledger in ledgers.values():
        for count, sums in ledger.releases.items():
            run[count] = run.get(count, 0) + sums
    each = [epsilon(plan, ledger.releases) for ledger in ledgers.values()]
    return {
        "mechanism": terms.mechanism,
        "l2_clip": terms.l2_clip,
        "noise_multiplier": terms.noise_multiplier,
        "noise_deviation": plan.deviation * plan.params.step,
        "delta": terms.delta,
        "colluders": terms.colluders,
        "honest": honest,
        "sums": trainings,
        "epsilon_per_sum": _finite(epsilon(plan, {honest: 1})),
        "epsilon_training": _finite(max(each, default=0.0)),
        "epsilon_run": _finite(epsilon(plan, run)),
        "epsilon_run_replaced": _finite(epsilon(plan, run, replace=True)),
        "epsilon_run_by_colluders": {
            str(colluders): _finite(epsilon(plan, {plan.parties - colluders: sum(run.values())}))
            for colluders in range(1, plan.parties - 1)
        },
    }


def privacy_statement(privacy: dict[str, Any] | None) -> str:
    """One paragraph: what the noise protects, against whom, and what it does not."""
    if privacy is None:
        return (
            "No noise was added: encryption hides single updates, but the sums are exact, and what they tell about "
            "one hospital is not bounded."
        )
    if privacy["epsilon_run"] is None:
        return (
            f"Noise was added, too little of it: over the sums of this run no epsilon worth stating (below about 50) "
            f"holds at delta {privacy['delta']:g}. Treat the sums as exact, or raise noise_multiplier."
        )
    run = _number(privacy["epsilon_run"])
    # A member knows its own noise, so that even one curious member is a coalition.
    whom = f"everyone who sees the sums and coalitions of up to {privacy['colluders']} other members"
    if privacy["colluders"] == 0:
        whom = "outsiders who see the sums, but against no member"
    return (
        f"(epsilon, delta) = ({run}, {privacy['delta']:g}) over all sums of this run, by the noise of "
        f"{privacy['honest']} honest members alone. Protected is whether one hospital's updates, in every round of "
        "every training, were its own or zero, against "
        f"{whom}; where any other updates might have stood in their place it is "
        f"{_number(privacy['epsilon_run_replaced'])}. Not protected: single patients (that needs DP-SGD inside "
        "training), personal models, scores and losses, which never passed through the noise. Larger epsilon protects "
        "less; above about 10 the guarantee says little."
    )


def privacy_lines(privacy: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The same as pairs of a name and a value."""
    if privacy is None:
        return []
    coalitions = ", ".join(
        f"{colluders} colluding: {_number(value)}" for colluders, value in privacy["epsilon_run_by_colluders"].items()
    )
    return [
        ("noise", f"{privacy['mechanism']}, deviation {privacy['noise_deviation']:.3g} per member and weight"),
        ("L2 clip of a whole update", f"{privacy['l2_clip']:g}"),
        ("noise multiplier", f"{privacy['noise_multiplier']:g}, from {privacy['honest']} honest members"),
        ("sums released", ", ".join(f"{name} {count}" for name, count in privacy["sums"].items()) or "none"),
        ("epsilon of one sum", _number(privacy["epsilon_per_sum"])),
        ("epsilon of the longest training", _number(privacy["epsilon_training"])),
        ("epsilon of the whole run", f"{_number(privacy['epsilon_run'])} at delta {privacy['delta']:g}"),
        ("epsilon of the whole run by coalition", coalitions),
    ]


def planned_lines(plan: PrivacyPlan | None, sums: Mapping[str, int]) -> list[tuple[str, str]]:
    """What a run with these sums per training will cost in privacy, before it starts."""
    if plan is None:
        return [("privacy", "none: sums are exact")]
    honest = plan.terms.honest(plan.parties)
    ledgers = {name: PrivacyLedger({honest: count}) for name, count in sums.items() if count}
    return privacy_lines(privacy_summary(plan, ledgers))


def planned_epsilon(plan: PrivacyPlan, live: int) -> str:
    """epsilon of all planned rounds over ``live`` members each, in words."""
    found = _finite(epsilon(plan, {plan.terms.honest(live): plan.terms.rounds}))
    return f"{_number(found)} at delta {plan.terms.delta:g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> str:
    return "no guarantee" if value is None else f"{value:.3g}"

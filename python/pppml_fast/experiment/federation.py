"""The weighted mean of a round: encrypted, and compared with the plain sum of the same quantised updates.

Where noise was agreed on, both sum the same noised integers. Updates on a GPU are encrypted there; for the plain sum,
which hides nothing, the aggregator copies them to the host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pppml_fast.aggregation import AggregateResult, Policy, open_federation
from pppml_fast.experiment.participant import host_values
from pppml_fast.experiment.state import model_sha256
from pppml_fast.experiment.study import Study
from pppml_fast.learning import ServerState, Update

__all__ = ["CheckedFederation", "RoundMean"]


@dataclass(frozen=True)
class RoundMean:
    """The mean update of a round as one float32 vector, where the updates were, and its costs (plain JSON values)."""

    vector: Any
    costs: dict[str, Any]


class CheckedFederation:
    """One session of all hospitals in one process, with a plain aggregator beside it as the yardstick."""

    def __init__(self, study: Study) -> None:
        section = study.config.aggregation
        common: dict[str, Any] = {
            "params": study.params,
            "layout": study.layout,
            # Noised integers carry their weight already.
            "weights": dict(study.weights) if study.privacy is None else None,
            "allow_two_parties": section.allow_two_parties,
            "policy": Policy(allow_two_parties=section.allow_two_parties),
        }
        self._names = study.party_names
        self._privacy, self._step = study.privacy, study.params.step
        self._multiples = {name: len(self._names) * share for name, share in study.weights.items()}
        self._encrypted = open_federation(
            self._names,
            protocol=section.protocol,
            topology=section.topology,
            sum_check=section.sum_check,
            privacy=None if study.privacy is None else study.privacy.terms,
            **common,
        )
        self._plain = open_federation(self._names, protocol="plain", topology="ring", sum_check=None, **common)

    def compare_models(self, state: ServerState) -> None:
        """Let all members compare the hash of their new model. Raises ProtocolError when one has drifted."""
        digest = model_sha256({"": state})
        self._encrypted.compare_models(dict.fromkeys(self._names, digest))

    def close(self) -> None:
        """Forget the keys of the session."""
        self._encrypted.close()
        self._plain.close()

    def mean(self, updates: Mapping[str, Update], round_number: int) -> RoundMean:
        """The weighted mean of the clipped, and where agreed noised, updates.

        Raises what the protocol raises; nothing is released then.
        """
        sent, noise_costs = self._noised(updates)
        result = self._encrypted.aggregate(sent, round=round_number)
        plain = self._plain.aggregate(sent, round=round_number)
        costs = result.costs
        clipped = sum(int(count) for count in costs.clipped.values())
        return RoundMean(
            result.vector,
            {
                "encrypt_s": float(costs.encrypt_s),
                "add_s": float(costs.add_s),
                "open_s": float(costs.open_s),
                "ring_s": float(costs.ring_s),
                "plain_s": float(plain.costs.ring_s),
                "bytes_ring": int(costs.bytes_ring),
                "overhead_bytes": int(costs.bytes_shares + costs.bytes_control),
                "bytes_per_weight": float(costs.bytes_per_weight),
                "clipped": clipped,
                "clipped_share": clipped / (result.vector.size * len(self._names)),
                **self._compared(result, plain),
                "transcript": str(result.transcript),
                **noise_costs,
            },
        )

    def _compared(self, result: AggregateResult, plain: AggregateResult) -> dict[str, Any]:
        """The largest difference of two sums in steps, and whether the means are the same bits.

        Sums that were opened on a GPU leave no integers there: the difference is then that of the means, rounded up.
        """
        means = [one.vector if isinstance(one.vector, np.ndarray) else one.vector.to_host() for one in (result, plain)]
        if result.integers is None or plain.integers is None:
            apart = np.abs(np.subtract(*means, dtype=np.float64)) / self._step
        else:
            apart = np.abs(result.integers - plain.integers)
        return {
            "max_difference_from_plain": int(np.ceil(apart.max(initial=0))),
            "identical": means[0].tobytes() == means[1].tobytes(),
        }

    def _noised(self, updates: Mapping[str, Update]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the hospitals hand in, and what the noise did to it."""
        if self._privacy is None:
            return dict(updates), {}
        began = time.perf_counter()
        plan, multiples = self._privacy, self._multiples
        made = {name: plan.privatise(host_values(update), multiples[name]) for name, update in updates.items()}
        costs = {
            "noise_s": (time.perf_counter() - began) / len(made),
            "l2_clipped": sum(update.clipped for update in made.values()),
            "saturated": sum(update.saturated for update in made.values()),
        }
        return {name: update.values for name, update in made.items()}, costs

"""What the agreed noise protects: (epsilon, delta) of one hospital's updates over the sums released so far.

Only the honest members' noise counts. Bounds in Renyi divergence per sum, composed and converted by ``dp_accounting``
(an extra: ``pip install pppml-fast[privacy]``). No subsampling: every member takes part in every round.

[KLS], theorem 1: the sum of n discrete Gaussians is nearly one; tau says how nearly. [AKL], corollary 3.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pppml_fast.errors import ConfigError, ParameterError
from pppml_fast.privacy import TAIL_LOG2, PrivacyPlan

__all__ = ["ORDERS", "PrivacyLedger", "concentration", "epsilon", "renyi", "tau"]

ORDERS: tuple[int, ...] = (*range(2, 64), *range(64, 512, 8), *(1 << bits for bits in range(9, 21)))
"""Whole orders: the bound of Skellam noise holds at these alone."""

_SAMPLER_LOG2 = -160.0


def tau(honest: int, deviation: int) -> float:
    """[KLS]: 10 * sum over k < honest of exp(-2 pi^2 deviation^2 k / (k + 1))."""
    return 10 * math.fsum(math.exp(-2 * math.pi**2 * deviation**2 * k / (k + 1)) for k in range(1, honest))


def concentration(plan: PrivacyPlan, honest: int, *, replace: bool = False) -> float:
    """epsilon of (epsilon^2 / 2)-concentrated privacy of one sum of discrete Gaussians ([KLS], theorem 1)."""
    distance = plan.sensitivity * (2 if replace else 1)
    ratio, excess = distance / (math.sqrt(honest) * plan.deviation), tau(honest, plan.deviation)
    return min(math.sqrt(ratio**2 + excess * plan.length / 2), ratio + excess * math.sqrt(plan.length))


def renyi(plan: PrivacyPlan, honest: int, *, replace: bool = False) -> list[float]:
    """Renyi divergence of one sum at every order of `ORDERS`, from the noise of ``honest`` members.

    ``replace`` compares with any other update (twice the distance), else with a zero one. For Skellam noise [AKL]: with
    variance v, alpha D2^2 / 2v + min(((2 alpha - 1) D2^2 + 6 D1) / 4v^2, 3 D1 / 2v), D1 <= min(sqrt(d), D2) * D2.
    """
    if plan.terms.mechanism == "discrete_gaussian":
        rho = concentration(plan, honest, replace=replace) ** 2 / 2
        return [order * rho for order in ORDERS]
    l2 = plan.sensitivity * (2 if replace else 1)
    l1 = l2 * min(math.sqrt(plan.length), l2)
    v = float(honest) * plan.deviation**2
    extra = [min(((2 * a - 1) * l2**2 + 6 * l1) / (4 * v**2), 3 * l1 / (2 * v)) for a in ORDERS]
    return [a * l2**2 / (2 * v) + more for a, more in zip(ORDERS, extra, strict=True)]


def epsilon(plan: PrivacyPlan, releases: Mapping[int, int], *, replace: bool = False) -> float:
    """epsilon at the terms' delta after ``releases``: how many sums were opened with how many honest members' noise.

    With probability below eta = 2^-100 per planned session some value met the end of its range, and each draw is 2^-160
    off its law: (1 + e^epsilon) eta of delta is set aside for both. infinity where delta is too small for that.
    """
    if any(count < 0 or honest < 1 for honest, count in releases.items()):
        raise ParameterError(f"releases {dict(releases)!r} count sums by honest members; both are positive")
    total = sum(releases.values())
    if total == 0:
        return 0.0
    bounds = {honest: renyi(plan, honest, replace=replace) for honest in releases}
    composed = [math.fsum(count * bounds[h][i] for h, count in releases.items()) for i in range(len(ORDERS))]
    sessions = math.ceil(total / plan.terms.rounds)
    draws = plan.length * plan.parties * total
    slack = sessions * 2.0**TAIL_LOG2 + draws * 2.0**_SAMPLER_LOG2
    found = _converted(composed, plan.terms.delta * 0.999)
    if found > 600 or (1 + math.exp(found)) * slack > plan.terms.delta * 0.001:
        return math.inf
    return found


@dataclass
class PrivacyLedger:
    """The sums released so far, by number of honest members. A sum is entered before it is opened."""

    releases: dict[int, int] = field(default_factory=dict)

    def enter(self, honest: int) -> None:
        """Count one more sum."""
        self.releases[honest] = self.releases.get(honest, 0) + 1

    def to_dict(self) -> dict[str, int]:
        """Plain JSON."""
        return {str(honest): count for honest, count in sorted(self.releases.items())}

    @classmethod
    def from_dict(cls, values: Mapping[str, int]) -> PrivacyLedger:
        """The ledger of `to_dict`'s form. Raises ParameterError on anything else."""
        try:
            releases = {int(honest): count for honest, count in values.items()}
        except (AttributeError, ValueError):
            releases = {0: 0}
        if any(type(count) is not int or count < 1 or honest < 1 for honest, count in releases.items()):
            raise ParameterError(f"{values!r} is no ledger of released sums; restore the file, or start a new run")
        return cls(releases)


def _converted(composed: Sequence[float], delta: float) -> float:
    try:
        from dp_accounting.rdp import rdp_privacy_accountant
    except ImportError:
        raise ConfigError(
            "epsilon is computed by the package dp-accounting, which is not installed; run pip install "
            "'pppml-fast[privacy]'"
        ) from None
    return float(rdp_privacy_accountant.compute_epsilon(list(ORDERS), list(composed), delta)[0])

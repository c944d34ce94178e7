"""What every preset's security level rests on, recomputed: ``python -m pppml_fast.levels``.

Two figures per preset and key mode, each for classical and quantum attacks:

* The *estimate* is the lattice estimator's [Albrecht, Player, Scott 2015; github.com/malb/lattice-estimator], the
  least of its attacks, classical cost model MATZOV, quantum LaaMosPol14. It is recomputed wherever ``import estimator``
  works: a checkout on PYTHONPATH beside ``pip install passagemath-standard passagemath-symbolics``. ``stated`` is what
  snapshot 27a581b said.
* The *sanity bound* needs nothing but this file: the block size at which BKZ finds the unique shortest vector (primal
  uSVP) by the 2016 estimate [Alkim et al. 2016, section 6.3], costed by the same two models. It is one attack, with no
  guessing and no dual: not an estimate. It would show a mistake of a few bits in what is stated.

The levels by name (128, 192, 256) are the tables of eprint 2024/463, which the core enforces (csrc/ckks/security.cpp).
`docs/derivations.md` says why the collective distributions are what they are.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pppml_fast import _native
from pppml_fast.params import COMPARISON_PRESETS, PRESETS

__all__ = ["CASES", "Case", "Verdict", "judge", "main", "sanity_bits"]

# Standard deviations of the collective secret and error [Willow, eprint 2024/936], and what two honest parties keep.
_SECRET, _ERROR = 4.5, 4.5 * math.sqrt(2)
_CONDITIONAL = (_SECRET / math.sqrt(2), _ERROR / math.sqrt(2))
_PROVED = (_SECRET / 2, _ERROR / 2)
_TERNARY = (math.sqrt(2 / 3), 3.2)
# The estimator's own results move by fractions of a bit between snapshots.
_TOLERANCE = 1.0
# How far the least of many attacks may lie below the sanity bound: guessing pays on ternary secrets.
_SLACK = {"gaussian": 4.0, "ternary": 8.0}


@dataclass(frozen=True)
class Case:
    """One LWE problem whose hardness a preset rests on: ``samples`` None means as many as the attacker likes."""

    name: str
    keys: str
    dimension: int
    modulus: int
    secret: str  # "gaussian" or "ternary"
    deviations: tuple[float, float]  # of secret and error
    samples: int | None
    stated: tuple[int, int] | None  # bits, classical and quantum, by snapshot 27a581b

    @property
    def log2_modulus(self) -> float:
        """log2 Q."""
        return math.log2(self.modulus)

    @property
    def table(self) -> tuple[int, int]:
        """Level by the 2024 tables, classical and quantum; 0 below 128."""
        classical, quantum = _native.security_level(self.dimension, self.log2_modulus)
        return int(classical), int(quantum)

    @property
    def distributions(self) -> str:
        """Secret and error in words."""
        secret = "ternary" if self.secret == "ternary" else f"sigma {self.deviations[0]:.2f}"
        return f"{secret}, sigma {self.deviations[1]:.2f}"


@dataclass(frozen=True)
class Verdict:
    """What was recomputed for a case, and whatever is wrong with it."""

    case: Case
    sanity: tuple[float, float]
    estimate: tuple[float, float] | None
    attacks: str
    faults: tuple[str, ...]


def _cases() -> tuple[Case, ...]:
    stated = {
        ("p31", "collective"): (253, 239),
        ("p31", "collective, proved"): (244, 231),
        ("p31", "public, secret"): (226, 215),
        ("p50", "collective"): (314, 298),
        ("p62", "collective"): (244, 231),
        ("p62", "collective, proved"): (239, 227),
        ("compact", "collective"): (145, 137),
        ("compact", "collective, proved"): (141, 134),
        ("published", "public, secret"): (126, 119),
    }
    collective = (("collective", "gaussian", _CONDITIONAL), ("collective, proved", "gaussian", _PROVED))
    owned = (("public, secret", "ternary", _TERNARY),)
    cases = []
    for name, ring in {**PRESETS, **COMPARISON_PRESETS}.items():
        # Sets for comparison have no collective keys.
        for keys, secret, deviations in owned if name in COMPARISON_PRESETS else (*collective, *owned):
            dimension, modulus, bits = ring.ring_dimension, math.prod(ring.primes), stated.get((name, keys))
            cases.append(Case(name, keys, dimension, modulus, secret, deviations, None, bits))
    return tuple(cases)


CASES = _cases()

# --- the sanity bound ------------------------------------------------------------------------------------------------


def _log2_root_hermite(block: int) -> float:
    """log2 of BKZ's root Hermite factor [Chen 2013]."""
    return math.log2((math.pi * block) ** (1 / block) * block / (2 * math.pi * math.e)) / (2 * (block - 1))


def _matzov(block: int, dimension: int) -> float:
    """log2 of gates, classical: C (d - b) sieves of C 2^(a b' + c), C = 1 / (1 - 2^-0.292), b' = b less the dimensions
    for free [Ducas 2018], a and c fitted to list decoding with the improvements of [MATZOV 2022]."""
    progressive = -math.log2(1 - 2**-0.292)
    sieve = block - block * math.log(4 / 3) / math.log(block / (2 * math.pi * math.e))
    return 2 * progressive + math.log2(max(dimension - block, 1)) + 0.29613500308205365 * sieve + 20.387885985467914


def _laamospol(block: int, dimension: int) -> float:
    """log2 of operations, quantum: 8 d sieves of 2^(0.265 b + 16.4) [Laarhoven, Mosca, van de Pol 2014]."""
    return math.log2(8 * dimension) + 0.265 * block + 16.4


def _block_size(case: Case, samples: int) -> tuple[int, int]:
    """The least block size that finds the secret from ``samples`` samples, and the dimension of its lattice.

    Condition of [Alkim et al. 2016]: sqrt(b) sigma_e <= delta^(2b - d - 1) Vol^(1/d), for the lattice of volume
    q^m (sigma_e / sigma_s)^n, whose secret part is scaled to the error's size [Bai and Galbraith 2014].
    """
    secret, error = case.deviations
    dimension = case.dimension + samples + 1
    volume = (samples * case.log2_modulus + case.dimension * math.log2(error / secret)) / dimension
    low, high = 60, dimension
    while low < high:
        block = (low + high) // 2
        reach = (2 * block - dimension - 1) * _log2_root_hermite(block) + volume
        if math.log2(error) + math.log2(block) / 2 <= reach:
            high = block
        else:
            low = block + 1
    return low, dimension


def sanity_bits(case: Case) -> tuple[float, float]:
    """log2 of the cost of primal uSVP, classical and quantum, at the best number of samples."""
    most = 3 * case.dimension if case.samples is None else case.samples
    found = [_block_size(case, samples) for samples in range(case.dimension // 2, most + 1, 16)]
    return min(_matzov(*at) for at in found), min(_laamospol(*at) for at in found)


# --- the estimate ----------------------------------------------------------------------------------------------------


def find_estimator() -> Any | None:
    """The lattice estimator as a module, or None where it, or the Sage it runs on, is not installed."""
    try:
        return importlib.import_module("estimator")
    except ImportError:
        return None


def _bits(cost: Any) -> float:
    try:
        return math.log2(float(cost["rop"]))
    except OverflowError:
        return math.inf


def estimate_bits(estimator: Any, case: Case) -> tuple[tuple[float, float], str]:
    """Bits, classical and quantum, and the attacks that need the fewest. Takes minutes per case."""
    noise = estimator.ND
    secret = noise.Uniform(-1, 1) if case.secret == "ternary" else noise.DiscreteGaussian(case.deviations[0])
    samples = {} if case.samples is None else {"m": case.samples}
    problem = estimator.LWE.Parameters(
        n=case.dimension,
        q=case.modulus,
        Xs=secret,
        Xe=noise.DiscreteGaussian(case.deviations[1]),
        tag=f"{case.name} {case.keys}",
        **samples,
    )
    bits, names = [], []
    for model in (estimator.RC.MATZOV, estimator.RC.LaaMosPol14):
        costs = estimator.LWE.estimate(problem, red_cost_model=model, deny_list=("arora-gb", "bkw"))
        cheapest = min(costs, key=lambda attack: _bits(costs[attack]))
        bits.append(_bits(costs[cheapest]))
        names.append(cheapest)
    return (bits[0], bits[1]), ", ".join(names)


# --- verdicts --------------------------------------------------------------------------------------------------------


def judge(case: Case, estimator: Any | None = None) -> Verdict:
    """Recompute one case, with the estimator if there is one, and hold it against what is stated and the tables."""
    sanity = sanity_bits(case)
    estimate, attacks = (None, "") if estimator is None else estimate_bits(estimator, case)
    faults = []
    for column, kind in enumerate(("classical", "quantum")):
        level, bits = case.table[column], sanity[column]
        if bits < level:
            faults.append(f"{kind} sanity bound {bits:.1f} is below the table's {level}")
        if case.stated is not None:
            excess = bits - case.stated[column]
            if not -_TOLERANCE <= excess <= _SLACK[case.secret]:
                faults.append(f"{kind} sanity bound {bits:.1f} does not fit the stated {case.stated[column]}")
        if estimate is not None:
            least = max(level, case.stated[column] - _TOLERANCE if case.stated else 0)
            if estimate[column] < least:
                faults.append(f"{kind} estimate {estimate[column]:.1f} is below {least:g}")
    return Verdict(case, sanity, estimate, attacks, tuple(faults))


def _pair(bits: Sequence[float] | None, form: str) -> str:
    return "-" if bits is None else " / ".join(format(b, form) if b else "<128" for b in bits)


def _line(verdict: Verdict) -> str:
    case = verdict.case
    cells = (
        f"{case.name:9s} {case.keys:18s} {case.dimension:5d} {case.log2_modulus:6.1f}  {case.distributions:22s}",
        f"{_pair(case.table, 'd'):>11s} {_pair(case.stated, 'd'):>9s} {_pair(verdict.sanity, '.1f'):>13s}",
        f"{_pair(verdict.estimate, '.1f'):>13s}  {verdict.attacks or '-':14s} ",
        "; ".join(verdict.faults) or "holds",
    )
    return " ".join(cells)


def main(
    arguments: Sequence[str] | None = None,
    cases: Sequence[Case] = CASES,
    find: Callable[[], Any | None] = find_estimator,
) -> int:
    """Print one line per case; 1 when an estimate or a sanity bound falls below what is stated, 2 without estimator."""
    parser = argparse.ArgumentParser(prog="python -m pppml_fast.levels", description="Recompute every preset's level.")
    parser.add_argument("--require-estimator", action="store_true", help="fail where the estimator is not installed")
    parser.add_argument("--sanity-only", action="store_true", help="leave the estimator out, which takes minutes")
    options = parser.parse_args(arguments)
    estimator = None if options.sanity_only else find()
    if estimator is None and options.require_estimator:
        sys.stderr.write("the lattice estimator is not installed: put a checkout of it on PYTHONPATH and install\n")
        sys.stderr.write("passagemath-standard and passagemath-symbolics\n")
        return 2
    sys.stdout.write("bits, classical / quantum\n")
    sys.stdout.write(f"{'set':9s} {'keys':18s} {'N':>5s} {'log2Q':>6s}  {'secret, error':22s} {'table':>11s} ")
    sys.stdout.write(f"{'stated':>9s} {'sanity bound':>13s} {'estimate':>13s}  {'attacks':14s}  verdict\n")
    faults = 0
    for case in cases:
        verdict = judge(case, estimator)
        faults += len(verdict.faults)
        sys.stdout.write(_line(verdict) + "\n")
        sys.stdout.flush()
    source = "estimates recomputed" if estimator is not None else "no estimate recomputed: primal uSVP only"
    sys.stdout.write(f"cases={len(cases)} faults={faults} ({source})\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

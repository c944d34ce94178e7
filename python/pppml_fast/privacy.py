"""Hospital-level differential privacy of sums: what members agree on, and the integers that they then send.

Each member clips its whole update in L2, rounds it to integers whose L2 norm is at most ``sensitivity`` (checked on the
integers), adds noise to them, and hands the result to encryption as floats that quantise back to exactly those
integers. `pppml_fast.aggregation.accounting` tells what that protects.

Protected is one hospital's whole update in every round, not one patient: that needs DP-SGD inside training.

[KLS] Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
Aggregation", 2021. [AKL] Agarwal, Kairouz, Liu, "The Skellam Mechanism for Differentially Private Federated Learning",
2021.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pppml_fast.checks import whole_number
from pppml_fast.discrete_noise import DEVIATION_UNIT, DiscreteGaussian, IntegerNoise, Skellam
from pppml_fast.errors import InputError, ParameterError
from pppml_fast.params import PRESETS, CkksParams

__all__ = ["Mechanism", "PrivacyPlan", "PrivacyTerms", "PrivateUpdate", "private_parameters", "tolerated_colluders"]

Mechanism = Literal["discrete_gaussian", "skellam"]

TAIL_LOG2 = -100
"""log2 of the probability that any value of any member in any planned round outgrows the range."""

_NOISES: Mapping[str, type[IntegerNoise]] = {"discrete_gaussian": DiscreteGaussian, "skellam": Skellam}
_LEAST_DEVIATION = 64
_FINEST_BITS = 30
_LARGEST_WEIGHT = 1024.0
_PIECE = 1 << 16


class _TooCoarseError(ParameterError):
    """A step so wide that no wider one can help."""


def tolerated_colluders(parties: int, threshold: int) -> int:
    """How many members may collude before the encryption, not the noise, gives way.

    ``threshold`` of them open single updates, and Hint-RLWE needs two honest ones: the smaller of threshold - 1 and
    parties - 2.
    """
    return max(0, min(threshold - 1, parties - 2))


@dataclass(frozen=True)
class PrivacyTerms:
    """The noise every member adds, as agreed in the roster.

    ``l2_clip`` bounds the L2 norm of one whole update before it is weighted; ``largest_weight`` is the largest weight
    of a member in multiples of the mean one (1 where all weigh the same); ``noise_multiplier`` is the standard
    deviation of the *honest* members' noise in the sum, over the L2 sensitivity l2_clip * largest_weight. Honest are
    all live members but ``colluders`` (`tolerated_colluders` says how many the encryption bears); the noise of the
    others is never counted. ``delta`` is that of the (epsilon, delta) reported over ``rounds`` sums.

    Raises ParameterError, naming value and limit.
    """

    mechanism: Mechanism
    l2_clip: float
    noise_multiplier: float
    delta: float
    colluders: int
    rounds: int
    largest_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.mechanism not in _NOISES:
            raise ParameterError(f"mechanism = {self.mechanism!r} is unknown; use one of {', '.join(_NOISES)}")
        for name, above, most in (
            ("l2_clip", 0.0, 2.0**64),
            ("noise_multiplier", 0.0, 2.0**20),
            ("delta", 0.0, 0.5),
            ("largest_weight", 0.0, _LARGEST_WEIGHT),
        ):
            value = getattr(self, name)
            if not isinstance(value, float) or not above < value <= most:
                raise ParameterError(f"{name} = {value!r} must be a float above {above:g}, up to {most:g}")
        for name, least in (("colluders", 0), ("rounds", 1)):
            whole_number(name, getattr(self, name), least, 1 << 20, ParameterError)

    @property
    def least(self) -> int:
        """The fewest live members among whom two are honest."""
        return self.colluders + 2

    def honest(self, live: int) -> int:
        """Members whose noise counts when ``live`` take part. Raises ParameterError below two."""
        count = live - self.colluders
        if count < 2:
            raise ParameterError(
                f"{self.colluders} colluders among {live} members leave {count} honest; the encryption needs two: "
                "tolerate fewer colluders or add members"
            )
        return count

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PrivacyTerms:
        """The terms of ``dataclasses.asdict``'s form. Raises ParameterError on unknown or missing keys."""
        expected = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or set(values) != expected:
            raise ParameterError(f"privacy terms take exactly the keys {sorted(expected)}")
        return cls(**values)


@dataclass(frozen=True)
class PrivateUpdate:
    """One member's noised update.

    ``values`` (float32 or float64, one per weight) are whole multiples of ``step``, and quantise back to exactly these
    multiples. ``norm`` is the L2 norm before clipping and stays local, as does ``clipped`` (whether it exceeded the
    clip); ``saturated`` counts values that met the end of the range, which the plan makes as unlikely as 2^-100.
    """

    values: NDArray[Any]
    step: float
    norm: float
    clipped: bool
    saturated: int

    @property
    def integers(self) -> NDArray[np.int64]:
        """What is encrypted: ``values`` in steps, int64."""
        return np.rint(self.values / np.float64(self.step)).astype(np.int64)


@dataclass(frozen=True)
class PrivacyPlan:
    """The terms on one parameter set and model: what each member does, the same integers on every machine.

    ``sensitivity`` bounds the L2 norm of a member's integers before noise, ``deviation`` is the standard deviation of
    one member's noise, ``reach`` the range its noised integers must keep to, all in steps of the set. Build one with
    :meth:`of`.
    """

    terms: PrivacyTerms
    params: CkksParams
    parties: int
    length: int
    sensitivity: int
    deviation: int

    @classmethod
    def of(cls, terms: PrivacyTerms, params: CkksParams, *, parties: int, length: int) -> PrivacyPlan:
        """The plan for ``parties`` members and ``length`` weights. Raises ParameterError where it does not fit."""
        if params.weights != "free" or params.packing != "coefficients" or params.rounding != "nearest":
            raise ParameterError(
                f"noise needs weights='free', packing='coefficients' and rounding='nearest', the set has "
                f"{params.weights!r}, {params.packing!r}, {params.rounding!r}; build it with private_parameters"
            )
        if math.frexp(params.step)[0] != 0.5:
            raise ParameterError(
                f"the step {params.step:g} is no power of two, so integers would not survive quantisation exactly; "
                "build the set with private_parameters"
            )
        whole_number("length", length, 1, 1 << 40, ParameterError)
        sensitivity = int(Fraction(terms.l2_clip) * Fraction(terms.largest_weight) / Fraction(params.step))
        deviation = _deviation(terms, sensitivity, terms.honest(parties))
        plan = cls(terms, params, parties, length, sensitivity, deviation)
        plan._check()
        return plan

    @property
    def reach(self) -> int:
        """What ``sensitivity`` and the noise's tail come to: outgrown with probability below 2^-100."""
        return self.sensitivity + self.tail

    @property
    def tail(self) -> int:
        """The noise of all members, weights and planned rounds stays within this, but for 2^-100."""
        draws = math.log(2 * self.length * self.parties * self.terms.rounds)
        return _tail(self.terms.mechanism, self.deviation, draws - TAIL_LOG2 * math.log(2))

    def privatise(
        self, update: Any, weight: float = 1.0, entropy: Callable[[int], bytes] = os.urandom
    ) -> PrivateUpdate:
        """Clip, weight, round and noise one member's update: a float array or a list of them, ``length`` values.

        ``weight`` is in multiples of the mean weight. Fresh noise at every call: the result of one call is what a
        member sends in a round, however often it sends it. Works in pieces: beside the result it needs a few MiB.
        Raises InputError on NaN, Inf, a wrong length or a weight above the agreed one.
        """
        parts = [np.asarray(part).reshape(-1) for part in (update if isinstance(update, list | tuple) else [update])]
        length = sum(part.size for part in parts)
        if length != self.length:
            raise InputError(f"the update has {length} values, the plan is for {self.length}")
        if not 0 <= weight <= self.terms.largest_weight:
            raise InputError(f"weight {weight} is outside 0 .. {self.terms.largest_weight}, the largest agreed on")
        norm = _norm(parts)
        shrunk = min(1.0, self.terms.l2_clip / norm) if norm > 0 else 1.0
        factor = shrunk * weight / self.params.step
        rounding = Rounding.within(lambda: (piece * factor for piece in _pieces(parts)), self.sensitivity)
        noise, bound = _NOISES[self.terms.mechanism](self.deviation), self.params.max_magnitude
        values, saturated, start = np.empty(length, self._dtype), 0, 0
        for piece in _pieces(parts):
            integers = rounding(piece * factor) + noise.sample(piece.size, entropy)
            saturated += int(np.count_nonzero(np.abs(integers) > bound))
            np.clip(integers, -bound, bound, out=integers)
            values[start : start + piece.size] = self.to_values(integers)
            start += piece.size
        return PrivateUpdate(values, self.params.step, norm, shrunk < 1.0, saturated)

    @property
    def _dtype(self) -> type[np.floating[Any]]:
        return np.float32 if self.params.max_magnitude < 1 << 24 else np.float64

    def to_values(self, integers: NDArray[np.int64]) -> NDArray[Any]:
        """The floats that quantise to ``integers``: k times a power of two, exact below 2^24 (float32) or 2^53."""
        return (integers.astype(np.float64) * self.params.step).astype(self._dtype)

    def _check(self) -> None:
        terms, noise = self.terms, _NOISES[self.terms.mechanism]
        if self.deviation < _LEAST_DEVIATION:
            raise _TooCoarseError(
                f"a noise of {self.deviation} steps is too coarse (least: {_LEAST_DEVIATION}); choose a set of more "
                "bits"
            )
        if self.deviation > noise.largest:
            raise ParameterError(
                f"a noise of {self.deviation} steps is beyond {noise.largest}, the most that {terms.mechanism} is "
                "drawn with; choose a coarser step with private_parameters"
            )
        if self.sensitivity**2 < self.length:
            raise _TooCoarseError(
                f"a clipped update of {self.length} weights spans {self.sensitivity} steps in L2, fewer than one per "
                "weight: rounding would destroy it; choose a set of more bits, less noise, or discrete_gaussian"
            )
        if self.reach > self.params.max_magnitude:
            raise ParameterError(
                f"clip and noise reach {self.reach} steps, the set holds {self.params.max_magnitude} per member; "
                "build it with private_parameters, or choose a set of more bits"
            )


def private_parameters(
    terms: PrivacyTerms,
    *,
    parties: int,
    length: int,
    name: str = "auto",
    level: str = "128",
) -> CkksParams:
    """The set whose power-of-two step leaves room for clip and noise, as fine as ``name`` (or the smallest set) allows.

    ``"auto"`` takes the preset of fewest bytes per weight at ``level`` that keeps at least a step per weight. Raises
    ParameterError that says why none fits.
    """
    reasons = []
    for preset in PRESETS if name == "auto" else (name,):
        base = CkksParams.preset(preset, parties=parties, clip=1.0, keys="collective", weights="free")
        if name == "auto" and not _reaches(base, level):
            reasons.append(f"{preset} holds {base.level}, not {level}")
            continue
        try:
            return _finest(terms, base, parties, length)
        except ParameterError as error:
            reasons.append(f"{preset}: {error}")
    raise ParameterError("no set takes this noise: " + "; ".join(reasons))


@dataclass(frozen=True)
class Rounding:
    """Values times ``factor``, rounded to the nearest integers, or towards zero where it ``truncates``."""

    factor: float = 1.0
    truncates: bool = False

    def __call__(self, scaled: NDArray[np.float64]) -> NDArray[np.int64]:
        """int64, as many as ``scaled``."""
        values = scaled * self.factor
        return (np.trunc(values) if self.truncates else np.rint(values)).astype(np.int64)

    @classmethod
    def within(cls, pieces: Callable[[], Iterable[NDArray[np.float64]]], bound: int) -> Rounding:
        """One whose integers have an L2 norm of at most ``bound``, whatever the values that ``pieces()`` goes through.

        Rounding can add up to sqrt(d) / 2 to the norm; where the result exceeds the bound, which integers decide
        exactly, it is shrunk and rounded again, at last towards zero, which never lengthens it.
        """
        factor = 1.0
        for _ in range(8):
            rounding = cls(factor)
            square = rounding._square(pieces())
            if square <= bound * bound:
                return rounding
            factor *= bound / math.sqrt(square)
        norm = factor * math.sqrt(math.fsum(float(np.dot(piece, piece)) for piece in pieces()))
        rounding = cls(factor * min(1.0, bound / norm * (1 - 2.0**-20)), truncates=True)
        if rounding._square(pieces()) > bound * bound:
            raise InputError(f"an update could not be brought within an L2 norm of {bound} steps; nothing was sent")
        return rounding

    def _square(self, pieces: Iterable[NDArray[np.float64]]) -> int:
        return sum(squared_norm(self(piece)) for piece in pieces)


def squared_norm(integers: NDArray[np.int64]) -> int:
    """The exact square of the L2 norm, for magnitudes below 2^53."""
    magnitudes = np.abs(integers).astype(np.uint64)
    if int(magnitudes.max(initial=0)) ** 2 * magnitudes.size < 1 << 63:
        return int(np.dot(magnitudes, magnitudes))
    total, low_mask = 0, np.uint64((1 << 27) - 1)
    for start in range(0, magnitudes.size, 512):  # 2^9 products below 2^54 stay below 2^63
        part = magnitudes[start : start + 512]
        high, low = part >> np.uint64(27), part & low_mask
        total += int((low * low).sum())
        if high.any():
            total += (int((high * high).sum()) << 54) + (int((high * low).sum()) << 28)
    return total


def _deviation(terms: PrivacyTerms, sensitivity: int, honest: int) -> int:
    """The least multiple of 8 with honest * deviation^2 >= (noise_multiplier * sensitivity)^2, in exact arithmetic."""
    wanted = Fraction(terms.noise_multiplier) ** 2 * sensitivity**2 / honest
    return DEVIATION_UNIT * (math.isqrt(max(0, math.ceil(wanted) - 1) // DEVIATION_UNIT**2) + 1)


def _tail(mechanism: str, deviation: int, log_inverse: float) -> int:
    """The least tested m with log P(|X| > m) + log(2) <= -log_inverse, by Chernoff's bound of either law."""
    if mechanism == "discrete_gaussian":  # sub-Gaussian with its own sigma ([CKS], corollary 17)
        return math.ceil(deviation * math.sqrt(2 * log_inverse))
    variance, m = float(deviation) ** 2, deviation * math.sqrt(2 * log_inverse)
    while m * math.asinh(m / variance) - math.sqrt(m * m + variance * variance) + variance < log_inverse:
        m *= 1.01
    return math.ceil(m)


def _finest(terms: PrivacyTerms, base: CkksParams, parties: int, length: int) -> CkksParams:
    """The set with the finest power-of-two step on which the plan fits."""
    span = terms.l2_clip * terms.largest_weight
    exponent = math.frexp(span)[1] - min(_FINEST_BITS, base.max_magnitude.bit_length())
    error: ParameterError | None = None
    for e in range(exponent, exponent + 64):
        params = CkksParams.from_dict({**base.to_dict(), "clip": math.ldexp(float(base.max_magnitude), e)})
        try:
            PrivacyPlan.of(terms, params, parties=parties, length=length)
        except ParameterError as reason:
            error = reason
            if isinstance(reason, _TooCoarseError):
                break
        else:
            return params
    raise error if error is not None else ParameterError("no step fits")


def _reaches(params: CkksParams, level: str) -> bool:
    column = "classical" if level.endswith("c") else "quantum"
    return params.level_bits[column] >= int(level.rstrip("c"))


def _pieces(parts: Sequence[NDArray[Any]]) -> Iterator[NDArray[np.float64]]:
    """All values in order, float64, some at a time."""
    for part in parts:
        for start in range(0, part.size, _PIECE):
            yield part[start : start + _PIECE].astype(np.float64)


def _norm(parts: Sequence[NDArray[Any]]) -> float:
    """The L2 norm, without overflow. Raises InputError on NaN and Inf."""
    largest = 0.0
    for piece in _pieces(parts):
        most = float(np.abs(piece).max(initial=0.0))
        if not math.isfinite(most):
            raise InputError("the update holds NaN or Inf; nothing was noised")
        largest = max(largest, most)
    if largest == 0:
        return 0.0
    scaled = (piece / largest for piece in _pieces(parts))
    return largest * math.sqrt(math.fsum(float(np.dot(piece, piece)) for piece in scaled))

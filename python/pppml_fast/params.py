"""Parameter sets of CKKS for sums: chosen by name or by need, checked when built, immutable afterwards."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pppml_fast import _native
from pppml_fast.checks import whole_number
from pppml_fast.errors import ParameterError

__all__ = ["COMPARISON_PRESETS", "PRESETS", "CkksParams", "KeyMode", "Packing", "Rounding", "WeightPolicy"]

KeyMode = Literal["public", "secret", "collective"]
WeightPolicy = Literal["free", "public"]
Rounding = Literal["nearest", "stochastic"]
Packing = Literal["coefficients", "slots", "real_slots"]

_LATER_FIELDS = frozenset({"packing", "slot_scale", "insecure_for_comparison"})

_P50_PRIME = 1125899906826241
_INT64, _UINT32 = (1 << 63) - 1, (1 << 32) - 1


@dataclass(frozen=True)
class Preset:
    """A named ring: its dimension N, its primes, and how its coefficients are filled by default."""

    ring_dimension: int
    primes: tuple[int, ...]
    values_per_coefficient: int = 1
    packing: Packing = "coefficients"
    slot_scale: float | None = None


# What SEAL, hence TenSEAL, chooses for bit sizes [31, 26, 26, 26, 26, 26, 26, 31] at N = 8192.
_PUBLISHED_PRIMES = (
    2147205121,
    66420737,
    66551809,
    66813953,
    66961409,
    66994177,
    67043329,
    2147352577,
)

PRESETS: Mapping[str, Preset] = {
    "p31": Preset(2048, (2147389441,)),
    "p50": Preset(4096, (_P50_PRIME,)),
    "p62": Preset(4096, (2147377153, 2147352577)),
    "compact": Preset(2048, (_P50_PRIME,), 2),
}

# The setting of PPPML-HMI's code, for comparison only.
COMPARISON_PRESETS: Mapping[str, Preset] = {
    "published": Preset(8192, _PUBLISHED_PRIMES, 1, "real_slots", 2.0**26),
}

# What `level` asks for: (column of the 2024 tables, bits).
_LEVELS = {"128": ("quantum", 128), "128c": ("classical", 128), "192": ("quantum", 192), "192c": ("classical", 192)}


@dataclass(frozen=True)
class CkksParams:
    """A checked parameter set for exact sums of up to ``parties`` vectors clipped to ``[-clip, clip]``.

    Build one with :meth:`preset` or :meth:`for_sum`. ``keys`` is the mode of the keys it serves. ``weights`` is
    ``"free"`` (each party's values may reach ``clip``, the sum ``parties * clip``) or ``"public"`` (public shares
    p_i >= 0 with sum 1 multiply the clipped values before rounding, so the sum stays within ``clip``). ``rounding`` is
    ``"nearest"`` or ``"stochastic"``: up or down at random, so that the expectation is the value itself.

    ``packing`` is ``"coefficients"``, or ``"slots"``: the canonical embedding of CKKS, a weight in each half of its N/2
    complex slots, slot j at exp(i pi 5^j / N), as OpenFHE numbers them; ``"real_slots"`` leaves the imaginary
    halves empty. Slot sets may have further primes, for multiplication: sums open modulo the leading one or two. What
    is summed exactly are then the integer coefficients; the slots they stand for are released rounded to
    :attr:`release_step`. ``slot_scale`` fixes the scale of a slot (phase over value; by default the largest that fits).

    ``insecure_for_comparison=True`` admits sets below 128 bits and drops the margin that makes slot sums exact: for
    benchmarks against other libraries, never for data. Every aggregator refuses such a set.

    Raises ParameterError, with value, limit and remedy, when the set is unsound.
    """

    name: str
    ring_dimension: int
    primes: tuple[int, ...]
    parties: int
    clip: float
    keys: KeyMode = "public"
    weights: WeightPolicy = "free"
    values_per_coefficient: int = 1
    rounding: Rounding = "nearest"
    packing: Packing = "coefficients"
    slot_scale: float | None = None
    insecure_for_comparison: bool = False
    _checked: Any = field(init=False, repr=False, compare=False)
    _scheme: Any = field(init=False, repr=False, compare=False)
    _device_schemes: dict[int, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        _check_choice("keys", self.keys, get_args(KeyMode))
        _check_choice("weights", self.weights, get_args(WeightPolicy))
        _check_choice("rounding", self.rounding, get_args(Rounding))
        _check_choice("packing", self.packing, get_args(Packing))
        if not isinstance(self.insecure_for_comparison, bool):
            raise ParameterError(f"insecure_for_comparison = {self.insecure_for_comparison!r} must be True or False")
        if not isinstance(self.name, str):
            raise ParameterError(f"name = {self.name!r} is not text; a parameter set is named by a string")
        # Plain ints and floats, so that the same set has the same id however its numbers were given.
        for name, most in (("ring_dimension", _INT64), ("parties", _INT64), ("values_per_coefficient", _UINT32)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 0, most, ParameterError))
        object.__setattr__(self, "primes", _moduli(self.primes))
        object.__setattr__(self, "clip", _real("clip", self.clip))
        if self.slot_scale is not None:
            object.__setattr__(self, "slot_scale", _real("slot_scale", self.slot_scale))
            if self.slot_scale == 0:
                raise ParameterError("slot_scale = 0 is no scale; leave it out for the largest that fits")
        try:
            checked = _native.Parameters(
                ring_dimension=self.ring_dimension,
                primes=list(self.primes),
                parties=self.parties,
                clip=self.clip,
                keys=getattr(_native.KeyMode, self.keys),
                weights=getattr(_native.WeightPolicy, self.weights),
                values_per_coefficient=self.values_per_coefficient,
                rounding=getattr(_native.Rounding, self.rounding),
                packing=getattr(_native.Packing, self.packing),
                slot_scale=self.slot_scale or 0.0,
                insecure_for_comparison=self.insecure_for_comparison,
            )
            scheme = _native.Scheme(checked)
        except _native.RequirementError as error:
            raise ParameterError(f"parameter set {self.name!r}: {error}") from None
        object.__setattr__(self, "_checked", checked)
        object.__setattr__(self, "_scheme", scheme)
        if self.insecure_for_comparison:
            warnings.warn(f"parameter set {self.name!r} is for comparison only, never for data", stacklevel=3)

    @classmethod
    def preset(
        cls,
        name: str,
        *,
        parties: int,
        clip: float,
        keys: KeyMode = "public",
        weights: WeightPolicy = "free",
        values_per_coefficient: int | None = None,
        rounding: Rounding = "nearest",
        packing: Packing | None = None,
        slot_scale: float | None = None,
        insecure_for_comparison: bool = False,
    ) -> CkksParams:
        """The named set (p31, p50, p62, compact or published) for ``parties`` and ``clip``.

        Raises ParameterError for an unknown name or a combination that does not fit, and for ``published``, the setting
        of PPPML-HMI's code, without ``insecure_for_comparison=True``.
        """
        sets = {**PRESETS, **COMPARISON_PRESETS}
        if name not in sets:
            raise ParameterError(f"no parameter set {name!r}; there are {', '.join(sets)}")
        ring = sets[name]
        if name in COMPARISON_PRESETS and not insecure_for_comparison:
            raise ParameterError(
                f"{name!r} holds fewer than 128 bits and releases noisy sums: it serves comparisons alone, with "
                "insecure_for_comparison=True; use another set for data"
            )
        filling = ring.packing if packing is None else packing
        packed = ring.values_per_coefficient if filling == "coefficients" else 1
        if values_per_coefficient is not None:
            packed = values_per_coefficient
        scale = ring.slot_scale if slot_scale is None else slot_scale
        return cls(
            name,
            ring.ring_dimension,
            ring.primes,
            parties,
            clip,
            keys,
            weights,
            packed,
            rounding,
            filling,
            scale,
            insecure_for_comparison,
        )

    @classmethod
    def for_sum(
        cls,
        *,
        parties: int,
        clip: float,
        bits: float = 16,
        level: str = "128",
        keys: KeyMode = "public",
        weights: WeightPolicy = "free",
        rounding: Rounding = "nearest",
    ) -> CkksParams:
        """The set with the fewest bytes per weight that sums ``bits``-bit values of ``parties`` exactly at ``level``.

        ``level`` is ``"128"`` or ``"192"`` (bits against quantum attacks) or ``"128c"``, ``"192c"`` (classical).
        Raises ParameterError that tells, set by set, why none fits.
        """
        _check_choice("level", level, tuple(_LEVELS))
        if not 0 < _real("bits", bits) < math.inf:
            raise ParameterError(f"bits = {bits!r} must be a positive number: the precision of one value")
        fitting: list[CkksParams] = []
        reasons: list[str] = []
        make = functools.partial(cls.preset, parties=parties, clip=clip, keys=keys, weights=weights, rounding=rounding)
        for name in PRESETS:
            best, reason = cls._best_packing(functools.partial(make, name), name, bits, level)
            if best is not None:
                fitting.append(best)
            else:
                reasons.append(reason)
        if not fitting:
            raise ParameterError(
                f"no set sums {bits}-bit values of {parties} parties at level {level}: {'; '.join(reasons)}. "
                "Ask for fewer bits, a lower level, or keys='collective'"
            )
        return min(fitting, key=lambda p: (p.bytes_per_weight, -p.exact_bits))

    @staticmethod
    def _best_packing(
        make: Callable[..., CkksParams], name: str, bits: float, level: str
    ) -> tuple[CkksParams | None, str]:
        column, wanted = _LEVELS[level]
        reason = f"{name} does not fit"
        for packed in (3, 2, 1):
            try:
                candidate = make(values_per_coefficient=packed)
            except ParameterError as error:
                if packed == 1:
                    if "clip" in str(error) or "parties =" in str(error):
                        raise
                    reason = f"{name}: {error}"
                continue
            reached = candidate.level_bits[column]
            if reached < wanted:
                return None, f"{name} holds {reached or 'fewer than 128'} bits ({column}), not {wanted}"
            if candidate.exact_bits >= bits:
                return candidate, ""
            reason = f"{name} keeps {candidate.exact_bits:.1f} bits of each value"
        return None, reason

    # --- what follows from it -----------------------------------------------------------------------------

    @property
    def scale(self) -> int:
        """Delta, the scale of the message polynomial: 2 * noise_bound + 1."""
        return int(self._checked.delta)

    @property
    def noise_bound(self) -> int:
        """Largest noise of a sum of ``parties`` encryptions, but for ``failure_log2``."""
        return int(self._checked.noise_bound)

    @property
    def max_magnitude(self) -> int:
        """Largest quantised value of one party, before its share: ``clip`` maps to it."""
        return int(self._checked.max_magnitude)

    @property
    def sum_bound(self) -> int:
        """Bound on the magnitude of an exact sum of quantised values."""
        return int(self._checked.sum_bound)

    @property
    def step(self) -> float:
        """Width of one quantisation step, in units of the weights."""
        return float(self._checked.step)

    @property
    def total_scale(self) -> float:
        """Phase over value: ``scale / step``. Of slots it is ``slot_scale`` where that is given."""
        return float(self._checked.total_scale)

    @property
    def max_error(self) -> float | None:
        """Bound on the error of a sum of slots opened as float64, release rounding included; None for coefficients.

        It covers the roundings of ``parties`` encodings and of the transforms (``csrc/ckks/slot_error.hpp``). Where
        ``insecure_for_comparison`` dropped the margin for noise it is an estimate.
        """
        return None if self.packing == "coefficients" else float(self._checked.max_error) + self.release_step / 2

    @property
    def release_step(self) -> float:
        """Slots open as multiples of this power of two, no finer than their guaranteed precision.

        0 for coefficients, which are exact, and under ``insecure_for_comparison``.
        """
        return float(self._checked.release_step)

    @property
    def exact_bits(self) -> float:
        """log2 of how many values one party can send per weight, or per coefficient of slots."""
        return float(self._checked.exact_bits)

    @property
    def level_bits(self) -> dict[str, int]:
        """Security in bits, ``{"classical": ..., "quantum": ...}``, by the tables of eprint 2024/463."""
        classical, quantum = self._checked.level
        return {"classical": int(classical), "quantum": int(quantum)}

    @property
    def level(self) -> str:
        """The security level in words, such as ``192 classical, 128 quantum``."""
        return ", ".join(f"{bits or '<128'} {column}" for column, bits in self.level_bits.items())

    @property
    def failure_log2(self) -> float:
        """log2 of the probability that any of 7e9 coefficients in 1000 rounds opens to a wrong integer."""
        return float(self._checked.failure_log2)

    @property
    def bytes_per_weight(self) -> float:
        """Payload bytes per weight of a fresh ciphertext of many full blocks, headers not counted."""
        bits = sum(q.bit_length() for q in self.primes) * (2 if self.keys == "public" else 1)
        return bits / 8 * self.ring_dimension / self.block_weights

    @property
    def block_weights(self) -> int:
        """Weights carried by one full block: N times the values per coefficient, N/2 in real slots."""
        return int(self._checked.block_weights)

    @property
    def block_integers(self) -> int:
        """Quantised integers of one full block: one per weight, or N coefficients of slots."""
        return int(self._checked.block_integers)

    def integer_count(self, length: int) -> int:
        """How many integers ``length`` weights are quantised to: as many, or N per block of slots."""
        return int(self._checked.integer_count(_whole("length", length)))

    def block_count(self, length: int) -> int:
        """Number of blocks that ``length`` weights take."""
        return int(self._checked.block_count(_whole("length", length)))

    @functools.cached_property
    def id(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes: the same for the same set on every machine."""
        import hashlib  # loads OpenSSL: not before it is needed

        return hashlib.sha256(b"pppml parameters v1\0" + self.canonical_bytes()).digest()

    def to_dict(self) -> dict[str, Any]:
        """The literal as plain JSON types; :meth:`from_dict` is its inverse.

        The last fields, from ``packing`` on, are left out where they have their defaults: sets keep the ids that they
        had before there were such fields.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        for name in _LATER_FIELDS:
            if values[name] == CkksParams.__dataclass_fields__[name].default:
                del values[name]
        return {**values, "primes": list(self.primes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CkksParams:
        """Build and check a set from :meth:`to_dict`'s form. Raises ParameterError on unknown or missing keys."""
        expected = {f.name for f in dataclasses.fields(cls) if f.init}
        if not expected - _LATER_FIELDS <= set(values) <= expected:
            raise ParameterError(f"parameter literal has keys {sorted(values)}; it takes {sorted(expected)}")
        return cls(**values)

    def canonical_bytes(self) -> bytes:
        """The literal as canonical JSON, floats in hexadecimal."""
        import json

        values = {name: v.hex() if isinstance(v, float) else v for name, v in self.to_dict().items()}
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    def describe(self) -> str:
        """One line for people: set, level, bytes per weight, precision, failure probability."""
        precision = f"{self.exact_bits:.1f} exact bits (step {self.step:.3g})"
        if self.max_error is not None:
            precision = f"{self.packing} within {self.max_error:.3g} (released in steps of {self.release_step:.3g})"
        failure = f"wrong sum with probability < 2^{self.failure_log2:.0f}"
        if self.insecure_for_comparison:
            failure = "FOR COMPARISON ONLY, not for data"
        return (
            f"{self.name}/{self.keys}: N = {self.ring_dimension}, log2 Q = {self._checked.log2_modulus:.0f}, level "
            f"{self.level}; {self.bytes_per_weight:.3f} bytes per weight, {precision} for {self.parties} parties, "
            f"clip {self.clip:g}, {self.weights} weights; {failure}"
        )

    def __repr__(self) -> str:
        filling = f"values_per_coefficient={self.values_per_coefficient}"
        precision = f"exact bits {self.exact_bits:.1f}"
        if self.max_error is not None:
            filling, precision = f"packing={self.packing}", f"errors within {self.max_error:.3g}"
        return (
            f"CkksParams({self.name}/{self.keys}, level {self.level}, parties={self.parties}, clip={self.clip:g}, "
            f"weights={self.weights}, {filling}, rounding={self.rounding}, "
            f"{precision}, bytes per weight {self.bytes_per_weight:.3f}"
            f"{', FOR COMPARISON ONLY' if self.insecure_for_comparison else ''})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return CkksParams.from_dict, (self.to_dict(),)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ParameterError(f"{name} = {value!r} is unknown; use one of {', '.join(choices)}")


def _whole(name: str, value: Any) -> int:
    return whole_number(name, value, 0, error=ParameterError)


def _moduli(values: Any) -> tuple[int, ...]:
    try:
        return tuple(_whole("modulus", q) for q in values)
    except TypeError:
        raise ParameterError(f"primes = {values!r} is no sequence of whole numbers") from None


def _real(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ParameterError(f"{name} = {value!r} is not a number") from None

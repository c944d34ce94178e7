"""Parameter sets of CKKS for sums: chosen by name or by need, checked when built, immutable afterwards."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pppml_fast import _native
from pppml_fast.checks import whole_number
from pppml_fast.errors import ParameterError

__all__ = ["PRESETS", "CkksParams", "KeyMode", "Rounding", "WeightPolicy"]

KeyMode = Literal["public", "secret", "collective"]
WeightPolicy = Literal["free", "public"]
Rounding = Literal["nearest", "stochastic"]

_P50_PRIME = 1125899906826241


@dataclass(frozen=True)
class Preset:
    """A named ring: its dimension N, its primes, and how many values share a coefficient by default."""

    ring_dimension: int
    primes: tuple[int, ...]
    values_per_coefficient: int


PRESETS: Mapping[str, Preset] = {
    "p31": Preset(2048, (2147389441,), 1),
    "p50": Preset(4096, (_P50_PRIME,), 1),
    "p62": Preset(4096, (2147377153, 2147352577), 1),
    "compact": Preset(2048, (_P50_PRIME,), 2),
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
    _checked: Any = field(init=False, repr=False, compare=False)
    _scheme: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_choice("keys", self.keys, get_args(KeyMode))
        _check_choice("weights", self.weights, get_args(WeightPolicy))
        _check_choice("rounding", self.rounding, get_args(Rounding))
        # Plain ints and floats, so that the same set has the same id however its numbers were given.
        for name in ("ring_dimension", "parties", "values_per_coefficient"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        object.__setattr__(self, "primes", tuple(_whole("modulus", q) for q in self.primes))
        object.__setattr__(self, "clip", _real("clip", self.clip))
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
            )
            scheme = _native.Scheme(checked)
        except _native.RequirementError as error:
            raise ParameterError(f"parameter set {self.name!r}: {error}") from None
        object.__setattr__(self, "_checked", checked)
        object.__setattr__(self, "_scheme", scheme)

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
    ) -> CkksParams:
        """The named set (p31, p50, p62 or compact) for ``parties`` and ``clip``.

        Raises ParameterError for an unknown name or a combination that does not fit.
        """
        if name not in PRESETS:
            raise ParameterError(f"no parameter set {name!r}; there are {', '.join(PRESETS)}")
        ring = PRESETS[name]
        packed = ring.values_per_coefficient if values_per_coefficient is None else values_per_coefficient
        return cls(name, ring.ring_dimension, ring.primes, parties, clip, keys, weights, packed, rounding)

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
    def exact_bits(self) -> float:
        """log2 of how many values one party can send per weight."""
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
        return bits / 8 / self.values_per_coefficient

    @property
    def block_weights(self) -> int:
        """Weights carried by one full block: N times the values per coefficient."""
        return int(self._checked.block_weights)

    def block_count(self, length: int) -> int:
        """Number of blocks that ``length`` weights take."""
        return int(self._checked.block_count(_whole("length", length)))

    @functools.cached_property
    def id(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes: the same for the same set on every machine."""
        import hashlib  # loads OpenSSL: not before it is needed

        return hashlib.sha256(b"pppml parameters v1\0" + self.canonical_bytes()).digest()

    def to_dict(self) -> dict[str, Any]:
        """The literal as plain JSON types; :meth:`from_dict` is its inverse."""
        names = [f.name for f in dataclasses.fields(self) if f.init]
        values = {name: getattr(self, name) for name in names}
        return {**values, "primes": list(self.primes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CkksParams:
        """Build and check a set from :meth:`to_dict`'s form. Raises ParameterError on unknown or missing keys."""
        expected = {f.name for f in dataclasses.fields(cls) if f.init}
        if set(values) != expected:
            raise ParameterError(f"parameter literal has keys {sorted(values)}; it takes {sorted(expected)}")
        return cls(**{**values, "primes": tuple(values["primes"])})

    def canonical_bytes(self) -> bytes:
        """The literal as canonical JSON, floats in hexadecimal."""
        import json

        values = {**self.to_dict(), "clip": self.clip.hex()}
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    def describe(self) -> str:
        """One line for people: set, level, bytes per weight, precision, failure probability."""
        return (
            f"{self.name}/{self.keys}: N = {self.ring_dimension}, log2 Q = {self._checked.log2_modulus:.0f}, level "
            f"{self.level}; {self.bytes_per_weight:.3f} bytes per weight, {self.exact_bits:.1f} exact bits "
            f"(step {self.step:.3g}) for {self.parties} parties, clip {self.clip:g}, {self.weights} weights; "
            f"wrong sum with probability < 2^{self.failure_log2:.0f}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return CkksParams.from_dict, (self.to_dict(),)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ParameterError(f"{name} = {value!r} is unknown; use one of {', '.join(choices)}")


def _whole(name: str, value: Any) -> int:
    return whole_number(name, value, 0, error=ParameterError)


def _real(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ParameterError(f"{name} = {value!r} is not a number") from None

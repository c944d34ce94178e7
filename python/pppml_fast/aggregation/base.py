"""What every aggregator has in common: the interface, a member's policy, results and their costs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import InputError, PppmlError, ProtocolError

__all__ = ["AggregateResult", "AggregationCosts", "Aggregator", "Policy", "Values", "check_finite", "value_parts"]


class DeviceTensor(Protocol):
    """What `pppml_fast.cuda` takes: a tensor of PyTorch or CuPy on a device, a `cuda.DeviceArray`."""

    def __dlpack_device__(self) -> tuple[Any, int]:
        """Kind and number of the device."""


Values = NDArray[Any] | Sequence[Any] | DeviceTensor
"""One float array of the host, or tensor of a CUDA device, or several of either that are taken as one flat vector."""

SMALLEST_GROUP = 3
TWO_PARTIES = (
    "an exact sum of two tells each party the other's value, so nothing is hidden between them; "
    "pass allow_two_parties=True only where that is acceptable"
)


class NeverPickled:
    """Base of objects that hold keys: they stay in the memory of their process."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secret keys and is never pickled")


def without_frames(error: PppmlError) -> PppmlError:
    """The error without the frames it was raised in, which would keep the refused message in memory with it."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


@dataclass(frozen=True)
class Policy:
    """What one member demands of any roster and live set, whatever the others accept.

    ``pinned`` maps names to Ed25519 public keys (32 bytes); ``min_parties`` defaults to
    max(3, ⌊n/2⌋ + 1), so that any two live sets overlap; ``max_share`` bounds one party's share of the
    weights (a roster with weights (1, 0, 0) opens one hospital).
    """

    pinned: Mapping[str, bytes] | None = None
    min_parties: int | None = None
    max_share: float = 0.5
    allow_two_parties: bool = False

    def minimum(self, parties: int) -> int:
        """Fewest parties a live set may have. Raises ProtocolError for a group that hides nothing."""
        if parties < SMALLEST_GROUP and not (parties > 1 and self.allow_two_parties):
            raise ProtocolError(f"{parties} parties are too few, at least {SMALLEST_GROUP} are needed: {TWO_PARTIES}")
        least = 2 if self.allow_two_parties else SMALLEST_GROUP
        if self.min_parties is not None:
            return max(self.min_parties, least)
        return max(min(parties, SMALLEST_GROUP), parties // 2 + 1)

    def check_live(self, members: Sequence[str], parties: int, weights: Mapping[str, float]) -> None:
        """Raise ProtocolError when a live set is too small or one party weighs too much in it."""
        least = self.minimum(parties)
        if len(members) < least:
            raise ProtocolError(f"a live set of {len(members)} of {parties} parties is under the minimum of {least}")
        total = math.fsum(weights[name] for name in members)
        for name in members:
            if not weights[name] > 0:
                raise ProtocolError(f"party {name!r} has weight {weights[name]}; every weight must be above 0")
            if weights[name] / total > self.max_share * (1 + 1e-9):
                raise ProtocolError(
                    f"party {name!r} holds {weights[name] / total:.3f} of the weight; the limit is {self.max_share}, "
                    "because a sum that is mostly one party's opens that party"
                )


@dataclass(frozen=True)
class AggregationCosts:
    """What one aggregation cost. Times in seconds, the slowest party's; bytes the largest party's.

    ``ring_s`` is the wall time of the whole aggregation as the driver saw it; ``bytes_ring`` one pass of the
    ring payload with its headers; ``bytes_per_weight`` is ``bytes_ring`` over the number of weights;
    ``clipped`` counts each party's clipped values.
    """

    encrypt_s: float = 0.0
    add_s: float = 0.0
    open_s: float = 0.0
    ring_s: float = 0.0
    bytes_ring: int = 0
    bytes_shares: int = 0
    bytes_control: int = 0
    bytes_per_weight: float = 0.0
    clipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AggregateResult:
    """The opened sum of one round.

    ``vector`` float32 (length,): the weighted mean, where updates came from a device a `cuda.DeviceArray` there;
    ``integers`` int64 (params.integer_count(length),): the exact sum of what was encrypted, one per weight or N per
    block of slots, None on a device; ``members`` the live set; ``transcript`` a hex digest that all members agree on.
    """

    vector: Any
    integers: NDArray[np.int64] | None
    costs: AggregationCosts
    transcript: str
    members: tuple[str, ...] = ()
    round: int = 0
    attempt: int = 0


class Aggregator(ABC):
    """One party's blocking handle on the federation."""

    @property
    @abstractmethod
    def party(self) -> str:
        """Name of the party this handle belongs to."""

    @abstractmethod
    def sum(self, vector: Values, weight: float | None = None) -> Any:
        """float32 (length,): the sum over all parties of anything additive; blocks until every party called.

        With ``weight``, this party's public weight of the roster, the vectors are taken as model updates
        and the weighted mean is returned; updates may be tensors of a CUDA device, whose mean is a `cuda.DeviceArray`
        there. Raises InputError on values that are not finite or, without a weight, out of the declared range;
        ProtocolError when the attempt was refused.
        """


def value_parts(values: Any) -> list[NDArray[Any]]:
    """The arrays of ``values`` as flat arrays, in order. Raises InputError on anything that is no float array."""
    several = isinstance(values, list | tuple) and any(hasattr(item, "shape") for item in values)
    parts = [np.asarray(array).reshape(-1) for array in (values if several else [values])]
    for index, part in enumerate(parts):
        if part.dtype.kind != "f":
            raise InputError(f"array {index} has dtype {part.dtype}; convert it to float32 or float64")
    if not sum(part.size for part in parts):
        raise InputError("there is nothing to sum: the vector has no values")
    return parts


def check_finite(parts: Sequence[NDArray[Any]], names: Sequence[str] | None = None) -> None:
    """Raise InputError that names the tensor holding NaN or Inf. ``names`` are those of ``parts``, in order."""
    for index, part in enumerate(parts):
        with np.errstate(all="ignore"):
            finite = math.isfinite(float(np.dot(part, part)))
        if finite or bool(np.isfinite(part).all()):
            continue
        where = int(np.flatnonzero(~np.isfinite(part))[0])
        owner = f"tensor {names[index]!r}" if names is not None and len(names) == len(parts) else f"array {index}"
        raise InputError(f"{owner} holds {part[where]} at flat index {where}; updates must be finite numbers")

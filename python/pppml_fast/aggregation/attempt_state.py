"""The state of one attempt: where a party stands, what it cost so far, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.opened import OpenedSum
from pppml_fast.aggregation.roster import Roster
from pppml_fast.aggregation.session import Gate, Message
from pppml_fast.aggregation.vectors import Vector
from pppml_fast.errors import PppmlError, ProtocolError
from pppml_fast.params import CkksParams

__all__ = [
    "ACTIVE",
    "ENDED_WITHOUT_SUM",
    "SUM_ROUNDS",
    "AttemptState",
    "HeldMessageError",
    "Meter",
    "Outcome",
    "PeerAbandonedError",
    "State",
    "divisor",
]


SUM_ROUNDS = 1 << 31
"""Plain sums are numbered from here, so that they never meet a training round; nothing divides them."""


def divisor(round_: int, params: CkksParams, roster: Roster, members: frozenset[int]) -> float:
    """What a sum over ``members`` is divided by: the sum of their weights, 1 in rounds that number plain sums."""
    if round_ >= SUM_ROUNDS:
        return 1.0
    if params.weights == "free":
        return float(len(members))
    if len(members) == len(roster.members):
        return 1.0
    return math.fsum(roster.members[index].weight for index in sorted(members))


class PeerAbandonedError(ProtocolError):
    """The attempt ended because another party said so; that party's log has the cause."""


class HeldMessageError(ProtocolError):
    """A message that was held for a while is refused: ``sender`` is whose it was, an index of the roster."""

    def __init__(self, sender: int, reason: PppmlError) -> None:
        super().__init__(str(reason))
        self.sender = sender


class State(Enum):
    """Where a party stands in its current attempt.

    ABANDONED: before its update was spent. DISCARDED: after the update was spent, without a sum: messages did not come,
    or the party or a peer gave up. FAILED: a check did not hold.
    """

    IDLE = "idle"
    PREPARING = "preparing"
    STREAMING = "streaming"
    CLOSING = "closing"
    OPENING = "opening"
    FINISHED = "finished"
    ABANDONED = "abandoned"
    DISCARDED = "discarded"
    FAILED = "failed"


ACTIVE = frozenset({State.PREPARING, State.STREAMING, State.CLOSING, State.OPENING})
ENDED_WITHOUT_SUM = frozenset({State.ABANDONED, State.DISCARDED, State.FAILED})


@dataclass
class Meter:
    """One party's costs of one attempt: seconds by the injected clock, bytes sent, and the fraction of its encryption
    that was prepared before its vector was there."""

    encrypt_s: float = 0.0
    prepared: float = 0.0
    add_s: float = 0.0
    open_s: float = 0.0
    bytes_ring: int = 0
    bytes_return: int = 0
    bytes_shares: int = 0
    bytes_control: int = 0
    clipped: int = 0

    def count(self, type_: MessageType, size: int) -> None:
        """Add a sent message to its kind."""
        if type_ is MessageType.CHUNK:
            self.bytes_ring += size
        elif type_ in (MessageType.RETURN, MessageType.SUM_CHUNK):
            self.bytes_return += size
        elif type_ in (MessageType.DEAL, MessageType.SHARE):
            self.bytes_shares += size
        else:
            self.bytes_control += size


@dataclass(frozen=True)
class Outcome:
    """What a finished attempt gave: live set by index, weighted mean, sum, root over its chunks, transcript digest.

    ``length`` is the number of weights, ``mean`` float32 (length,), or the memory that was given for it: the sum over
    the live weights' sum (the sum itself where `sum` numbers its rounds). ``integers`` int64
    (params.integer_count(length),), None where the mean went to memory of the caller's or of a device.
    """

    members: frozenset[int]
    length: int
    mean: Any
    integers: NDArray[np.int64] | None
    root: bytes
    transcript: bytes


@dataclass
class AttemptState:
    """The part of an attempt that every protocol has."""

    id: AttemptId
    gate: Gate
    params: CkksParams
    live: tuple[int, ...]
    threshold: int
    lost: set[int] = field(default_factory=set)
    ready: set[int] = field(default_factory=set)
    held: list[Message] = field(default_factory=list)
    vector: Vector | None = None
    weight: float = 1.0
    update: bytes = b""
    length: int = 0
    opened: OpenedSum | None = None
    answered: dict[int, int] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)
    models: dict[int, list[bytes]] = field(default_factory=dict)

    @property
    def remaining(self) -> list[int]:
        """Indices of the live parties that are not lost."""
        return [index for index in self.live if index not in self.lost]

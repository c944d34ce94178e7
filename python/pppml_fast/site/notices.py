"""What nodes tell each other beside the protocol of a round: where they stand, what comes next, and kept models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from pppml_fast.aggregation.encoding import Reader, Writer
from pppml_fast.aggregation.standing import StateId
from pppml_fast.errors import ProtocolError

__all__ = [
    "IN_ATTEMPT",
    "NO_SESSION",
    "STATE_PIECE",
    "Phase",
    "Plan",
    "PlanKind",
    "StatePiece",
    "StateRequest",
    "Status",
]

NO_SESSION = bytes(32)
Kind = TypeVar("Kind", bound=IntEnum)
STATE_PIECE = 1 << 20
"""Bytes of a kept model in one message."""


class Phase(IntEnum):
    """What a member is doing."""

    SEEKING = 0
    """It is in no session."""
    JOINING = 1
    """It opens one."""
    FETCHING = 2
    """It is in a session, and the model that was agreed on is on its way to it."""
    READY = 3
    """It holds the agreed model and waits for a plan."""
    TRAINING = 4
    """It is in an attempt and computes its update."""
    SUMMING = 5
    """Its update is in, or on its way."""
    OPENING = 6
    """It has released its share: it finishes this attempt, or its update is spent for nothing."""
    DONE = 7
    """It holds the last model of the training."""


IN_ATTEMPT = frozenset({Phase.TRAINING, Phase.SUMMING, Phase.OPENING})


@dataclass(frozen=True)
class Status:
    """What a member says to everyone it is linked to, whenever it changes and every few seconds.

    ``state`` is its newest model; ``round`` and ``attempt`` are those it is in or was in last, 2^32 - 1 and 0 before
    the first of a session; ``progress`` counts messages of the attempt; ``reachable`` are the members it has links to,
    itself included; ``turns`` counts the turns to lead that it holds to be over, 0 in a star.
    """

    session: bytes
    phase: Phase
    state: StateId
    round: int
    attempt: int
    progress: int
    parties: int
    reachable: frozenset[int]
    turns: int

    def encode(self) -> bytes:
        writer = Writer().raw(self.session).u8(self.phase).u32(self.state.round).raw(self.state.hash)
        writer.u32(self.round).u32(self.attempt).u32(self.progress).u32(self.turns)
        return writer.members(self.reachable, self.parties).finish()

    @classmethod
    def parse(cls, data: bytes) -> Status:
        reader = Reader(data, "status")
        session, phase = reader.raw(32), _kind(Phase, reader.u8(), "phase")
        state = StateId(reader.u32(), reader.raw(32))
        numbers, turns = (reader.u32(), reader.u32(), reader.u32()), reader.u32()
        parties, reachable = reader.members()
        reader.finish()
        return cls(session, phase, state, *numbers, parties, reachable, turns)


class PlanKind(IntEnum):
    """What the lead asks of the members of its session."""

    ATTEMPT = 0
    LEAVE = 1
    """Leave the session: another member leads the next one."""
    END = 2
    """The training is finished, and nobody is expected any more."""


@dataclass(frozen=True)
class Plan:
    """The lead's signed word on what comes next; an attempt is over ``live``."""

    kind: PlanKind
    round: int
    attempt: int
    parties: int
    live: frozenset[int]

    def encode(self) -> bytes:
        writer = Writer().u8(self.kind).u32(self.round).u32(self.attempt)
        return writer.members(self.live, self.parties).finish()

    @classmethod
    def parse(cls, data: bytes) -> Plan:
        reader = Reader(data, "plan")
        kind, round_, attempt = _kind(PlanKind, reader.u8(), "kind"), reader.u32(), reader.u32()
        parties, live = reader.members()
        reader.finish()
        return cls(kind, round_, attempt, parties, live)


@dataclass(frozen=True)
class StateRequest:
    """Asks for a piece of a kept model: `STATE_PIECE` bytes from ``offset``."""

    state: StateId
    offset: int

    def encode(self) -> bytes:
        return Writer().u32(self.state.round).raw(self.state.hash).u64(self.offset).finish()

    @classmethod
    def parse(cls, data: bytes) -> StateRequest:
        reader = Reader(data, "request for a model")
        request = cls(StateId(reader.u32(), reader.raw(32)), reader.u64())
        reader.finish()
        return request


@dataclass(frozen=True)
class StatePiece:
    """A piece of a kept model of ``total`` bytes, sealed for the one that asked."""

    state: StateId
    total: int
    offset: int
    data: bytes

    def encode(self) -> bytes:
        head = Writer().u32(self.state.round).raw(self.state.hash).u64(self.total).u64(self.offset)
        return head.raw(self.data).finish()

    @classmethod
    def parse(cls, data: bytes) -> StatePiece:
        reader = Reader(data, "piece of a model")
        state = StateId(reader.u32(), reader.raw(32))
        piece = cls(state, reader.u64(), reader.u64(), reader.rest())
        if piece.offset + len(piece.data) > piece.total:
            raise ProtocolError(f"a piece of a model ends at byte {piece.offset + len(piece.data)} of {piece.total}")
        return piece


def _kind(type_: type[Kind], code: int, what: str) -> Kind:
    try:
        return type_(code)
    except ValueError:
        raise ProtocolError(f"{what} {code} is unknown; update one side") from None

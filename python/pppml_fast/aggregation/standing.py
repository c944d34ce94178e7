"""What a member has kept from earlier sessions, as its hello tells it: so that all begin from one model.

Nobody is asked to believe a single member: a model counts when a majority of the roster holds it. And a member whose
disk was rolled back learns from the others what it has released.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.encoding import Reader, Writer
from pppml_fast.errors import ProtocolError

__all__ = ["Standing", "StateId", "agreed_state"]

_KEPT = 2


class StateId(NamedTuple):
    """A model that members can agree on: the number of finished rounds, and the 32-byte hash of the shared tensors."""

    round: int
    hash: bytes


@dataclass(frozen=True)
class Standing:
    """``states``: the models this member keeps, newest first, at most two. ``witnessed``: by roster index, attempts
    whose sums another member has signed, at most two: so it cannot forget them with its disk."""

    states: tuple[StateId, ...]
    witnessed: Mapping[int, tuple[AttemptId, ...]] = field(default_factory=dict)

    def encode(self) -> bytes:
        writer = Writer().u8(len(self.states))
        for state in self.states:
            writer.u32(state.round).raw(state.hash)
        writer.u16(len(self.witnessed))
        for index, seen in sorted(self.witnessed.items()):
            writer.u16(index).u8(len(seen))
            for attempt in seen:
                writer.raw(attempt.session).u32(attempt.round).u32(attempt.attempt)
        return writer.finish()

    @classmethod
    def parse(cls, data: bytes) -> Standing:
        """Raises ProtocolError on anything but canonical bytes."""
        reader = Reader(data, "standing")
        count = reader.u8()
        if not 0 < count <= _KEPT:
            raise ProtocolError(f"a standing names {count} models; expected 1 or {_KEPT}")
        states = tuple(StateId(reader.u32(), reader.raw(32)) for _ in range(count))
        witnessed: dict[int, tuple[AttemptId, ...]] = {}
        for _ in range(reader.u16()):
            index = reader.u16()
            if witnessed and index <= max(witnessed):
                raise ProtocolError("the witnessed attempts of a standing are not in order")
            count = reader.u8()
            if not 0 < count <= _KEPT:
                raise ProtocolError(f"a standing names {count} attempts of one member; expected 1 or {_KEPT}")
            witnessed[index] = tuple(AttemptId(reader.raw(32), reader.u32(), reader.u32()) for _ in range(count))
        reader.finish()
        return cls(states, witnessed)


def agreed_state(standings: Mapping[int, Standing], members: int) -> StateId | None:
    """The newest model that a majority of the roster's ``members`` keeps; None when no model has one.

    Every member that finishes a round keeps its model and the one before, and no round begins before all its live
    members, a majority, keep the last one: so those who were there always find it again, also where a few had gone on.
    Only where several disks were rolled back can a majority be missing. With members away it may be found with them;
    with everyone present it is the model that most keep, the newest of these.
    """
    held = Counter(state for standing in standings.values() for state in set(standing.states))
    common = [state for state, count in held.items() if 2 * count > members]
    if not common and len(standings) == members:
        common = [state for state, count in held.items() if count == max(held.values())]
    return max(common, default=None)

"""Who sends the messages of one attempt: signed or sealed by its gate, routed, counted."""

from __future__ import annotations

from pppml_fast.aggregation.attempt_state import AttemptState, Meter
from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.aggregation.handshake import route
from pppml_fast.aggregation.messages import EVERYONE, MessageType
from pppml_fast.aggregation.session import Session
from pppml_fast.errors import ProtocolError
from pppml_fast.transport.base import Outgoing

__all__ = ["Correspondent"]


class Correspondent(NeverPickled):
    """A member of a session with a current attempt, whose messages leave under that attempt's keys."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._attempt: AttemptState | None = None

    @property
    def name(self) -> str:
        """This party's name."""
        return self.session.identity.name

    @property
    def meter(self) -> Meter:
        """Costs of the current attempt."""
        return self._now.meter

    @property
    def _now(self) -> AttemptState:
        if self._attempt is None:
            raise ProtocolError("no attempt was begun yet")
        return self._attempt

    def _sealed(
        self, receiver: int, type_: MessageType, body: bytes | memoryview, blocks: tuple[int, int] = (0, 0)
    ) -> Outgoing:
        return self._routed(receiver, type_, self._now.gate.seal(receiver, type_, body, blocks))

    def _signed(self, receiver: int, type_: MessageType, body: bytes) -> Outgoing:
        return self._routed(receiver, type_, self._now.gate.sign(receiver, type_, body))

    def _routed(self, receiver: int, type_: MessageType, data: bytes) -> Outgoing:
        self.meter.count(type_, len(data))
        return route(self.session.roster, self.session.index, receiver, data)

    def _broadcast(self, type_: MessageType, body: bytes) -> list[Outgoing]:
        """The same signed bytes to every live party; one upload where a relay passes them on."""
        data = self._now.gate.sign(EVERYONE, type_, body)
        if self.session.roster.relay is not None:
            return [self._routed(EVERYONE, type_, data)]
        others = [index for index in self._now.live if index != self.session.index]
        return [self._routed(index, type_, data) for index in others]

"""What comes in for a party: kept for an attempt to come, admitted by the attempt's gate and handled, or refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from pppml_fast.aggregation.base import without_frames
from pppml_fast.aggregation.early import EarlyMessages
from pppml_fast.aggregation.messages import Frame, Header, MessageType, parse_frame
from pppml_fast.aggregation.model_hashes import ModelHashes
from pppml_fast.aggregation.session import Message, Session
from pppml_fast.errors import PppmlError, ProtocolError, SiteError
from pppml_fast.transport.base import Outgoing

__all__ = ["Intake"]

_ANSWERED = 16
_REFUSALS_KEPT = 1000


class Intake(ModelHashes, ABC):
    """The part of a member's machine that takes messages.

    ``refusals`` has the reasons of those that were refused, ``refused_by`` the names of parties that refused one of
    this party's. Protocols add what they take to ``_handlers``.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.refusals: list[PppmlError] = []
        self.refused_by: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        self._early = EarlyMessages(len(session.roster.everyone))
        self._handlers: dict[MessageType, Callable[[Message], list[Outgoing]]] = {
            MessageType.MODEL_HASH: self._on_model,
        }

    def receive(self, data: bytes) -> list[Outgoing]:
        """Take one message; a refused one changes nothing. Raises SiteError where this party's own disk ends it."""
        frame: Frame | None = None
        try:
            frame = parse_frame(data)
            if self._keep_for_later(frame.header, data):
                return []
            message = self._now.gate.accept(frame)
            return self._guarded(lambda: self._dispatch(message))
        except SiteError:
            raise
        except PppmlError as error:
            if len(self.refusals) < _REFUSALS_KEPT:
                self.refusals.append(without_frames(error))
            return self._refusal(frame)

    @abstractmethod
    def _guarded(self, step: Callable[[], list[Outgoing]]) -> list[Outgoing]:
        """Run a step of the attempt, or end it where the step says that it cannot go on."""

    def _dispatch(self, message: Message) -> list[Outgoing]:
        kind = message.header.type
        if kind is MessageType.REFUSED:
            self.refused_by.append(self.session.roster.everyone[message.header.sender].name)
            return []
        if kind not in self._handlers or message.header.sender not in self._senders_of(kind):
            raise ProtocolError(f"{kind.name} of party {message.header.sender} has no place in {self._now.id}")
        return self._handlers[kind](message)

    def _senders_of(self, kind: MessageType) -> set[int]:
        """Live members may send anything; a relay nothing of its own but sums."""
        relay = self.session.roster.relay is not None and kind is MessageType.RETURN
        return {*self._now.live, len(self.session.roster.members)} if relay else set(self._now.live)

    def _keep_for_later(self, header: Header, data: bytes) -> bool:
        """Hold a message of an attempt that this party has not begun yet, within bounds."""
        key = (header.round, header.attempt)
        if header.session != self.session.id or key in self._seen:
            return False
        self._early.keep(key, header.sender, data)
        return True

    def _refusal(self, frame: Frame | None) -> list[Outgoing]:
        if frame is None or frame.header.type is MessageType.REFUSED or self._attempt is None:
            return []
        sender, answered = frame.header.sender, self._attempt.answered
        known = sender in self._attempt.live and sender != self.session.index
        if not known or answered.get(sender, 0) >= _ANSWERED:
            return []
        answered[sender] = answered.get(sender, 0) + 1
        return [self._signed(sender, MessageType.REFUSED, b"")]

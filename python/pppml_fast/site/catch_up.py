"""Kept models between members of a session: what a member that missed rounds asks for, piece by piece, and is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pppml_fast.errors import ProtocolError
from pppml_fast.site.application import Application, StateId
from pppml_fast.site.notices import STATE_PIECE, StatePiece, StateRequest

__all__ = ["Fetch", "Server"]

_OUTSTANDING = 8
_STATE_LIMIT = 1 << 40


@dataclass
class Fetch:
    """A kept model on its way here from the first of ``holders`` (roster indices), a few pieces ahead.

    ``ask`` sends a request to a holder; ``heard`` is when it answered last, by the node's clock.
    """

    state: StateId
    holders: list[int]
    ask: Callable[[int, StateRequest], None]
    heard: float
    data: bytearray = field(default_factory=bytearray)
    total: int = -1
    requested: int = 0

    @property
    def holder(self) -> int:
        """Who is asked."""
        return self.holders[0]

    @property
    def complete(self) -> bool:
        """Whether all of it is here."""
        return len(self.data) == self.total

    def request(self) -> None:
        """Ask for what comes next: one piece, which tells the size, then as many as may be outstanding."""
        ahead = len(self.data) + (_OUTSTANDING if self.total >= 0 else 1) * STATE_PIECE
        end = self.total if self.total >= 0 else 1
        while self.requested < min(ahead, end):
            self.ask(self.holder, StateRequest(self.state, self.requested))
            self.requested += STATE_PIECE

    def take(self, sender: int, piece: StatePiece, now: float) -> None:
        """Add the next piece. Raises ProtocolError on any other, changing nothing."""
        if sender != self.holder or piece.state != self.state:
            raise ProtocolError(f"party {sender} sends a piece of a model that nobody asked it for")
        if piece.offset != len(self.data) or self.total not in (-1, piece.total) or piece.total > _STATE_LIMIT:
            raise ProtocolError(f"party {sender} sends byte {piece.offset} of {piece.total}, not the next piece")
        if not piece.data and piece.total:
            raise ProtocolError(f"party {sender} sends an empty piece of a model")
        self.total, self.heard = piece.total, now
        self.data += piece.data
        if not self.complete:
            self.request()

    def next_holder(self, now: float) -> bool:
        """Begin anew with the next one that keeps the model; False when nobody is left."""
        if len(self.holders) < 2:
            return False
        self.holders, self.heard = self.holders[1:], now
        self.data, self.total, self.requested = bytearray(), -1, 0
        self.request()
        return True


class Server:
    """Hands out the application's kept models, of which it holds the one last asked for in memory."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._held: tuple[StateId, bytes] | None = None

    def forget(self) -> None:
        """Free the memory."""
        self._held = None

    def answer(self, sender: int, request: StateRequest) -> StatePiece:
        """The piece asked for. Raises ProtocolError when it is not kept here."""
        if request.state not in self._application.states:
            raise ProtocolError(f"party {sender} asks for a model that is not kept here")
        if self._held is None or self._held[0] != request.state:
            self._held = (request.state, self._application.export(request.state))
        data, start = self._held[1], request.offset
        if start > len(data):
            raise ProtocolError(f"party {sender} asks for byte {start} of {len(data)}")
        return StatePiece(request.state, len(data), start, data[start : start + STATE_PIECE])

"""Kept models between members of a session: what a member that missed rounds asks for, piece by piece, and is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pppml_fast.aggregation.standing import Standing
from pppml_fast.errors import DataError, ProtocolError
from pppml_fast.site.application import Application, StateId, keeping
from pppml_fast.site.notices import STATE_PIECE, StatePiece, StateRequest

__all__ = ["CatchUp", "Fetch", "Server"]

_OUTSTANDING = 8


@dataclass
class Fetch:
    """A kept model on its way here from the first of ``holders`` (roster indices), a few pieces ahead.

    ``ask`` sends a request to a holder; ``heard`` is when it answered last, by the node's clock; ``limit`` is the most
    bytes that a model may have, whatever a holder says.
    """

    state: StateId
    holders: list[int]
    ask: Callable[[int, StateRequest], None]
    heard: float
    limit: int
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
        if piece.offset != len(self.data) or self.total not in (-1, piece.total):
            raise ProtocolError(f"party {sender} sends byte {piece.offset} of {piece.total}, not the next piece")
        if piece.total > self.limit:
            raise ProtocolError(f"party {sender} offers a model of {piece.total} bytes; the limit is {self.limit}")
        if len(piece.data) != min(STATE_PIECE, piece.total - piece.offset):
            raise ProtocolError(f"party {sender} sends {len(piece.data)} bytes at {piece.offset}, not a whole piece")
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


class CatchUp:
    """Both ends of it at one member: what it lacks, if anything, and what it hands out. ``size``: shared values."""

    def __init__(self, application: Application, size: int) -> None:
        self._application = application
        self._server = Server(application)
        self._fetch: Fetch | None = None
        # An optimiser's state and names are among an exported model's bytes.
        self._limit = (1 << 26) + 32 * size

    @property
    def holder(self) -> int | None:
        """Who is asked for the model that is on its way here; None when none is."""
        return None if self._fetch is None else self._fetch.holder

    def begin(
        self, state: StateId, standings: Mapping[int, Standing], ask: Callable[[int, StateRequest], None], now: float
    ) -> None:
        """Ask those that keep a model for it, one after the other; see `Fetch`."""
        holders = [index for index, standing in sorted(standings.items()) if state in standing.states]
        self._fetch = Fetch(state, holders, ask, now, self._limit)
        self._fetch.request()

    def take(self, sender: int, piece: StatePiece, now: float) -> bool:
        """Add a piece; whether the model is complete. Raises ProtocolError on one that was not asked for."""
        if self._fetch is None:
            raise ProtocolError(f"party {sender} sends a piece of a model that nobody asked for")
        self._fetch.take(sender, piece, now)
        return self._fetch.complete

    def adopt(self) -> StateId:
        """Let the application take the complete model. Raises DataError for a wrong one, SiteError where it cannot be
        kept."""
        if self._fetch is None:
            raise ProtocolError("no model is on its way here")
        state = self._fetch.state
        with keeping(state.round, faults_of_others=(DataError,)):
            self._application.adopt(state, bytes(self._fetch.data))
        self._fetch = None
        return state

    def late(self, now: float, patience: float) -> bool:
        """Whether the holder has not answered for so many seconds."""
        return self._fetch is not None and now - self._fetch.heard >= patience

    def next_holder(self, now: float) -> bool:
        """Begin anew with the next holder; False when there is none."""
        return self._fetch is not None and self._fetch.next_holder(now)

    def answer(self, sender: int, request: StateRequest) -> StatePiece:
        """The piece that another one asks for; see `Server`."""
        return self._server.answer(sender, request)

    def forget(self) -> None:
        """Free what is held to hand it out."""
        self._server.forget()

    def stop(self) -> None:
        """The session is over: nothing more comes or goes."""
        self._fetch = None
        self._server.forget()

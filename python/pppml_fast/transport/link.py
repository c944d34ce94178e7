"""One end of a link between two nodes, without input or output: frames in and out, exactly once and in order.

A connection carries frames in order until it breaks; a *session* outlives its connections. The dialling end opens every
connection with what it holds (session, messages received); the accepting end decides: the session both are in goes on,
or a fresh one begins, numbered by its incarnation and a counter, with nothing sent or received. As both ends enter a
session once and at zero, two ends that name the same one can always resume it. An end that gives a session up (the
grace time is over, the peer restarted) drops what was under way in it, and the other end follows at the next opening.

Frames, big endian. The first one each way is an opening; after it a frame of at most 64 bytes is a short message or a
control frame, told by its first byte, and a longer one is bulk without a header, so that a message of up to a fragment
is sent and received without being copied. Messages need no numbers: a connection keeps their order.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import NamedTuple

from pppml_fast.errors import InputError, ProtocolError

__all__ = ["FRAGMENT", "INCARNATION_BYTES", "LIMIT", "SMALL", "WINDOW", "Down", "Link", "Message", "Room", "Up"]

WINDOW = 16 << 20
LIMIT = 40 << 20
FRAGMENT = 2 << 20
SMALL = 64  # bytes up to which a frame is no bulk; the last fragment is longer by as much rather than so short
INCARNATION_BYTES = 16

_SHORT, _LONG, _ACK, _FLUSH = 1, 2, 3, 4
_NUMBER = struct.Struct(">BQ")  # LONG: bytes of the message that follows; ACK: messages the node took
_OPENING = struct.Struct(">8s16sQ24sQB")
_MAGIC = b"pppmlL01"
_NO_SESSION = bytes(24)
_OVERHEAD = 64  # counted for every message, so that a window bounds the number of empty ones too


class Up(NamedTuple):
    """A session began."""

    incarnation: bytes


class Down(NamedTuple):
    """The session ended, with all that was under way."""


class Room(NamedTuple):
    """Less than the window waits again."""


class Message(NamedTuple):
    """A whole message; say `Link.taken` when the node has it."""

    session: bytes
    data: bytes


class _Opening(NamedTuple):
    incarnation: bytes
    window: int
    session: bytes
    received: int  # messages of that session


class Link:
    """The end that belongs to ``name`` of its link with ``peer``; one of the two ``accepts``, the other dials.

    ``window`` bounds the bytes sent and not yet taken by the peer's node, ``limit`` one message, both by the other
    end's word as well: what is held for a node that does not take it stays below window + limit. Methods raise
    ProtocolError on frames that no honest peer sends; the connection must be closed then, and the session may go on.
    """

    def __init__(
        self,
        name: str,
        peer: str,
        incarnation: bytes,
        *,
        accepts: bool,
        window: int = WINDOW,
        limit: int = LIMIT,
        fragment: int = FRAGMENT,
    ) -> None:
        if len(incarnation) != INCARNATION_BYTES:
            raise InputError(f"an incarnation is {INCARNATION_BYTES} random bytes, not {len(incarnation)}")
        if min(window, limit) < 1 or fragment <= SMALL:
            raise InputError(f"window {window} and limit {limit} must be positive, fragment {fragment} above {SMALL}")
        self.name, self.peer, self.accepts = name, peer, accepts
        self.window, self.limit, self.fragment = window, limit, fragment
        self.connection = 0  # number of the connection that counts, 0 for none
        self._own, self._last = incarnation, 0
        self._opening = b""  # to be sent first
        self._answered = False
        self._session = self._told = _NO_SESSION
        self._sessions = 0
        self._begin(_NO_SESSION, b"", 0)

    def _begin(self, session: bytes, incarnation: bytes, window: int) -> None:
        self._session, self._incarnation, self._peer_window = session, incarnation, window
        self._unsent: deque[bytes] = deque()
        self._sent: deque[bytes] = deque()  # and not yet taken by the peer's node
        self._acknowledged = 0  # messages
        self._outstanding = self._flying = 0  # bytes
        self._inbox: deque[bytes] = deque()
        self._held = 0  # bytes in the inbox and in the node's hands
        self._received = self._taken = 0  # messages
        self._unreported = 0  # bytes taken since the last acknowledgement
        self._full = self._room_due = self._flush = False
        self._renew()

    def _renew(self) -> None:
        """What belongs to a connection: half a message each way."""
        self._parts: deque[bytes | memoryview] = deque()
        self._pieces: list[bytes] = []
        self._missing = 0
        self._ack_due = self._ack_when_taken = self._flush_sent = False

    # --- connections ------------------------------------------------------------------------------------------------

    @property
    def established(self) -> bool:
        """Whether a connection stands on which both ends have opened."""
        return self.connection != 0 and self._answered

    @property
    def standing(self) -> bool:
        """Whether there is a session, with or without a connection."""
        return self._session != _NO_SESSION

    @property
    def writable(self) -> bool:
        """Whether `next_frame` has a frame for the connection that counts."""
        if self._opening or not self.established:
            return self.connection != 0 and bool(self._opening)
        can_begin = bool(self._unsent) and self._flying < self._peer_window
        flush = self._flush and not self._flush_sent and not self._unsent
        return self._ack_due or bool(self._parts) or can_begin or flush

    def connect(self) -> int:
        """Begin a connection as the dialling end; it replaces the one before. Its first frame is the opening."""
        self._last += 1
        self.connection, self._answered = self._last, False
        self._renew()
        self._opening = self._write_opening()
        return self.connection

    def accept(self, frame: bytes) -> int:
        """Take a new connection's first frame as the accepting end; the connection replaces the one before.

        Raises ProtocolError and leaves everything as it was if the frame is malformed or not the peer's.
        """
        opening = self._read_opening(frame)
        resumed = self._session != _NO_SESSION and opening.session == self._session
        if resumed:
            self._check_resumed(opening)
        self._last += 1
        self.connection, self._answered = self._last, True
        if resumed:
            self._resume(opening.received)
        else:
            self._sessions += 1
            session = self._own + self._sessions.to_bytes(8, "big")
            self._begin(session, opening.incarnation, opening.window)
        self._opening = self._write_opening()
        return self.connection

    def _take_answer(self, frame: bytes) -> None:
        answer = self._read_opening(frame)
        if answer.session == _NO_SESSION:
            raise ProtocolError(f"{self.peer} answered an opening without a session")
        if answer.session == self._session:
            self._check_resumed(answer)
            self._resume(answer.received)
        elif answer.received:
            raise ProtocolError(f"{self.peer} says it received {answer.received} messages in a session that begins")
        else:
            self._begin(answer.session, answer.incarnation, answer.window)
        self._answered = True

    def _check_resumed(self, opening: _Opening) -> None:
        first, last = self._acknowledged, self._acknowledged + len(self._sent)
        if opening.incarnation != self._incarnation:
            raise ProtocolError(f"{self.peer} resumes a session of another incarnation")
        if not first <= opening.received <= last:
            raise ProtocolError(f"{self.peer} says it received {opening.received} messages, not {first} to {last}")

    def _resume(self, count: int) -> None:
        """Send again what came after the peer's first ``count`` messages; those are still not taken, perhaps."""
        self._renew()
        while self._acknowledged + len(self._sent) > count:
            data = self._sent.pop()
            self._flying -= len(data) + _OVERHEAD
            self._unsent.appendleft(data)
        self._ack_due = self._taken > 0  # the last one may have been lost

    def disconnect(self, connection: int) -> None:
        """The connection broke. Nothing happens if it is not the one that counts."""
        if connection == self.connection:
            self.connection, self._answered = 0, False

    def leave(self) -> None:
        """Give the session up: what was under way both ways is dropped, and no connection counts any more."""
        self.connection, self._answered = 0, False
        self._begin(_NO_SESSION, b"", 0)

    def _write_opening(self) -> bytes:
        name = self.name.encode()
        return _OPENING.pack(_MAGIC, self._own, self.window, self._session, self._received, len(name)) + name

    def _read_opening(self, frame: bytes) -> _Opening:
        if len(frame) < _OPENING.size or not frame.startswith(_MAGIC):
            raise ProtocolError(f"a connection in the name of {self.peer} does not begin with an opening of version 1")
        _, incarnation, window, session, received, length = _OPENING.unpack_from(frame)
        name = frame[_OPENING.size :]
        if len(name) != length or name != self.peer.encode():
            raise ProtocolError(f"an opening names {name[:64]!r} where the certificate says {self.peer!r}")
        if window < 1:
            raise ProtocolError(f"{self.peer} offers a window of 0 bytes")
        return _Opening(incarnation, window, session, received)

    # --- what the node does -----------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue a message; dropped while the node has not been told of a session that stands.

        Raises InputError where it is longer than the limit.
        """
        if len(data) > self.limit:
            raise InputError(f"a message of {len(data)} bytes is above the link's limit of {self.limit}; cut it")
        if self._told == self._session != _NO_SESSION:
            self._unsent.append(data)
            self._outstanding += len(data) + _OVERHEAD
            self._flush_sent = False
            self._full = self._full or self._outstanding >= self.window

    def room(self) -> bool:
        """Whether the session stands, the node knows it, and less than the window waits to be taken."""
        return self._told == self._session != _NO_SESSION and self._outstanding < self.window

    def flush(self) -> bool:
        """Ask for the acknowledgement of everything sent; True when nothing waits for one."""
        self._flush = self._outstanding > 0
        return not self._flush

    def take(self) -> Up | Down | Room | Message | None:
        """What the node is to be told next."""
        if self._told != self._session:
            if self._told != _NO_SESSION:
                self._told = _NO_SESSION
                return Down()
            self._told = self._session
            return Up(self._incarnation)
        if self._room_due:
            self._room_due = False
            return Room()
        return Message(self._session, self._inbox.popleft()) if self._inbox else None

    def taken(self, message: Message) -> None:
        """The node is done with a message that `take` gave: the peer may send on."""
        if message.session != self._session:
            return
        cost = len(message.data) + _OVERHEAD
        self._held -= cost
        self._taken += 1
        self._unreported += cost
        # An eighth of the smaller window: few acknowledgements, and none that the sender waits for.
        self._ack_due = self._ack_due or self._unreported * 8 >= min(self.window, self._peer_window)
        self._report_if_drained()

    def _report_if_drained(self) -> None:
        if self._ack_when_taken and self._taken == self._received:
            self._ack_due, self._ack_when_taken = True, False

    # --- frames out -------------------------------------------------------------------------------------------------

    def next_frame(self, connection: int) -> bytes | None:
        """The next frame to write on this connection, if there is one now."""
        if connection != self.connection:
            return None
        if self._opening:
            frame, self._opening = self._opening, b""
            return frame
        if not self.writable:
            return None
        if self._ack_due:
            self._ack_due, self._unreported = False, 0
            return _NUMBER.pack(_ACK, self._taken)
        if not self._parts and self._unsent:
            self._cut(self._unsent[0])
        if self._parts:
            return self._next_part()
        self._flush_sent = True
        return bytes((_FLUSH,))

    def _cut(self, data: bytes) -> None:
        if len(data) < SMALL:
            self._parts.append(bytes((_SHORT,)) + data)
        elif SMALL < len(data) <= self.fragment:
            self._parts.append(data)
        else:  # too long for one frame, or of the one length that is neither short nor bulk
            self._parts.append(_NUMBER.pack(_LONG, len(data)))
            view = memoryview(data)
            while view:
                size = _part_size(len(view), self.fragment)
                self._parts.append(view[:size])
                view = view[size:]

    def _next_part(self) -> bytes:
        part = self._parts.popleft()
        if not self._parts:
            data = self._unsent.popleft()
            self._sent.append(data)
            self._flying += len(data) + _OVERHEAD
        return bytes(part)

    # --- frames in --------------------------------------------------------------------------------------------------

    def receive(self, connection: int, frame: bytes) -> bool:
        """Take a frame; False if its connection does not count any more, and the frame with it.

        Raises ProtocolError on a frame that no honest peer sends.
        """
        if connection != self.connection:
            return False
        if not self._answered:
            self._take_answer(frame)
        elif self._missing:
            self._take_in_message(frame)
        elif len(frame) > SMALL:
            if len(frame) > self.fragment:
                raise ProtocolError(f"{self.peer} sent a frame of {len(frame)} bytes; the limit is {self.fragment}")
            self._keep(frame)
        elif frame[:1] == bytes((_SHORT,)):
            self._keep(frame[1:])
        else:
            self._take_control(frame)
        return True

    def _take_in_message(self, frame: bytes) -> None:
        size = _part_size(self._missing, self.fragment)
        if len(frame) == size:
            self._pieces.append(frame)
            self._missing -= size
            if not self._missing:
                pieces, self._pieces = self._pieces, []
                self._keep(b"".join(pieces))
        elif len(frame) > SMALL or frame[:1] in (bytes((_SHORT,)), bytes((_LONG,))):
            raise ProtocolError(f"{self.peer} sent {len(frame)} bytes where a fragment of {size} was due")
        else:
            self._take_control(frame)

    def _take_control(self, frame: bytes) -> None:
        kind = frame[0] if frame else 0
        if kind == _FLUSH and len(frame) == 1:
            self._ack_when_taken = True
            self._report_if_drained()
        elif kind in (_ACK, _LONG) and len(frame) == _NUMBER.size:
            number = _NUMBER.unpack(frame)[1]
            self._take_ack(number) if kind == _ACK else self._take_length(number)
        else:
            raise ProtocolError(f"{self.peer} sent a frame of {len(frame)} bytes and kind {kind}, which there is not")

    def _take_ack(self, count: int) -> None:
        if not self._acknowledged <= count <= self._acknowledged + len(self._sent):
            raise ProtocolError(
                f"{self.peer} acknowledged {count} messages; between {self._acknowledged} and "
                f"{self._acknowledged + len(self._sent)} were sent"
            )
        while self._acknowledged < count:
            cost = len(self._sent.popleft()) + _OVERHEAD
            self._flying -= cost
            self._outstanding -= cost
            self._acknowledged += 1
        if self._full and self._outstanding < self.window:
            self._full, self._room_due = False, True

    def _take_length(self, length: int) -> None:
        if not (length == SMALL or self.fragment < length):
            raise ProtocolError(f"{self.peer} announced {length} bytes in fragments, which fit in one frame")
        self._check_fits(length)
        self._missing = length

    def _keep(self, data: bytes) -> None:
        self._check_fits(len(data))
        self._held += len(data) + _OVERHEAD
        self._received += 1
        self._inbox.append(data)

    def _check_fits(self, length: int) -> None:
        if length > self.limit:
            raise ProtocolError(f"{self.peer} sent a message of {length} bytes; the limit is {self.limit}")
        # An honest peer begins a message only while less than the window is under way.
        if self._held >= self.window:
            raise ProtocolError(f"{self.peer} sends beyond the window of {self.window} bytes")


def _part_size(left: int, fragment: int) -> int:
    """Bytes of the next fragment of ``left``: no remainder is so short that it could be taken for a control frame."""
    return left if left <= fragment + SMALL else fragment

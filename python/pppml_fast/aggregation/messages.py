"""Frames: the one header every message carries, strict bounds, and which types are signed or sealed.

A frame is ``header ‖ body ‖ seal``. Signed (control) frames end in an Ed25519 signature over header and body;
sealed frames carry an AEAD ciphertext as body, with the header as associated data. Parsing checks form only;
who may send what, and when, is decided by `session.Gate` and by the state machines.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from pppml_fast.aggregation.identity import SIGNATURE_SIZE
from pppml_fast.errors import ProtocolError

__all__ = [
    "EVERYONE",
    "HEADER_SIZE",
    "PROTOCOL_VERSION",
    "SEAL_SIZE",
    "SESSION_SCOPE",
    "SIGNED",
    "Frame",
    "Header",
    "MessageType",
    "parse_frame",
    "parse_header",
]

PROTOCOL_VERSION = 2
EVERYONE = 0xFFFF
SESSION_SCOPE = 0xFFFF_FFFF
"""The round number of messages that belong to the session rather than to a round."""
SEAL_SIZE = 16
_MAGIC = b"PPML"
_LAYOUT = struct.Struct("<4sHBB32sIIHHQIII")
HEADER_SIZE = _LAYOUT.size
_KIB, _MIB = 1 << 10, 1 << 20


class MessageType(IntEnum):
    """What a frame carries; the payloads are in `payloads`."""

    ROSTER = 1
    HELLO = 2
    ENCAPSULATION = 3
    READY = 4
    BEGIN = 5
    DEAL = 6
    CHUNK = 7
    RETURN = 8
    STATEMENT = 9
    SHARE = 10
    ABANDON = 11
    PUBLIC_KEY = 12
    ANNOUNCE = 13
    SUM_CHUNK = 14
    SUM_HASH = 15
    MODEL_HASH = 16
    REFUSED = 17
    TAG = 18
    STATUS = 19
    PLAN = 20
    STATE_REQUEST = 21
    STATE = 22


SEALED_LIMITS: dict[MessageType, int] = {
    MessageType.READY: 256,
    MessageType.DEAL: 256 * _KIB,
    MessageType.CHUNK: 256 * _MIB,
    MessageType.RETURN: 256 * _MIB,
    MessageType.SHARE: 256 * _KIB,
    MessageType.SUM_CHUNK: 256 * _MIB,
    MessageType.STATE: 4 * _MIB,
}
SIGNED_LIMITS: dict[MessageType, int] = {
    MessageType.ROSTER: 32 * _MIB,
    MessageType.HELLO: 132 * _KIB,
    MessageType.ENCAPSULATION: 4 * _KIB,
    MessageType.BEGIN: 4 * _KIB,
    MessageType.STATEMENT: 16 * _KIB,
    MessageType.ABANDON: 64 * _KIB,
    MessageType.PUBLIC_KEY: 32 * _MIB,
    MessageType.ANNOUNCE: 4 * _KIB,
    MessageType.SUM_HASH: 256,
    MessageType.MODEL_HASH: 256,
    MessageType.REFUSED: 0,
    MessageType.TAG: 4 * _MIB,
    MessageType.STATUS: 4 * _KIB,
    MessageType.PLAN: 4 * _KIB,
    MessageType.STATE_REQUEST: 256,
}
SIGNED = frozenset(SIGNED_LIMITS)


@dataclass(frozen=True)
class Header:
    """What every message says about itself. ``session`` is 32 bytes: the roster's hash until a session exists."""

    type: MessageType
    session: bytes
    round: int
    attempt: int
    sender: int
    receiver: int
    sequence: int
    start: int = 0
    stop: int = 0

    def encode(self, body_size: int) -> bytes:
        """The header's bytes for a body of ``body_size`` bytes, the seal of a sealed frame included."""
        return _LAYOUT.pack(
            _MAGIC,
            PROTOCOL_VERSION,
            self.type,
            0,
            self.session,
            self.round,
            self.attempt,
            self.sender,
            self.receiver,
            self.sequence,
            self.start,
            self.stop,
            body_size,
        )


@dataclass(frozen=True)
class Frame:
    """A parsed frame: nothing in it is believed yet. ``content`` is its body; a sealed one is a view of the message."""

    header: Header
    prefix: bytes
    content: bytes | memoryview
    signature: bytes

    @property
    def body(self) -> bytes:
        """The body as bytes, which copies a sealed one."""
        return bytes(self.content)

    @property
    def signed(self) -> bool:
        """Whether the frame is a signed control message."""
        return self.header.type in SIGNED


def parse_header(data: bytes) -> tuple[Header, int]:
    """Header and body size. Raises ProtocolError on a wrong length, magic, version, type, flag or range."""
    if len(data) < HEADER_SIZE:
        raise ProtocolError(f"message is truncated: a header has {HEADER_SIZE} bytes, {len(data)} were given")
    (magic, version, kind, flags, session, round_, attempt, sender, receiver, sequence, start, stop, size) = (
        _LAYOUT.unpack_from(data)
    )
    if magic != _MAGIC:
        raise ProtocolError("not a message of this protocol: wrong magic bytes")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {version} is not {PROTOCOL_VERSION}; update one side")
    if flags != 0:
        raise ProtocolError(f"reserved header byte is {flags}, expected 0")
    if start > stop:
        raise ProtocolError(f"block range {start}..{stop} runs backwards")
    try:
        type_ = MessageType(kind)
    except ValueError:
        raise ProtocolError(f"unknown message type {kind}") from None
    limit = SIGNED_LIMITS[type_] if type_ in SIGNED else SEALED_LIMITS[type_] + SEAL_SIZE
    if size > limit:
        raise ProtocolError(f"{type_.name} of {size} bytes is over its limit of {limit}")
    return Header(type_, session, round_, attempt, sender, receiver, sequence, start, stop), size


def parse_frame(data: bytes) -> Frame:
    """A frame of exactly ``len(data)`` bytes. Raises ProtocolError on anything else."""
    header, size = parse_header(data)
    tail = SIGNATURE_SIZE if header.type in SIGNED else 0
    expected = HEADER_SIZE + size + tail
    if len(data) != expected:
        raise ProtocolError(f"{header.type.name} should have {expected} bytes, {len(data)} were given")
    if header.type not in SIGNED and size < SEAL_SIZE:
        raise ProtocolError(f"{header.type.name} is shorter than its seal of {SEAL_SIZE} bytes")
    stop = HEADER_SIZE + size
    if header.type in SIGNED:
        return Frame(header, data[:HEADER_SIZE], data[HEADER_SIZE:stop], data[stop:])
    return Frame(header, data[:HEADER_SIZE], memoryview(data)[HEADER_SIZE:], b"")

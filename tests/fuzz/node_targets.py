"""Fuzz targets of a site: notices, standings, link frames, and whatever reaches a member in a session."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from protocol_targets import LAYOUT, NAMES, identities, parameters, sample_roster

import pppml_fast as pf
from pppml_fast.aggregation import AttemptLedger, MemoryStore, Policy, SessionOptions, Terms
from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.messages import EVERYONE, SESSION_SCOPE, SIGNED, Header, MessageType
from pppml_fast.aggregation.session import CONTROL
from pppml_fast.aggregation.standing import Standing, StateId
from pppml_fast.site.events import Events
from pppml_fast.site.lead import Timing
from pppml_fast.site.member import Member
from pppml_fast.site.notices import Phase, Plan, PlanKind, StatePiece, StateRequest, Status
from pppml_fast.site.statuses import MEMBERSHIP
from pppml_fast.transport.link import Link

STATE = StateId(3, bytes(range(32)))
NOTICES: tuple[Any, ...] = (
    Status(bytes(32), Phase.READY, STATE, 3, 1, 77, 9, frozenset({0, 2, 8}), 2),
    Plan(PlanKind.ATTEMPT, 3, 1, 9, frozenset({0, 2, 8})),
    StateRequest(STATE, 1 << 20),
    StatePiece(STATE, 10, 4, b"values"),
    Standing((STATE, StateId(2, bytes(32))), {1: (AttemptId(bytes(32), 2, 0),), 2: (AttemptId(bytes(32), 2, 1),)}),
)


def notice_seeds() -> list[bytes]:
    """A notice of every kind, behind the number of its class."""
    return [bytes([index]) + notice.encode() for index, notice in enumerate(NOTICES)]


def notice(data: bytes) -> None:
    """An accepted notice is written again as it came."""
    kind = type(NOTICES[data[:1].ljust(1, b"\0")[0] % len(NOTICES)])
    try:
        parsed = kind.parse(data[1:])
    except pf.ProtocolError:
        return
    assert parsed.encode() == data[1:], "an accepted notice has another canonical form"


def link_frame_seeds() -> list[bytes]:
    """Frames of every kind, each behind its length."""
    frames = [b"\x01short", b"\x02" + (300).to_bytes(8, "big"), b"\x03" + (1).to_bytes(8, "big"), b"\x04", bytes(100)]
    seeds = [bytes([len(frame)]) + frame for frame in frames]
    return [*seeds, b"".join(seeds)]


def link_frame(data: bytes) -> None:
    """A link that has opened takes frames or refuses them, and never holds more than its window and one message."""
    one = Link("a", "b", bytes(16), accepts=False, window=1000, limit=500, fragment=128)
    other = Link("b", "a", bytes(16), accepts=True, window=1000, limit=500, fragment=128)
    connection = one.connect()
    accepted = other.accept(one.next_frame(connection) or b"")
    one.receive(connection, other.next_frame(accepted) or b"")
    at = 0
    while at < len(data):
        size = data[at]
        try:
            other.receive(accepted, data[at + 1 : at + 1 + size])
        except pf.ProtocolError:
            break
        at += 1 + size
    assert other._held <= 1000 + 500 + 64
    assert sum(map(len, other._pieces)) <= 500


# --- a member in a session -------------------------------------------------------------------------------------------


class Idle:
    """An application that has one model and never ends its training."""

    states = (STATE,)

    def train(self, round: int, salt: int) -> None:
        pass

    def finished(self) -> bool:
        return False

    def export(self, state: StateId) -> bytes:
        return bytes(100)


@functools.cache
def in_session() -> dict[str, Member]:
    """Three members of a ring in an attempt, as they are when training begins."""
    terms, roster = Terms(parameters(), parameters(), LAYOUT, SessionOptions()), sample_roster()
    nodes: dict[str, Member] = {}
    for name in NAMES:
        idle: Any = Idle()
        ledger, events = AttemptLedger(MemoryStore()), Events(lambda: 0.0)
        spool = Path(tempfile.mkdtemp())
        nodes[name] = Member(
            identities()[name], roster, Policy(), terms, ledger, idle, events, Timing(heartbeat=1e9), spool=spool
        )
    for name, node in nodes.items():
        for other in NAMES:
            if other != name:
                node.up(other)
    for step in range(40):
        for name, node in nodes.items():
            node.tick(step / 10)
            for message in node.outgoing():
                nodes[message.hop].receive(name, message.data)
    assert all(node.session is not None and node._plan is not None for node in nodes.values())
    return nodes


def member_seeds() -> list[bytes]:
    """A frame of every type, of the session's scope and of a round's: type, scope, sender, flags, body."""
    return [bytes([kind, scope, 0, 1]) + bytes(40) for kind in MessageType for scope in (0, 1, 2)]


def member(data: bytes) -> None:
    """A member in a session raises nothing, whatever comes over a link, and stays in its session and attempt.

    With the first flag frames are well signed by the other end of the link, but for a plan of the lead's and a
    proposal, which may move a member.
    """
    south = in_session()["south"]
    if len(data) < 4 or data[0] not in set(MessageType):
        south.receive("east", data)
    else:
        kind, body = MessageType(data[0]), data[4:]
        round_, attempt = ((SESSION_SCOPE, 0), (SESSION_SCOPE, MEMBERSHIP), (0, 0))[data[1] % 3]
        assert south.session is not None
        session = south.roster.fingerprint if kind is MessageType.STATUS else south.session.id
        receiver = EVERYONE if data[3] & 2 else 2
        prefix = Header(kind, session, round_, attempt, 1 if data[2] % 4 == 0 else data[2], receiver, 0).encode(
            len(body)
        )
        tail = identities()["east"].sign(CONTROL, prefix + body) if kind in SIGNED and data[3] & 1 else b""
        before = south.session.id, south._plan
        if kind is not MessageType.ABANDON:
            south.receive("east", prefix + body + tail)
            assert (south.session is not None and south.session.id, south._plan) == before
    south.tick(5.0)
    south.outgoing()

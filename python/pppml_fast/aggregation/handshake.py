"""Opening a session: roster, hellos, pairwise keys, group key. A state machine without I/O.

1. One of the members present, or a star's relay, proposes the roster, with the layout behind its fingerprint and the
   members that are present: enough of them for every member's policy, all of them by default.
2. Everyone present checks it against its own terms and policy, signs it, and sends a signed hello: 32 fresh random
   bytes, fresh X25519 and ML-KEM-768 keys, and its standing (what it has kept from earlier sessions). The session id
   is the hash of the roster, the proposal and all signed hellos.
3. In each pair the lower index encapsulates; both derive the pairwise keys and delete the ephemeral ones.
4. Members send each other 32 random bytes under those keys: together they give the group key, which a relay
   lacks. The first sealed message also proves that both ends hold the same key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum

from pppml_fast.aggregation.base import NeverPickled, Policy
from pppml_fast.aggregation.identity import Identity, verify
from pppml_fast.aggregation.messages import (
    EVERYONE,
    SESSION_SCOPE,
    Frame,
    Header,
    MessageType,
    parse_frame,
)
from pppml_fast.aggregation.pairwise import Channel, EphemeralKeys, PairContext, derive_key, encapsulate
from pppml_fast.aggregation.payloads import Hello, RosterProposal
from pppml_fast.aggregation.roster import Roster, Terms, check_policy
from pppml_fast.aggregation.session import CONTROL, Gate, Session, session_id
from pppml_fast.errors import PppmlError, ProtocolError
from pppml_fast.layout import Layout
from pppml_fast.transport.base import Outgoing

__all__ = ["Handshake", "HandshakeState", "forward", "route"]

_ROSTER_SIGNATURE = "roster"
_EARLY_PER_PARTY = 4


class HandshakeState(Enum):
    """Where the opening of a session stands."""

    WAITING_FOR_ROSTER = "waiting for the roster"
    WAITING_FOR_HELLOS = "waiting for hellos"
    WAITING_FOR_KEYS = "waiting for keys"
    OPEN = "open"
    REFUSED = "refused"


class Handshake(NeverPickled):
    """One party's side of opening a session; ``session`` holds the result once the state is OPEN.

    ``terms`` is None for a star's relay, which checks pinned identities only. The proposer passes the ``proposal``,
    the names of the members ``present`` (all by default) and, where it is the relay, the ``layout``. ``standing`` goes
    into this party's hello as it is. Refused messages are dropped and their reasons kept in ``refusals``; a refused
    roster ends the handshake with its reason in ``failure``.
    """

    def __init__(
        self,
        identity: Identity,
        policy: Policy,
        terms: Terms | None,
        proposal: Roster | None = None,
        *,
        present: Sequence[str] | None = None,
        layout: Layout | None = None,
        standing: bytes = b"",
    ) -> None:
        self.state = HandshakeState.WAITING_FOR_ROSTER
        self.refusals: list[PppmlError] = []
        self.failure: PppmlError | None = None
        self.session: Session | None = None
        self._identity, self._policy, self._terms, self._proposal = identity, policy, terms, proposal
        self._wanted, self._layout, self._standing = present, layout or (terms.layout if terms else None), standing
        self._keys = EphemeralKeys()
        self._random = os.urandom(32)
        self._roster: Roster | None = None
        self._proposed = b""
        self._present: frozenset[int] = frozenset()
        self._hellos: dict[int, tuple[Hello, bytes]] = {}
        self._own_hello = b""
        self._session_id = b""
        self._channels: dict[int, Channel] = {}
        self._keyed: Session | None = None
        self._gate: Gate | None = None
        self._contributions: dict[int, bytes] = {}
        self._early: list[bytes] = []
        self._refused: Roster | None = None
        self._refused_proposer = 0
        self._refused_by: frozenset[int] = frozenset()

    @property
    def keys_deleted(self) -> bool:
        """Whether the ephemeral private keys are gone."""
        return self._keys.destroyed

    @property
    def proposal(self) -> bytes:
        """Id of the proposal this party follows, 32 bytes; empty before there is one."""
        return self._proposed

    @property
    def present(self) -> frozenset[int]:
        """Indices of the members that the proposal names; empty before there is one."""
        return self._present

    @property
    def awaited(self) -> frozenset[int]:
        """Indices of those present that this party still waits for; after a refusal, who refused."""
        if self._roster is None or self.state is HandshakeState.OPEN:
            return frozenset()
        if self.state is HandshakeState.REFUSED:
            return self._refused_by
        here = self._hellos if self.state is HandshakeState.WAITING_FOR_HELLOS else self._contributions
        return frozenset(self._everyone) - frozenset(here) - {self._me}

    def start(self) -> list[Outgoing]:
        """The proposer's roster; nothing from anyone else."""
        if self._proposal is None or self._layout is None:
            return []
        roster, layout = self._proposal, self._layout.canonical_bytes()
        names = roster.names if self._wanted is None else self._wanted
        present = frozenset(roster.index(name) for name in names)
        proposal = RosterProposal(roster.canonical_bytes(), layout, len(roster.members), present, os.urandom(32))
        self._check_proposal(roster, proposal, roster.index(self._identity.name))
        self._take_proposal(roster, proposal)
        out = self._to_all(self._signed(MessageType.ROSTER, EVERYONE, proposal.encode(), roster.fingerprint))
        return out + self._say_hello()

    def receive(self, data: bytes) -> list[Outgoing]:
        """Take one message; refused ones change nothing."""
        try:
            frame = parse_frame(data)
            if self._roster is not None and self._me == len(self._roster.members):
                out = forward(self._roster, self._me, frame.header, data, self._present)
                if frame.header.receiver != EVERYONE and out:
                    return out
            else:
                out = []
            return out + self._take(frame, data)
        except PppmlError as error:
            self.refusals.append(error)
            return self._refusal()

    def lost(self, name: str) -> list[Outgoing]:
        """A party is gone: without everyone present there is no session."""
        strangers = self._roster is not None and self._roster.index(name) not in self._everyone
        if self.state is not HandshakeState.OPEN and not strangers:
            self._fail(ProtocolError(f"party {name!r} was lost before the session was open"))
        return []

    @property
    def _me(self) -> int:
        return -1 if self._roster is None else self._roster.index(self._identity.name)

    @property
    def _everyone(self) -> list[int]:
        """Indices of the members present, then of the relay where there is one."""
        roster = self._require_roster()
        return sorted(self._present) + list(range(len(roster.members), len(roster.everyone)))

    def _take(self, frame: Frame, data: bytes) -> list[Outgoing]:
        state, kind = self.state, frame.header.type
        if state in (HandshakeState.REFUSED, HandshakeState.OPEN):
            raise ProtocolError(f"{kind.name} arrived while the handshake is {state.value}")
        if kind is MessageType.ROSTER and state is HandshakeState.WAITING_FOR_ROSTER and self._roster is None:
            return self._on_roster(frame, data) + self._drain()
        if kind is MessageType.HELLO and state is HandshakeState.WAITING_FOR_HELLOS:
            return self._on_hello(frame, data) + self._drain()
        if kind is MessageType.ENCAPSULATION and state is HandshakeState.WAITING_FOR_KEYS:
            return self._on_encapsulation(frame) + self._drain()
        if kind is MessageType.REFUSED and self._roster is not None:
            return self._on_refused(frame)
        if kind is MessageType.READY and self._gate is not None and frame.header.sender in self._channels:
            return self._on_ready(frame)
        too_soon = (MessageType.HELLO, MessageType.ENCAPSULATION, MessageType.READY)
        parties = 1024 if self._roster is None else len(self._roster.everyone)
        if kind in too_soon and len(self._early) < _EARLY_PER_PARTY * parties:
            self._early.append(data)
            return []
        raise ProtocolError(f"{kind.name} does not belong to a handshake that is {state.value}")

    def _refusal(self) -> list[Outgoing]:
        """A refusal without a reason, for the proposer whose roster this party does not accept."""
        if self._refused is None:
            return []
        roster, self._refused = self._refused, None
        me = roster.index(self._identity.name)
        to = self._refused_proposer
        prefix = Header(MessageType.REFUSED, self._proposed, SESSION_SCOPE, 0, me, to, 0).encode(0)
        return [route(roster, me, to, prefix + self._identity.sign(CONTROL, prefix))]

    def _on_refused(self, frame: Frame) -> list[Outgoing]:
        roster = self._require_roster()
        self._check_signed(frame, roster, self._proposed)
        name = roster.everyone[frame.header.sender].name
        self._refused_by = frozenset({frame.header.sender})
        self._fail(ProtocolError(f"party {name!r} refused the roster; its own log says why"))
        return []

    def _drain(self) -> list[Outgoing]:
        early, self._early = self._early, []
        out: list[Outgoing] = []
        for data in early:
            try:
                out += self._take(parse_frame(data), data)
            except PppmlError as error:
                self.refusals.append(error)
        return out

    def _on_roster(self, frame: Frame, data: bytes) -> list[Outgoing]:
        proposal = RosterProposal.parse(frame.body)
        roster = Roster.parse(proposal.roster)
        roster.index(self._identity.name)
        self._check_signed(frame, roster, roster.fingerprint)
        try:
            self._check_proposal(roster, proposal, frame.header.sender)
        except PppmlError as error:
            self._fail(error)
            self._refused, self._refused_proposer, self._proposed = roster, frame.header.sender, proposal.id
            raise
        self._take_proposal(roster, proposal)
        out = forward(roster, self._me, frame.header, data, self._present) if self._terms is None else []
        return out + self._say_hello()

    def _take_proposal(self, roster: Roster, proposal: RosterProposal) -> None:
        self._roster, self._present, self._proposed = roster, proposal.present, proposal.id

    def _check_proposal(self, roster: Roster, proposal: RosterProposal, proposer: int) -> None:
        """Raise unless this party's terms and policy allow the roster, and a session over those present."""
        members, me = len(roster.members), roster.index(self._identity.name)
        if proposal.parties != members or not proposal.present:
            raise ProtocolError(f"the proposal counts {proposal.parties} members, the roster {members}")
        if proposer not in (*proposal.present, *range(members, len(roster.everyone))):
            raise ProtocolError(f"party {proposer} proposes a session that it is not in; only a relay may do that")
        if me < members and me not in proposal.present:
            raise ProtocolError("the proposal leaves this party out")
        if self._terms is not None:
            self._terms.check(roster, proposal.layout, self._identity.name, self._identity.public, self._policy)
        elif roster.relay is None or roster.relay.public != self._identity.public:
            raise ProtocolError("the roster names another relay than this one")
        else:
            check_policy(roster, self._policy)
        names = [roster.members[index].name for index in sorted(proposal.present)]
        self._policy.check_live(names, members, roster.weights)

    def _say_hello(self) -> list[Outgoing]:
        roster = self._require_roster()
        signature = self._identity.sign(_ROSTER_SIGNATURE, roster.canonical_bytes())
        hello = Hello(self._random, self._keys.x25519_public, self._keys.mlkem_public, signature, self._standing)
        self._own_hello = self._signed(MessageType.HELLO, EVERYONE, hello.encode(), self._proposed)
        self._hellos[self._me] = (hello, self._own_hello)
        self.state = HandshakeState.WAITING_FOR_HELLOS
        return self._to_all(self._own_hello)

    def _on_hello(self, frame: Frame, data: bytes) -> list[Outgoing]:
        roster = self._require_roster()
        self._check_signed(frame, roster, self._proposed)
        sender = frame.header.sender
        if sender in self._hellos:
            raise ProtocolError(f"a second hello of {roster.everyone[sender].name!r}")
        hello = Hello.parse(frame.body)
        member = roster.everyone[sender]
        verify(member.public, _ROSTER_SIGNATURE, roster.canonical_bytes(), hello.roster_signature, member.name)
        self._hellos[sender] = (hello, data)
        everyone = self._everyone
        if len(self._hellos) < len(everyone):
            return []
        ordered = [self._hellos[index][1] for index in everyone]
        self._session_id = session_id(roster, self._proposed, len(everyone), ordered, self._own_hello)
        self.state = HandshakeState.WAITING_FOR_KEYS
        return self._encapsulate_to_higher()

    def _encapsulate_to_higher(self) -> list[Outgoing]:
        out = []
        for peer in [index for index in self._everyone if index > self._me]:
            secret, ciphertext = encapsulate(self._hellos[peer][0].mlkem)
            self._open_channel(self._me, peer, ciphertext, secret)
            out.append(self._to(peer, self._signed(MessageType.ENCAPSULATION, peer, ciphertext, self._session_id)))
        return out + self._when_keyed()

    def _on_encapsulation(self, frame: Frame) -> list[Outgoing]:
        roster = self._require_roster()
        self._check_signed(frame, roster, self._session_id)
        sender = frame.header.sender
        if sender >= self._me or sender in self._channels:
            raise ProtocolError(f"an encapsulation of party {sender} is not expected")
        self._open_channel(sender, self._me, frame.body, self._keys.decapsulate(frame.body))
        return self._when_keyed()

    def _open_channel(self, low: int, high: int, ciphertext: bytes, mlkem_secret: bytes) -> None:
        low_hello, high_hello = self._hellos[low][0], self._hellos[high][0]
        context = PairContext(
            self._session_id, low, high, low_hello.x25519, high_hello.x25519, high_hello.mlkem, ciphertext
        )
        peer = high if low == self._me else low
        secret = self._keys.agree(self._hellos[peer][0].x25519)
        self._channels[peer] = context.channel(secret, mlkem_secret, self._me)

    def _when_keyed(self) -> list[Outgoing]:
        """With all pairwise keys in hand: delete the ephemeral keys and contribute to the group key."""
        roster = self._require_roster()
        if len(self._channels) < len(self._everyone) - 1:
            return []
        self._keys.destroy()
        standings = {index: hello.standing for index, (hello, _) in self._hellos.items() if index in self._present}
        self._keyed = Session(roster, self._identity, self._session_id, self._channels, None, self._present, standings)
        self._gate = self._keyed.gate(SESSION_SCOPE, 0)
        members = len(roster.members)
        own = os.urandom(32) if self._me < members else b""
        self._contributions[self._me] = own
        out = []
        for peer in sorted(self._channels):
            body = own if peer < members else b""
            out.append(self._to(peer, self._gate.seal(peer, MessageType.READY, body)))
        return out

    def _on_ready(self, frame: Frame) -> list[Outgoing]:
        roster = self._require_roster()
        if self._gate is None:
            raise ProtocolError("READY arrived before the pairwise keys")
        message = self._gate.accept(frame)
        sender, members = message.header.sender, len(roster.members)
        expected = 32 if sender < members and self._me < members else 0
        if len(message.body) != expected or sender in self._contributions:
            raise ProtocolError(f"READY of party {sender} is not as expected")
        self._contributions[sender] = message.body
        if len(self._contributions) == len(self._everyone):
            self._finish(roster)
        return []

    def _finish(self, roster: Roster) -> None:
        if self._keyed is None:
            raise ProtocolError("the session has no pairwise keys yet")
        members = len(roster.members)
        if self._me < members:
            parts = b"".join(self._contributions[index] for index in sorted(self._present))
            self._keyed.join(derive_key(parts, self._session_id, b"pppml group key v1"))
        self.session, self._keyed = self._keyed, None
        self._contributions.clear()
        self._gate = None
        self.state = HandshakeState.OPEN

    def _fail(self, error: PppmlError) -> None:
        self.failure = error
        self.state = HandshakeState.REFUSED
        self._keys.destroy()

    def _check_signed(self, frame: Frame, roster: Roster, session: bytes) -> None:
        header = frame.header
        if header.session != session:
            raise ProtocolError(f"{header.type.name} belongs to another roster or session")
        if (header.round, header.attempt, header.sequence) != (SESSION_SCOPE, 0, 0):
            raise ProtocolError(f"{header.type.name} carries numbers that do not belong to a handshake")
        if header.sender >= len(roster.everyone) or header.sender == roster.index(self._identity.name):
            raise ProtocolError(f"sender {header.sender} is no other party of the roster")
        if self._roster is not None and header.sender not in self._everyone:
            raise ProtocolError(f"party {header.sender} is not present in this session")
        if header.receiver not in (EVERYONE, roster.index(self._identity.name)):
            raise ProtocolError(f"{header.type.name} is addressed to party {header.receiver}")
        sender = roster.everyone[header.sender]
        verify(sender.public, CONTROL, frame.prefix + frame.body, frame.signature, sender.name)

    def _signed(self, type_: MessageType, receiver: int, body: bytes, session: bytes) -> bytes:
        prefix = Header(type_, session, SESSION_SCOPE, 0, self._me, receiver, 0).encode(len(body))
        return prefix + body + self._identity.sign(CONTROL, prefix + body)

    def _to(self, receiver: int, data: bytes) -> Outgoing:
        return route(self._require_roster(), self._me, receiver, data)

    def _to_all(self, data: bytes) -> list[Outgoing]:
        roster = self._require_roster()
        if roster.relay is not None and self._me < len(roster.members):
            return [Outgoing(roster.relay.name, data)]
        return [self._to(peer, data) for peer in self._everyone if peer != self._me]

    def _require_roster(self) -> Roster:
        if self._roster is None:
            raise ProtocolError("there is no roster yet")
        return self._roster


def route(roster: Roster, me: int, receiver: int, data: bytes) -> Outgoing:
    """The first hop towards a party: the party itself, or a star's relay."""
    if roster.relay is not None and me < len(roster.members):
        return Outgoing(roster.relay.name, data)
    return Outgoing(roster.everyone[receiver].name, data)


def forward(
    roster: Roster, me: int, header: Header, data: bytes, present: frozenset[int] | None = None
) -> list[Outgoing]:
    """What a relay passes on, unchanged: messages for another party, or for everyone present but their sender."""
    members = sorted(range(len(roster.members)) if present is None else present)
    if header.receiver == EVERYONE:
        return [Outgoing(roster.everyone[index].name, data) for index in members if index != header.sender]
    if header.receiver != me and header.receiver in members:
        return [Outgoing(roster.everyone[header.receiver].name, data)]
    return []

"""What a member and a coordinator have in common: links, sessions and, where it is this node's turn, the lead.

A state machine without I/O: `up`, `down`, `receive` and `tick` go in, `outgoing` and `pull` come out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from pppml_fast.aggregation.base import NeverPickled, Policy
from pppml_fast.aggregation.handshake import Handshake, HandshakeState, route
from pppml_fast.aggregation.identity import Identity
from pppml_fast.aggregation.messages import (
    EVERYONE,
    SESSION_SCOPE,
    Header,
    MessageType,
    parse_frame,
    parse_header,
)
from pppml_fast.aggregation.roster import Roster, Terms
from pppml_fast.aggregation.session import Gate, Session
from pppml_fast.aggregation.standing import Standing, StateId, agreed_state
from pppml_fast.aggregation.streams import Progress
from pppml_fast.errors import PppmlError, ProtocolError, SiteError
from pppml_fast.layout import Layout
from pppml_fast.site.events import EventKind, Events
from pppml_fast.site.lead import Attempt, Decision, End, Lead, Leave, Propose, Timing, View
from pppml_fast.site.notices import NO_SESSION, Plan, PlanKind, Status
from pppml_fast.site.statuses import MEMBERSHIP, Statuses
from pppml_fast.transport.base import Outgoing

__all__ = ["AttemptProgress", "SiteNode"]

_EARLY_COUNT = 64
_EARLY_BYTES = 2 << 20
_HANDSHAKE = (MessageType.HELLO, MessageType.ENCAPSULATION, MessageType.READY)


class AttemptProgress(NamedTuple):
    """Chunks of one attempt, as one node sees them. A coordinator counts those of all its members."""

    session: bytes
    round: int
    attempt: int
    moved: Progress


class SiteNode(NeverPickled, ABC):
    """One node of a federation: its links, the session it is in, and what it says to others.

    ``layout`` is the model's, for a coordinator that proposes sessions; ``terms`` None makes a coordinator. The policy
    pins every identity of the roster.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        layout: Layout,
        policy: Policy,
        terms: Terms | None,
        events: Events,
        timing: Timing,
    ) -> None:
        self.identity, self.roster, self.layout, self.events, self.timing = identity, roster, layout, events, timing
        pinned = {member.name: member.public for member in roster.everyone}
        self.policy = policy if policy.pinned is not None else replace(policy, pinned=pinned)
        self.index = roster.index(identity.name)
        self.session: Session | None = None
        self.ended = False
        self._terms = terms
        self._linked: set[int] = set()
        self._statuses = Statuses(identity, roster)
        self._handshake: Handshake | None = None
        self._opening_since = 0.0
        self._gate: Gate | None = None
        self._leader: int | None = None
        self._early: list[tuple[str, int, bytes]] = []
        self._hellos: dict[str, bytes] = {}
        self._out: list[Outgoing] = []
        self._now = 0.0
        members = len(roster.members)
        is_member = self.index < members
        self._lead = Lead(members, self.policy.minimum(members), self.index if is_member else None, timing)
        self._set_up()

    def _set_up(self) -> None:
        """What a kind of node remembers besides."""

    # --- what the driver calls ----------------------------------------------------------------------------

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the nodes this one has links to: the relay of a star, or all others."""
        if self.roster.relay is not None and self.index < len(self.roster.members):
            return (self.roster.relay.name,)
        return tuple(member.name for member in self.roster.everyone if member.name != self.identity.name)

    def outgoing(self) -> list[Outgoing]:
        """What is to be sent, in order; it is handed out once."""
        out, self._out = self._out, []
        return out

    def up(self, peer: str) -> None:
        """A link stands."""
        self.events.emit(EventKind.LINK_UP, peer=peer)
        self._linked.add(self.roster.index(peer))
        self._on_up(peer)

    def down(self, peer: str) -> None:
        """A link is gone, with all that was under way on it."""
        self.events.emit(EventKind.LINK_DOWN, peer=peer)
        index = self.roster.index(peer)
        self._linked.discard(index)
        self._statuses.forget(index)
        with self._refusing(peer):
            if self._handshake is not None:
                self._out += self._handshake.lost(peer)
                self._after_handshake()
            self._on_down(peer)

    def tick(self, now: float) -> None:
        """The time, in seconds by a clock that never goes back: several times in a heartbeat, and before each event."""
        self._now = now
        if self._handshake is not None and now - self._opening_since >= self.timing.handshake:
            self._drop_handshake(f"no session opened within {self.timing.handshake:g} s")
        with self._refusing(self.identity.name):
            self._on_tick()
        while self._leads and not self.ended:
            decision = self._lead.decide(self._view())
            if decision is None:
                break
            with self._refusing(self.identity.name):
                self._carry_out(decision)

    def receive(self, peer: str, data: bytes) -> None:
        """Take one message of a link; what is refused changes nothing."""
        with self._refusing(peer):
            self._dispatch(peer, data)

    @abstractmethod
    def pull(self, hop: str) -> Outgoing | None:
        """The next bulk message for a hop that has room, when there is one."""

    def do_deferred(self) -> bool:
        """Do what was put off until all that went out was handed over; whether there was anything."""
        with self._refusing(self.identity.name):
            return self._do_deferred()
        return True

    @abstractmethod
    def progress(self) -> AttemptProgress | None:
        """How far the newest attempt's bulk is; None before it moves."""

    @contextmanager
    def _refusing(self, peer: str) -> Iterator[None]:
        """What a peer made this node do, or a decision of its own, may break a rule; only a SiteError ends the node."""
        try:
            yield
        except SiteError:
            raise
        except PppmlError as error:
            self.refused(peer, error)

    def refused(self, peer: str, error: PppmlError) -> None:
        """A message of a peer was refused: the reason is for this node's log alone."""
        self.events.emit(EventKind.REFUSED, peer=peer, reason=str(error))

    # --- what the kinds of nodes fill in ------------------------------------------------------------------

    @property
    @abstractmethod
    def _leads(self) -> bool:
        """Whether it is this node's turn to decide what comes next."""

    @abstractmethod
    def _on_up(self, peer: str) -> None:
        """A link stands."""

    @abstractmethod
    def _on_down(self, peer: str) -> None:
        """A link is gone."""

    @abstractmethod
    def _on_tick(self) -> None:
        """Time passes."""

    @abstractmethod
    def _on_session(self, session: Session, standings: dict[int, Standing], agreed: StateId) -> None:
        """A session is open, and all in it know the model to go on from."""

    @abstractmethod
    def _on_frame(self, peer: str, header: Header, data: bytes) -> None:
        """A message of a session's attempts."""

    @abstractmethod
    def _on_membership(self, header: Header, body: bytes) -> None:
        """A message about membership, of the session this node is in."""

    @abstractmethod
    def _standing(self) -> bytes:
        """What goes into this node's hello."""

    @abstractmethod
    def _leave(self) -> None:
        """Forget the session: another one is being opened, or none."""

    @abstractmethod
    def _begin(self, plan: Plan) -> None:
        """Follow a plan, this node's own or the lead's."""

    def _do_deferred(self) -> bool:
        """Do what was put off, if anything."""
        return False

    def _check_proposer(self, sender: int) -> None:
        """Raise ProtocolError when a session is proposed by a node whose turn it is not."""

    @property
    def _turn(self) -> int | None:
        """The member that is to lead the next session, as far as this node can tell; None where none does."""
        return None

    def _on_unopened(self, leader: int | None) -> None:
        """A session that ``leader`` proposed did not open."""

    def _own_status(self) -> Status | None:
        """This node's status, when it is a member."""
        return None

    # --- messages -----------------------------------------------------------------------------------------

    def _dispatch(self, peer: str, data: bytes) -> None:
        header, _ = parse_header(data)
        kind = header.type
        self._check_sender(peer, header)
        if kind is MessageType.STATUS:
            self._statuses.take(peer, parse_frame(data))
        elif kind is MessageType.ROSTER:
            self._on_proposal(peer, header, data)
        elif kind is MessageType.HELLO and (self._handshake is None or header.session != self._handshake.proposal):
            # Of a proposal that is still on its way here, over another link.
            self._hellos[peer] = data
        elif self._belongs_to_handshake(header):
            self._feed_handshake(peer, data)
        elif self.session is not None and header.session == self.session.id and header.round == SESSION_SCOPE:
            self._on_membership_frame(peer, header, data)
        elif self._handshake is not None and (self.session is None or header.session != self.session.id):
            self._keep(peer, header.sender, data)
        else:
            self._on_frame(peer, header, data)

    def _check_sender(self, peer: str, header: Header) -> None:
        """Only a star's relay passes on what others say: else one peer could use up what is kept for another."""
        index = self.roster.index(peer)
        known = header.sender < len(self.roster.everyone) and header.sender != self.index
        if header.sender != index and not (known and index == len(self.roster.members)):
            raise ProtocolError(f"a message of party {header.sender} came over the link to {peer!r}")

    def _belongs_to_handshake(self, header: Header) -> bool:
        if self._handshake is None or header.round != SESSION_SCOPE or header.attempt != 0:
            return False
        return header.type in _HANDSHAKE or header.type is MessageType.REFUSED

    def _keep(self, peer: str, sender: int, data: bytes) -> None:
        """A message of the session that is being opened: another node has it open already."""
        sizes = [len(kept) for _, other, kept in self._early if other == sender]
        if len(sizes) >= _EARLY_COUNT or sum(sizes) + len(data) > _EARLY_BYTES:
            raise ProtocolError(f"party {sender} sends too much for a session that is not open")
        self._early.append((peer, sender, data))

    def _on_membership_frame(self, peer: str, header: Header, data: bytes) -> None:
        gate = self._require_gate()
        if header.receiver not in (EVERYONE, self.index):
            self._on_frame(peer, header, data)
            return
        frame = parse_frame(data)
        message = gate.accept(frame)
        self._on_membership(header, bytes(message.body))

    # --- sessions -----------------------------------------------------------------------------------------

    def _on_proposal(self, peer: str, header: Header, data: bytes) -> None:
        if self.roster.index(peer) != header.sender:
            raise ProtocolError(f"{peer!r} passes on a proposal of party {header.sender}; proposals come from the lead")
        self._check_proposer(header.sender)
        self._start_handshake(None, ())
        self._leader = header.sender
        self._feed_handshake(peer, data)
        hellos, self._hellos = self._hellos, {}
        for sender, hello in hellos.items():
            if self._handshake is not None and parse_header(hello)[0].session == self._handshake.proposal:
                self._feed_handshake(sender, hello)

    def _start_handshake(self, proposal: Roster | None, present: Iterable[int]) -> None:
        self._leave()
        self.session = self._gate = None
        self._early.clear()
        names = [self.roster.names[index] for index in present]
        layout = self.layout if self._terms is None else None
        self._handshake = Handshake(
            self.identity,
            self.policy,
            self._terms,
            proposal,
            present=names or None,
            layout=layout,
            standing=self._standing(),
        )
        self._opening_since = self._now

    def _feed_handshake(self, peer: str, data: bytes) -> None:
        handshake = self._handshake
        if handshake is None:
            raise ProtocolError("no session is being opened")
        self._out += handshake.receive(data)
        refusals, handshake.refusals[:] = list(handshake.refusals), []
        for error in refusals:
            self.refused(peer, error)
        self._after_handshake()

    def _after_handshake(self) -> None:
        handshake = self._handshake
        if handshake is None:
            return
        if handshake.state is HandshakeState.REFUSED:
            self._drop_handshake(str(handshake.failure))
        elif handshake.session is not None:
            standings: dict[int, Standing] = {}
            for index, data in handshake.session.standings.items():
                try:
                    standings[index] = Standing.parse(data)
                except ProtocolError as error:
                    self._drop_handshake(f"party {self.roster.names[index]!r}: {error}", frozenset({index}))
                    return
            agreed = agreed_state(standings, len(self.roster.members))
            if agreed is None:
                if self._leads:
                    self._lead.others_needed(handshake.present)
                self._drop_handshake("no model is kept by a majority of the roster; more members must be present")
                return
            self._open(handshake.session, standings, agreed)

    def _open(self, session: Session, standings: dict[int, Standing], agreed: StateId) -> None:
        self._handshake = None
        self.session = session
        self._gate = session.gate(SESSION_SCOPE, MEMBERSHIP)
        if self._leads:
            self._lead.session_opened()
        lead = "" if self._leader is None else self.roster.everyone[self._leader].name
        present = list(session.present_names)
        self.events.emit(EventKind.SESSION_OPENED, session=session.id.hex(), present=present, lead=lead)
        self._on_session(session, standings, agreed)
        early, self._early = self._early, []
        for peer, _, data in early:
            self.receive(peer, data)

    def _drop_handshake(self, reason: str, missing: frozenset[int] | None = None) -> None:
        """Open no session; ``missing`` kept it from opening, by default those that were not heard."""
        handshake = self._handshake
        if handshake is not None and self._leads:
            missing = handshake.awaited if missing is None else missing
            self._lead.session_failed(self._now, missing, handshake.present)
        self._handshake = None
        self._early.clear()
        self.events.emit(EventKind.SESSION_FAILED, reason=reason)
        self._on_unopened(self._leader)

    # --- the lead -----------------------------------------------------------------------------------------

    def _view(self) -> View:
        statuses = {index: status for index, status in self._statuses.heard.items() if index in self._linked}
        own = self._own_status()
        if own is not None:
            statuses[self.index] = own
        session = None if self.session is None else self.session.id
        present = frozenset() if self.session is None else self.session.present
        opening = None if self._handshake is None else self._opening_since
        return View(self._now, statuses, session, present, opening, self._turn)

    def _carry_out(self, decision: Decision) -> None:
        members = len(self.roster.members)
        if isinstance(decision, Propose):
            self._start_handshake(self.roster, decision.present)
            self._leader = self.index
            if self._handshake is not None:
                try:
                    self._out += self._handshake.start()
                except ProtocolError as error:
                    self._drop_handshake(str(error))
            return
        live: frozenset[int] = frozenset()
        if isinstance(decision, Attempt):
            live = frozenset(decision.live)
            plan = Plan(PlanKind.ATTEMPT, decision.round, decision.attempt, members, live)
        elif isinstance(decision, Leave):
            plan = Plan(PlanKind.LEAVE, 0, 0, members, live)
        elif isinstance(decision, End):
            plan = Plan(PlanKind.END, 0, 0, members, live)
        data = self._require_gate().sign(EVERYONE, MessageType.PLAN, plan.encode())
        session = self.session
        present = frozenset() if session is None else session.present
        self._begin_as_relay(plan)
        for index in sorted(present - {self.index}):
            self._out.append(Outgoing(self.roster.everyone[index].name, data))
        self._begin(plan)

    def _begin_as_relay(self, plan: Plan) -> None:
        """A relay opens the attempt before its members hear of it."""

    # --- sending ------------------------------------------------------------------------------------------

    def _announce_status(self, status: Status) -> None:
        """The same signed bytes to everyone this node has a link to."""
        data = self._statuses.sign(status)
        for index in sorted(self._linked):
            self._out.append(Outgoing(self.roster.everyone[index].name, data))

    def _to(self, receiver: int, data: bytes) -> None:
        self._out.append(route(self.roster, self.index, receiver, data))

    def _session_id(self) -> bytes:
        return NO_SESSION if self.session is None else self.session.id

    def _require_gate(self) -> Gate:
        if self._gate is None:
            raise ProtocolError("this node is in no session")
        return self._gate

"""A star's coordinator as a state machine: it leads, passes messages on, adds up what it cannot read.

It holds no key and no share. What it can do is stop a round: it sees sizes and times, who takes part, and hashes.
"""

from __future__ import annotations

from typing import Any

from pppml_fast.aggregation.attempt_state import State
from pppml_fast.aggregation.base import Policy
from pppml_fast.aggregation.identity import Identity
from pppml_fast.aggregation.messages import EVERYONE, Header, MessageType, parse_header
from pppml_fast.aggregation.relay import Relay
from pppml_fast.aggregation.roster import Roster
from pppml_fast.aggregation.session import Session
from pppml_fast.aggregation.standing import Standing, StateId
from pppml_fast.errors import ProtocolError
from pppml_fast.layout import Layout
from pppml_fast.params import CkksParams
from pppml_fast.site.events import EventKind, Events
from pppml_fast.site.lead import Timing
from pppml_fast.site.node import AttemptProgress, SiteNode
from pppml_fast.site.notices import NO_SESSION, Plan, PlanKind
from pppml_fast.transport.base import Outgoing

__all__ = ["Coordinator"]


class Coordinator(SiteNode):
    """The keyless node in the middle of a star; see `SiteNode` for how to drive it."""

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        layout: Layout,
        policy: Policy,
        events: Events,
        timing: Timing | None = None,
    ) -> None:
        if roster.relay is None or roster.relay.name != identity.name:
            raise ProtocolError(f"the roster names no relay {identity.name!r}; a coordinator serves a star alone")
        super().__init__(identity, roster, layout, policy, None, events, timing or Timing())
        self._params = CkksParams.from_dict(dict(roster.parameters))
        self._relay: Relay | None = None
        self._left = NO_SESSION
        self._late: set[int] = set()  # members that may have messages of the session left under way
        self._plan: Plan | None = None
        self._state = State.IDLE

    @property
    def _leads(self) -> bool:
        return True

    def _on_up(self, peer: str) -> None:
        pass

    def _on_down(self, peer: str) -> None:
        self._late.discard(self.roster.index(peer))
        if self._relay is not None:
            self._out += self._relay.lost(peer)

    def _on_tick(self) -> None:
        pass

    def pull(self, hop: str) -> Outgoing | None:
        if self._relay is None:
            return None
        message = self._relay.pull(hop)
        self._tell_state()
        return message

    def progress(self) -> AttemptProgress | None:
        relay, plan = self._relay, self._plan
        if relay is None or plan is None or relay.progress is None:
            return None
        return AttemptProgress(relay.session.id, plan.round, plan.attempt, relay.progress)

    def _on_session(self, session: Session, standings: dict[int, Standing], agreed: StateId) -> None:
        self._relay, self._plan = Relay(session, layout=self.layout), None

    def _standing(self) -> bytes:
        return b""

    def _check_proposer(self, sender: int) -> None:
        raise ProtocolError(f"party {sender} proposes a session; the coordinator of a star does")

    def _leave(self) -> None:
        if self._relay is not None:
            self._left, self._late = self._relay.session.id, set(self._relay.session.present)
            self._relay.session.close()
        self._relay = None

    def _begin_as_relay(self, plan: Plan) -> None:
        if plan.kind is PlanKind.ATTEMPT and self._relay is not None:
            names = [self.roster.names[index] for index in sorted(plan.live)]
            self._plan, self._state = plan, State.IDLE
            self.events.emit(EventKind.ATTEMPT_BEGAN, **self._about, live=names, parameters=self._params.name)
            self._out += self._relay.begin(plan.round, plan.attempt, names, self._params)
            self._after_relay("")

    def _begin(self, plan: Plan) -> None:
        if plan.kind is PlanKind.END:
            self.ended = True

    def _on_membership(self, header: Header, body: bytes) -> None:
        raise ProtocolError(f"{header.type.name} has no place at a coordinator")

    def _on_frame(self, peer: str, header: Header, data: bytes) -> None:
        members = len(self.roster.members)
        if header.sender != self.roster.index(peer):
            raise ProtocolError(f"{peer!r} sends a message of party {header.sender}")
        if self._relay is not None and header.session == self._relay.session.id:
            self._out += self._relay.receive(data)
            self._after_relay(peer)
        elif header.type is MessageType.SHARE and header.receiver < members and header.receiver in self._linked:
            # Of an earlier session: a member that was away hands in what the others lack.
            self._out.append(Outgoing(self.roster.members[header.receiver].name, data))
        elif not self._is_late(header):
            what = "everyone" if header.receiver == EVERYONE else f"party {header.receiver}"
            raise ProtocolError(f"{header.type.name} for {what} belongs to no session of this coordinator")

    def _is_late(self, header: Header) -> bool:
        """Whether a message was under way when its session was left: nothing of it is passed on, nobody did wrong.

        Who is called into another session gives up what it did in the one before.
        """
        under_way = header.sender in self._late or header.type is MessageType.ABANDON
        return header.session == self._left and under_way

    def _keep(self, peer: str, sender: int, data: bytes) -> None:
        header, _ = parse_header(data)
        if header.type is MessageType.SHARE or not self._is_late(header):
            super()._keep(peer, sender, data)

    def _feed_handshake(self, peer: str, data: bytes) -> None:
        self._late.discard(self.roster.index(peer))  # messages of one peer come in order
        super()._feed_handshake(peer, data)

    def _after_relay(self, peer: str) -> None:
        if self._relay is not None:
            refusals, self._relay.refusals[:] = list(self._relay.refusals), []
            for error in refusals:
                self.refused(peer, error)
            self._tell_state()

    def _tell_state(self) -> None:
        """What a coordinator can know of an attempt: that terms come, and that everyone has what they add up to."""
        relay, plan = self._relay, self._plan
        if relay is None or plan is None:
            return
        root = relay.root
        state = State.PREPARING if relay.progress is None else State.STREAMING if root is None else State.FINISHED
        if state is self._state:
            return
        self._state = state
        self.events.emit(EventKind.STATE, **self._about, state=state.value)
        if root is not None:
            members = [self.roster.names[index] for index in sorted(relay.members)]
            self.events.emit(EventKind.RELAYED, **self._about, members=members, root=root.hex())

    @property
    def _about(self) -> dict[str, Any]:
        plan = self._plan
        if plan is None:
            raise ProtocolError("this coordinator has no attempt")
        return {"session": self._session_id().hex(), "round": plan.round, "attempt": plan.attempt}

"""A member's process as a state machine: sessions, rounds, what is lost and what comes back.

It drives a `PartyMachine` through attempts as the lead plans them, trains through its `Application`, and keeps to the
rules of protocol.md across restarts: what its journal calls spent is never computed again from the same draws, and the
model it goes on from is one that a majority holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pppml_fast.aggregation.attempt_state import ACTIVE, HeldMessageError, State
from pppml_fast.aggregation.attempts import AttemptLedger
from pppml_fast.aggregation.base import Policy, Values
from pppml_fast.aggregation.founding import machine_of
from pppml_fast.aggregation.identity import Identity
from pppml_fast.aggregation.messages import SESSION_SCOPE, Header, MessageType, parse_header
from pppml_fast.aggregation.party import PartyMachine
from pppml_fast.aggregation.roster import Roster, Terms
from pppml_fast.aggregation.session import Session
from pppml_fast.aggregation.standing import Standing
from pppml_fast.errors import DataError, KeyReuseError, PppmlError, ProtocolError, SiteError
from pppml_fast.params import CkksParams
from pppml_fast.site.application import Application, StateId, keeping
from pppml_fast.site.catch_up import CatchUp
from pppml_fast.site.draws import Draws
from pppml_fast.site.events import EventKind, Events
from pppml_fast.site.lead import Timing
from pppml_fast.site.led import LedNode
from pppml_fast.site.node import AttemptProgress
from pppml_fast.site.notices import Phase, Plan, PlanKind, StatePiece, StateRequest, Status
from pppml_fast.transport.base import Outgoing

__all__ = ["Member"]

_MOVES_NOTHING = frozenset({MessageType.REFUSED, MessageType.MODEL_HASH, MessageType.ABANDON, MessageType.BEGIN})
_SUMMING = frozenset({State.STREAMING, State.CLOSING})
_ENDS = {
    State.ABANDONED: EventKind.ABANDONED,
    State.DISCARDED: EventKind.DISCARDED,
    State.FAILED: EventKind.FAILED,
}


class Member(LedNode):
    """One member. `ready` and `failed` take what the application computed; the rest is `SiteNode`'s.

    ``prepares`` False makes nothing of the encryption ahead, which is of no use to updates on a CUDA device. Raises
    nothing on what comes from links; errors of the application and of the journal pass through.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        policy: Policy,
        terms: Terms,
        ledger: AttemptLedger,
        application: Application,
        events: Events,
        timing: Timing | None = None,
        clock: Callable[[], float] | None = None,
        spool: Path | None = None,
        prepares: bool = True,
    ) -> None:
        super().__init__(identity, roster, terms.layout, policy, terms, events, timing or Timing())
        self._ledger, self._application = ledger, application
        self._params = CkksParams.from_dict(dict(roster.parameters))
        self._machine: PartyMachine | None = None
        self._new_machine = machine_of(roster, ledger, self.policy, clock, spool)
        self._draws = Draws(ledger, roster, self.index, events)
        self._prepares = prepares
        self._contributed = False
        self._messages = 0
        self._seen_state = State.IDLE
        self._catch_up = CatchUp(application, self.layout.size)
        self._plan: Plan | None = None
        self._held_plan: Plan | None = None
        self._held_since: float | None = None
        self._told: Status | None = None
        self._told_at = -np.inf
        self._idle_since: float | None = None

    # --- what the application computed --------------------------------------------------------------------

    def ready(
        self,
        round_: int,
        salt: int,
        values: Values,
        out: Any = None,
    ) -> None:
        """The update of a round. One that is spent already is trained anew, from other draws.

        ``out`` takes the mean, as `PartyMachine.contribute` says: the memory of the values may be given.
        """
        machine, plan = self._machine, self._plan
        if machine is None or plan is None or machine.state is not State.PREPARING or self._contributed:
            return
        if plan.round != round_ or not self._draws.is_current(round_, salt):
            return
        weight = self.roster.weights[self.identity.name] if self._params.weights == "public" else 1.0
        try:
            self._out += machine.contribute(values, weight, out=out)
            self._contributed = True
        except KeyReuseError as error:
            self._draws.spend(round_, str(error))
            self._train(round_)
        except SiteError:
            raise
        except PppmlError as error:
            self.failed(error)
        self._after_machine()

    def failed(self, error: Exception) -> None:
        """The application could not compute an update: the others go on without this member."""
        self.events.emit(EventKind.FAILED, reason=str(error))
        self._stop_attempt()

    # --- links --------------------------------------------------------------------------------------------

    def _on_up(self, peer: str) -> None:
        """First what this party had released: those who wait for it may not hear of anything else before."""
        index = self.roster.index(peer)
        for frames in self._ledger.unsettled().values():
            for receiver, data in frames:
                if receiver == index or self.roster.relay is not None:
                    self._out.append(Outgoing(peer, data))
        self._told = self._idle_since = None

    def _on_down(self, peer: str) -> None:
        if self._machine is not None:
            self._out += self._machine.lost(peer)
            self._after_machine()
        self._lost_lead(peer)
        if self._catch_up.holder == self.roster.index(peer):
            self._next_holder()
        self._follow_held_plan()

    def _on_tick(self) -> None:
        self._end_if_forgotten()
        self._watch_lead()
        if self._catch_up.late(self._now, self.timing.patience):
            self._next_holder()
        if self._held_since is not None and self._now - self._held_since >= self.timing.patience:
            self._dissolve()  # somebody's word about its new model was lost; a new session compares what all hold
        status = self._status()
        if self._changed(status) or self._now - self._told_at >= self.timing.heartbeat:
            self._told, self._told_at = status, self._now
            self._announce_status(status)

    def _end_if_forgotten(self) -> None:
        """End where the training is finished here and no session opens: nobody is there, or too few ever come."""
        if self.session is not None or self._handshake is not None or not self._application.finished():
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = self._now
        waits = self.timing.linger + (self.timing.patience if self._linked else 0.0)
        if self._waiting():
            waits += self._leadership.limit
        if self._now - self._idle_since >= waits and not self.ended:
            reason = f"nobody asked for the finished model within {waits:g} s; this site has nothing left to do"
            self.events.emit(EventKind.SESSION_FAILED, reason=reason)
            self.ended = True

    def pull(self, hop: str) -> Outgoing | None:
        return None if self._machine is None else self._machine.pull(hop)

    def _do_deferred(self) -> bool:
        if self._machine is None or not self._machine.has_work:
            return False
        self._out += self._machine.work()
        self._after_machine()
        self._follow_held_plan()
        return True

    def progress(self) -> AttemptProgress | None:
        machine, plan = self._machine, self._plan
        if machine is None or plan is None or machine.progress is None:
            return None
        return AttemptProgress(machine.session.id, plan.round, plan.attempt, machine.progress)

    # --- where this member stands -------------------------------------------------------------------------

    @property
    def _phase(self) -> Phase:
        machine = self._machine
        if self._handshake is not None:
            return Phase.JOINING
        if self.session is None or machine is None:
            return Phase.SEEKING
        if self._catch_up.holder is not None:
            return Phase.FETCHING
        if machine.state is State.PREPARING:
            return Phase.SUMMING if self._contributed else Phase.TRAINING
        if machine.state in _SUMMING:
            return Phase.SUMMING
        if machine.state is State.OPENING:
            return Phase.OPENING
        return Phase.DONE if self._application.finished() else Phase.READY

    @property
    def _finished(self) -> bool:
        return self._application.finished()

    def _status(self) -> Status:
        members = range(len(self.roster.members))
        through_relay = self.roster.relay is not None
        reachable = frozenset(i for i in members if through_relay or i in self._linked or i == self.index)
        round_, attempt = (SESSION_SCOPE, 0) if self._plan is None else (self._plan.round, self._plan.attempt)
        newest = self._application.states[0]
        progress = self._messages & 0xFFFFFFFF
        where = self._session_id(), self._phase, newest, round_, attempt, progress
        return Status(*where, len(members), reachable, self._leadership.told)

    def _own_status(self) -> Status | None:
        return self._status()

    def _changed(self, status: Status) -> bool:
        return self._told is None or replace(status, progress=0) != replace(self._told, progress=0)

    def _standing(self) -> bytes:
        return Standing(self._application.states[:2], self._draws.standing()).encode()

    # --- sessions -----------------------------------------------------------------------------------------

    def _on_session(self, session: Session, standings: dict[int, Standing], agreed: StateId) -> None:
        self._plan = self._held_plan = self._held_since = None
        self._machine = self._new_machine(session)
        self._seen_state = State.IDLE
        self._draws.hear(standings)
        self._go_on_from(agreed, standings)

    def _go_on_from(self, agreed: StateId, standings: dict[int, Standing]) -> None:
        """Hold the agreed model: it is here, it is the one before this one, or a peer has it."""
        states = self._application.states
        if states[0] == agreed:
            return
        if states[0].round > agreed.round:
            self._draws.step_back(states[0].round - 1)
        if agreed in states:
            with keeping(agreed.round):
                self._application.step_back(agreed)
            self.events.emit(EventKind.STEPPED_BACK, round=agreed.round, model=agreed.hash.hex())
            return
        self._catch_up.begin(agreed, standings, self._ask, self._now)

    def _leave(self) -> None:
        super()._leave()
        self._stop_attempt()
        if self._machine is not None and self._machine.state is State.OPENING:
            self._machine.discard()
            self._after_machine()
        if self._machine is not None:
            self._machine.session.close()
        self._machine = self._plan = self._held_plan = self._held_since = None
        self._catch_up.stop()

    # --- plans --------------------------------------------------------------------------------------------

    def _on_membership(self, header: Header, body: bytes) -> None:
        kind, sender = header.type, header.sender
        if kind is MessageType.PLAN:
            if sender != self._leader:
                raise ProtocolError(f"party {sender} plans, but party {self._leader} leads this session")
            self._begin(Plan.parse(body))
        elif kind is MessageType.STATE_REQUEST:
            self._serve(sender, StateRequest.parse(body))
        elif kind is MessageType.STATE:
            self._on_piece(sender, StatePiece.parse(body))
        else:
            raise ProtocolError(f"{kind.name} has no place between rounds")

    def _begin(self, plan: Plan) -> None:
        if plan.parties != len(self.roster.members):
            raise ProtocolError(f"a plan counts {plan.parties} members")
        if plan.kind is PlanKind.END:
            self.ended = self._application.finished() and not self._stays()
        elif plan.kind is PlanKind.LEAVE:
            self._dissolve()
        else:
            self._stop_attempt()
            self._held_plan = plan
            self._follow_held_plan()

    def _follow_held_plan(self) -> None:
        """Begin the planned attempt, once every member of the last sum has told the same new model."""
        plan, machine = self._held_plan, self._machine
        if plan is None or machine is None or machine.state in ACTIVE:
            return
        if machine.state is State.FINISHED and machine.unconfirmed & self._reachable_names():
            self._held_since = self._now if self._held_since is None else self._held_since
            return
        self._held_plan = self._held_since = None
        if self._catch_up.holder is not None or plan.round != self._application.states[0].round:
            raise ProtocolError(f"round {plan.round} is planned; this member is at {self._application.states[0].round}")
        if self.index not in plan.live:
            return
        names = [self.roster.names[index] for index in sorted(plan.live)]
        self._plan, self._contributed = plan, False
        self._catch_up.forget()
        self._ledger.settle(plan.round)
        about = {"session": machine.session.id.hex(), "round": plan.round, "attempt": plan.attempt}
        self.events.emit(EventKind.ATTEMPT_BEGAN, **about, live=names, parameters=self._params.name)
        try:
            self._out += machine.begin(plan.round, plan.attempt, names, self._params)
        finally:
            self._after_machine()
        if self._prepares:
            machine.prepare(self.layout.size)
        self._train(plan.round)

    def _reachable_names(self) -> set[str]:
        if self.roster.relay is not None:
            return set(self.roster.names)
        return {self.roster.everyone[index].name for index in self._linked}

    def _train(self, round_: int) -> None:
        salt = self._draws.salt(round_)
        self.events.emit(EventKind.TRAINING, round=round_, salt=salt)
        self._application.train(round_, salt)

    # --- attempts -----------------------------------------------------------------------------------------

    def _on_frame(self, peer: str, header: Header, data: bytes) -> None:
        machine = self._machine
        if machine is None or header.session != machine.session.id:
            raise ProtocolError(f"{header.type.name} belongs to a session that this member is not in")
        refused = len(machine.refusals)
        self._out += machine.receive(data)
        # What is refused moves nothing, nor does what may be said at any time and again.
        self._messages += len(machine.refusals) == refused and header.type not in _MOVES_NOTHING
        self._after_machine(peer)
        self._follow_held_plan()

    def _stop_attempt(self) -> None:
        """Abandon the attempt, if this party's share is not released."""
        machine = self._machine
        if machine is not None and machine.state in ACTIVE and machine.state is not State.OPENING:
            self._out += machine.abandon()
            self._after_machine()

    def _after_machine(self, peer: str = "") -> None:
        """Tell and do what follows from the machine's new state."""
        machine, plan = self._machine, self._plan
        if machine is None:
            return
        refusals, machine.refusals[:] = list(machine.refusals), []
        for error in refusals:
            sender = self.roster.everyone[error.sender].name if isinstance(error, HeldMessageError) else peer
            self.refused(sender, error)
        evidence, machine.evidence[:] = list(machine.evidence), []
        for statements in evidence:
            self._tell_evidence(statements)
        refused_by, machine.refused_by[:] = list(machine.refused_by), []
        for name in refused_by:
            self.events.emit(EventKind.REFUSED_BY, peer=name)
        if machine.drift is not None:
            self.events.emit(EventKind.DRIFT, round=self._application.states[0].round, peer=str(machine.drift))
            self._dissolve()
            return
        if machine.state is self._seen_state or plan is None:
            return
        self._seen_state = machine.state
        about = {"session": machine.session.id.hex(), "round": plan.round, "attempt": plan.attempt}
        self.events.emit(EventKind.STATE, **about, state=machine.state.value)
        if machine.state is State.FINISHED:
            self._commit(machine, plan)
        elif machine.state in _ENDS:
            kind, costs = _ENDS[machine.state], dict(vars(machine.meter))
            self.events.emit(kind, **about, reason=str(machine.failure), costs=costs)
            if machine.update_spent:
                self._draws.spend(plan.round, str(machine.failure))

    def _tell_evidence(self, statements: tuple[bytes, bytes]) -> None:
        about, _ = parse_header(statements[0])
        digests = [sha256(data).hexdigest() for data in statements]
        peer = self.roster.names[about.sender]
        self.events.emit(EventKind.EVIDENCE, peer=peer, round=about.round, attempt=about.attempt, digests=digests)

    def _commit(self, machine: PartyMachine, plan: Plan) -> None:
        outcome = machine.outcome
        if outcome is None:
            raise ProtocolError(f"round {plan.round} has no outcome")
        with keeping(plan.round + 1):
            state = self._application.commit(plan.round, outcome.mean)
        self._draws.finished(plan.round)
        members = [self.roster.names[index] for index in sorted(outcome.members)]
        self.events.emit(
            EventKind.ROUND_FINISHED,
            session=machine.session.id.hex(),
            round=plan.round,
            attempt=plan.attempt,
            members=members,
            root=outcome.root.hex(),
            transcript=outcome.transcript.hex(),
            model=state.hash.hex(),
            costs=dict(vars(machine.meter)),
        )
        self._out += machine.announce_model(state.hash)
        self._after_machine()

    # --- kept models --------------------------------------------------------------------------------------

    def _ask(self, holder: int, request: StateRequest) -> None:
        self._to(holder, self._require_gate().sign(holder, MessageType.STATE_REQUEST, request.encode()))

    def _serve(self, sender: int, request: StateRequest) -> None:
        piece = self._catch_up.answer(sender, request)
        self._to(sender, self._require_gate().seal(sender, MessageType.STATE, piece.encode()))

    def _on_piece(self, sender: int, piece: StatePiece) -> None:
        if not self._catch_up.take(sender, piece, self._now):
            return
        try:
            state = self._catch_up.adopt()
        except DataError as error:
            self.refused(self.roster.names[sender], error)
            self._next_holder()
            return
        peer = self.roster.names[sender]
        self.events.emit(EventKind.CAUGHT_UP, round=state.round, peer=peer, model=state.hash.hex())
        self._follow_held_plan()

    def _next_holder(self) -> None:
        """Ask the next one that keeps the model; with nobody left, another session has to be opened."""
        if not self._catch_up.next_holder(self._now):
            self._dissolve()

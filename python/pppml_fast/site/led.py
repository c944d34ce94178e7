"""A member as far as leads go: whom it follows into a session, when it leads itself, when it goes without a lead.

In a star all of that is the coordinator's, which a member can do nothing about but wait.
"""

from __future__ import annotations

import math
from abc import abstractmethod

from pppml_fast.errors import ProtocolError
from pppml_fast.site.events import EventKind
from pppml_fast.site.lead import Leave
from pppml_fast.site.leadership import Leadership
from pppml_fast.site.node import SiteNode
from pppml_fast.site.notices import IN_ATTEMPT, Phase

__all__ = ["LedNode"]


class LedNode(SiteNode):
    """What a member adds to `SiteNode` about its lead; `Leadership` holds what it remembers of leads."""

    def _set_up(self) -> None:
        members = len(self.roster.members)
        self._leadership = Leadership(self.index, members, self.policy.minimum(members), self.timing)
        self._orphaned_since: float | None = None
        self._stayed_for: set[int] = set()
        self._watched_at = -math.inf
        self._turns_then = 0

    @property
    @abstractmethod
    def _phase(self) -> Phase:
        """What this member is doing."""

    @property
    @abstractmethod
    def _finished(self) -> bool:
        """Whether this member holds the last model of the training."""

    @property
    def _leads(self) -> bool:
        if self.roster.relay is not None:
            return False
        if self.session is not None or self._handshake is not None:
            return self._leader == self.index
        return self._turn == self.index

    @property
    def _turn(self) -> int | None:
        if self.roster.relay is not None:
            return None
        return self._leadership.turn({*self._linked, self.index})

    def _check_proposer(self, sender: int) -> None:
        members = len(self.roster.members)
        if self.roster.relay is not None:
            if sender != members:
                raise ProtocolError(f"party {sender} proposes a session; in a star the relay does")
            return
        idle = self.session is None and self._handshake is None
        # Whoever has nothing else follows anyone once: it may be the last to hear that a turn is over.
        free = idle or self._leader is None or self._turn_is_over(self._leader)
        refused = self._leadership.refuses(sender, self._now)
        if sender != self._turn and (refused or not (free or sender == self._leader)):
            raise ProtocolError(f"party {sender} proposes a session; it is the turn of party {self._turn}")

    def _on_unopened(self, leader: int | None) -> None:
        if self.roster.relay is None and leader is not None and leader not in (self.index, self._turn):
            self._leadership.refuse(leader, self._now)

    # --- when a lead is gone, or nothing comes of it ---------------------------------------------------------

    def _lost_lead(self, peer: str) -> None:
        """A link is gone: if it was the lead's, this session comes to its end."""
        if self.session is not None and self.roster.index(peer) == self._leader:
            self._orphaned_since = self._now

    def _watch_lead(self) -> None:
        """Leave the session of a lead that is gone or passed over, when no attempt goes on in it."""
        if self._orphaned_since is not None:
            waited = self._now - self._orphaned_since
            if self._phase not in IN_ATTEMPT or waited >= self.timing.patience:
                self._dissolve()
        if self.roster.relay is not None:
            return
        heard = self._statuses.heard
        self._leadership.hear(heard[index].turns for index in self._linked & heard.keys())
        if self._now - self._watched_at >= self.timing.heartbeat / 4:
            self._count_waits()
        leader = self._leader
        if self.session is None or leader is None or not self._turn_is_over(leader):
            return
        if self._phase in IN_ATTEMPT and not self._leadership.stuck(self._now):
            return
        if leader == self.index:
            self._carry_out(Leave())
        else:
            self._dissolve()

    def _turn_is_over(self, leader: int) -> bool:
        """Whether the turn of the lead that this member follows ended after it began to follow it."""
        return self._leadership.turns > self._turns_then and leader != self._turn

    def _count_waits(self) -> None:
        self._watched_at = self._now
        followed = None if self.session is None and self._handshake is None else self._leader
        waits = self._leadership.watch(self._now, self._view().statuses, self._finished)
        leader = self._turn if followed is None else followed
        if waits is not None and leader is not None:
            self._pass_over(leader, f"{self.roster.names[waits]!r} gets nowhere")

    def _pass_over(self, leader: int, why: str) -> None:
        if self._leadership.pass_over():
            name, minimum = self.roster.names[leader], self.policy.minimum(len(self.roster.members))
            reason = f"{why} under the lead {name!r}: it is not its turn any more when {minimum} members say so"
            self.events.emit(EventKind.SESSION_FAILED, reason=reason)

    def _waiting(self) -> frozenset[int]:
        """Members outside this one's session that lack the last model, and could take part."""
        if self.roster.relay is not None:
            return frozenset()
        return self._leadership.waiting(self._view().statuses, self._session_id())

    def _stays(self) -> bool:
        """Whether to stay though the lead ends the training: once for each that waits outside, another lead may take
        it in."""
        waiting = self._waiting() - self._stayed_for
        if not waiting or self._leader is None:
            return False
        self._stayed_for |= waiting
        self._pass_over(self._leader, f"{self.roster.names[min(waiting)]!r} lacks the last model")
        self._dissolve()
        return True

    def _dissolve(self) -> None:
        """Be in no session, for now."""
        self._leave()
        self.session = self._gate = self._leader = None

    def _leave(self) -> None:
        self._orphaned_since, self._turns_then = None, self._leadership.turns

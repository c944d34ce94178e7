"""From which random draws a member trains: no update is computed twice once it may have been released.

Training is deterministic, so that a member that restarts computes the same update again and the federation loses
nothing. That must not happen in a round of which the journal calls an update spent: the same draws give the same update
only up to roundings, which a GPU, other libraries or another number of threads change, and then no ledger knows it
again. Nor where the disk, journal included, is an old one: the others tell what this member has signed, and until all
of them were heard, draws are fresh ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from pppml_fast.aggregation.attempts import AttemptId, AttemptLedger
from pppml_fast.aggregation.roster import Roster
from pppml_fast.aggregation.standing import Standing
from pppml_fast.site.events import EventKind, Events

__all__ = ["Draws"]


class Draws:
    """The salt of each round's training: 0 for the draws that every restart repeats, a random one for fresh draws."""

    def __init__(self, ledger: AttemptLedger, roster: Roster, index: int, events: Events) -> None:
        self._ledger, self._roster, self._index, self._events = ledger, roster, index, events
        self._salts: dict[int, int] = {}
        self._heard_everyone = False

    def salt(self, round: int) -> int:
        """The salt to train a round with; the same until the round is over or its update spent."""
        if round not in self._salts:
            if self._ledger.has_spent(round) and not self._ledger.needs_fresh_draws(round):
                self.spend(round, f"an update of round {round} was released before this member was started again")
            repeatable = self._heard_everyone and not self._ledger.needs_fresh_draws(round)
            self._salts = {round: 0 if repeatable else 1 + secrets.randbits(62)}
        return self._salts[round]

    def is_current(self, round: int, salt: int) -> bool:
        """Whether an update of these draws is still wanted."""
        return self._salts.get(round) == salt

    def finished(self, round: int) -> None:
        """The round's sum is here."""
        self._salts.pop(round, None)

    def spend(self, round: int, reason: str) -> None:
        """The update of a round is spent and its sum is not here."""
        self._ledger.redraw(round)
        self._salts.pop(round, None)
        self._events.emit(EventKind.SPENT, round=round, reason=reason)

    def step_back(self, round: int) -> None:
        """The training goes on from a model of ``round`` rounds or fewer after one of more: those were spent."""
        self._ledger.redraw(round)
        self._salts.clear()

    def standing(self) -> dict[int, tuple[AttemptId, ...]]:
        """What this member knows the members, itself included, to have signed: for its next hello."""
        known = {name: index for index, name in enumerate(self._roster.names)}
        return {known[name]: seen for name, seen in self._ledger.witnessed.items() if name in known}

    def hear(self, standings: Mapping[int, Standing]) -> None:
        """Take what the members of a session say that others have signed.

        Claims are taken on one peer's word, and kept for whoever they are about: all that a liar brings about is that
        updates come from fresh draws.
        """
        members = len(self._roster.members)
        self._heard_everyone |= len(standings) == members
        for index, standing in standings.items():
            for about, seen in standing.witnessed.items():
                for attempt in seen if index != self._index and about < members else ():
                    self._hear(self._roster.names[index], about, attempt)

    def _hear(self, peer: str, about: int, attempt: AttemptId) -> None:
        if about == self._index:
            if not self._ledger.knows(attempt) and not self._ledger.needs_fresh_draws(attempt.round):
                self._events.emit(EventKind.ROLLED_BACK, round=attempt.round, peer=peer)
                self._ledger.redraw(attempt.round)
                self._salts.clear()
            return
        name = self._roster.names[about]
        if all(attempt.round > known.round for known in self._ledger.witnessed.get(name, ())):
            self._ledger.witness(attempt, [name])

"""Whose turn it is to lead a ring: the first member's, and the next one's whenever enough pass over the last.

Nobody else watches over a lead. One that withholds proposals, keys or plans, from all or from some, can stop everyone
or leave a member out; so each member counts how long anybody who could take part gets nowhere. After a while the lead
is passed over, whoever is to blame: to lead means no more than to plan, and who is passed over takes part as before.

All count the turns that are over, and tell it in their statuses. A turn ends where as many as a round needs say so: all
hear that at about the same time, so that they follow one lead, and no few can take a turn from anyone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pppml_fast.site.lead import Timing
from pppml_fast.site.notices import IN_ATTEMPT, Phase, Status

__all__ = ["Leadership"]

_MOST_DOUBLINGS = 5
_MOST_TURNS = 2**32 - 1


@dataclass
class _Wait:
    """How long a member has got nowhere since it finished ``round`` rounds, and how often that was too long."""

    round: int
    seconds: float = 0.0
    times: int = 0
    attempt: tuple[bytes, int, int] | None = None
    began: float = -math.inf
    progress: int = 0
    moved: float = -math.inf


class Leadership:
    """Of the member ``me`` among ``members``; ``minimum`` is the fewest that it sums with. Times are by its clock.

    ``turns`` counts the turns that are over, ``told`` those that this member holds to be over: one more, if any.

    ``limit`` is how long a member may get nowhere under one lead, in seconds: time for absent members to come, for a
    session that fails, and for another one.
    """

    def __init__(self, me: int, members: int, minimum: int, timing: Timing) -> None:
        self._me, self._members, self._minimum, self._timing = me, members, minimum, timing
        self.limit = timing.patience + 4 * timing.handshake
        self.turns = self.told = 0
        self._until: dict[int, float] = {}
        self._waits: dict[int, _Wait] = {}
        self._now: float | None = None

    def turn(self, candidates: Collection[int]) -> int:
        """Whose turn it is among these members: that of the next one, for each turn that is over."""
        return min(candidates, key=lambda index: (index - self.turns) % self._members)

    def pass_over(self) -> bool:
        """Say that this turn is over; whether that is new."""
        before, self.told = self.told, min(self.turns + 1, _MOST_TURNS)
        return before != self.told

    def hear(self, turns: Iterable[int]) -> None:
        """How many turns are over to the other members, as they tell: one is where as many as a round needs say so."""
        told = sorted((*turns, self.told), reverse=True)
        if len(told) < self._minimum or told[self._minimum - 1] <= self.turns:
            return
        self.turns = told[self._minimum - 1]
        self.told = max(self.told, self.turns)
        for wait in self._waits.values():
            wait.seconds = 0.0

    def refuse(self, index: int, now: float) -> None:
        """Nothing came of a session that one proposed whose turn it was not: follow it no more for a short time."""
        self._until[index] = now + 2 * self._timing.handshake

    def refuses(self, index: int, now: float) -> bool:
        """Whether not to follow this member where it is not its turn."""
        return now < self._until.get(index, now)

    def waiting(self, statuses: Mapping[int, Status], session: bytes) -> frozenset[int]:
        """Members outside this session that lack this member's newest model, and could take part."""
        behind = self._behind(statuses)
        return frozenset(i for i in self._fit(statuses) & behind if statuses[i].session != session)

    def stuck(self, now: float) -> bool:
        """Whether this member's own attempt has stood still for as long as an absent member is waited for."""
        own = self._waits.get(self._me)
        return own is not None and now - own.moved >= self._timing.patience

    def watch(self, now: float, statuses: Mapping[int, Status], finished: bool) -> int | None:
        """Count the time since the last call. Returns a member that got nowhere for too long, None while there is none.

        To one that is ``finished`` with the training, only those that lack its model have somewhere to get. Each one's
        limit doubles whenever it was too long: who only says that it waits disturbs less and less. Nothing counts while
        this member holds the turn to be over already.
        """
        passed, self._now = (0.0 if self._now is None else now - self._now), now
        fit = self._fit(statuses)
        counted = fit & self._behind(statuses) if finished else fit
        for index in list(self._waits):
            if index not in statuses:
                del self._waits[index]
        found = None
        for index, status in statuses.items():
            wait = self._waits.setdefault(index, _Wait(status.state.round))
            # No honest member is further ahead: who claims more does not begin to count anew each time.
            if wait.round < status.state.round <= statuses[self._me].state.round + 1:
                wait = self._waits[index] = _Wait(status.state.round)
            if self._moves(wait, status, statuses, now):
                wait.moved = now
            elif index in counted and len(fit) >= self._minimum and self.told == self.turns:
                wait.seconds += passed
                if wait.seconds >= self.limit * 2 ** min(wait.times, _MOST_DOUBLINGS):
                    wait.times += 1
                    found = index
        return found

    def _moves(self, wait: _Wait, status: Status, statuses: Mapping[int, Status], now: float) -> bool:
        """Whether no lead could do more for a member: it has all, fetches a model, or is in an attempt that goes on."""
        if status.phase in (Phase.DONE, Phase.FETCHING):
            return True
        if status.phase not in IN_ATTEMPT:
            return False
        attempt = (status.session, status.round, status.attempt)
        if attempt != wait.attempt:
            wait.attempt, wait.began = attempt, now
        if status.progress != wait.progress:
            wait.progress, wait.moved = status.progress, now
        training = any(s.session == status.session and s.phase is Phase.TRAINING for s in statuses.values())
        return (training and now - wait.began < self._timing.training) or now - wait.moved < 2 * self._timing.heartbeat

    def _behind(self, statuses: Mapping[int, Status]) -> frozenset[int]:
        own = statuses[self._me].state.round
        return frozenset(index for index, status in statuses.items() if status.state.round < own)

    def _fit(self, statuses: Mapping[int, Status]) -> frozenset[int]:
        """Members that reach, as they say, everyone whom enough others reach."""
        reached = Counter(index for status in statuses.values() for index in status.reachable)
        here = {index for index, count in reached.items() if count >= self._minimum}
        return frozenset(i for i, status in statuses.items() if i in here and here <= status.reachable)

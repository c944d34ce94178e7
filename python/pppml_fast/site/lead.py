"""What comes next in a federation: the decisions of the one node that leads, as a function of what it has heard.

The lead is the coordinator of a star, else the first member present, or the next one where enough pass over it. It
decides who opens a session, over whom an attempt goes, and when to wait. It is not trusted: each member checks what is
proposed or planned against its own policy and journal, so that a lead can delay and stop, and nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from pppml_fast.site.notices import IN_ATTEMPT, Phase, Status

__all__ = ["Attempt", "Decision", "End", "Lead", "Leave", "Propose", "Timing", "View"]

_IDLE = frozenset({Phase.SEEKING, Phase.FETCHING, Phase.READY, Phase.DONE})
"""What a member is doing that a session of another lead, or one that did not open everywhere, keeps waiting."""

_BROKEN = 3
"""Attempts in a row that end without a sum before somebody is left out: links that break end some at any time."""


@dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds.

    ``patience``: for a member that is gone, and for an attempt that stands still, before going on without;
    ``handshake``: for a session to open; ``training``: for the slowest update of a round; ``linger``: after the last
    round, for members that may come back for the model; ``heartbeat``: between two statuses; ``retry``: before an
    attempt or a session that failed is tried again, doubled up to 32 times that.
    """

    patience: float = 60.0
    handshake: float = 30.0
    training: float = math.inf
    linger: float = 60.0
    heartbeat: float = 2.0
    retry: float = 0.5


@dataclass(frozen=True)
class Propose:
    """Open a session over these members."""

    present: tuple[int, ...]


@dataclass(frozen=True)
class Attempt:
    """Begin an attempt over these members of the session."""

    round: int
    attempt: int
    live: tuple[int, ...]


@dataclass(frozen=True)
class Leave:
    """Dissolve the session: it is the turn of another member to lead."""


@dataclass(frozen=True)
class End:
    """The training is over."""


Decision = Propose | Attempt | Leave | End


@dataclass(frozen=True)
class View:
    """What the lead sees: statuses by index of the members it has links to (its own among them, if it is a member),
    its session's id and members, since when it has been opening one (None: it is not), and whose turn to lead it
    is, as far as this one can tell (None in a star)."""

    now: float
    statuses: Mapping[int, Status]
    session: bytes | None = None
    present: frozenset[int] = frozenset()
    opening_since: float | None = None
    turn: int | None = None


@dataclass
class Lead:
    """Remembers what it waits for. ``me`` is None for a coordinator, ``minimum`` the fewest members of a live set."""

    members: int
    minimum: int
    me: int | None
    timing: Timing
    _attempts: dict[tuple[bytes, int], int] = field(default_factory=dict)
    _running: Attempt | None = None
    _failures: int = 0
    _renewed: bool = False
    _retry_at: float = 0.0
    _since: dict[str, float] = field(default_factory=dict)
    _silent: dict[int, float] = field(default_factory=dict)
    _forgiven: bool = False
    _silenced: dict[int, int] = field(default_factory=dict)
    _inside: set[int] = field(default_factory=set)
    _suspect: int | None = None
    _suspected: dict[int, float] = field(default_factory=dict)
    _in_vain: set[int] = field(default_factory=set)
    _broken: int = 0
    _given_up: set[int] = field(default_factory=set)
    _last: Mapping[int, object] = field(default_factory=dict)
    _standing_still: dict[int, tuple[object, float]] = field(default_factory=dict)
    _last_change: float = 0.0

    def decide(self, view: View) -> Decision | None:
        """The next thing to do, or None: wait. What it returns must be done."""
        picture = {i: (s.session, s.phase, s.round, s.attempt, s.progress) for i, s in view.statuses.items()}
        # One alone may say what it likes: something happens where two members tell of it.
        if sum(picture.get(i) != self._last.get(i) for i in {*picture, *self._last}) > 1:
            self._last, self._last_change = picture, view.now
        for index, s in view.statuses.items():
            doing = (s.session, s.phase, s.round, s.attempt, s.progress)
            if self._standing_still.get(index, (None,))[0] != doing:
                self._standing_still[index] = (doing, view.now)
        if view.opening_since is not None or view.now < self._retry_at:
            return None
        return self._without_session(view) if view.session is None else self._in_session(view, view.session)

    def session_failed(self, now: float, awaited: Collection[int], present: Collection[int]) -> None:
        """A handshake over ``present`` opened no session: ``awaited`` were not heard, and next it goes without some."""
        self._failed(now)
        if awaited:
            self._leave_out(now, frozenset(awaited), frozenset(present))

    def others_needed(self, present: Collection[int]) -> None:
        """Those ``present`` keep no model to go on from: whoever was left out has to come back."""
        self._acquit(present)
        self._silent.clear()

    def session_opened(self) -> None:
        """A session is open: whatever ran before is over."""
        self._running = None
        self._since.clear()
        self._given_up.clear()
        self._inside.clear()

    def _without_session(self, view: View) -> Decision | None:
        self._running = None
        # Nobody but a star's coordinator leads: a session that it does not know any more leads nowhere.
        leads_nowhere = frozenset(Phase) - {Phase.OPENING} if self.me is None else frozenset[Phase]()
        idle = [i for i, s in view.statuses.items() if s.phase in leads_nowhere or self._is_free(i, s, view)]
        busy = len(view.statuses) - len(idle)
        chosen = self._choose(view, idle)
        if len(chosen) < self.minimum:
            self._since.pop("gathering", None)
            return None
        waited = self._waited("gathering", view.now)
        expected = self.members - sum(view.now < until for until in self._silent.values())
        if len(chosen) < expected and (waited < self.timing.patience or (busy and not self._stalled(view))):
            return None
        return self._propose(chosen)

    def _in_session(self, view: View, session: bytes) -> Decision | None:
        inside = {i: s for i, s in view.statuses.items() if i in view.present and s.session == session}
        if self._is_running(view, inside):
            return None
        self._inside |= set(inside)
        lost = view.present - set(inside) - self._given_up
        if lost & set(view.statuses) and self._waited("opened", view.now) < self.timing.handshake:
            return None  # they have not told yet that they are in it
        if never := lost & set(view.statuses) - self._inside:
            # To them it never opened: somebody among those present withholds from them what they need, or they do.
            self._given_up |= never
            lost -= never
            self._leave_out(view.now, never, view.present)
        newcomers = [i for i, s in view.statuses.items() if i not in inside and self._is_free(i, s, view)]
        chosen = self._choose(view, [*inside, *newcomers])
        if set(chosen) & set(newcomers) and len(chosen) >= self.minimum:
            # One session for all who return at the same time.
            if self._waited(f"come {sorted(newcomers)}", view.now) < self.timing.heartbeat:
                return None
            return self._renewed_by(view, chosen)
        if lost and self._waited(f"lost {sorted(lost)}", view.now) < self.timing.patience:
            return None
        self._given_up |= lost
        live = [i for i in self._choose(view, inside) if inside[i].phase in (Phase.READY, Phase.DONE)]
        fetching = any(inside[i].phase is Phase.FETCHING for i in inside)
        if fetching and self._waited("fetching", view.now) < self.timing.patience:
            return None
        if len(live) < self.minimum or len({inside[i].state for i in inside}) > 1:
            return self._renew(view, inside)
        if all(inside[i].phase is Phase.DONE for i in live):
            if newcomers and not self._forgiven:
                # Nothing is held up any more by those who were silent: they get their chance of the last model.
                self._forgiven = True
                self._silent.clear()
                return None
            complete = len(inside) == self.members
            return End() if complete or self._waited("linger", view.now) >= self.timing.linger else None
        return self._begin(session, inside[live[0]].state.round, live)

    def _is_free(self, index: int, status: Status, view: View) -> bool:
        """Whether a member that is not in this node's session may be called into one: it is idle, or in an attempt of
        a session that was left without its knowing, where nothing happens any more."""
        limit = self.timing.training if status.phase is Phase.TRAINING else self.timing.patience
        return status.phase in _IDLE or view.now - self._standing_still[index][1] >= limit

    def _is_running(self, view: View, inside: Mapping[int, Status]) -> bool:
        """Whether an attempt goes on; counts it as failed when it ended without a sum, or stands still."""
        running = self._running
        if running is None:
            return False
        ours = [inside[i] for i in running.live if i in inside]
        unheard = [
            s for s in ours if (s.round, s.attempt) != (running.round, running.attempt) and not _beyond(s, running)
        ]
        if self._star_stands_still(running, inside, view.now):
            self._running = None
            self._failed(view.now)
            return True
        busy = [s for s in ours if s.phase in IN_ATTEMPT]
        limit = self.timing.training if any(s.phase is Phase.TRAINING for s in busy) else self.timing.patience
        rest = [s for s in ours if s not in busy and s not in unheard]
        late = len(rest) >= self.minimum and self._waited("the last ones", view.now) >= self.timing.patience
        if (busy or unheard) and not late and view.now - self._last_change < limit:
            return True
        self._running = None
        if ours and all(_beyond(s, running) for s in ours):
            self._failures, self._broken, self._renewed = 0, 0, False
            for index in running.live:
                self._silenced.pop(index, None)
            return False
        self._failed(view.now)
        self._broken += 1
        training = [s for s in busy if s.phase is Phase.TRAINING]
        if self._broken >= _BROKEN or (training and view.now - self._last_change >= self.timing.training):
            absent = {i for i in running.live if inside.get(i) in (*unheard, *training)}
            self._leave_out(view.now, frozenset(absent) - {self.me}, frozenset(running.live))
        return True

    def _star_stands_still(self, running: Attempt, inside: Mapping[int, Status], now: float) -> bool:
        """Whether a star's attempt has lost a member before anybody released a share.

        Members of a ring see each other's links break; those of a star wait for a party of which only the coordinator
        knows that it is gone.
        """
        gone = sorted(set(running.live) - set(inside))
        if self.me is not None or not gone or any(status.phase is Phase.OPENING for status in inside.values()):
            return False
        return self._waited(f"gone {gone}", now) >= self.timing.heartbeat

    def _begin(self, session: bytes, round_: int, live: list[int]) -> Decision:
        number = self._attempts.get((session, round_), 0)
        self._attempts = {(session, round_): number + 1}
        self._running = Attempt(round_, number, tuple(live))
        self._since.clear()
        return self._running

    def _renew(self, view: View, inside: Collection[int]) -> Decision | None:
        """Models differ, or too few can go on: another session decides from what each has kept."""
        busy = [i for i in inside if view.statuses[i].phase in IN_ATTEMPT]
        if busy and not self._stalled(view):
            return None
        if self._renewed:
            # The session decided already, and some do not keep to it: for a while it goes without them.
            common = Counter(view.statuses[i].state for i in inside).most_common(1)[0][0]
            odd = [i for i in inside if view.statuses[i].state != common and i != self.me]
            self._silence(view.now, odd)
        chosen = self._choose(view, inside)
        if len(chosen) < self.minimum:
            return None
        self._renewed = True
        self._failed(view.now)
        return self._renewed_by(view, chosen)

    def _renewed_by(self, view: View, chosen: list[int]) -> Decision:
        """Another session over these: of this lead, or of the one whose turn it is among them."""
        return Leave() if self.me is not None and view.turn in set(chosen) - {self.me} else self._propose(chosen)

    def _choose(self, view: View, wanted: Collection[int]) -> list[int]:
        """Members that reach each other; without those who kept the last session from opening, if enough are left."""
        heard = [i for i in wanted if view.now >= self._silent.get(i, view.now)]
        chosen = self._clique(view, heard)
        return chosen if len(chosen) >= self.minimum else self._clique(view, wanted)

    def _clique(self, view: View, wanted: Iterable[int]) -> list[int]:
        """Members that all reach each other, this one among them; as many as are found.

        One that reaches few, or says so, keeps the others from nothing: each may have to be left out.
        """
        order = sorted(wanted)
        if self.me is None:
            return order  # all through the coordinator, whatever they say
        found = [_clique(view.statuses, [start, *order]) for start in order]
        return max((one for one in found if self.me in one or self.me not in order), key=len, default=[])

    def _propose(self, chosen: list[int]) -> Propose:
        self._since.clear()
        return Propose(tuple(chosen))

    def _stalled(self, view: View) -> bool:
        return view.now - self._last_change >= self.timing.patience

    def _waited(self, what: str, now: float) -> float:
        return now - self._since.setdefault(what, now)

    def _silence(self, now: float, indices: Collection[int]) -> None:
        """Go without them for a while, where enough are left; twice as long each time, until they take part."""
        for index in indices:
            times = self._silenced[index] = self._silenced.get(index, 0) + 1
            self._silent[index] = now + self.timing.patience * 2 ** min(times - 1, 5)

    def _leave_out(self, now: float, missing: frozenset[int], present: frozenset[int]) -> None:
        """Go on without some of ``present`` for a while, as nothing came of it with all of them.

        First without those missing. But a member may be missing because another one withholds from it what it needs:
        where that did not help, or would leave no more than the others' models need to be a majority's, each in turn is
        left out: whoever withholds, everybody else takes part sooner or later. Whose absence changed nothing is not
        left out again before the others were.
        """
        self._acquit(present)
        left, others = present - missing, present - {self.me}
        again = any(map(self._silenced.get, missing))
        exhausted = others <= self._in_vain
        if missing and len(left) >= self.minimum and (exhausted or (not again and 2 * (len(left) - 1) > self.members)):
            self._in_vain.clear()
            self._silence_next(now, missing)
        elif len(present) > self.minimum and others:
            if exhausted:
                self._in_vain.clear()
            order = {i: (self._suspected.get(i, -math.inf), (i in missing) is again, i) for i in others - self._in_vain}
            self._suspect = min(order, key=order.__getitem__)
            self._suspected[self._suspect] = now
            for index in missing:
                self._silent.pop(index, None)
            self._silence_next(now, {self._suspect})

    def _silence_next(self, now: float, indices: Collection[int]) -> None:
        """With others what failed is something else: it is tried at once."""
        self._silence(now, indices)
        self._failures, self._retry_at = 0, now + self.timing.retry

    def _acquit(self, present: Collection[int]) -> None:
        """What failed again, failed without the one that was suspected."""
        if self._suspect is not None and self._suspect not in present:
            self._in_vain.add(self._suspect)
            self._silent.pop(self._suspect, None)
            self._suspect = None

    def _failed(self, now: float) -> None:
        self._retry_at = now + self.timing.retry * 2 ** min(self._failures, 5)
        self._failures += 1


def _beyond(status: Status, running: Attempt) -> bool:
    return status.state.round > running.round


def _clique(statuses: Mapping[int, Status], order: Iterable[int]) -> list[int]:
    """Members that all reach each other, taken in this order."""
    chosen: list[int] = []
    for index in order:
        theirs = statuses[index].reachable
        if all(other in theirs and index in statuses[other].reachable for other in chosen) and index not in chosen:
            chosen.append(index)
    return sorted(chosen)

"""What is going on at one site or at all of a federation, as state that changes by events alone; the view draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pppml_fast.aggregation.attempt_state import ACTIVE, State
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.quiet import REFUSALS
from pppml_fast.site.text import readable

__all__ = ["LinkView", "LiveState", "Note", "Refusal", "SiteView", "reduce"]

_RATE_S = 0.2
"""Rates are taken over at least this many seconds."""
STALE_S = 5.0
"""A link of which nothing was told for so long has rate zero."""
_ACTIVE = frozenset(state.value for state in ACTIVE)
_MOST = 5


@dataclass(frozen=True)
class LinkView:
    """A site's link to one peer: bytes since the site started, and rates in bytes per second, as of ``time``."""

    up: bool = False
    bytes_in: float = 0
    bytes_out: float = 0
    rate_in: float = 0
    rate_out: float = 0
    time: float | None = None

    def moved(self, time: float, bytes_in: float, bytes_out: float) -> LinkView:
        """With new totals; the rates change once `_RATE_S` passed since they were taken."""
        seconds = 0.0 if self.time is None else time - self.time
        if self.time is not None and 0 <= seconds < _RATE_S:
            return self
        known = seconds > 0 and bytes_in >= self.bytes_in and bytes_out >= self.bytes_out
        return LinkView(
            self.up,
            bytes_in,
            bytes_out,
            (bytes_in - self.bytes_in) / seconds if known else 0,
            (bytes_out - self.bytes_out) / seconds if known else 0,
            time,
        )

    def rates(self, now: float) -> tuple[float, float]:
        """Bytes per second in and out, zero where nothing was told for a while."""
        fresh = self.up and self.time is not None and now - self.time <= STALE_S
        return (self.rate_in, self.rate_out) if fresh else (0.0, 0.0)


@dataclass(frozen=True)
class Refusal:
    """Something refused, how often in a row, and when last."""

    text: str
    times: int
    time: float


@dataclass(frozen=True)
class Note:
    """Something that happened, in words."""

    text: str
    time: float


@dataclass(frozen=True)
class SiteView:
    """What one site told of itself. ``state`` is that of its newest attempt, ``finished`` its number of rounds."""

    name: str
    time: float = 0
    running: bool = False
    topology: str = ""
    protocol: str = ""
    members: tuple[str, ...] = ()
    relay: str = ""
    rounds: int = 0
    session: str = ""
    lead: str = ""
    present: tuple[str, ...] = ()
    round: int | None = None
    attempt: int | None = None
    live: tuple[str, ...] = ()
    state: str = State.IDLE.value
    training: bool = False
    chunks: int = 0
    back: int = 0
    of: int = 0
    finished: int = 0
    model: str = ""
    links: Mapping[str, LinkView] = field(default_factory=lambda: MappingProxyType({}))
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def doing(self) -> str:
        """One word for what the site does."""
        if not self.running:
            return "stopped"
        if self.state in _ACTIVE:
            return self.state
        return "training" if self.training else self.state

    @property
    def holds(self) -> bool:
        """Whether the sum is in this site's hands: chunks passed through it, and it has not all of it back."""
        return self.state == State.STREAMING.value and self.chunks > 0 and self.back < self.of


@dataclass(frozen=True)
class LiveState:
    """All that is known, by site: of one process, or of every log that is followed."""

    sites: Mapping[str, SiteView] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def members(self) -> tuple[str, ...]:
        """Members in ring order, by the newest start; the sites themselves where none told."""
        started = [site for site in self.sites.values() if site.members]
        return max(started, key=lambda site: site.time).members if started else tuple(sorted(self.sites))

    @property
    def relay(self) -> str:
        """A star's coordinator; empty in a ring."""
        return next((site.relay for site in self.sites.values() if site.relay), "")


def reduce(state: LiveState, site: str, event: Event) -> LiveState:
    """The state after an event of a site. Nothing is changed in place."""
    before = state.sites.get(site, SiteView(site))
    change = _CHANGES.get(event.kind)
    after = change(before, event) if change else before
    peer = event.fields.get("peer")
    if isinstance(peer, str) and event.kind in REFUSALS | {EventKind.SUPPRESSED}:
        after = _refused(after, event)
    elif event.kind not in _SILENT:
        after = replace(after, notes=(*after.notes, Note(readable(event), event.time))[-_MOST:])
    after = replace(after, time=max(after.time, event.time))
    return LiveState(MappingProxyType({**state.sites, site: after}))


_SILENT = frozenset({EventKind.PROGRESS, EventKind.STATE, EventKind.LINK_UP})


def _started(site: SiteView, event: Event) -> SiteView:
    told = event.fields
    return SiteView(
        site.name,
        event.time,
        True,
        told["topology"],
        told["protocol"],
        tuple(told["members"]),
        told.get("relay", ""),
        told.get("rounds", 0),
        finished=site.finished,
        model=site.model,
        refusals=site.refusals,
        notes=site.notes,
    )


def _stopped(site: SiteView, event: Event) -> SiteView:
    links = {peer: replace(link, up=False) for peer, link in site.links.items()}
    return replace(site, running=False, training=False, state=State.IDLE.value, links=MappingProxyType(links))


def _link(up: bool) -> Callable[[SiteView, Event], SiteView]:
    def change(site: SiteView, event: Event) -> SiteView:
        peer = event.fields["peer"]
        link = replace(site.links.get(peer, LinkView()), up=up)
        return replace(site, links=MappingProxyType({**site.links, peer: link}))

    return change


def _session(site: SiteView, event: Event) -> SiteView:
    told = event.fields
    return replace(site, session=told["session"], present=tuple(told["present"]), lead=told["lead"])


def _attempt(site: SiteView, event: Event) -> SiteView:
    told = event.fields
    names = ("session", "round", "attempt")
    fresh: dict[str, Any] = {name: told[name] for name in names}
    return replace(
        site, **fresh, live=tuple(told["live"]), state=State.PREPARING.value, chunks=0, back=0, of=0, training=False
    )


def _training(site: SiteView, event: Event) -> SiteView:
    return replace(site, training=True, round=event.fields["round"])


def _state(site: SiteView, event: Event) -> SiteView:
    told = event.fields
    return replace(site, session=told["session"], round=told["round"], attempt=told["attempt"], state=told["state"])


def _progress(site: SiteView, event: Event) -> SiteView:
    told = event.fields
    links = dict(site.links)
    for peer in {*told["bytes_in"], *told["bytes_out"]}:
        before = links.get(peer, LinkView(up=True))
        links[peer] = before.moved(event.time, told["bytes_in"].get(peer, 0), told["bytes_out"].get(peer, 0))
    figures = {"chunks": told["chunks"], "back": told.get("back", 0), "of": told["of"]}
    return replace(site, round=told["round"], attempt=told["attempt"], links=MappingProxyType(links), **figures)


def _finished(site: SiteView, event: Event) -> SiteView:
    told = event.fields
    return replace(
        site,
        state=State.FINISHED.value,
        round=told["round"],
        attempt=told["attempt"],
        finished=told["round"] + 1,
        model=told["model"],
    )


def _ended(state: State) -> Callable[[SiteView, Event], SiteView]:
    return lambda site, _: replace(site, state=state.value, training=False)


def _adopted(site: SiteView, event: Event) -> SiteView:
    return replace(site, finished=event.fields["round"], model=event.fields["model"], state=State.IDLE.value)


def _refused(site: SiteView, event: Event) -> SiteView:
    told, last = event.fields, site.refusals[-1] if site.refusals else None
    text = readable(Event(0, EventKind.REFUSED, {name: told[name] for name in ("peer", "reason") if name in told}))
    times = told["count"] if event.kind is EventKind.SUPPRESSED else 1
    if last is not None and last.text == text:
        return replace(site, refusals=(*site.refusals[:-1], Refusal(text, last.times + times, event.time)))
    return replace(site, refusals=(*site.refusals, Refusal(text, times, event.time))[-_MOST:])


_CHANGES: Mapping[EventKind, Callable[[SiteView, Event], SiteView]] = {
    EventKind.STARTED: _started,
    EventKind.STOPPED: _stopped,
    EventKind.LINK_UP: _link(True),
    EventKind.LINK_DOWN: _link(False),
    EventKind.SESSION_OPENED: _session,
    EventKind.ATTEMPT_BEGAN: _attempt,
    EventKind.TRAINING: _training,
    EventKind.STATE: _state,
    EventKind.PROGRESS: _progress,
    EventKind.ABANDONED: _ended(State.ABANDONED),
    EventKind.DISCARDED: _ended(State.DISCARDED),
    EventKind.FAILED: _ended(State.FAILED),
    EventKind.ROUND_FINISHED: _finished,
    EventKind.CAUGHT_UP: _adopted,
    EventKind.STEPPED_BACK: _adopted,
}

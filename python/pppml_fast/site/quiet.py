"""What keeps logs small: repeated refusals are counted instead of written, and every minute has its bytes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pppml_fast.site.events import Event, EventKind

__all__ = ["REFUSALS", "Budget", "Quiet", "source"]

REFUSALS = frozenset({EventKind.REFUSED, EventKind.REFUSED_BY, EventKind.LINK_REFUSED})
_THEIRS = REFUSALS | {EventKind.LINK_UP, EventKind.LINK_DOWN, EventKind.SUPPRESSED}
"""What others can cause as often as they like."""
MOST_PEERS = 256
_PORT = re.compile(r"(?<=[\w.\]]):\d{1,5}$")


def source(event: Event) -> str:
    """Whose event it is: the peer, without an address's port, which every connection changes; empty without a peer."""
    return _PORT.sub("", str(event.fields.get("peer", "")))[:128]


class Budget:
    """Bytes that may be written: ``per_minute`` at once, and as many again every minute. Time comes with the calls."""

    def __init__(self, per_minute: int) -> None:
        self._most = float(per_minute)
        self._left = float(per_minute)
        self._time: float | None = None

    def take(self, time: float, size: int) -> bool:
        """Whether ``size`` bytes may be written now; then they are taken. A clock set back gives nothing."""
        if self._time is not None and time > self._time:
            self._left = min(self._most, self._left + (time - self._time) * self._most / 60)
        self._time = time
        if size > self._left:
            return False
        self._left -= size
        return True


@dataclass
class _Last:
    event: Event
    repeated: int = 0


class Quiet:
    """Decides what a log writes of the events it hears. ``size`` gives an event's bytes in that log.

    The same refusal of one peer passes once until something else of that peer happens; then its number follows. What
    exceeds ``bytes_per_minute`` (twice that in a minute that follows a silent one) is left out and counted; what
    others can cause has a quarter of it and no more, so that it cannot use up what the site's own events need. Memory
    is bounded: the oldest of 256 peers is forgotten. Progress passes at most every ``progress_s`` seconds, and at its
    end.
    """

    def __init__(self, size: Callable[[Event], int], bytes_per_minute: int, progress_s: float = 0.5) -> None:
        self._size = size
        self._strangers = Budget(bytes_per_minute // 4)
        self._own = Budget(bytes_per_minute - bytes_per_minute // 4)
        self._progress_s = progress_s
        self._progress = float("-inf")
        self._last: OrderedDict[str, _Last] = OrderedDict()
        self._left_out = 0

    def hear(self, event: Event) -> list[Event]:
        """The events to write now, in order: none, this one, or first what was left out until here."""
        passed = self._affordable(self._unrepeated(event))
        if passed and self._left_out:
            note = Event(event.time, EventKind.SUPPRESSED, {"count": self._left_out})
            if self._own.take(event.time, self._size(note)):
                self._left_out = 0
                passed.insert(0, note)
        return passed

    def end(self, time: float) -> list[Event]:
        """What was counted and not told so far."""
        told = [note for last in self._last.values() if (note := _note(last, time))]
        if self._left_out:
            told.append(Event(time, EventKind.SUPPRESSED, {"count": self._left_out}))
        self._last.clear()
        self._left_out = 0
        return told

    def _unrepeated(self, event: Event) -> list[Event]:
        if event.kind is EventKind.PROGRESS:
            return [event] if self._due(event) else []
        peer = source(event)
        if not peer:
            return [event]
        last = self._last.get(peer)
        if last is not None and event.kind in REFUSALS and _same(last.event, event):
            last.repeated += 1
            self._last.move_to_end(peer)
            return []
        notes = [note] if last is not None and (note := _note(last, event.time)) else []
        self._last.pop(peer, None)
        if event.kind in REFUSALS:
            notes += self._remember(peer, event)
        return [*notes, event]

    def _remember(self, peer: str, event: Event) -> list[Event]:
        self._last[peer] = _Last(event)
        if len(self._last) <= MOST_PEERS:
            return []
        _, oldest = self._last.popitem(last=False)
        return [note] if (note := _note(oldest, event.time)) else []

    def _due(self, event: Event) -> bool:
        of = event.fields.get("of")
        ended = event.fields.get("chunks") == of == event.fields.get("back", of)
        if not ended and 0 <= event.time - self._progress < self._progress_s:
            return False
        self._progress = event.time
        return True

    def _affordable(self, events: list[Event]) -> list[Event]:
        passed = []
        for event in events:
            if (self._strangers if event.kind in _THEIRS else self._own).take(event.time, self._size(event)):
                passed.append(event)
            else:
                self._left_out += event.fields["count"] if event.kind is EventKind.SUPPRESSED else 1
        return passed


def _same(one: Event, other: Event) -> bool:
    return one.kind is other.kind and one.fields.get("reason") == other.fields.get("reason")


def _note(last: _Last, time: float) -> Event | None:
    if not last.repeated:
        return None
    told: dict[str, Any] = {name: last.event.fields[name] for name in ("peer", "reason") if name in last.event.fields}
    return Event(time, EventKind.SUPPRESSED, {"count": last.repeated, **told})

"""What happens at a site, as one stream of structured events; logs, metrics, live view, transcripts are its sinks.

A wrong field name is a mistake of this program. It raises where ``PPPML_STRICT_EVENTS=1`` stands in the environment, as
in the tests and in every process they start; at a hospital it costs one line of the log, never a round.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

__all__ = ["FIELDS", "Event", "EventKind", "EventSink", "Events", "Fields", "mistakes"]

_LOG = logging.getLogger("pppml.site")
STRICT = "PPPML_STRICT_EVENTS"


class EventKind(str, Enum):
    """What happened. `FIELDS` has the fields that go with it."""

    STARTED = "started"  # topology: ring or star; members in ring order; relay: a star's coordinator
    STOPPED = "stopped"
    LINK_UP = "link_up"
    LINK_DOWN = "link_down"
    LINK_REFUSED = "link_refused"  # peer as it called itself, or its address without the port
    SESSION_OPENED = "session_opened"  # session in hex; present: names; lead: a name
    SESSION_FAILED = "session_failed"
    ATTEMPT_BEGAN = "attempt_began"  # live: names; parameters: the set's name
    TRAINING = "training"
    STATE = "state"  # state: value of an `aggregation.attempt_state.State`
    PROGRESS = "progress"  # chunks: added to and sent on; back: of the whole sum; bytes: by peer, since the start
    REFUSED = "refused"  # a message of peer; reason: never told to the peer
    REFUSED_BY = "refused_by"
    ABANDONED = "abandoned"  # an attempt before this site's share was released
    DISCARDED = "discarded"  # an attempt after its update was spent, without a sum
    SPENT = "spent"  # this site's update may never be encrypted again
    RELAYED = "relayed"  # a coordinator: the sum over members went to all of them; root: its hash, which they sign
    ROUND_FINISHED = "round_finished"  # root, transcript, model: 32 bytes in hex; costs: a `Meter` as a mapping
    CAUGHT_UP = "caught_up"  # a model was taken from peer; here and below, round: of the state kept (StateId)
    STEPPED_BACK = "stepped_back"
    ROLLED_BACK = "rolled_back"  # this site's disk is older than what a peer has seen of it
    DRIFT = "drift"  # a peer has another model of the same round
    EVIDENCE = "evidence"  # digests of two statements that one party signed
    FAILED = "failed"  # the checks of an attempt at its opening; without session, round and attempt: the site itself
    SUPPRESSED = "suppressed"  # logs alone: lines left out, with peer and reason where one refusal repeated itself


class Fields(NamedTuple):
    """The fields of one kind: those it always has, and those it may have."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()


def _fields(required: str, optional: str = "") -> Fields:
    return Fields(frozenset(required.split()), frozenset(optional.split()))


_ATTEMPT = "session round attempt"
FIELDS: Mapping[EventKind, Fields] = {
    EventKind.STARTED: _fields("version protocol topology members", "relay rounds"),
    EventKind.STOPPED: _fields("reason"),
    EventKind.LINK_UP: _fields("peer"),
    EventKind.LINK_DOWN: _fields("peer"),
    EventKind.LINK_REFUSED: _fields("peer reason"),
    EventKind.SESSION_OPENED: _fields("session present lead"),
    EventKind.SESSION_FAILED: _fields("reason", "session"),
    EventKind.ATTEMPT_BEGAN: _fields(f"{_ATTEMPT} live parameters"),
    EventKind.TRAINING: _fields("round salt"),
    EventKind.STATE: _fields(f"{_ATTEMPT} state"),
    EventKind.PROGRESS: _fields(f"{_ATTEMPT} chunks of bytes_in bytes_out", "back"),
    EventKind.REFUSED: _fields("peer reason", _ATTEMPT),
    EventKind.REFUSED_BY: _fields("peer", f"{_ATTEMPT} reason"),
    EventKind.ABANDONED: _fields(f"{_ATTEMPT} reason", "live root costs"),
    EventKind.DISCARDED: _fields(f"{_ATTEMPT} reason", "live root costs"),
    EventKind.SPENT: _fields("round reason"),
    EventKind.RELAYED: _fields(f"{_ATTEMPT} members root"),
    EventKind.ROUND_FINISHED: _fields(f"{_ATTEMPT} members root transcript model costs"),
    EventKind.CAUGHT_UP: _fields("round peer model"),
    EventKind.STEPPED_BACK: _fields("round model"),
    EventKind.ROLLED_BACK: _fields("round peer"),
    EventKind.DRIFT: _fields("round peer"),
    EventKind.EVIDENCE: _fields("peer round attempt digests"),
    EventKind.FAILED: _fields("reason", f"{_ATTEMPT} live root costs"),
    EventKind.SUPPRESSED: _fields("count", "peer reason"),
}

_NUMBERS = frozenset(["round", "attempt", "chunks", "of", "back", "rounds", "salt", "count"])
_NAMES = frozenset(["members", "present", "live", "digests"])
_FIGURES = frozenset(["bytes_in", "bytes_out", "costs"])
"""Types of fields in every kind: whole numbers >= 0, lists of texts, numbers by name. All others are texts."""
_LIMIT = 1 << 63


@dataclass(frozen=True)
class Event:
    """One thing that happened: wall-clock ``time`` in seconds since the epoch, kind, plain JSON fields."""

    time: float
    kind: EventKind
    fields: dict[str, Any] = field(default_factory=dict)


EventSink = Callable[[Event], None]


def mistakes(kind: EventKind, fields: Mapping[str, Any]) -> str:
    """What is wrong with the fields of an event of this kind, in words; empty when nothing is."""
    required, optional = FIELDS[kind]
    missing, unknown = sorted(required - set(fields)), sorted(set(fields) - required - optional)
    wrong = sorted(name for name, value in fields.items() if name in required | optional and not _fits(name, value))
    found = [("lacks", missing), ("does not know", unknown), ("has a value of the wrong type for", wrong)]
    return "; ".join(f"{kind.value} {what} {', '.join(names)}" for what, names in found if names)


class Events:
    """Hands events to all sinks, in order, from any thread. ``clock`` gives seconds since the epoch.

    A sink is called under a lock and emits nothing itself. A sink that fails is told to the log once per kind of error,
    and hears the next event again: a full disk under a log stops no round. ``strict`` raises on mistaken fields
    (ValueError) and on every error of a sink but OSError; None: where the environment says so.
    """

    def __init__(
        self, clock: Callable[[], float], sinks: Iterable[EventSink] = (), *, strict: bool | None = None
    ) -> None:
        self._clock = clock
        self._sinks = list(sinks)
        self._strict = os.environ.get(STRICT, "") == "1" if strict is None else strict
        self._lock = threading.RLock()
        self._told: set[tuple[int, str]] = set()

    def add(self, sink: EventSink) -> None:
        """Let a sink hear everything from now on."""
        with self._lock:
            self._sinks.append(sink)

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """Something happened."""
        wrong = mistakes(kind, fields)
        if wrong and self._strict:
            raise ValueError(f"{wrong}; see FIELDS in {__name__}")
        with self._lock:
            if wrong:
                self._tell(0, f"mistaken {kind.value}", "an event is mistaken: %s", wrong)
            event = Event(self._clock(), kind, fields)
            for sink in self._sinks:
                self._hand(sink, event)

    def _hand(self, sink: EventSink, event: Event) -> None:
        try:
            sink(event)
        except Exception as error:
            if self._strict and not isinstance(error, OSError):
                raise
            name = getattr(sink, "__qualname__", type(sink).__qualname__)
            self._tell(id(sink), type(error).__name__, "%s missed an event: %r", name, error)

    def _tell(self, whose: int, what: str, text: str, *values: object) -> None:
        if (whose, what) not in self._told:
            self._told.add((whose, what))
            _LOG.error(text, *values)


def _fits(name: str, value: Any) -> bool:
    if name in _NUMBERS:
        return isinstance(value, int) and 0 <= value < _LIMIT
    if name in _NAMES:
        return isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)
    if name in _FIGURES:
        # Not a number is below no limit.
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and isinstance(entry, (int, float)) and abs(entry) < _LIMIT
            for key, entry in value.items()
        )
    return isinstance(value, str)

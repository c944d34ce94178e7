"""What happens at a site, as one stream of structured events; logs, metrics, live view, transcripts are its sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Event", "EventKind", "EventSink", "Events"]


class EventKind(str, Enum):
    """What happened; beside each, the fields that go with it."""

    STARTED = "started"  # version, protocol, topology, members
    STOPPED = "stopped"  # reason
    LINK_UP = "link_up"  # peer
    LINK_DOWN = "link_down"  # peer
    LINK_REFUSED = "link_refused"  # peer (as it called itself, or an address), reason
    SESSION_OPENED = "session_opened"  # session (hex), present, lead
    SESSION_FAILED = "session_failed"  # reason
    ATTEMPT_BEGAN = "attempt_began"  # session, round, attempt, live, parameters
    TRAINING = "training"  # round, salt
    STATE = "state"  # session, round, attempt, state
    PROGRESS = "progress"  # session, round, attempt, chunks, of, bytes_in, bytes_out
    REFUSED = "refused"  # peer, reason; the same once until something else happens
    REFUSED_BY = "refused_by"  # peer
    ABANDONED = "abandoned"  # session, round, attempt, reason
    SPENT = "spent"  # round, reason: this site's update may never be encrypted again
    ROUND_FINISHED = "round_finished"  # session, round, attempt, members, transcript, model (hex), costs
    CAUGHT_UP = "caught_up"  # round, peer, model
    STEPPED_BACK = "stepped_back"  # round, model
    ROLLED_BACK = "rolled_back"  # round, peer: this site's disk is older than what a peer has seen of it
    DRIFT = "drift"  # round, peer
    EVIDENCE = "evidence"  # peer, round, attempt, digests of two statements signed by one party
    FAILED = "failed"  # reason


@dataclass(frozen=True)
class Event:
    """One thing that happened: wall-clock ``time`` in seconds since the epoch, kind, plain JSON fields."""

    time: float
    kind: EventKind
    fields: dict[str, Any] = field(default_factory=dict)


EventSink = Callable[[Event], None]


class Events:
    """Hands events to all sinks, in order. ``clock`` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float], sinks: Iterable[EventSink] = ()) -> None:
        self._clock = clock
        self._sinks = list(sinks)

    def add(self, sink: EventSink) -> None:
        """Let a sink hear everything from now on."""
        self._sinks.append(sink)

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """Something happened."""
        event = Event(self._clock(), kind, fields)
        for sink in self._sinks:
            sink(event)

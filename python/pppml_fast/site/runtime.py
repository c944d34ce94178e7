"""Runs a node over links: one thread alone touches the node, fed by the links' threads and by the application's."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from pppml_fast.errors import ProtocolError
from pppml_fast.site.events import EventKind
from pppml_fast.site.node import AttemptProgress, SiteNode
from pppml_fast.transport.base import Links, Outgoing

__all__ = ["Runtime"]

_WAITING_LIMIT = 8 << 20
"""Bytes of one peer that wait for the node: whoever sends more is slowed down, and alone."""
_COST = 1 << 10
"""Bytes counted for a message beside its own, so that empty ones are bounded too."""
_UNTAKEN_LIMIT = 64 << 20
"""Bytes, beside bulk, that may be queued for a peer while its link has no room: an honest one takes what it gets."""
_TICK_S = 0.1
_PROGRESS_S = 0.1
_QUIET_S = 1.0
"""Least seconds between two tellings of progress: while chunks move, and while only other bytes do."""

Action = Callable[[], None]


class Runtime:
    """Drives ``node`` over ``links`` until it has ended, `stop` is called, or something fails for good.

    `run` blocks; it may be called once. `post` hands in what other threads have for the node. Peers take turns, one
    message each: one that floods delays the others by its share of the node's time, and fills no memory.
    """

    def __init__(self, node: SiteNode, links: Links, clock: Callable[[], float] = time.monotonic) -> None:
        self._node, self._links, self._clock = node, links, clock
        self._changed = threading.Condition()
        self._queues: OrderedDict[str, deque[tuple[int, Action]]] = OrderedDict()
        self._waiting: dict[str, int] = {}
        self._untaken: dict[str, int] = {}
        self._stopped = False
        self._received: dict[str, int] = dict.fromkeys(node.peers, 0)
        self._sent: dict[str, int] = dict.fromkeys(node.peers, 0)
        self._told: tuple[AttemptProgress | None, int] = (None, 0)
        self._told_at = -math.inf

    def run(self) -> None:
        """Drive the node to its end. Raises what the application or the journal raised: nothing was sent after that."""
        self._links.start(self)
        try:
            while not self._stopped and not self._node.ended:
                if (action := self._next_action()) is not None:
                    action()
                self._node.tick(self._clock())
                self._send()
                if self._node.do_deferred():
                    self._node.tick(self._clock())
                    self._send()
                self._tell(self._clock())
            self._tell(math.inf)
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._links.stop()

    def stop(self) -> None:
        """Let `run` return after the event it is at; from any thread or signal handler."""
        self._stopped = True
        # A signal handler runs on the thread that may hold the lock; the loop looks up after a tick in any case.
        if self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def post(self, action: Action) -> None:
        """Let the node's thread call ``action``."""
        self._put("", 0, action)

    # --- LinkEvents ---------------------------------------------------------------------------------------

    def on_message(self, peer: str, data: bytes) -> None:
        with self._changed:
            while self._waiting.get(peer, 0) > _WAITING_LIMIT and not self._stopped:
                self._changed.wait()
        self._put(peer, len(data) + _COST, lambda: self._take(peer, data))

    def on_up(self, peer: str, incarnation: bytes) -> None:
        self._put(peer, 0, lambda: self._node.up(peer))

    def on_down(self, peer: str) -> None:
        self._put(peer, 0, lambda: self._node.down(peer))

    def on_room(self, peer: str) -> None:
        self._put(peer, 0, lambda: None)

    # --- inside -------------------------------------------------------------------------------------------

    def _put(self, peer: str, size: int, action: Action) -> None:
        with self._changed:
            self._queues.setdefault(peer, deque()).append((size, action))
            self._waiting[peer] = self._waiting.get(peer, 0) + size
            self._changed.notify_all()

    def _next_action(self) -> Action | None:
        """One action, so that what it causes is sent before the next; None after a tick without any.

        Each peer's come in order; of those that have any, the one that was served longest ago is next.
        """
        with self._changed:
            if not self._queues:
                self._changed.wait(_TICK_S)
            if not self._queues:
                return None
            peer, queue = self._queues.popitem(last=False)
            size, action = queue.popleft()
            if queue:
                self._queues[peer] = queue
            self._waiting[peer] -= size
            self._changed.notify_all()
            return action

    def _take(self, peer: str, data: bytes) -> None:
        self._received[peer] = self._received.get(peer, 0) + len(data)
        self._node.receive(peer, data)

    def _send(self) -> None:
        self._flush()
        for peer in self._node.peers:
            while self._links.room(peer):
                bulk = self._node.pull(peer)
                if bulk is None:
                    break
                self._hand_over(bulk)
                self._flush()

    def _flush(self) -> None:
        """Send what the node has ready; after a pull, what that brought about beside the message itself.

        A peer that lets too much lie loses what comes on top.
        """
        for message in self._node.outgoing():
            hop, size = message.hop, len(message.data)
            untaken = 0 if self._links.room(hop) else self._untaken.get(hop, 0) + size
            if untaken > _UNTAKEN_LIMIT:
                self._node.refused(hop, ProtocolError("it does not take what is sent to it; the rest is dropped"))
                continue
            self._untaken[hop] = untaken
            self._hand_over(message)

    def _hand_over(self, message: Outgoing) -> None:
        self._sent[message.hop] = self._sent.get(message.hop, 0) + len(message.data)
        self._links.send(message.hop, message.data)

    def _tell(self, now: float) -> None:
        """Tell how far the attempt is and what went over each link, where either changed."""
        figures, moved = self._node.progress(), sum(self._received.values()) + sum(self._sent.values())
        due = _PROGRESS_S if figures != self._told[0] else _QUIET_S
        if figures is None or (figures, moved) == self._told or now - self._told_at < due:
            return
        self._told, self._told_at = (figures, moved), now
        self._node.events.emit(
            EventKind.PROGRESS,
            session=figures.session.hex(),
            round=figures.round,
            attempt=figures.attempt,
            **figures.moved._asdict(),
            bytes_in=dict(self._received),
            bytes_out=dict(self._sent),
        )

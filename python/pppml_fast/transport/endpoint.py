"""A link in a process with threads: writers wait for frames, and one thread tells the node what happened."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from threading import Condition, Lock, Thread
from typing import Any

from pppml_fast.errors import InputError
from pppml_fast.transport.base import LinkEvents
from pppml_fast.transport.link import Down, Link, Message, Room, Up

__all__ = ["Endpoint", "EndpointLinks", "Refusals", "Threads", "stop_all"]

_LOG = logging.getLogger("pppml_fast.transport")
_REMEMBERED = 256


class Refusals:
    """Tells of each refusal, (who, why), once; again after `forget`, or when 256 others came between."""

    def __init__(self, tell: Callable[[str, str], None] | None) -> None:
        self._tell = tell
        self._lock = Lock()
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __call__(self, who: str, reason: str) -> None:
        """``who``, a peer's name or an address, was refused."""
        with self._lock:
            known = (who, reason) in self._told
            self._told[who, reason] = None
            self._told.move_to_end((who, reason))
            if len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
        if not known and self._tell is not None:
            self._tell(who, reason)

    def forget(self, who: str) -> None:
        """All is well with ``who`` now."""
        with self._lock:
            for key in [key for key in self._told if key[0] == who]:
                del self._told[key]


class Threads(Executor):
    """A daemon thread for each task: a process that ends without `Links.stop` does not wait for its connections."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a task; its caller bounds how many there are."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        Thread(target=run, name="accepted", daemon=True).start()
        return future


class Endpoint:
    """A `Link` behind a lock, for any number of threads. ``grace_s``: seconds a session outlives its connection."""

    def __init__(self, link: Link, grace_s: float) -> None:
        self.link = link
        self._grace = grace_s
        self._lock = Lock()
        self._writers = Condition(self._lock)  # wait for a frame to write
        self._news = Condition(self._lock)  # the thread below, and `stop`, wait for something to happen
        self._deadline: float | None = None  # when the session ends for want of a connection
        self._stopping = False
        self._thread: Thread | None = None

    def start(self, events: LinkEvents) -> None:
        """Tell ``events`` what happens, from a thread that begins now."""
        self._thread = Thread(target=self._deliver, args=(events,), name=f"link {self.link.peer}", daemon=True)
        self._thread.start()

    def flush(self) -> bool:
        """Ask the peer to acknowledge all that was sent; True when it has."""
        with self._lock:
            done = self.link.flush()
            self._writers.notify_all()
            return done

    def stop(self, linger_s: float) -> None:
        """End writers and events, after the peer took what was sent or ``linger_s`` seconds are over."""
        give_up = time.monotonic() + linger_s
        with self._lock:
            while not self._stopping and not self.link.flush() and self.link.established:
                left = give_up - time.monotonic()
                self._writers.notify_all()
                if left <= 0 or not self._news.wait(left):
                    break
            self._stopping = True
            self._wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, which may be in the node's hands."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def send(self, data: bytes) -> None:
        """Queue a message. Raises InputError where it is too long."""
        with self._lock:
            self.link.send(data)
            if self.link.writable:
                self._writers.notify_all()

    def room(self) -> bool:
        """Whether the peer is up and less than the window waits for it."""
        with self._lock:
            return self.link.room()

    def connect(self) -> int:
        """Begin a connection as the dialling end."""
        with self._lock:
            connection = self.link.connect()
            self._watch()
            return connection

    def accept(self, frame: bytes) -> int:
        """Take a new connection's opening as the accepting end. Raises ProtocolError."""
        with self._lock:
            connection = self.link.accept(frame)
            self._watch()
            return connection

    def receive(self, connection: int, frame: bytes) -> bool:
        """Take a frame; False when the connection does not count any more. Raises ProtocolError."""
        with self._lock:
            counts = not self._stopping and self.link.receive(connection, frame)
            if self._deadline is not None:
                self._watch()
            if self.link.writable:
                self._writers.notify_all()
            self._news.notify_all()
            return counts

    def lost(self, connection: int) -> None:
        """The connection broke."""
        with self._lock:
            self.link.disconnect(connection)
            self._watch()

    def leave(self) -> None:
        """The peer is gone: end the session at once."""
        with self._lock:
            self.link.leave()
            self._watch()

    def established(self, connection: int) -> bool:
        """Whether this connection counts and both ends have opened."""
        with self._lock:
            return self.link.connection == connection and self.link.established

    def frames(self, connection: int) -> Iterator[bytes]:
        """What to write on a connection, waiting for more, until it counts no more."""
        while True:
            with self._lock:
                while (frame := self._next(connection)) is None:
                    if self._stopping or self.link.connection != connection:
                        return
                    self._writers.wait()
            yield frame

    def _next(self, connection: int) -> bytes | None:
        return None if self._stopping else self.link.next_frame(connection)

    def _watch(self) -> None:
        if self.link.established:
            self._deadline = None
        elif self._deadline is None:
            self._deadline = time.monotonic() + self._grace
        self._wake()

    def _wake(self) -> None:
        self._writers.notify_all()
        self._news.notify_all()

    def _deliver(self, events: LinkEvents) -> None:
        while True:
            with self._lock:
                while (happened := self.link.take()) is None or self._stopping:
                    if self._stopping:
                        return
                    self._wait_or_leave()
            try:
                self._tell(events, happened)
            except Exception:
                _LOG.exception("the node failed on an event of its link with %s", self.link.peer)
            if isinstance(happened, Message):
                with self._lock:
                    self.link.taken(happened)
                    if self.link.writable:
                        self._writers.notify_all()

    def _wait_or_leave(self) -> None:
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            self._deadline = None
            if self.link.standing:
                self.link.leave()
                self._wake()
        else:
            self._news.wait(left)

    def _tell(self, events: LinkEvents, happened: Up | Down | Room | Message) -> None:
        peer = self.link.peer
        if isinstance(happened, Message):
            events.on_message(peer, happened.data)
        elif isinstance(happened, Up):
            events.on_up(peer, happened.incarnation)
        elif isinstance(happened, Down):
            events.on_down(peer)
        else:
            events.on_room(peer)


class EndpointLinks:
    """The sending half of `Links` over one endpoint per peer, which a kind of links makes and connects."""

    _endpoints: Mapping[str, Endpoint]

    def send(self, peer: str, data: bytes) -> None:
        """Queue a message; dropped where the peer is down. Raises InputError above the limit or for a stranger."""
        self._endpoint(peer).send(data)

    def room(self, peer: str) -> bool:
        """Whether the peer is up and less than the window of bytes waits for it."""
        return self._endpoint(peer).room()

    def _endpoint(self, peer: str) -> Endpoint:
        if peer not in self._endpoints:
            raise InputError(f"{peer} is no peer of this node; there are {', '.join(sorted(self._endpoints))}")
        return self._endpoints[peer]


def stop_all(endpoints: Iterable[Endpoint], linger_s: float) -> None:
    """Stop endpoints, which have ``linger_s`` seconds together for what was sent to be taken."""
    stopped, give_up = list(endpoints), time.monotonic() + linger_s
    for endpoint in stopped:
        endpoint.flush()
    for endpoint in stopped:
        endpoint.stop(max(0.0, give_up - time.monotonic()))

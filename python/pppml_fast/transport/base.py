"""What a transport drives, what it is given to carry, and what a network of links promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["LinkEvents", "Links", "Node", "Outgoing", "Streaming", "Working"]


class Outgoing(NamedTuple):
    """Bytes for the next hop: a party of the ring, or a star's relay."""

    hop: str
    data: bytes


class Node(Protocol):
    """A state machine: bytes in, bytes out. It opens no socket and reads no clock."""

    def receive(self, data: bytes) -> Sequence[Outgoing]:
        """Take one message and return what to send."""

    def lost(self, name: str) -> Sequence[Outgoing]:
        """Learn that a party cannot be reached any more, and return what to send."""


@runtime_checkable
class Streaming(Protocol):
    """A node that makes its bulk messages one by one, when there is room for them."""

    def pull(self, hop: str) -> Outgoing | None:
        """The next bulk message for ``hop``, None while there is none. What it gives must be sent, in order."""


@runtime_checkable
class Working(Protocol):
    """A node that puts work off until what it gave out is on its way."""

    @property
    def has_work(self) -> bool:
        """Whether there is any."""

    def work(self) -> Sequence[Outgoing]:
        """Do it, and return what to send."""


class LinkEvents(Protocol):
    """What links tell the node they belong to, from threads of their own."""

    def on_message(self, peer: str, data: bytes) -> None:
        """A message of ``peer``, in order, once. The peer may send on when this returns: blocking slows it down."""

    def on_up(self, peer: str, incarnation: bytes) -> None:
        """A link stands. Another ``incarnation`` (16 bytes) than before is a restarted peer, which knows of nothing."""

    def on_down(self, peer: str) -> None:
        """The peer was out of reach for longer than the grace time, or restarted: what was under way to it is lost."""

    def on_room(self, peer: str) -> None:
        """Less than the window waits for ``peer`` again."""


class Links(Protocol):
    """Reliable, ordered links between this node and its named peers; both ends are authenticated.

    A connection that breaks for less than the grace time is resumed without loss or doubling.
    """

    def start(self, events: LinkEvents) -> None:
        """Listen and connect; events come from now on."""

    def send(self, peer: str, data: bytes) -> None:
        """Queue a message. What is queued for a peer that is down, or goes down, is dropped: `on_down` says so."""

    def room(self, peer: str) -> bool:
        """Whether the peer is up and less than the window of bytes waits unacknowledged for it."""

    def stop(self) -> None:
        """Close every link and wait for the threads."""

"""What a transport drives, and what it is given to carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Node", "Outgoing"]


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

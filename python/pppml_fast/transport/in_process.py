"""A deterministic network in memory: real bytes, one queue, and faults that a test can inject."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pppml_fast.transport.base import Node, Outgoing, Streaming, Working

__all__ = ["Delivery", "InProcessNetwork", "Tamper"]


_AT_ONCE = 8
"""Bulk messages that are pulled for one link before they are delivered."""


class Delivery(NamedTuple):
    """One message as it crossed the network: who handed it in, for which hop, and its bytes."""

    sender: str
    hop: str
    data: bytes


Tamper = Callable[[Delivery], Iterable[bytes]]
"""Decides what arrives in place of one message: nothing, the same bytes, others, or several."""


class InProcessNetwork:
    """Delivers messages first in, first out, until nothing is left to deliver.

    ``tamper`` sees every message and returns what arrives; it may also call `drop`. With ``record`` the
    network keeps every message in ``transcript``.
    """

    def __init__(self, nodes: Mapping[str, Node], *, record: bool = False) -> None:
        self.nodes = dict(nodes)
        self.dropped: set[str] = set()
        self.transcript: list[Delivery] = []
        self.tamper: Tamper | None = None
        self._record = record
        self._queue: deque[Delivery | tuple[str, str]] = deque()

    def post(self, sender: str, messages: Iterable[Outgoing]) -> None:
        """Queue what a node wants to send; a dropped node sends nothing."""
        for message in messages:
            if sender not in self.dropped:
                self._queue.append(Delivery(sender, message.hop, message.data))

    def drop(self, name: str) -> None:
        """Cut a node off: it neither sends nor receives again, and the others learn of it in turn."""
        if name in self.dropped:
            return
        self.dropped.add(name)
        self._queue.extend((other, name) for other in self.nodes if other not in self.dropped)

    def restore(self, name: str) -> None:
        """Connect a node again that was cut off; what it missed stays lost."""
        self.dropped.discard(name)

    def run(self) -> None:
        """Deliver until the queue is empty and no node has anything more to give."""
        while self._queue or self._pull() or self._work():
            event = self._queue.popleft()
            if isinstance(event, Delivery):
                self._deliver(event)
            elif event[0] not in self.dropped:
                self.post(event[0], self.nodes[event[0]].lost(event[1]))

    def _pull(self) -> bool:
        """Queue some of the bulk messages that the nodes have; whether there were any."""
        for name, node in self.nodes.items():
            if not isinstance(node, Streaming) or name in self.dropped:
                continue
            for hop in self.nodes:
                for _ in range(0 if hop == name or hop in self.dropped else _AT_ONCE):
                    message = node.pull(hop)
                    if message is None:
                        break
                    self.post(name, [message])
        return bool(self._queue)

    def _work(self) -> bool:
        """Let the nodes do what they put off; whether that gave anything to deliver."""
        for name, node in self.nodes.items():
            if name not in self.dropped and isinstance(node, Working) and node.has_work:
                self.post(name, node.work())
        return bool(self._queue)

    def _deliver(self, delivery: Delivery) -> None:
        if self._record:
            self.transcript.append(delivery)
        arriving = [delivery.data] if self.tamper is None else list(self.tamper(delivery))
        for data in arriving:
            if delivery.hop in self.nodes and delivery.hop not in self.dropped:
                self.post(delivery.hop, self.nodes[delivery.hop].receive(data))

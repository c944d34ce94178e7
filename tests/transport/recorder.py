"""A node of a test that remembers what its links told it, and lets the test wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE_S = 300.0  # for a machine that does other things; nothing waits so long when all is well


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []  # ("up" or "down", peer)
        self.incarnations: list[bytes] = []
        self.messages: dict[str, list[bytes]] = {}
        self.refused: list[tuple[str, str]] = []
        self.gate = threading.Event()  # closed: on_message does not return
        self.gate.set()
        self._changed = threading.Condition()

    def on_message(self, peer: str, data: bytes) -> None:
        assert self.gate.wait(PATIENCE_S)
        self._note(lambda: self.messages.setdefault(peer, []).append(data))

    def on_up(self, peer: str, incarnation: bytes) -> None:
        self._note(lambda: (self.events.append(("up", peer)), self.incarnations.append(incarnation)))

    def on_down(self, peer: str) -> None:
        self._note(lambda: self.events.append(("down", peer)))

    def on_room(self, peer: str) -> None:
        self._note(lambda: None)

    def on_refused(self, who: str, reason: str) -> None:
        self._note(lambda: self.refused.append((who, reason)))

    def _note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def wait(self, reached: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, PATIENCE_S), f"{what}; {self.events} {self.refused}"

    def wait_up(self, peer: str, times: int = 1) -> None:
        self.wait(lambda: self.events.count(("up", peer)) >= times, f"{peer} did not come up {times} times")

    def wait_messages(self, peer: str, count: int) -> list[bytes]:
        self.wait(lambda: len(self.messages.get(peer, [])) >= count, f"not {count} messages of {peer}")
        return self.messages[peer]

"""Where the threads of several parties meet: the last to arrive does the common work, all receive its result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pppml_fast.errors import ProtocolError

__all__ = ["Rendezvous"]

Result = TypeVar("Result")


class Rendezvous:
    """A meeting point for the threads of ``parties``; one meeting after another."""

    def __init__(self, parties: Sequence[str]) -> None:
        self._parties = frozenset(parties)
        self._condition = threading.Condition()
        self._arrived: dict[str, tuple[str, Any]] = {}
        self._meeting = 0
        self._result: Any = None
        self._error: BaseException | None = None
        self._leaving = 0

    def meet(self, party: str, kind: str, value: Any, together: Callable[[Mapping[str, Any]], Result]) -> Result:
        """Wait for all parties, then return ``together`` of everybody's values.

        Raises what ``together`` raised, in every thread, and ProtocolError when the parties want different things.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._leaving == 0)
            if party in self._arrived:
                raise ProtocolError(f"party {party!r} called twice for one sum")
            self._arrived[party] = (kind, value)
            meeting = self._meeting
            if set(self._arrived) == self._parties:
                self._hold(together)
            else:
                self._condition.wait_for(lambda: self._meeting != meeting)
            self._leaving -= 1
            self._condition.notify_all()
            if self._error is not None:
                raise self._error
            result: Result = self._result
            return result

    def _hold(self, together: Callable[[Mapping[str, Any]], Any]) -> None:
        self._result = self._error = None
        kinds = {party: kind for party, (kind, _) in self._arrived.items()}
        try:
            if len(set(kinds.values())) > 1:
                raise ProtocolError(f"the parties want different things: {kinds}")
            self._result = together({party: value for party, (_, value) in self._arrived.items()})
        except Exception as error:
            self._error = error
        self._leaving = len(self._arrived)
        self._arrived = {}
        self._meeting += 1
        self._condition.notify_all()

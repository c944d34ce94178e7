"""What every object that holds a secret refuses, and the lock that gives it to one thread at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["OwnersLock", "Secret"]


class Secret:
    """Base of secret keys: never pickled, copied, hashed or compared."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError("secret keys are not compared")

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{type(self).__name__} holds a secret and is never pickled or copied")


class OwnersLock:
    """A lock of the process that made it. A fork may copy it held, by a thread that the child does not have."""

    def __init__(self) -> None:
        self._lock, self._owner = threading.Lock(), os.getpid()

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock and give True; in a forked child hold nothing and give False."""
        if os.getpid() != self._owner:
            yield False
            return
        with self._lock:
            yield True

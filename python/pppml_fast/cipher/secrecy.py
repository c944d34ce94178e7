"""What every object that holds a secret refuses, and the lock that gives it to one thread at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["OwnersLock", "Secret"]


class Secret:
    """Base of objects that hold secrets: never pickled, copied, hashed, compared or shown.

    ``==`` raises TypeError: by value it would tell whoever may try values which one is held, and by identity it would
    answer a question that was not asked. ``is`` tells whether two names stand for one object. Keys have slots and no
    ``__dict__``, so that nothing that prints or stores attributes (``vars``, ``json``, ``logging``) meets a secret.
    """

    __slots__ = ("__weakref__",)
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError(
            f"{type(self).__name__} holds a secret and is not compared; `is` tells whether it is one object"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"{type(self).__name__} holds a secret and is never pickled or copied; every process makes its own"
        )

    # Since Python 3.11 `object` has one that gives out the slots.
    def __getstate__(self) -> object:
        raise TypeError(f"{type(self).__name__} holds a secret and gives out no state")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"


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

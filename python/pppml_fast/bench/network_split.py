"""Where a party's processor time goes: the steps of its protocol are timed from outside, on the thread that takes them.

The protocol runs on one thread, whose CPU clock stands still while another process has the core; with one native
thread it does all of the arithmetic too. What the process used beyond that thread is its links: gRPC, TLS, the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pppml_fast.aggregation import opened, streams, terms
from pppml_fast.aggregation.attempts import AttemptLedger
from pppml_fast.aggregation.pairwise import SealedChannel
from pppml_fast.aggregation.spool import SumStore

__all__ = ["STEPS", "Split"]

STEPS = ("identify", "make", "seal", "unseal", "hash", "spool", "open", "protocol")
"""Update's identity and check for NaN; encrypt and add; AES-GCM both ways; SHA-256 of the sum; spool file; opening; all
else on the protocol's thread, Python itself."""


class Split:
    """CPU seconds of each step since the process began. Made once, before any party: it wraps the steps in place."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(STEPS[:-1], 0.0)
        self._inner = 0.0  # of the steps inside the one that is being taken
        self._clock: int | None = None
        for owner, name, step in (
            (AttemptLedger, "update_id", "identify"),
            (terms.EncryptedTerm, "write", "make"),
            (terms.FloatTerm, "write", "make"),
            (SealedChannel, "frame", "seal"),
            (SealedChannel, "open", "unseal"),
            (streams._Pass, "_keep", "hash"),
            (SumStore, "append", "spool"),
            (SumStore, "read", "spool"),
            (opened.HostSum, "_fill", "open"),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), step))

    def watch(self, thread: int) -> None:
        """``thread``, by its identity, takes the steps."""
        self._clock = time.pthread_getcpuclockid(thread)

    def read(self) -> dict[str, float]:
        """CPU seconds by step, from any thread."""
        assert self._clock is not None, "the thread that takes the steps is not known yet"
        total = time.clock_gettime(self._clock)
        return {**self._seconds, "protocol": total - sum(self._seconds.values())}

    def _timed(self, function: Callable[..., Any], step: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            outside, self._inner = self._inner, 0.0
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                used = time.thread_time() - began
                self._seconds[step] += used - self._inner
                self._inner = outside + used

        return timed

"""Pads made ahead of the weights: filled in the background on idle threads, bounded, used once, zeroised.

The pad -a_j s + e_j of a block does not depend on the weights. Made while training runs, it leaves quantising and one
addition to the encryption.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.secrecy import OwnersLock, Secret
from pppml_fast.errors import KeyReuseError
from pppml_fast.params import CkksParams

__all__ = ["PAD_LIMIT_BYTES", "PadStore"]

PAD_LIMIT_BYTES = 1 << 28
_LOWEST_PRIORITY = 19


class PadStore(Secret):
    """Pads of the first blocks of one encryption of ``length`` weights, at most ``limit_bytes`` of them.

    Its memory is in no core dump, empty in a forked child, and zeroised at :meth:`close`, at garbage collection and at
    the end of the process; a pad that was used is zeroised by its use.
    """

    __slots__ = ("_block_words", "_blocks", "_fillers", "_handed_out", "_lock", "_native", "_used", "context", "length")

    def __init__(
        self,
        params: CkksParams,
        secret: _native.SecretKey,
        noise: _native.StreamKey,
        context: bytes,
        length: int,
        limit_bytes: int,
    ) -> None:
        self.context, self.length = context, length
        self._blocks = params.block_count(length)
        self._block_words = params.ring_dimension * len(params.primes)
        room = min(limit_bytes // (self._block_words * int(params._scheme.word_bytes)), self._blocks)
        expansion = expansion_key(params, context)
        self._native = _native.PadStore(params._scheme, secret, noise, expansion, length, room)
        self._used = self._handed_out = 0
        # Held by whoever uses or zeroises pads: a pad that became zero in use would let the message out.
        self._lock = OwnersLock()
        self._fillers: list[threading.Thread] = []
        # The filling thread holds the native store alone: this object can be collected while it is being filled.
        weakref.finalize(self, _end, self._native, self._lock, self._fillers)

    def fill(self, background: bool) -> None:
        """Make the pads, now or on a thread of lowest priority."""
        if not background:
            self._native.fill()
            return
        filler = threading.Thread(target=_fill_at_leisure, args=(self._native,), name="pppml pads", daemon=True)
        self._fillers.append(filler)
        filler.start()

    def __repr__(self) -> str:
        return f"PadStore(length={self.length}, {self._native.ready} of {self._blocks} blocks ready, <hidden>)"

    def serves(self, context: bytes, length: int) -> bool:
        """Whether the pads belong to an encryption of ``length`` weights in ``context``."""
        return self.context == context and self.length == length

    @property
    def fraction(self) -> float:
        """Fraction of the encryption's blocks whose pads are ready, 0 … 1."""
        return self._native.ready / self._blocks if self._blocks else 1.0

    def finish(self) -> int:
        """Let no further chunk be made; the number of blocks whose pads are ready."""
        return int(self._native.halt())

    @contextlib.contextmanager
    def use(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """The residue words of blocks ``[start, stop)``, for an operation that consumes them: each once, in order.

        Raises KeyReuseError when they were used, destroyed or never made.
        """
        with self._lock.held() as here:
            if not here or start != self._handed_out or stop > self._native.ready:
                raise KeyReuseError(f"the pads of blocks {start} .. {stop} were used or destroyed")
            self._handed_out = stop  # once, also where their use fails
            yield self._native.words()[start * self._block_words : stop * self._block_words]
            self._used = stop

    def close(self) -> None:
        """End the filling, which takes one chunk at most, and zeroise every pad."""
        _wipe(self._native, self._lock, self._used)


def _wipe(store: _native.PadStore, lock: OwnersLock, used: int) -> None:
    with lock.held() as here:
        if here:
            store.wipe(used)


def _end(store: _native.PadStore, lock: OwnersLock, fillers: list[threading.Thread]) -> None:
    """Zeroise all pads and see the filling threads off.

    At the end of the process a thread that came back from the core after the interpreter is gone would abort it.
    """
    _wipe(store, lock, 0)
    with lock.held() as here:
        for filler in fillers:
            if here and filler is not threading.current_thread() and filler.is_alive():
                filler.join()


def _fill_at_leisure(store: _native.PadStore) -> None:
    # Linux alone gives threads priorities of their own; those that the core starts inherit it.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
    # Where memory runs out, the encryption makes the pads that are missing.
    with contextlib.suppress(MemoryError):
        store.fill()

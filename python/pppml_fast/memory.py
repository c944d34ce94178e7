"""Memory for large arrays: huge pages that are used again, since fresh pages cost more than writing to them.

Arrays of 1 MiB and more take a block of a process-wide arena and give it back when the last view of them is gone.
Blocks without an owner are kept for the next array of their size, up to a limit, and hold what was written there last
until they are used again or :func:`release_memory` returns them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pppml_fast import _native
from pppml_fast.checks import whole_number

__all__ = ["empty", "memory_statistics", "release_memory", "set_memory_limit", "zeros"]


def empty(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """A new one-dimensional array of ``count`` numbers with arbitrary contents, as ``numpy.empty``."""
    return _native.empty(np.dtype(dtype).str, count)


def zeros(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """A new one-dimensional array of ``count`` zeros."""
    return _native.zeros(np.dtype(dtype).str, count)


def release_memory() -> int:
    """Return all memory that is kept for later arrays to the system; its bytes. Arrays in use are not touched."""
    return int(_native.release_memory())


def set_memory_limit(limit: int) -> None:
    """Keep at most ``limit`` bytes for later arrays: at first 1 GiB, or a quarter of the machine's memory if less.

    0 keeps nothing. Raises InputError unless ``limit`` is a whole number of bytes.
    """
    _native.set_memory_limit(whole_number("the memory limit", limit, 0))


def memory_statistics() -> dict[str, int]:
    """What the arena holds.

    ``used_blocks``, ``used_bytes``: owned by arrays; ``kept_blocks``, ``kept_bytes``: waiting for one, within
    ``limit``; ``mapped``, ``reused``: how many came from the system and from those kept since the process began.
    """
    return _native.arena_statistics()

"""How many threads the core uses for one call. Results do not depend on it."""

from __future__ import annotations

from pppml_fast import _native
from pppml_fast.checks import whole_number
from pppml_fast.errors import ParameterError

__all__ = ["get_num_threads", "set_num_threads"]

_MOST_THREADS = 1024


def get_num_threads() -> int:
    """Threads a call may use: at first OMP_NUM_THREADS, or the processors of this machine."""
    return int(_native.thread_count())


def set_num_threads(count: int) -> None:
    """Let every later call use up to ``count`` threads, 1 .. 1024. Raises ParameterError outside that range."""
    _native.set_thread_count(whole_number("the number of threads", count, 1, _MOST_THREADS, ParameterError))

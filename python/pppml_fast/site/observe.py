"""Everything that watches a site, opened and closed with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from pppml_fast.aggregation.identity import Identity
from pppml_fast.site.events import Events, EventSink
from pppml_fast.site.log import JsonLog, ReadableLog
from pppml_fast.site.transcript import TranscriptFile

__all__ = ["observed"]

PathLike = str | os.PathLike[str]


@contextmanager
def observed(
    identity: Identity,
    *,
    log: PathLike | None = None,
    transcript: PathLike | None = None,
    metrics: tuple[str, int] | None = None,
    sinks: Iterable[EventSink] = (),
    clock: Callable[[], float] = time.time,
) -> Iterator[Events]:
    """The events of a site, heard by ``logging``, and by a JSON log, a transcript and an HTTP endpoint where asked for.

    ``metrics`` is host and port. The transcript hears first, so that what others tell of is on record. What was
    opened is closed at the end, also when one of them cannot be opened: DataError, ProtocolError or OSError, and
    ModuleNotFoundError for metrics without the extra ``metrics``.
    """
    with ExitStack() as stack:
        found: list[EventSink] = []
        if transcript is not None:
            file = TranscriptFile(transcript, identity)
            stack.callback(file.close)
            found.append(file)
        if log is not None:
            lines = JsonLog(log, identity.name)
            stack.callback(lines.close)
            found.append(lines)
        readable = ReadableLog()
        stack.callback(readable.close)
        found.append(readable)
        if metrics is not None:
            from pppml_fast.site.metrics import Metrics

            figures = Metrics()
            stack.callback(figures.serve(*metrics).close)
            found.append(figures)
        yield Events(clock, [*found, *sinks])

"""Logs of a site: JSON lines in a file that programs read, and readable lines through ``logging``."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from pppml_fast.errors import DataError
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.quiet import Quiet
from pppml_fast.site.text import json_line, readable

__all__ = ["LEVELS", "JsonLog", "ReadableLog", "level", "rotated"]

LEVELS: Mapping[EventKind, int] = {
    EventKind.PROGRESS: logging.DEBUG,
    EventKind.STATE: logging.DEBUG,
    EventKind.LINK_DOWN: logging.WARNING,
    EventKind.LINK_REFUSED: logging.WARNING,
    EventKind.SESSION_FAILED: logging.WARNING,
    EventKind.REFUSED: logging.WARNING,
    EventKind.REFUSED_BY: logging.WARNING,
    EventKind.ABANDONED: logging.WARNING,
    EventKind.DISCARDED: logging.WARNING,
    EventKind.SPENT: logging.WARNING,
    EventKind.STEPPED_BACK: logging.WARNING,
    EventKind.SUPPRESSED: logging.WARNING,
    EventKind.ROLLED_BACK: logging.ERROR,
    EventKind.DRIFT: logging.ERROR,
    EventKind.EVIDENCE: logging.CRITICAL,
    EventKind.FAILED: logging.ERROR,
}
"""Severity of what is not just information."""


def level(kind: EventKind) -> int:
    """Level of ``logging`` for events of a kind."""
    return LEVELS.get(kind, logging.INFO)


def rotated(path: Path, number: int) -> Path:
    """The file that holds what was logged ``number`` rotations ago; 0 is the log itself."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


class JsonLog:
    """A sink that appends every event to ``path`` as one line of JSON, readable by its owner alone (mode 0600).

    A file that would exceed ``max_bytes`` becomes ``path.1``, the one before ``path.2``, and so on; ``keep`` such files
    stay. At most ``bytes_per_minute`` are written on average (`Quiet`). Raises DataError where ``path`` is no plain
    file, OSError where it cannot be written; after a full disk the next line begins on a line of its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        site: str,
        *,
        max_bytes: int = 16 << 20,
        keep: int = 4,
        bytes_per_minute: int = 1 << 20,
    ) -> None:
        if max_bytes < 4096 or keep < 1 or bytes_per_minute < 4096:
            raise DataError(
                f"a log of max_bytes={max_bytes}, keep={keep}, bytes_per_minute={bytes_per_minute} holds too little; "
                "give at least 4096 bytes, 1 kept file, 4096 bytes per minute"
            )
        self._path = Path(path)
        self._site = site
        self._max_bytes = max_bytes
        self._keep = keep
        self._time = 0.0
        self._quiet = Quiet(lambda event: len(json_line(event, site)), bytes_per_minute)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor, self._size, self._torn = _open(self._path)

    def __call__(self, event: Event) -> None:
        self._time = event.time
        for passed in self._quiet.hear(event):
            self._write(json_line(passed, self._site))

    def close(self) -> None:
        """Write what was counted and not told, and close the file."""
        if self._descriptor < 0:
            return
        try:
            for event in self._quiet.end(self._time):
                self._write(json_line(event, self._site))
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, line: bytes) -> None:
        if self._descriptor < 0:
            raise DataError(f"the log {self._path} is closed")
        if self._size and self._size + len(line) > self._max_bytes:
            self._rotate()
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            self._torn = True
            raise
        self._size += written
        self._torn = written < len(data)
        if self._torn:
            raise OSError(28, f"the log took {written} of {len(data)} bytes; make room on its disk", str(self._path))

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(rotated(self._path, number - 1), rotated(self._path, number))
        fresh, size, torn = _open(self._path)
        os.close(self._descriptor)
        self._descriptor, self._size, self._torn = fresh, size, torn


class ReadableLog:
    """A sink that hands every event to ``logging`` as one readable line, at its kind's level."""

    def __init__(self, logger: logging.Logger | None = None, *, bytes_per_minute: int = 1 << 18) -> None:
        self._logger = logging.getLogger("pppml.site") if logger is None else logger
        self._quiet = Quiet(self._cost, bytes_per_minute)
        self._time = 0.0

    def __call__(self, event: Event) -> None:
        self._time = event.time
        for passed in self._quiet.hear(event):
            if self._logger.isEnabledFor(level(passed.kind)):
                self._logger.log(level(passed.kind), "%s", readable(passed))

    def close(self) -> None:
        """Tell what was counted and not told."""
        for event in self._quiet.end(self._time):
            self._logger.log(level(event.kind), "%s", readable(event))

    def _cost(self, event: Event) -> int:
        return len(readable(event)) if self._logger.isEnabledFor(level(event.kind)) else 0


def _open(path: Path) -> tuple[int, int, bool]:
    """Descriptor for appending, size, and whether the last line lacks its end."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"the log {path} is no plain file; give another path")
        if stat.S_IMODE(status.st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        torn = status.st_size > 0 and os.pread(descriptor, 1, status.st_size - 1) != b"\n"
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size, torn

"""Reads the JSON logs of sites while they are written: events in order, over rotations and half-written lines."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import NamedTuple

from pppml_fast.site.events import Event, EventKind, mistakes
from pppml_fast.site.log import rotated

__all__ = ["LogFollower", "SiteEvent", "parse_line"]

_LONGEST_LINE = 1 << 20
_MOST_ROTATED = 64
_BLOCK = 1 << 20


class SiteEvent(NamedTuple):
    """An event and the name of the site that logged it."""

    site: str
    event: Event


def parse_line(line: bytes) -> SiteEvent | None:
    """The event of one line of a log; None where the line is none that this version knows."""
    try:
        row = json.loads(line)
        time, site, kind = float(row.pop("time")), row.pop("site"), EventKind(row.pop("kind"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    if not isinstance(site, str) or not math.isfinite(time) or mistakes(kind, row):
        return None
    return SiteEvent(site, Event(time, kind, row))


class LogFollower:
    """Follows one log from its oldest kept file on. The log need not exist yet; what cannot be read is skipped.

    ``skipped`` counts the lines that were no events.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._descriptor = -1
        self._rest = b""
        self._begun = False
        self.skipped = 0

    def poll(self) -> list[SiteEvent]:
        """What was logged since the last call, oldest first. Raises OSError where the file may not be read."""
        found: list[SiteEvent] = []
        if not self._begun:
            self._begun = True
            for number in range(_MOST_ROTATED, 0, -1):
                if rotated(self._path, number).is_file():
                    self._open(rotated(self._path, number))
                    found += self._read()
        while True:
            if self._descriptor < 0 and not self._open(self._path):
                return found
            found += self._read()
            if not self._replaced():
                return found
            # What was written between the last read and the rotation is in the file still held.
            found += self._read()
            self._close()

    def close(self) -> None:
        """Let go of the file."""
        self._close()

    def _open(self, path: Path) -> bool:
        self._close()
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        return True

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._rest = -1, b""

    def _replaced(self) -> bool:
        """Whether the path names another file than the one held, or that one was cut."""
        held = os.fstat(self._descriptor)
        if held.st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._rest = b""
            return False
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)

    def _read(self) -> list[SiteEvent]:
        found = []
        while block := os.read(self._descriptor, _BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            if len(self._rest) > _LONGEST_LINE:
                self._rest = b""
            for line in filter(None, lines):
                event = parse_line(line)
                if event is None:
                    self.skipped += 1
                else:
                    found.append(event)
        return found

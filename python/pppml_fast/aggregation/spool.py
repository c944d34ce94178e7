"""Where a returned sum waits to be opened: packed chunks in memory, or in a file that has no name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO

__all__ = ["SumStore", "remove_leftovers"]

_PREFIX = "pppml-sum-"


def remove_leftovers(folder: Path) -> None:
    """Remove the files of sums that a process left behind which ended between making one and taking its name away."""
    for path in folder.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            path.unlink()


class SumStore:
    """The packed chunks of one sum in order, in memory, or in a file of ``folder`` (an existing one).

    The file is the owner's alone (0600) and has no name from the start where the system allows that, so that nothing
    is left whenever the process ends; what is kept in memory then is one chunk. Raises OSError where it is full.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._ends: list[int] = [0]
        self._chunks: list[memoryview] = []
        self._file: IO[bytes] | None = None
        self._buffer = bytearray()
        if folder is not None:
            self._file = tempfile.TemporaryFile(prefix=_PREFIX, dir=folder, buffering=0)  # noqa: SIM115

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def copies(self) -> bool:
        """Whether a chunk's memory is free again once it was taken."""
        return self._file is not None

    def append(self, chunk: memoryview) -> None:
        """Keep the next chunk; in memory it is not copied."""
        if self._file is None:
            self._chunks.append(chunk)
        else:
            self._file.seek(self._ends[-1])
            left = chunk
            while len(left):
                left = left[self._file.write(left) :]
        self._ends.append(self._ends[-1] + len(chunk))

    def read(self, index: int) -> memoryview:
        """A chunk, as it came; from a file it is overwritten by the next one that is read."""
        start, stop = self._ends[index], self._ends[index + 1]
        if self._file is None:
            return self._chunks[index]
        if len(self._buffer) < stop - start:
            self._buffer = bytearray(stop - start)
        part = memoryview(self._buffer)[: stop - start]
        self._file.seek(start)
        filled = 0
        while filled < len(part):
            count = self._file.readinto(part[filled:])  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"the stored sum ends at byte {start + filled}; something cut the file")
            filled += count
        return part

    def close(self) -> None:
        """Forget the chunks; the file is gone."""
        self._chunks.clear()
        self._ends = [0]
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), 0)
            self._file.close()
            self._file = None

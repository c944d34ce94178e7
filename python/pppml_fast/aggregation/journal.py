"""Durable records of a party: append-only stores that survive a crash between any two writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
import zlib
from abc import ABC, abstractmethod
from pathlib import Path

from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.errors import DataError, ProtocolError, SiteError

__all__ = ["FileStore", "MemoryStore", "Store"]

_MAGIC = b"PPMLJRN3"
_START = len(_MAGIC) + 32 + 4
"""Magic, key, and a CRC-32 over both."""
_FRAME = 12
"""Size of a record, its CRC-32, and a CRC-32 over these two."""
_RECORD_LIMIT = 1 << 28


class Store(ABC):
    """An ordered list of records and one secret key. ``append`` returns only once the record is durable."""

    key: bytes
    """32 secret bytes of this store, under which updates are identified."""

    @abstractmethod
    def append(self, record: bytes) -> None:
        """Add a record; durable when this returns."""

    @abstractmethod
    def records(self) -> list[bytes]:
        """All records, oldest first."""

    @abstractmethod
    def replace(self, records: list[bytes]) -> None:
        """Put ``records`` in place of all records, atomically."""


class MemoryStore(Store, NeverPickled):
    """A store in memory: for tests and for sessions that share one process's fate."""

    def __init__(self) -> None:
        self.key = os.urandom(32)
        self._records: list[bytes] = []

    def append(self, record: bytes) -> None:
        self._records.append(record)

    def records(self) -> list[bytes]:
        return list(self._records)

    def replace(self, records: list[bytes]) -> None:
        self._records = list(records)


class FileStore(Store, NeverPickled):
    """A store in one file: each record is written and synced (fsync) before ``append`` returns.

    A record cut short by a crash at the end of the file is dropped on opening; it was never acted upon. Anything
    else that does not read back raises DataError: a damaged journal must not be mistaken for an empty one.
    While a store is open no other may open its file (flock on ``<name>.lock``): ProtocolError. A write that fails
    is taken back; when even that fails, or it is not known which version of a rewritten file is in place, every later
    call raises SiteError until the file is opened anew.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._unusable = ""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._unlock = weakref.finalize(self, os.close, _lock(self._path))
        try:
            if not self._path.exists():
                self._write_aside(os.urandom(32), [])
                self._move_in_place()
            self.key, self._records, self._size = _parse(self._path)
            if self._size < self._path.stat().st_size:
                self._cut_back()
        except BaseException:
            self._unlock()
            raise

    def append(self, record: bytes) -> None:
        self._check_usable()
        if len(record) > _RECORD_LIMIT:
            raise DataError(f"a record of {len(record)} bytes exceeds the journal's limit of {_RECORD_LIMIT}")
        framed = _framed(record)
        try:
            _append_durably(self._path, framed)
        except BaseException as error:
            self._take_back(error)
            raise
        self._size += len(framed)
        self._records.append(record)

    def records(self) -> list[bytes]:
        self._check_usable()
        return list(self._records)

    def replace(self, records: list[bytes]) -> None:
        self._check_usable()
        self._write_aside(self.key, records)
        try:
            self._move_in_place()
        except BaseException as error:
            self._unusable = f"it is not known which version of the file is in place ({error})"
            raise
        self._records = list(records)
        self._size = self._path.stat().st_size

    def close(self) -> None:
        """Let another store open the file; every later call on this one raises SiteError."""
        self._unusable = self._unusable or "it was closed"
        self._unlock()

    def _check_usable(self) -> None:
        if self._unusable:
            raise SiteError(f"the journal {self._path} cannot be used: {self._unusable}; open it anew")

    def _take_back(self, error: BaseException) -> None:
        """Remove what a failed append left in the file, or refuse all further use."""
        try:
            self._cut_back()
        except BaseException as second:
            self._unusable = f"a write failed ({error}) and could not be taken back ({second})"

    def _cut_back(self) -> None:
        with open(self._path, "r+b") as file:
            file.truncate(self._size)
            _sync(file.fileno())

    @property
    def _aside(self) -> Path:
        return self._path.with_name(self._path.name + ".new")

    def _write_aside(self, key: bytes, records: list[bytes]) -> None:
        descriptor = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(_checked(_MAGIC + key) + b"".join(_framed(record) for record in records))
                file.flush()
                _sync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                self._aside.unlink()
            raise

    def _move_in_place(self) -> None:
        os.replace(self._aside, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            _sync(directory)
        finally:
            os.close(directory)


def _lock(path: Path) -> int:
    """Descriptor that holds the journal's lock. It has a file of its own, as `replace` changes the journal's."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise ProtocolError(
                f"the journal {path} is in use by another process or store; one party, one journal: stop the other, "
                "or close its store"
            ) from None
        raise
    return descriptor


def _append_durably(path: Path, data: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        _sync(file.fileno())


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _checked(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def _framed(record: bytes) -> bytes:
    size, check = len(record).to_bytes(4, "little"), zlib.crc32(record).to_bytes(4, "little")
    return _checked(size + check) + record


def _parse(path: Path) -> tuple[bytes, list[bytes], int]:
    """Key, records, and the length of what is whole: only a record that the file's end cuts short is left out."""
    data = path.read_bytes()
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _START:
        raise DataError(f"{path} is not a journal of this program; move it away, do not delete it unread")
    if _checked(data[: _START - 4]) != data[:_START]:
        raise DataError(f"{path} is damaged before byte {_START}: its checksum fails; restore it from a copy")
    records: list[bytes] = []
    at = _START
    while at + _FRAME <= len(data):
        if _checked(data[at : at + 8]) != data[at : at + _FRAME]:
            raise DataError(
                f"{path} is damaged at byte {at}: a record's header fails its check; restore it from a copy"
            )
        size, check = (int.from_bytes(data[start : start + 4], "little") for start in (at, at + 4))
        record = data[at + _FRAME : at + _FRAME + size]
        if len(record) < size:
            break
        if zlib.crc32(record) != check:
            raise DataError(f"{path} is damaged at byte {at}: its checksum fails; restore it from a copy")
        records.append(record)
        at += _FRAME + size
    return data[len(_MAGIC) : _START - 4], records, at

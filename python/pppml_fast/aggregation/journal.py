"""Durable records of a party: append-only stores that survive a crash between any two writes."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from pathlib import Path

from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.errors import DataError

__all__ = ["FileStore", "MemoryStore", "Store"]

_MAGIC = b"PPMLJRN1"
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

    A record torn by a crash at the end of the file is dropped on opening; it was never acted upon. Anything
    else that does not read back raises DataError: a damaged journal must not be mistaken for an empty one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if not self._path.exists():
            self._write_whole(os.urandom(32), [])
        self.key, self._records, whole = _parse(self._path)
        if whole < self._path.stat().st_size:
            with open(self._path, "r+b") as file:
                file.truncate(whole)
                _sync(file.fileno())

    def append(self, record: bytes) -> None:
        with open(self._path, "ab") as file:
            file.write(_framed(record))
            file.flush()
            _sync(file.fileno())
        self._records.append(record)

    def records(self) -> list[bytes]:
        return list(self._records)

    def replace(self, records: list[bytes]) -> None:
        self._write_whole(self.key, records)
        self._records = list(records)

    def _write_whole(self, key: bytes, records: list[bytes]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(_MAGIC + key + b"".join(_framed(record) for record in records))
            file.flush()
            _sync(file.fileno())
        os.replace(temporary, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            _sync(directory)
        finally:
            os.close(directory)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _framed(record: bytes) -> bytes:
    return len(record).to_bytes(4, "little") + zlib.crc32(record).to_bytes(4, "little") + record


def _parse(path: Path) -> tuple[bytes, list[bytes], int]:
    data = path.read_bytes()
    start = len(_MAGIC) + 32
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise DataError(f"{path} is not a journal of this program; move it away, do not delete it unread")
    records: list[bytes] = []
    at = start
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        if size > _RECORD_LIMIT:
            raise DataError(f"{path} is damaged at byte {at}: a record of {size} bytes; restore it from a copy")
        record = data[at + 8 : at + 8 + size]
        if len(record) < size:
            break
        if zlib.crc32(record) != int.from_bytes(data[at + 4 : at + 8], "little"):
            if at + 8 + size == len(data):
                break
            raise DataError(f"{path} is damaged at byte {at}: its checksum fails; restore it from a copy")
        records.append(record)
        at += 8 + size
    return data[start - 32 : start], records, at

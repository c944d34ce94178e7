"""A site's files: private ones are refused when others can read them, and every write is whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from pppml_fast.errors import DataError

__all__ = ["check_private_folder", "create_file", "make_private_folder", "read_file", "write_file"]

_OTHERS = 0o077
FILE_LIMIT = 1 << 20


def read_file(path: Path, *, private: bool = False, limit: int = FILE_LIMIT) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes.

    Raises DataError when it is missing, too large, no regular file, or ``private`` and open to others.
    """
    try:
        # Not blocking: a FIFO in the file's place must not hang the program.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r} ({error.strerror}); check the path and its permissions") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise DataError(f"{str(path)!r} is no regular file; give the path of a file")
        if private:
            _check_mode(path, mode, "600")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise DataError(f"{str(path)!r} holds more than {limit} bytes, the limit of such a file; it is something else")
    return data


def check_private_folder(path: Path) -> None:
    """Raise DataError unless ``path`` is a folder that only its owner can enter."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot use folder {str(path)!r} ({error.strerror}); check the path") from None
    if not stat.S_ISDIR(status.st_mode):
        raise DataError(f"{str(path)!r} is no folder; give the folder that holds the files")
    _check_mode(path, status.st_mode, "700")


def make_private_folder(path: Path) -> None:
    """Make a folder of mode 0700, or check one that is there. Raises DataError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError:
        check_private_folder(path)
    except OSError as error:
        raise DataError(f"cannot make folder {str(path)!r} ({error.strerror}); choose another folder") from None


def create_file(path: Path, data: bytes | memoryview, mode: int) -> None:
    """Write a file that does not exist yet, durably. Raises DataError when it exists or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise DataError(
            f"{str(path)!r} exists already and is never overwritten; choose another folder, or move it away"
        ) from None
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r} ({error.strerror}); check the folder's permissions") from None
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            # The mode that was asked for, whatever the umask.
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise DataError(f"cannot write {str(path)!r} ({error.strerror}); check the disk") from None


def write_file(path: Path, data: bytes | memoryview, mode: int = 0o644) -> None:
    """Write a file, or put it in place of another: whole or not at all, durably. Raises DataError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        create_file(beside, data, mode)
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r} ({error.strerror}); check the path and the disk") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _check_mode(path: Path, mode: int, wanted: str) -> None:
    if mode & _OTHERS:
        raise DataError(
            f"{str(path)!r} has mode {stat.S_IMODE(mode):04o}: others than its owner may use it, and it holds private "
            f"keys; run: chmod {wanted} {path}"
        )


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

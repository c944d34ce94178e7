"""A party's transcript: one signed line of hashes per ended attempt, each bound to the line before.

Lines are canonical JSON. ``previous`` is the SHA-256 of the line before with its signature (the first names 32 zero
bytes), ``signature`` the party's Ed25519 signature over all other fields. Nothing in a line is secret: whoever holds
the transcripts of several parties can compare them (`site.transcript_check`), and nobody can alter one afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pppml_fast.aggregation.encoding import MAX_PARTIES
from pppml_fast.aggregation.identity import SIGNATURE_SIZE, Identity, verify
from pppml_fast.errors import DataError, ProtocolError
from pppml_fast.site.events import Event, EventKind

__all__ = ["OUTCOMES", "TranscriptFile", "TranscriptLine"]

DOMAIN = "transcript"
VERSION = 1
START = bytes(32).hex()
LONGEST_LINE = 1 << 20
OUTCOMES = {
    EventKind.ROUND_FINISHED: "finished",
    EventKind.ABANDONED: "abandoned",
    EventKind.DISCARDED: "discarded",
    EventKind.FAILED: "failed",
    EventKind.RELAYED: "relayed",
}
_MOST_WAITING = 64
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class TranscriptLine:
    """What a party states about one attempt. Hashes are 64 hex digits, empty where the attempt did not get so far.

    ``planned`` whom the attempt began with, ``live`` whose terms are in its sum: names, sorted, empty where not known.
    ``root`` is the chunk-hash root of the sum, ``transcript`` the digest that all of ``live`` agree on, ``model`` the
    hash of the shared model after the round, ``time`` in whole seconds.
    """

    party: str
    number: int
    time: int
    session: str
    round: int
    attempt: int
    outcome: str
    planned: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    root: str = ""
    transcript: str = ""
    model: str = ""
    previous: str = START
    signature: str = ""
    version: int = VERSION

    @property
    def key(self) -> tuple[str, int, int]:
        """Session, round, attempt."""
        return self.session, self.round, self.attempt

    def signed(self, identity: Identity) -> TranscriptLine:
        """The line with the signature of its party."""
        return replace(self, signature=identity.sign(DOMAIN, self._stated()).hex())

    def check_signature(self, public: bytes) -> None:
        """Raise ProtocolError unless the line is signed by the Ed25519 key ``public`` (32 bytes)."""
        verify(public, DOMAIN, self._stated(), bytes.fromhex(self.signature), repr(self.party))

    def to_bytes(self) -> bytes:
        """The line in its file, without the end of line."""
        return _canonical(asdict(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the line: what the next one calls ``previous``."""
        return sha256(self.to_bytes()).hexdigest()

    @classmethod
    def parse(cls, data: bytes) -> TranscriptLine:
        """The line of its bytes. Raises DataError on anything that is not exactly such a line."""
        try:
            row = json.loads(data)
            if not isinstance(row, dict):
                raise ValueError("it is no object")
            line = cls(**{**row, "planned": tuple(row["planned"]), "live": tuple(row["live"])})
            line._check()
            canonical = line.to_bytes()
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise DataError(f"no line of a transcript: {type(error).__name__}: {str(error)[:200]}") from None
        if canonical != data:
            raise DataError("the line is not in canonical form; it may have been altered")
        return line

    def _stated(self) -> bytes:
        stated = asdict(self)
        del stated["signature"]
        return _canonical(stated)

    def _check(self) -> None:
        numbers = {"number": self.number, "time": self.time, "round": self.round, "attempt": self.attempt}
        for name, value in numbers.items():
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}, expected a whole number >= 0")
        if type(self.version) is not int or self.version != VERSION:
            raise ValueError(f"version is {self.version!r}, this program reads {VERSION}")
        if self.outcome not in OUTCOMES.values():
            raise ValueError(f"outcome is {self.outcome!r}, expected one of {', '.join(OUTCOMES.values())}")
        for name in (self.party, *self.planned, *self.live):
            if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
                raise ValueError(f"{name!r} is no name of a party")
        for names in (self.planned, self.live):
            if list(names) != sorted(set(names)) or len(names) > MAX_PARTIES:
                raise ValueError("a set of parties is not sorted, names one twice or is too large")
        sizes = {"session": 64, "previous": 64, "signature": 2 * SIGNATURE_SIZE}
        for name, size in sizes.items():
            _check_hex(name, getattr(self, name), size)
        for name in ("root", "transcript", "model"):
            if getattr(self, name) != "":
                _check_hex(name, getattr(self, name), 64)
        if self.outcome == "finished":
            if "" in (self.root, self.transcript, self.model):
                raise ValueError("a finished attempt has a root, a transcript and a model")
            if self.party not in self.live:
                raise ValueError(f"{self.party!r} finished an attempt without being in its live set")
        if self.outcome == "relayed" and (self.root == "" or self.party in self.live):
            raise ValueError("a relayed attempt has a root, and its coordinator is no member")


class TranscriptFile:
    """A sink that appends a line for every attempt that ended here, as `OUTCOMES` say; durable (fsync) when it returns.

    Opening an existing file goes on with its chain; a last line cut short by a crash is taken away. Raises DataError
    when the file is no transcript of this party, ProtocolError when another process has it open. A write that fails is
    taken back (OSError), and tried again at every event that follows.
    """

    def __init__(self, path: str | os.PathLike[str], identity: Identity) -> None:
        self._path = Path(path)
        self._identity = identity
        self._planned: tuple[tuple[str, int, int], tuple[str, ...]] | None = None
        self._waiting: deque[tuple[Event, tuple[str, ...]]] = deque(maxlen=_MOST_WAITING)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        try:
            _lock(self._descriptor, self._path)
            self._number, self._previous, self._size = self._resume()
            _sync_folder(self._path.parent)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __call__(self, event: Event) -> None:
        told = event.fields
        if event.kind is EventKind.ATTEMPT_BEGAN:
            self._planned = _key(event), tuple(sorted(told["live"]))
        elif event.kind in OUTCOMES and "attempt" in told:
            known = self._planned is not None and self._planned[0] == _key(event)
            planned = self._planned[1] if known and self._planned else ()
            # A mistaken event raises here, before it could stand in the way of those that follow.
            self._line(event, planned)
            self._waiting.append((event, planned))
        while self._waiting:
            self._append(self._line(*self._waiting[0]))
            self._waiting.popleft()

    def close(self) -> None:
        """Let another process open the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _line(self, event: Event, planned: tuple[str, ...]) -> TranscriptLine:
        told: Mapping[str, Any] = event.fields
        line = TranscriptLine(
            self._identity.name,
            self._number,
            int(event.time),
            *_key(event),
            OUTCOMES[event.kind],
            planned,
            tuple(sorted(told.get("members", told.get("live", ())))),
            **{name: told.get(name, "") for name in ("root", "transcript", "model")},
            previous=self._previous,
        )
        signed = line.signed(self._identity)
        signed._check()
        return signed

    def _append(self, line: TranscriptLine) -> None:
        if self._descriptor < 0:
            raise DataError(f"the transcript {self._path} is closed")
        data = line.to_bytes() + b"\n"
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._number, self._previous, self._size = line.number + 1, line.digest, self._size + len(data)

    def _resume(self) -> tuple[int, str, int]:
        """Number and predecessor of the next line, and the size of what is whole."""
        size = os.fstat(self._descriptor).st_size
        start = max(0, size - 2 * LONGEST_LINE)
        tail = os.pread(self._descriptor, size - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            if len(tail) - whole > LONGEST_LINE:
                raise DataError(f"{self._path} ends in no transcript; give the transcript another path")
            os.ftruncate(self._descriptor, start + whole)
        if not whole:
            return 0, START, 0
        try:
            last = TranscriptLine.parse(tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole - 1])
            last.check_signature(self._identity.public)
        except (DataError, ProtocolError) as error:
            raise DataError(
                f"the last line of {self._path} is not this party's: {error}; move the file away, do not delete it"
            ) from None
        if last.party != self._identity.name:
            raise DataError(
                f"{self._path} is the transcript of {last.party!r}, this is {self._identity.name!r}; give another path"
            )
        return last.number + 1, last.digest, start + whole


def _key(event: Event) -> tuple[str, int, int]:
    return event.fields["session"], event.fields["round"], event.fields["attempt"]


def _canonical(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _check_hex(name: str, value: Any, size: int) -> None:
    if not isinstance(value, str) or len(value) != size or not set(value) <= _HEX:
        raise ValueError(f"{name} is not {size} digits of lower-case hex")


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ProtocolError(f"the transcript {path} is in use by another process; one party, one transcript") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Messages of attempts that a party has not begun yet: few, small, and of few attempts."""

from __future__ import annotations

from pppml_fast.errors import ProtocolError

__all__ = ["EarlyMessages"]

_PER_PARTY = 8
_ATTEMPTS = 4
_SIZE = 1 << 20
_BYTES = 1 << 25


class EarlyMessages:
    """Holds messages by (round, attempt), at most eight of each party's, 1 MiB each and 32 MiB together."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._kept: dict[tuple[int, int], list[bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: tuple[int, int], data: bytes) -> None:
        """Hold a message. Raises ProtocolError on what can only be a flood."""
        if key not in self._kept and len(self._kept) >= _ATTEMPTS:
            raise ProtocolError("messages of too many attempts that did not begin")
        kept = self._kept.setdefault(key, [])
        if len(kept) >= _PER_PARTY * self._parties or len(data) > _SIZE or self._bytes + len(data) > _BYTES:
            raise ProtocolError("too much arrived for an attempt that did not begin")
        kept.append(data)
        self._bytes += len(data)

    def take(self, key: tuple[int, int]) -> list[bytes]:
        """The messages of an attempt, in order; they are held no more."""
        kept = self._kept.pop(key, [])
        self._bytes -= sum(map(len, kept))
        return kept

"""Messages of attempts that a party has not begun yet: few, small, and of few attempts."""

from __future__ import annotations

from pppml_fast.errors import ProtocolError

__all__ = ["EarlyMessages"]

_PER_PARTY = 8
_ATTEMPTS = 4
_SIZE = 1 << 20
_BYTES = 1 << 22


class EarlyMessages:
    """Holds messages by (round, attempt): of each party, at most eight for each of four attempts, 1 MiB each and 4 MiB
    together. What one party sends uses up no other's room."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._kept: dict[tuple[int, int], list[tuple[int, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: tuple[int, int], sender: int, data: bytes) -> None:
        """Hold a message of a party. Raises ProtocolError on what can only be a flood, or for a stranger."""
        if not 0 <= sender < self._parties:
            raise ProtocolError(f"sender {sender} is no party of the roster")
        sizes = {at: [len(old) for index, old in kept if index == sender] for at, kept in self._kept.items()}
        if not sizes.get(key) and sum(map(bool, sizes.values())) >= _ATTEMPTS:
            raise ProtocolError(f"party {sender} sends messages of too many attempts that did not begin")
        held = sum(map(sum, sizes.values()))
        if len(sizes.get(key, ())) >= _PER_PARTY or len(data) > _SIZE or held + len(data) > _BYTES:
            raise ProtocolError(f"too much of party {sender} arrived for an attempt that did not begin")
        self._kept.setdefault(key, []).append((sender, data))

    def take(self, key: tuple[int, int]) -> list[bytes]:
        """The messages of an attempt, in order; they are held no more."""
        return [data for _, data in self._kept.pop(key, [])]

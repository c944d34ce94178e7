"""Peers by name: found when asked for, imported only then, refused with the remedy when they are missing."""

from __future__ import annotations

from typing import Protocol

from pppml_fast.bench.timing import Case
from pppml_fast.errors import ConfigError

__all__ = ["PEERS", "Peer", "found_peers", "open_peer", "parse_peers"]

PEERS = ("tenseal", "openfhe")

# Peers take seconds where we take milliseconds: they get fewer weights, which their rows state.
MOST_PEER_WEIGHTS = 250_000


class Peer(Protocol):
    """A system to be measured against."""

    version: str

    def cases(self) -> list[Case]:
        """Its operations, ready to be timed."""

    def close(self) -> None:
        """Release what it holds."""


def parse_peers(text: str) -> tuple[str, ...]:
    """``"tenseal,openfhe"`` to names; ``"found"`` to those that are installed. Raises ConfigError on others."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if names == ("found",):
        return found_peers()[0]
    for name in names:
        if name not in PEERS:
            raise ConfigError(f"no peer {name!r}; there are {', '.join(PEERS)}, and 'found' for those installed")
    return names


def found_peers() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The peers that can run here, and for each other one a line that says what is missing."""
    found, missing = [], []
    for name in PEERS:
        try:
            open_peer(name, 1, 1).close()
            found.append(name)
        except ConfigError as error:
            missing.append(f"{name}: {error}")
    return tuple(found), tuple(missing)


def open_peer(name: str, size: int, threads: int) -> Peer:
    """The peer with ``min(size, 250,000)`` weights. Raises ConfigError with the remedy when it is not installed."""
    weights = min(size, MOST_PEER_WEIGHTS)
    if name == "tenseal":
        from pppml_fast.bench.tenseal_peer import TensealPeer

        return TensealPeer(weights, threads)
    if name == "openfhe":
        from pppml_fast.bench.openfhe_peer import OpenfhePeer

        return OpenfhePeer(weights, threads)
    raise ConfigError(f"no peer {name!r}; there are {', '.join(PEERS)}")

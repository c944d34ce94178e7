"""How contributions meet: the two laps of a ring, or one exchange with a star's relay.

Both know blocks, chunks and places, and neither keys nor bytes on a wire. The first lap adds; the second, which
returns B to all, runs backwards against it, chunk by chunk, so that each link carries one model each way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

from pppml_fast.aggregation.encoding import Writer, digest
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.payloads import Chunk
from pppml_fast.errors import ProtocolError

__all__ = [
    "Blocks",
    "Clock",
    "Piece",
    "RingPass",
    "StarPass",
    "StreamBrokenError",
    "chunk_grid",
    "no_clock",
    "sum_root",
]

Clock = Callable[[], float]


def no_clock() -> float:
    """The clock of a machine that nobody times."""
    return 0.0


class StreamBrokenError(ProtocolError):
    """A party was lost after its term went in: the attempt cannot go on."""


class Blocks(Protocol):
    """What travels: `Ciphertext`, or plain integers in the same blocks."""

    @property
    def block_count(self) -> int: ...

    def pack(self, start: int, stop: int) -> bytes: ...

    def hop(self, incoming: bytes, start: int, stop: int) -> bytes: ...

    def load(self, start: int, stop: int, payload: bytes) -> None: ...


class Piece(NamedTuple):
    """One chunk on its way: receiver's index, CHUNK or RETURN, block range, contributors, packed blocks."""

    receiver: int
    type: MessageType
    start: int
    stop: int
    contributors: frozenset[int]
    payload: bytes


def chunk_grid(block_count: int, chunk_blocks: int) -> list[tuple[int, int]]:
    """Block ranges of the chunks, the same for every party."""
    return [(at, min(at + chunk_blocks, block_count)) for at in range(0, block_count, chunk_blocks)]


def sum_root(context: bytes, length: int, parties: int, members: frozenset[int], hashes: Sequence[bytes]) -> bytes:
    """H(B): one hash over attempt, length, live set and the hash of every chunk, 32 bytes."""
    shape = Writer().u64(length).members(members, parties).finish()
    return digest("pppml sum root v1", context, shape, *hashes)


class _Pass:
    """What ring and star share: the grid, the sum as it comes back, and its chunk hashes."""

    def __init__(
        self, me: int, own: Blocks, length: int, chunk_blocks: int, make_total: Callable[[int], Blocks]
    ) -> None:
        self.members: frozenset[int] = frozenset()
        self.hashes: list[bytes] = []
        self.total: Blocks | None = None
        self.add_seconds = 0.0
        self._me = me
        self._own = own
        self._length = length
        self._grid = chunk_grid(own.block_count, chunk_blocks)
        self._make_total = make_total

    @property
    def complete(self) -> bool:
        """Whether all of B is here."""
        return len(self.hashes) == len(self._grid)

    def _expect(self, index: int, blocks: tuple[int, int], chunk: Chunk) -> None:
        if chunk.length != self._length:
            raise ProtocolError(
                f"the peer sums {chunk.length} values, this party {self._length}; all vectors must have one length"
            )
        if index >= len(self._grid) or self._grid[index] != blocks:
            expected = self._grid[index] if index < len(self._grid) else "no further chunk"
            raise ProtocolError(f"blocks {blocks[0]}..{blocks[1]} are not the next chunk; expected {expected}")

    def _keep(self, blocks: tuple[int, int], members: frozenset[int], payload: bytes) -> None:
        """Store a chunk of B."""
        if self.total is None:
            self.total = self._make_total(len(members))
            self.members = members
        if members != self.members:
            raise ProtocolError("the live set changes between chunks of one sum")
        self.total.load(*blocks, payload)
        self.hashes.append(sha256(Writer().u32(blocks[0]).u32(blocks[1]).raw(payload).finish()).digest())


class RingPass(_Pass):
    """One party's place in the ring.

    ``order`` are the live parties in ring order. With ``closed`` the last party hands the sum to the first (the
    initiator) instead of returning it to all. A party lost before anything went to or came from it is skipped;
    otherwise `lost` raises StreamBrokenError.
    """

    def __init__(
        self,
        me: int,
        order: Sequence[int],
        own: Blocks,
        length: int,
        chunk_blocks: int,
        make_total: Callable[[int], Blocks],
        clock: Clock = no_clock,
        closed: bool = False,
        lost: Iterable[int] = (),
    ) -> None:
        super().__init__(me, own, length, chunk_blocks, make_total)
        place = list(order).index(me)
        self._head = order[0]
        self._before, self._after = tuple(order[:place]), tuple(order[place + 1 :])
        self._lost = set(lost)
        self._clock = clock
        self._closed = closed
        self._upstream: frozenset[int] = frozenset()
        self._source: int | None = None
        self._next: int | None = None
        self._taken = 0

    def start(self) -> list[Piece]:
        """The first party's chunks; nothing while somebody before this one is still there."""
        if self._taken or self._source is not None or any(index not in self._lost for index in self._before):
            return []
        self._choose_next()
        pieces = []
        for blocks in self._grid:
            pieces += self._pass_on(blocks, frozenset({self._me}), self._own.pack(*blocks))
            self._taken += 1
        return pieces

    def on_chunk(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        """Add this party's blocks to an incoming chunk. Raises ProtocolError, changing nothing, on a wrong one."""
        if self._closed and self._me == self._head:
            return self._on_full_circle(sender, blocks, chunk)
        self._expect(self._taken, blocks, chunk)
        self._check_upstream(sender, chunk.contributors)
        began = self._clock()
        payload = self._own.hop(chunk.payload, *blocks)
        self.add_seconds += self._clock() - began
        if self._source is None:
            self._source, self._upstream = sender, chunk.contributors
            self._choose_next()
        self._taken += 1
        return self._pass_on(blocks, chunk.contributors | {self._me}, payload)

    def on_return(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        """Keep a chunk of B and send it on backwards."""
        index = len(self.hashes)
        if self._closed or sender != self._next or index >= self._taken:
            raise ProtocolError(f"party {sender} returns a sum that did not pass through here")
        self._expect(index, blocks, chunk)
        members = chunk.contributors
        passed = self._upstream | {self._me, sender}
        if not passed <= members or members - passed - set(self._after):
            raise ProtocolError("the returned live set does not fit the chunks that passed through here")
        self._keep(blocks, members, chunk.payload)
        return self._return(blocks, chunk.payload)

    def lost(self, index: int) -> list[Piece]:
        """A party is gone. Raises StreamBrokenError when its term is in, or its chunks are under way."""
        self._lost.add(index)
        if self.complete:
            return []
        gone_with_term = index in self._upstream or index in self.members or index == self._next
        if gone_with_term or (self._closed and index == self._head):
            raise StreamBrokenError(f"party {index} was lost while its term was streaming")
        return self.start()

    def _check_upstream(self, sender: int, contributors: frozenset[int]) -> None:
        if self._source is not None:
            if sender != self._source or contributors != self._upstream:
                raise ProtocolError(f"party {sender} breaks into the stream of party {self._source}")
            return
        if self._taken or not contributors <= set(self._before) or sender not in contributors:
            raise ProtocolError(f"party {sender} cannot be the one before this party in the ring")
        if any(index in contributors for index in self._before[self._before.index(sender) + 1 :]):
            raise ProtocolError(f"party {sender} is not the last of the contributors it names")

    def _choose_next(self) -> None:
        self._next = next((index for index in self._after if index not in self._lost), None)
        if self._next is None and self._closed:
            self._next = self._head

    def _pass_on(self, blocks: tuple[int, int], contributors: frozenset[int], payload: bytes) -> list[Piece]:
        if self._next is not None:
            return [Piece(self._next, MessageType.CHUNK, *blocks, contributors, payload)]
        self._keep(blocks, contributors, payload)
        return self._return(blocks, payload)

    def _return(self, blocks: tuple[int, int], payload: bytes) -> list[Piece]:
        if self._source is None:
            return []
        return [Piece(self._source, MessageType.RETURN, *blocks, self.members, payload)]

    def _on_full_circle(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        index = len(self.hashes)
        if self._me not in chunk.contributors or self._next not in chunk.contributors or index >= self._taken:
            raise ProtocolError(f"party {sender} returns a sum that did not start here")
        last = [index for index in self._after if index in chunk.contributors][-1:]
        if last != [sender] or not chunk.contributors <= {self._me, *self._after}:
            raise ProtocolError(f"party {sender} is not the last of the contributors it names")
        self._expect(index, blocks, chunk)
        self._keep(blocks, chunk.contributors, chunk.payload)
        return []


class StarPass(_Pass):
    """One party of a star: its chunks go up to the relay, the sum comes down."""

    def __init__(
        self,
        me: int,
        relay: int,
        live: Sequence[int],
        own: Blocks,
        length: int,
        chunk_blocks: int,
        make_total: Callable[[int], Blocks],
    ) -> None:
        super().__init__(me, own, length, chunk_blocks, make_total)
        self._relay = relay
        self._live = frozenset(live)

    def start(self) -> list[Piece]:
        """All of this party's chunks, for the relay."""
        mine = frozenset({self._me})
        return [Piece(self._relay, MessageType.CHUNK, *blocks, mine, self._own.pack(*blocks)) for blocks in self._grid]

    def on_chunk(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        """No party of a star takes chunks of another. Raises ProtocolError."""
        raise ProtocolError(f"party {sender} sends chunks {blocks} to a member of a star")

    def on_return(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        """Keep a chunk of B."""
        if sender != self._relay:
            raise ProtocolError(f"party {sender} is not the relay and returns no sums")
        self._expect(len(self.hashes), blocks, chunk)
        if self._me not in chunk.contributors or not chunk.contributors <= self._live:
            raise ProtocolError("the relay names a live set that leaves this party out or adds strangers")
        self._keep(blocks, chunk.contributors, chunk.payload)
        return []

    def lost(self, index: int) -> list[Piece]:
        """A party is gone; the relay leaves it out unless its term is in. Raises StreamBrokenError for the relay."""
        if index == self._relay and not self.complete:
            raise StreamBrokenError("the relay was lost before the sum came back")
        return []

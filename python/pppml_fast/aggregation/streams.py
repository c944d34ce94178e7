"""How contributions meet: the two laps of a ring, or one exchange with a star's relay.

Both know blocks, chunks and places, and neither keys nor bytes on a wire. The first lap adds; the second, which
returns B to all, runs backwards against it, chunk by chunk, so that each link carries one model each way. Whoever
originates chunks makes them one by one, as they are pulled: a ring's head no more than a window of them ahead of what
came back, which bounds every queue on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from pppml_fast.aggregation.encoding import Writer, digest
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.payloads import Chunk
from pppml_fast.aggregation.spool import SumStore
from pppml_fast.aggregation.terms import Term
from pppml_fast.errors import DeviceError, InputError, KeyReuseError, ParameterError, ProtocolError

__all__ = [
    "Clock",
    "Observer",
    "Piece",
    "Progress",
    "RingPass",
    "Setting",
    "StarPass",
    "StreamBrokenError",
    "chunk_grid",
    "chunk_hash",
    "default_window",
    "no_clock",
    "sum_root",
]

Clock = Callable[[], float]
Observer = Callable[[int, int, memoryview], None]
"""Sees each chunk of B before it is kept; what it raises refuses the chunk."""


def no_clock() -> float:
    """The clock of a machine that nobody times."""
    return 0.0


class StreamBrokenError(ProtocolError):
    """A party was lost after its term went in: the attempt cannot go on."""


class Piece(NamedTuple):
    """One chunk on its way: receiver's index, type, block range, and the message's body.

    The body may be memory that the next chunk overwrites: it is sealed before that is made.
    """

    receiver: int
    type: MessageType
    start: int
    stop: int
    body: bytes | memoryview


class Progress(NamedTuple):
    """Chunks that were added to and sent on, chunks of the whole sum that are here, chunks of the vector."""

    chunks: int
    back: int
    of: int


def default_window(live: int) -> int:
    """Chunks a ring's head may be ahead: enough for every party to work on some and for some to be on each link."""
    return max(16, 4 * live)


def chunk_grid(block_count: int, chunk_blocks: int) -> list[tuple[int, int]]:
    """Block ranges of the chunks, the same for every party."""
    return [(at, min(at + chunk_blocks, block_count)) for at in range(0, block_count, chunk_blocks)]


def chunk_hash(blocks: tuple[int, int], payload: bytes | memoryview) -> bytes:
    """The hash of one packed chunk of B, 32 bytes."""
    state = sha256(struct.pack("<II", *blocks))
    state.update(payload)
    return state.digest()


def sum_root(context: bytes, length: int, parties: int, members: frozenset[int], hashes: Sequence[bytes]) -> bytes:
    """H(B): one hash over attempt, length, live set and the hash of every chunk, 32 bytes."""
    shape = Writer().u64(length).members(members, parties).finish()
    return digest("pppml sum root v1", context, shape, *hashes)


class Setting(NamedTuple):
    """What a pass needs of its attempt: values per vector, the roster's size, blocks per chunk, where B is kept."""

    length: int
    parties: int
    chunk_blocks: int
    store: SumStore
    clock: Clock = no_clock
    observer: Observer | None = None


class _Pass:
    """What ring and star share: the grid, the own chunks as they are made, B as it comes back, its chunk hashes."""

    def __init__(self, me: int, term: Term, setting: Setting) -> None:
        self.members: frozenset[int] = frozenset()
        self.hashes: list[bytes] = []
        self.write_seconds = 0.0
        self.grid = chunk_grid(term.block_count, setting.chunk_blocks)
        self.store = setting.store
        self._me, self._term, self._setting = me, term, setting
        self._made = bytearray()
        self._taken = 0

    @property
    def complete(self) -> bool:
        """Whether all of B is here."""
        return len(self.hashes) == len(self.grid)

    @property
    def progress(self) -> Progress:
        """How far this party is."""
        return Progress(self._taken, len(self.hashes), len(self.grid))

    def _make(self, blocks: tuple[int, int], contributors: frozenset[int], incoming: memoryview | None) -> memoryview:
        """The body of a chunk with this party's blocks in it, plus what came in; the next one overwrites it."""
        began = self._setting.clock()
        shape = Chunk(self._setting.length, self._setting.parties, contributors, b"").shape()
        size = len(shape) + self._term.packed_size(*blocks)
        if len(self._made) < size:
            self._made = bytearray(size)
        body = memoryview(self._made)[:size]
        body[: len(shape)] = shape
        payload = body[len(shape) :]
        try:
            self._term.write(*blocks, payload, incoming)
        except (DeviceError, InputError, KeyReuseError, ParameterError) as error:
            raise StreamBrokenError(f"this party's term cannot be made: {error}") from None
        self.write_seconds += self._setting.clock() - began
        return body

    def _expect(self, index: int, blocks: tuple[int, int], chunk: Chunk) -> None:
        if chunk.length != self._setting.length:
            raise ProtocolError(
                f"the peer sums {chunk.length} values, this party {self._setting.length}; "
                "all vectors must have one length"
            )
        if index >= len(self.grid) or self.grid[index] != blocks:
            expected = self.grid[index] if index < len(self.grid) else "no further chunk"
            raise ProtocolError(f"blocks {blocks[0]}..{blocks[1]} are not the next chunk; expected {expected}")
        size = self._term.packed_size(*blocks)
        if len(chunk.payload) != size:
            raise ProtocolError(f"blocks {blocks[0]}..{blocks[1]} take {size} bytes; {len(chunk.payload)} came")

    def _keep(self, blocks: tuple[int, int], members: frozenset[int], payload: memoryview) -> None:
        """Store a chunk of B."""
        if self.hashes and members != self.members:
            raise ProtocolError("the live set changes between chunks of one sum")
        if self._setting.observer is not None:
            self._setting.observer(*blocks, payload)
        hash_ = chunk_hash(blocks, payload)
        try:
            self.store.append(payload)
        except OSError as error:
            raise StreamBrokenError(f"the sum cannot be kept: {error}; give spool= a folder with room") from None
        self.members = members
        self.hashes.append(hash_)


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
        term: Term,
        setting: Setting,
        closed: bool = False,
        lost: Iterable[int] = (),
        window: int | None = None,
    ) -> None:
        super().__init__(me, term, setting)
        place = list(order).index(me)
        self._head = order[0]
        self._before, self._after = tuple(order[:place]), tuple(order[place + 1 :])
        self._lost = set(lost)
        self._closed = closed
        self._window = default_window(len(order)) if window is None else window
        self._upstream: frozenset[int] = frozenset()
        self._source: int | None = None
        self._next: int | None = None

    def ready(self, receiver: int) -> bool:
        """Whether there is a chunk of this party's own making for ``receiver``: it is the first one still there."""
        if self._source is not None or any(index not in self._lost for index in self._before):
            return False
        if self._taken == len(self.grid) or self._taken - len(self.hashes) >= self._window:
            return False
        return receiver == (self._next if self._taken else self._choose_next())

    def pull(self, receiver: int) -> Piece:
        """The next chunk of the ring's head, where `ready`."""
        blocks = self.grid[self._taken]
        body = self._make(blocks, frozenset({self._me}), None)
        self._next = receiver
        self._taken += 1
        return Piece(receiver, MessageType.CHUNK, *blocks, body)

    def on_chunk(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        """Add this party's blocks to an incoming chunk. Raises ProtocolError, changing nothing, on a wrong one."""
        if self._closed and self._me == self._head:
            return self._on_full_circle(sender, blocks, chunk)
        self._expect(self._taken, blocks, chunk)
        self._check_upstream(sender, chunk.contributors)
        contributors = chunk.contributors | {self._me}
        body = self._make(blocks, contributors, chunk.packed)
        if self._source is None:
            self._source, self._upstream = sender, chunk.contributors
            self._next = self._choose_next()
        self._taken += 1
        if self._next is not None:
            return [Piece(self._next, MessageType.CHUNK, *blocks, body)]
        kept = body if self.store.copies else bytes(body)
        self._keep(blocks, contributors, Chunk.parse(kept).packed)
        return [Piece(sender, MessageType.RETURN, *blocks, kept)]

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
        self._keep(blocks, members, chunk.packed)
        # The body is the same for all: length, members and blocks of B.
        return [] if self._source is None else [Piece(self._source, MessageType.RETURN, *blocks, chunk.body)]

    def lost(self, index: int) -> None:
        """A party is gone. Raises StreamBrokenError when its term is in, or its chunks are under way."""
        self._lost.add(index)
        if self.complete:
            return
        gone_with_term = index in self._upstream or index in self.members or index == self._next
        if gone_with_term or (self._closed and index == self._head):
            raise StreamBrokenError(f"party {index} was lost while its term was streaming")

    def _check_upstream(self, sender: int, contributors: frozenset[int]) -> None:
        if self._source is not None:
            if sender != self._source or contributors != self._upstream:
                raise ProtocolError(f"party {sender} breaks into the stream of party {self._source}")
            return
        if self._taken or not contributors <= set(self._before) or sender not in contributors:
            raise ProtocolError(f"party {sender} cannot be the one before this party in the ring")
        if any(index in contributors for index in self._before[self._before.index(sender) + 1 :]):
            raise ProtocolError(f"party {sender} is not the last of the contributors it names")

    def _choose_next(self) -> int | None:
        following = next((index for index in self._after if index not in self._lost), None)
        return self._head if following is None and self._closed else following

    def _on_full_circle(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        index = len(self.hashes)
        if self._me not in chunk.contributors or self._next not in chunk.contributors or index >= self._taken:
            raise ProtocolError(f"party {sender} returns a sum that did not start here")
        last = [index for index in self._after if index in chunk.contributors][-1:]
        if last != [sender] or not chunk.contributors <= {self._me, *self._after}:
            raise ProtocolError(f"party {sender} is not the last of the contributors it names")
        self._expect(index, blocks, chunk)
        self._keep(blocks, chunk.contributors, chunk.packed)
        return []


class StarPass(_Pass):
    """One party of a star: its chunks go up to the relay, the sum comes down."""

    def __init__(self, me: int, relay: int, live: Sequence[int], term: Term, setting: Setting) -> None:
        super().__init__(me, term, setting)
        self._relay = relay
        self._live = frozenset(live)

    def ready(self, receiver: int) -> bool:
        """Whether there is a chunk for the relay."""
        return receiver == self._relay and self._taken < len(self.grid)

    def pull(self, receiver: int) -> Piece:
        """The next of this party's chunks, where `ready`."""
        blocks = self.grid[self._taken]
        body = self._make(blocks, frozenset({self._me}), None)
        self._taken += 1
        return Piece(receiver, MessageType.CHUNK, *blocks, body)

    def on_chunk(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        """No party of a star takes chunks of another. Raises ProtocolError."""
        raise ProtocolError(f"party {sender} sends chunks {blocks} to a member of a star")

    def on_return(self, sender: int, blocks: tuple[int, int], chunk: Chunk) -> list[Piece]:
        """Keep a chunk of B."""
        if sender != self._relay:
            raise ProtocolError(f"party {sender} is not the relay and returns no sums")
        if self._taken < len(self.grid):
            raise ProtocolError("the relay returns a sum before it has all of this party's term")
        self._expect(len(self.hashes), blocks, chunk)
        if self._me not in chunk.contributors or not chunk.contributors <= self._live:
            raise ProtocolError("the relay names a live set that leaves this party out or adds strangers")
        self._keep(blocks, chunk.contributors, chunk.packed)
        return []

    def lost(self, index: int) -> None:
        """A party is gone; the relay leaves it out unless its term is in. Raises StreamBrokenError for the relay."""
        if index == self._relay and not self.complete:
            raise StreamBrokenError("the relay was lost before the sum came back")

"""A star's relay: passes messages on, adds up what it cannot read, and holds no key and no share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pppml_fast.aggregation.attempt_state import SUM_ROUNDS
from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.base import NeverPickled, without_frames
from pppml_fast.aggregation.handshake import forward
from pppml_fast.aggregation.messages import MessageType, parse_frame
from pppml_fast.aggregation.payloads import Chunk
from pppml_fast.aggregation.plain import PlainBlocks
from pppml_fast.aggregation.session import Gate, Session
from pppml_fast.aggregation.streams import Clock, Progress, chunk_grid, chunk_hash, no_clock, sum_root
from pppml_fast.cipher import Ciphertext, add
from pppml_fast.errors import PppmlError, ProtocolError
from pppml_fast.layout import Layout
from pppml_fast.params import CkksParams
from pppml_fast.transport.base import Outgoing

__all__ = ["Relay"]

_REFUSALS_KEPT = 1000
_LENGTH_LIMIT = 1 << 28
"""Most values of a term by default: a member announces its length before it sent that much."""
_Term = Ciphertext | PlainBlocks


@dataclass
class _Round:
    """One attempt as the relay sees it: who is live, whose term is how far, and the sum so far."""

    id: AttemptId
    gate: Gate
    params: CkksParams
    live: tuple[int, ...]
    length: int = 0
    partial: dict[int, tuple[_Term, int]] = field(default_factory=dict)
    added: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    total: _Term | None = None
    returned: bool = False
    sent: dict[int, int] = field(default_factory=dict)
    packed: tuple[int, bytes] = (-1, b"")
    chunks: int = 0
    taken: int = 0
    given: int = 0
    hashes: list[bytes] = field(default_factory=list)


class Relay(NeverPickled):
    """The state machine in the middle of a star. It sees sizes and times, can stop a round, and learns nothing.

    Drive it as a party: what `pull` gives goes out when a link has room. A party lost before its last chunk is left out
    of the sum; its half-received term is dropped. Terms of more than ``length_limit`` values are refused, and in a
    training round those of another length than the ``layout`` has.

    Its memory: terms arrive side by side, and any may yet be dropped, so it holds up to one per live member, the sum in
    place of the first: n words per coefficient and prime, of 4 bytes (8 with primes over 32 bits; 8 per plain integer),
    and a few chunks.
    """

    def __init__(
        self,
        session: Session,
        clock: Clock = no_clock,
        length_limit: int = _LENGTH_LIMIT,
        layout: Layout | None = None,
    ) -> None:
        self.session = session
        self._length_limit = length_limit
        self._layout = layout if layout is not None and layout.size else None
        self.refusals: list[PppmlError] = []
        self.add_s = 0.0
        self._clock = clock
        self._round: _Round | None = None
        self._seen: set[tuple[int, int]] = set()

    @property
    def name(self) -> str:
        """The relay's name."""
        return self.session.identity.name

    @property
    def progress(self) -> Progress | None:
        """Chunks of all members' terms that came, chunks of the sum that went out; None before the first."""
        now = self._round
        return None if now is None or not now.chunks else Progress(now.taken, now.given, now.chunks * len(now.live))

    @property
    def members(self) -> frozenset[int]:
        """Whose terms are in the sum."""
        return frozenset() if self._round is None else frozenset(self._round.added)

    @property
    def root(self) -> bytes | None:
        """H(B), which the members sign, once all who are there have the sum; None until then."""
        now = self._round
        if now is None or not now.returned or now.sent or len(now.hashes) < now.chunks:
            return None
        parties = len(self.session.roster.members)
        return sum_root(now.id.context, now.length, parties, frozenset(now.added), now.hashes)

    def begin(self, round_: int, attempt: int, live: Sequence[str], params: CkksParams) -> list[Outgoing]:
        """Open an attempt over the live parties, before they hear of it: chunks that come earlier are refused.

        Raises ProtocolError on numbers out of range or used before.
        """
        self.session.check_numbers(round_, attempt)
        if (round_, attempt) in self._seen:
            raise ProtocolError(f"attempt {attempt} of round {round_} was already begun in this session")
        order = tuple(sorted(self.session.roster.index(name) for name in live))
        identity = AttemptId(self.session.id, round_, attempt)
        self._round = _Round(identity, self.session.gate(round_, attempt), params, order)
        self._seen.add((round_, attempt))
        self.add_s = 0.0
        return []

    def receive(self, data: bytes) -> list[Outgoing]:
        """Pass a message on, or take a chunk."""
        try:
            frame = parse_frame(data)
            if frame.header.receiver != self.session.index:
                return forward(self.session.roster, self.session.index, frame.header, data, self.session.present)
            if frame.header.type is not MessageType.CHUNK:
                raise ProtocolError(f"a relay takes chunks only, not {frame.header.type.name}")
            if (frame.header.round, frame.header.attempt) not in self._seen:
                raise ProtocolError(
                    f"a chunk of attempt {frame.header.attempt} of round {frame.header.round}, which this relay did "
                    "not begin: it begins before its members"
                )
            message = self._now.gate.accept(frame)
            self._take(message.header.sender, (message.header.start, message.header.stop), message.body)
            return self._return()
        except PppmlError as error:
            if len(self.refusals) < _REFUSALS_KEPT:
                self.refusals.append(without_frames(error))
            return []

    def pull(self, hop: str) -> Outgoing | None:
        """The next chunk of the sum for a member, packed and sealed now; None while there is none."""
        now, index = self._round, self.session.roster.index(hop)
        if now is None or now.total is None or index not in now.sent:
            return None
        grid = chunk_grid(now.total.block_count, self.session.roster.options.chunk_blocks)
        at = now.sent[index]
        if now.packed[0] != at:
            members, parties = frozenset(now.added), len(self.session.roster.members)
            payload = now.total.pack(*grid[at])
            if at == len(now.hashes):
                now.hashes.append(chunk_hash(grid[at], payload))
            now.packed = at, Chunk(now.length, parties, members, payload).encode()
        data = now.gate.seal(index, MessageType.RETURN, now.packed[1], grid[at])
        now.sent[index] += 1
        now.given += 1
        if now.sent[index] == len(grid):
            del now.sent[index]
        self._forget_sent()
        return Outgoing(hop, data)

    def lost(self, name: str) -> list[Outgoing]:
        """A party is gone: without its last chunk its term does not count."""
        if self._round is None:
            return []
        index = self.session.roster.index(name)
        self._round.lost.add(index)
        self._round.partial.pop(index, None)
        self._round.sent.pop(index, None)
        out = self._return()
        self._forget_sent()
        return out

    def _forget_sent(self) -> None:
        """Drop the sum once everybody who is left has it."""
        if self._round is not None and self._round.returned and not self._round.sent:
            self._round.total, self._round.packed = None, (-1, b"")

    def _take(self, sender: int, blocks: tuple[int, int], body: bytes) -> None:
        now, chunk = self._now, Chunk.parse(body)
        if sender not in now.live or sender in now.added or sender in now.lost or now.returned:
            raise ProtocolError(f"party {sender} sends a term that is not expected")
        if chunk.contributors != {sender} or chunk.length != (now.length or chunk.length):
            raise ProtocolError(f"the term of party {sender} names others or has {chunk.length} values")
        if sender not in now.partial:
            self._check_size(sender, chunk, blocks)
        term, index = now.partial.get(sender) or (self._zeros(chunk.length), 0)
        grid = chunk_grid(term.block_count, self.session.roster.options.chunk_blocks)
        if index >= len(grid) or grid[index] != blocks:
            raise ProtocolError(f"blocks {blocks[0]}..{blocks[1]} of party {sender} are not its next chunk")
        term.load(*blocks, chunk.payload)
        now.length = chunk.length
        now.partial[sender] = (term, index + 1)
        now.chunks, now.taken = len(grid), now.taken + 1
        if index + 1 == len(grid):
            del now.partial[sender]
            self._add(sender, term)

    def _add(self, sender: int, term: _Term) -> None:
        now = self._now
        began = self._clock()
        if now.total is None:
            now.total = term
        elif isinstance(now.total, PlainBlocks) and isinstance(term, PlainBlocks):
            now.total.values += term.values
        elif isinstance(now.total, Ciphertext) and isinstance(term, Ciphertext):
            now.total = add([now.total, term], out=now.total)
        self.add_s += self._clock() - began
        now.added.add(sender)

    def _return(self) -> list[Outgoing]:
        """Let the sum go to all whose terms are in it, once nobody else is awaited; they `pull` it."""
        now = self._now
        if now.returned or now.total is None or set(now.live) - now.added - now.lost:
            return []
        now.returned = True
        now.sent = dict.fromkeys(sorted(now.added - now.lost), 0)
        return []

    def _check_size(self, sender: int, chunk: Chunk, blocks: tuple[int, int]) -> None:
        """Raise ProtocolError unless a first chunk is what a term of its length starts with."""
        params, length = self._now.params, chunk.length
        if not 0 < length <= self._length_limit:
            raise ProtocolError(
                f"party {sender} announces {length} values; this relay takes 1 to {self._length_limit}: allow more "
                "with length_limit"
            )
        if self._layout is not None and self._now.id.round < SUM_ROUNDS and length != self._layout.size:
            raise ProtocolError(f"party {sender} announces {length} values; the layout has {self._layout.size}")
        stop = min(self.session.roster.options.chunk_blocks, params.block_count(length))
        if blocks != (0, stop):
            raise ProtocolError(f"blocks {blocks[0]}..{blocks[1]} of party {sender} are not its next chunk")
        # The size of the first blocks does not depend on how many follow, so a term of those alone tells it.
        first = self._zeros(min(length, stop * params.block_weights))
        if len(chunk.payload) != len(first.pack(0, stop)):
            raise ProtocolError(f"blocks 0..{stop} of party {sender} do not fit {len(chunk.payload)} bytes")

    def _zeros(self, length: int) -> _Term:
        now = self._now
        try:
            if self.session.roster.options.protocol == "plain":
                return PlainBlocks.zeros(now.params, length)
            return Ciphertext.zeros(now.params, length, 1, now.id.context)
        except MemoryError:
            raise ProtocolError(f"this relay has no memory for a term of {length} values") from None

    @property
    def _now(self) -> _Round:
        if self._round is None:
            raise ProtocolError("the relay has no attempt")
        return self._round

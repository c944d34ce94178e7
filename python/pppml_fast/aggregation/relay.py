"""A star's relay: passes messages on, adds up what it cannot read, and holds no key and no share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.aggregation.handshake import forward
from pppml_fast.aggregation.messages import MessageType, parse_frame
from pppml_fast.aggregation.payloads import Chunk
from pppml_fast.aggregation.plain import PlainBlocks
from pppml_fast.aggregation.session import Gate, Session
from pppml_fast.aggregation.streams import Clock, chunk_grid, no_clock
from pppml_fast.cipher import Ciphertext, add
from pppml_fast.errors import PppmlError, ProtocolError
from pppml_fast.params import CkksParams
from pppml_fast.transport.base import Outgoing

__all__ = ["Relay"]

_EARLY_LIMIT = 1 << 16
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


class Relay(NeverPickled):
    """The state machine in the middle of a star. It sees sizes and times, can stop a round, and learns nothing.

    A party lost before its last chunk is left out of the sum; its half-received term is dropped. Terms of more than
    ``length_limit`` values are refused.
    """

    def __init__(self, session: Session, clock: Clock = no_clock, length_limit: int = _LENGTH_LIMIT) -> None:
        self.session = session
        self._length_limit = length_limit
        self.refusals: list[PppmlError] = []
        self.add_s = 0.0
        self._clock = clock
        self._round: _Round | None = None
        self._early: list[bytes] = []
        self._seen: set[tuple[int, int]] = set()

    @property
    def name(self) -> str:
        """The relay's name."""
        return self.session.identity.name

    def begin(self, round_: int, attempt: int, live: Sequence[str], params: CkksParams) -> list[Outgoing]:
        """Open an attempt over the live parties. Raises ProtocolError on numbers out of range or used before."""
        self.session.check_numbers(round_, attempt)
        if (round_, attempt) in self._seen:
            raise ProtocolError(f"attempt {attempt} of round {round_} was already begun in this session")
        order = tuple(sorted(self.session.roster.index(name) for name in live))
        identity = AttemptId(self.session.id, round_, attempt)
        self._round = _Round(identity, self.session.gate(round_, attempt), params, order)
        self._seen.add((round_, attempt))
        self.add_s = 0.0
        early, self._early = self._early, []
        return [message for data in early for message in self.receive(data)]

    def receive(self, data: bytes) -> list[Outgoing]:
        """Pass a message on, or take a chunk."""
        try:
            frame = parse_frame(data)
            if frame.header.receiver != self.session.index:
                return forward(self.session.roster, self.session.index, frame.header, data, self.session.present)
            if frame.header.type is not MessageType.CHUNK:
                raise ProtocolError(f"a relay takes chunks only, not {frame.header.type.name}")
            if (frame.header.round, frame.header.attempt) not in self._seen:
                return self._keep(data)
            if self._round is None:
                raise ProtocolError("the relay has no attempt")
            message = self._round.gate.accept(frame)
            self._take(message.header.sender, (message.header.start, message.header.stop), message.body)
            return self._return()
        except PppmlError as error:
            self.refusals.append(error)
            return []

    def pull(self, hop: str) -> Outgoing | None:
        """TEMPORARY."""
        return None

    def lost(self, name: str) -> list[Outgoing]:
        """A party is gone: without its last chunk its term does not count."""
        if self._round is None:
            return []
        index = self.session.roster.index(name)
        self._round.lost.add(index)
        self._round.partial.pop(index, None)
        return self._return()

    def _keep(self, data: bytes) -> list[Outgoing]:
        if len(self._early) >= _EARLY_LIMIT:
            raise ProtocolError("too many chunks for an attempt that did not begin")
        self._early.append(data)
        return []

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
            now.total = add([now.total, term])
        self.add_s += self._clock() - began
        now.added.add(sender)

    def _return(self) -> list[Outgoing]:
        """Send the sum to all whose terms are in it, once nobody else is awaited."""
        now = self._now
        if now.returned or now.total is None or set(now.live) - now.added - now.lost:
            return []
        now.returned = True
        members, parties = frozenset(now.added), len(self.session.roster.members)
        out = []
        for start, stop in chunk_grid(now.total.block_count, self.session.roster.options.chunk_blocks):
            body = Chunk(now.length, parties, members, now.total.pack(start, stop)).encode()
            for index in sorted(members):
                data = now.gate.seal(index, MessageType.RETURN, body, (start, stop))
                out.append(Outgoing(self.session.roster.members[index].name, data))
        now.total = None
        return out

    def _check_size(self, sender: int, chunk: Chunk, blocks: tuple[int, int]) -> None:
        """Raise ProtocolError unless a first chunk is what a term of its length starts with."""
        params, length = self._now.params, chunk.length
        if not 0 < length <= self._length_limit:
            raise ProtocolError(
                f"party {sender} announces {length} values; this relay takes 1 to {self._length_limit}: allow more "
                "with length_limit"
            )
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
